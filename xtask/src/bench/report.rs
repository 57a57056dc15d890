//! The rows that every bench gives, and how they are printed and written.

use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

/// What was measured, beside what it is compared with and what is aimed at.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    pub case: String,
    /// The median of the rounds.
    pub value: f64,
    pub unit: &'static str,
    /// The same measure of something else in the same run.
    pub peer: Option<f64>,
    /// `value / peer`.
    pub ratio: Option<f64>,
    /// At most this, in `unit`.
    pub goal: Option<f64>,
    pub met: Option<bool>,
}

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
            value,
            unit,
            peer: None,
            ratio: None,
            goal,
            met: goal.map(|goal| value <= goal),
        }
    }
}

impl Report {
    pub fn print(&self) {
        println!("\n{}", self.configuration);
        println!(
            "{:<44} {:>10} {:<6} {:>10} {:>7} {:>10} met",
            "case", "value", "unit", "peer", "ratio", "goal"
        );
        let shown = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |it| format!("{it:.2}"));
        for row in &self.rows {
            let met = row.met.map_or("-", |met| if met { "yes" } else { "no" });
            println!(
                "{:<44} {:>10.2} {:<6} {:>10} {:>7} {:>10} {met}",
                row.case,
                row.value,
                row.unit,
                shown(row.peer),
                shown(row.ratio),
                shown(row.goal)
            );
        }
        let goals = self.rows.iter().filter_map(|row| row.met);
        println!("{} of {} goals met", goals.clone().filter(|met| *met).count(), goals.count());
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
