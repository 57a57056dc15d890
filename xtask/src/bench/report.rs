//! The rows that every bench gives, and how they are printed and written.

use std::borrow::Cow;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// What was measured, beside what it is compared with and what is aimed at.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    pub case: String,
    /// The median of the rounds; none when it could not be measured.
    pub value: Option<f64>,
    pub unit: Cow<'static, str>,
    /// The same measure of something else in the same run.
    pub peer: Option<f64>,
    /// `value / peer`, the median over the rounds where they are compared round by round.
    pub ratio: Option<f64>,
    /// Of `ratio` where there is one, else of `value`, in `unit`.
    pub goal: Option<f64>,
    /// Whether the goal is a least; otherwise it is a most.
    #[serde(default)]
    pub at_least: bool,
    pub met: Option<bool>,
    /// Why there is no value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

#[derive(Deserialize)]
pub struct Report {
    /// What gave the figures: build profile, kernel, processors, rounds.
    pub configuration: String,
    pub rows: Vec<Row>,
}

impl Row {
    /// A measure that should not exceed `goal`.
    pub fn at_most(case: impl Into<String>, value: f64, unit: &'static str, goal: Option<f64>) -> Row {
        Row {
            case: case.into(),
            value: Some(value),
            unit: unit.into(),
            peer: None,
            ratio: None,
            goal,
            at_least: false,
            met: goal.map(|goal| value <= goal),
            why: None,
        }
    }
}

impl Report {
    pub fn print(&self) {
        println!("\n{}", self.configuration);
        let width = self.rows.iter().map(|row| row.case.chars().count()).max().unwrap_or(0).max(44);
        println!(
            "{:<width$} {:>10} {:<6} {:>10} {:>7} {:>9} met",
            "case", "value", "unit", "peer", "ratio", "goal"
        );
        let shown = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |it| format!("{it:.2}"));
        for row in &self.rows {
            let met = row.met.map_or("-", |met| if met { "yes" } else { "no" });
            let bound = if row.at_least { "≥" } else { "≤" };
            println!(
                "{:<width$} {:>10} {:<6} {:>10} {:>7} {:>9} {met}",
                row.case,
                shown(row.value),
                row.unit,
                shown(row.peer),
                row.ratio.map_or_else(|| "-".to_owned(), |it| format!("{it:.3}")),
                row.goal.map_or_else(|| "-".to_owned(), |it| format!("{bound} {it:.3}")),
            );
            if let Some(why) = &row.why {
                println!("  not measured: {why}");
            }
        }
        let goals = self.rows.iter().filter_map(|row| row.met);
        let missing = self.rows.iter().filter(|row| row.value.is_none()).count();
        let met = goals.clone().filter(|met| *met).count();
        println!("{met} of {} goals met, {missing} cases not measured", goals.count());
    }

    pub fn write(&self, file: &Path) -> Result<()> {
        std::fs::write(file, serde_json::to_vec_pretty(&self.rows)?)
            .with_context(|| format!("cannot write {}", file.display()))
    }
}

/// The middle value; the mean of the two in the middle when there is no one middle. `None` of nothing.
pub fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(values[middle]),
        _ => Some(f64::midpoint(values[middle - 1], values[middle])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_the_middle_of_any_order() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(vec![]), None);
    }

    #[test]
    fn a_goal_is_met_up_to_and_including_itself() {
        assert_eq!(Row::at_most("x", 3.0, "s", Some(3.0)).met, Some(true));
        assert_eq!(Row::at_most("x", 3.1, "s", Some(3.0)).met, Some(false));
        assert_eq!(Row::at_most("x", 3.1, "s", None).met, None);
    }
}
