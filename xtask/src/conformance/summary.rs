//! What a run says in the end: by group, and the first lines of each failure.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};

use super::report::{Outcome, State};

const FAILURE_LINES: usize = 6;

pub struct Summary {
    outcomes: Vec<Outcome>,
}

#[derive(Default, Clone, Copy)]
struct Count {
    passed: usize,
    failed: usize,
    skipped: usize,
}

impl Summary {
    pub fn new(mut outcomes: Vec<Outcome>) -> Self {
        outcomes.sort_by(|a, b| a.name.cmp(&b.name));
        Self { outcomes }
    }

    pub fn failed(&self) -> usize {
        self.outcomes.iter().filter(|outcome| outcome.state == State::Failed).count()
    }

    fn by_group(&self) -> BTreeMap<&str, Count> {
        let mut groups: BTreeMap<&str, Count> = BTreeMap::new();
        for outcome in &self.outcomes {
            let count = groups.entry(group(&outcome.name)).or_default();
            match outcome.state {
                State::Passed => count.passed += 1,
                State::Failed => count.failed += 1,
                State::Skipped => count.skipped += 1,
            }
        }
        groups
    }

    pub fn print(&self) {
        for outcome in self.outcomes.iter().filter(|outcome| outcome.state == State::Failed) {
            println!("\nFAILED {}", outcome.name);
            outcome.message.lines().take(FAILURE_LINES).for_each(|line| println!("    {line}"));
        }
        println!("\n{:<24}{:>8}{:>8}{:>8}", "group", "passed", "failed", "skipped");
        let mut all = Count::default();
        for (group, count) in self.by_group() {
            println!("{group:<24}{:>8}{:>8}{:>8}", count.passed, count.failed, count.skipped);
            all.passed += count.passed;
            all.failed += count.failed;
            all.skipped += count.skipped;
        }
        println!("{:<24}{:>8}{:>8}{:>8}", "all", all.passed, all.failed, all.skipped);
    }

    pub fn write(&self, file: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(&self.outcomes)?;
        std::fs::write(file, text).with_context(|| format!("--json {}", file.display()))
    }
}

/// `sig-network` of `[sig-network] Services …`.
fn group(name: &str) -> &str {
    let named = name.strip_prefix('[').and_then(|rest| rest.split_once(']'));
    named.map_or("other", |(group, _)| group)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_are_counted_by_their_group() {
        let outcome =
            |name: &str, state| Outcome { name: name.into(), state, seconds: 1.0, message: String::new() };
        let summary = Summary::new(vec![
            outcome("[sig-node] b", State::Failed),
            outcome("[sig-node] a", State::Passed),
            outcome("alone", State::Skipped),
        ]);
        assert_eq!(summary.failed(), 1);
        let groups = summary.by_group();
        assert_eq!(
            (groups["sig-node"].passed, groups["sig-node"].failed, groups["other"].skipped),
            (1, 1, 1)
        );
    }
}
