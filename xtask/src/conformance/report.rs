//! What the suite reports of its tests: Ginkgo's JSON.

use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    Passed,
    Failed,
    Skipped,
}

/// One test.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    pub name: String,
    pub state: State,
    pub seconds: f64,
    /// Why it failed or was skipped.
    pub message: String,
}

impl Outcome {
    /// Whether the process came to it: a test that skips itself says why, one that was not asked for does not.
    pub fn was_run(&self) -> bool {
        self.state != State::Skipped || !self.message.is_empty()
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SuiteReport {
    #[serde(default)]
    spec_reports: Option<Vec<SpecReport>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SpecReport {
    #[serde(default)]
    container_hierarchy_texts: Option<Vec<String>>,
    #[serde(default)]
    leaf_node_type: String,
    #[serde(default)]
    leaf_node_text: String,
    #[serde(default)]
    state: String,
    /// Nanoseconds.
    #[serde(default)]
    run_time: u64,
    #[serde(default)]
    failure: Option<Failure>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Failure {
    #[serde(default)]
    message: String,
}

/// The tests of a report file; set-up and clean-up of the suite are left out.
pub fn read(file: &Path) -> Result<Vec<Outcome>> {
    let text =
        std::fs::read(file).with_context(|| format!("the suite wrote no report to {}", file.display()))?;
    parse(&text)
}

fn parse(text: &[u8]) -> Result<Vec<Outcome>> {
    let suites: Vec<SuiteReport> =
        serde_json::from_slice(text).context("the suite's report cannot be read")?;
    let specs = suites.into_iter().flat_map(|suite| suite.spec_reports.unwrap_or_default());
    Ok(specs.filter(|spec| spec.leaf_node_type == "It").map(outcome).collect())
}

fn outcome(spec: SpecReport) -> Outcome {
    let mut texts = spec.container_hierarchy_texts.unwrap_or_default();
    texts.push(spec.leaf_node_text);
    let state = match &*spec.state {
        "passed" => State::Passed,
        "skipped" | "pending" => State::Skipped,
        _ => State::Failed,
    };
    Outcome {
        name: texts.join(" "),
        state,
        seconds: std::time::Duration::from_nanos(spec.run_time).as_secs_f64(),
        message: spec.failure.map(|failure| failure.message).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_tells_each_test_with_its_whole_name() {
        let text = br#"[{"SpecReports": [
            {"LeafNodeType": "SynchronizedBeforeSuite", "State": "passed"},
            {"LeafNodeType": "It", "ContainerHierarchyTexts": ["[sig-node] Pods", "deep"], "LeafNodeText": "run [Conformance]",
             "State": "passed", "RunTime": 1500000000},
            {"LeafNodeType": "It", "LeafNodeText": "breaks", "State": "timedout", "Failure": {"Message": "too slow"}},
            {"LeafNodeType": "It", "LeafNodeText": "other", "State": "skipped"}
        ]}, {"SpecReports": null}]"#;
        let outcomes = parse(text).unwrap();
        let states: Vec<State> = outcomes.iter().map(|outcome| outcome.state).collect();
        assert_eq!(states, [State::Passed, State::Failed, State::Skipped]);
        assert!(outcomes[0].was_run() && !outcomes[2].was_run());
        assert_eq!(outcomes[0].name, "[sig-node] Pods deep run [Conformance]");
        assert!((outcomes[0].seconds - 1.5).abs() < 1e-9);
        assert_eq!(outcomes[1].message, "too slow");
        assert!(parse(b"{").is_err());
    }
}
