//! The rows a run gives: `{case, value, unit, peer, ratio, goal, met}`, and why a case has no value.

use serde::Serialize;

use crate::rounds::Figure;

/// One measured thing, beside what it is compared with and what is aimed at.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    pub case: String,
    /// None when it could not be measured.
    pub value: Option<f64>,
    pub unit: &'static str,
    /// The same measure of the first path in the same run.
    pub peer: Option<f64>,
    /// The median over the rounds of value / peer.
    pub ratio: Option<f64>,
    /// Of the ratio where there is one, else of the value.
    pub goal: Option<f64>,
    /// Whether the goal is a least, not a most.
    pub at_least: bool,
    pub met: Option<bool>,
    /// Why there is no value.
    pub why: Option<String>,
}

/// What a run gives.
#[derive(Debug, Serialize)]
pub struct Report {
    pub configuration: String,
    pub rows: Vec<Row>,
}

impl Row {
    /// A value by itself.
    pub fn of(case: impl Into<String>, value: f64, unit: &'static str) -> Row {
        let (peer, ratio, goal, met, why) = (None, None, None, None, None);
        Row { case: case.into(), value: Some(value), unit, peer, ratio, goal, at_least: false, met, why }
    }

    /// A value beside that of the first path.
    pub fn beside(case: impl Into<String>, figure: Figure, peer: f64, unit: &'static str) -> Row {
        Row { peer: Some(peer), ratio: Some(figure.ratio), ..Row::of(case, figure.value, unit) }
    }

    /// A case that could not be measured.
    pub fn missing(case: impl Into<String>, unit: &'static str, why: impl Into<String>) -> Row {
        Row { value: None, why: Some(why.into()), ..Row::of(case, 0.0, unit) }
    }

    pub fn at_most(mut self, goal: f64) -> Row {
        self.goal = Some(goal);
        self.met = self.ratio.or(self.value).map(|it| it <= goal);
        self
    }

    pub fn at_least(mut self, goal: f64) -> Row {
        self.goal = Some(goal);
        self.at_least = true;
        self.met = self.ratio.or(self.value).map(|it| it >= goal);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_goal_is_of_the_ratio_where_there_is_one() {
        let figure = Figure { value: 20.0, ratio: 1.005, spread: 0.0 };
        assert_eq!(Row::beside("x", figure, 19.9, "us").at_most(1.01).met, Some(true));
        assert_eq!(Row::of("x", 20.0, "us").at_most(19.0).met, Some(false));
        assert_eq!(Row::of("x", 20.0, "us").at_least(19.0).met, Some(true));
        assert_eq!(Row::missing("x", "us", "no reason").at_most(1.0).met, None);
    }
}
