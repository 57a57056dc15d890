//! The binary of the tests: which it has, and running some of them.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use regex::Regex;

use super::report::{self, Outcome, State};

/// No conformance test takes longer by itself.
const TEST_TIME_MAX: Duration = Duration::from_secs(15 * 60);
/// What a process may take on top: its start, and cleaning up.
const BATCH_TIME_MORE: Duration = Duration::from_secs(3 * 60);
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Everything that the suite calls conformance has this in its name.
const CONFORMANCE: &str = "[Conformance]";

/// Which tests are wanted.
pub struct Choice {
    focus: Vec<Regex>,
    skip: Vec<Regex>,
    every: bool,
}

impl Choice {
    pub fn new(focus: &[String], skip: &[String], every: bool) -> Result<Self> {
        let compile = |flag: &str, texts: &[String]| -> Result<Vec<Regex>> {
            texts.iter().map(|text| Regex::new(text).with_context(|| format!("{flag} {text}"))).collect()
        };
        Ok(Self { focus: compile("--focus", focus)?, skip: compile("--skip", skip)?, every })
    }

    pub fn takes(&self, name: &str) -> bool {
        (self.every || name.contains(CONFORMANCE))
            && (self.focus.is_empty() || self.focus.iter().any(|it| it.is_match(name)))
            && !self.skip.iter().any(|it| it.is_match(name))
    }
}

/// The binary and the cluster.
pub struct Suite {
    pub binary: PathBuf,
    pub kubeconfig: PathBuf,
    pub nodes: u16,
}

impl Suite {
    /// Names of the chosen tests, in the suite's order.
    pub fn list(&self, choice: &Choice) -> Result<Vec<String>> {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("tests.json");
        let mut command = self.command(&file);
        let output = command.arg("--ginkgo.dry-run").output().context("cannot start the suite")?;
        if !output.status.success() {
            bail!("the suite cannot list its tests: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        let names = report::read(&file)?.into_iter().map(|outcome| outcome.name);
        let mut names: Vec<String> = names.filter(|name| choice.takes(name)).collect();
        names.dedup();
        Ok(names)
    }

    /// Runs some tests in one process; an outcome for each, whatever becomes of the process.
    pub fn run(&self, tests: &[String]) -> Result<Vec<Outcome>> {
        let folder = tempfile::tempdir()?;
        let (file, log) = (folder.path().join("report.json"), folder.path().join("log"));
        let mut command = self.command(&file);
        for test in tests {
            // The suite's own name comes before the test's.
            command.arg(format!("--ginkgo.focus={}$", regex::escape(test)));
        }
        let time = TEST_TIME_MAX * u32::try_from(tests.len())?;
        command.arg(format!("--ginkgo.timeout={}s", time.as_secs()));
        let written = std::fs::File::create(&log)?;
        command.stdin(Stdio::null()).stdout(written.try_clone()?).stderr(written);
        let started = Instant::now();
        let mut child = command.spawn().with_context(|| format!("cannot start {}", self.binary.display()))?;
        let ended = loop {
            if let Some(status) = child.try_wait()? {
                break format!("the process ended ({status}) without telling");
            }
            if started.elapsed() > time + BATCH_TIME_MORE {
                child.kill()?;
                child.wait()?;
                break "the process did not end in time".to_owned();
            }
            std::thread::sleep(LOOK_EVERY);
        };
        let told = report::read(&file).unwrap_or_default();
        let of =
            |name: &String| told.iter().find(|outcome| outcome.name == *name && outcome.was_run()).cloned();
        let untold = |name: &String| Outcome {
            name: name.clone(),
            state: State::Failed,
            seconds: started.elapsed().as_secs_f64(),
            message: format!("{ended}\n{}", last_lines(&log)),
        };
        Ok(tests.iter().map(|name| of(name).unwrap_or_else(|| untold(name))).collect())
    }

    fn command(&self, report: &Path) -> Command {
        let mut command = Command::new(&self.binary);
        command
            .arg(format!("--kubeconfig={}", self.kubeconfig.display()))
            .arg(format!("--num-nodes={}", self.nodes))
            .args(["--provider=skeleton", "--disable-log-dump=true", "--ginkgo.no-color"])
            .arg(format!("--ginkgo.json-report={}", report.display()));
        command
    }
}

fn last_lines(log: &Path) -> String {
    const LINES: usize = 12;
    let text =
        std::fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_takes_conformance_tests_unless_told_otherwise() {
        let texts = |list: &[&str]| list.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>();
        let plain = Choice::new(&[], &texts(&["Serial"]), false).unwrap();
        assert!(plain.takes("[sig-node] Pods run [Conformance]"));
        assert!(!plain.takes("[sig-node] Pods run"));
        assert!(!plain.takes("[sig-node] Pods run [Serial] [Conformance]"));
        let every = Choice::new(&texts(&["Pods", "Nodes"]), &[], true).unwrap();
        assert!(every.takes("[sig-node] Pods run") && !every.takes("[sig-node] Secrets"));
        assert!(Choice::new(&texts(&["("]), &[], false).is_err());
    }
}
