//! `cargo xtask test`: everything CI checks, stage by stage, and one closing line.
//!
//! What needs one processor, or only what others leave, goes on beside the stage that follows.
//! A stage's whole output goes to a file below the target folder; what a reader needs is shown as it comes.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::{artifacts, command, ebpf, packages, tidy, vm};

#[derive(clap::Args)]
pub struct Options {
    /// Leave out the lints (clippy compiles everything a second time)
    #[arg(long)]
    no_lints: bool,
    /// Leave out the tests that bring up whole clusters
    #[arg(long)]
    no_cluster: bool,
}

#[derive(Default)]
struct Counts {
    passed: u64,
    failed: u64,
    skipped: u64,
    /// Where the output of commands that failed is.
    failed_logs: Vec<PathBuf>,
}

/// What the stages found so far.
#[derive(Default)]
struct Stages {
    counts: Counts,
    failed: Vec<String>,
}

/// A stage that goes on beside others, and what it will have found.
struct Beside {
    name: &'static str,
    work: JoinHandle<(Result<()>, Counts, Duration)>,
}

pub fn run(options: &Options) -> Result<()> {
    let start = Instant::now();
    // Asked before anything is built: a program that was replaced has a name that nothing is found by.
    let this_program = std::env::current_exe().context("cannot find this program")?;
    packages::ensure(packages::FOR_BUILD)?;
    let root = nix::unistd::Uid::effective().is_root();
    if root {
        packages::ensure(packages::FOR_CLUSTER)?;
        packages::ensure(packages::FOR_TESTS)?;
    }
    let mut stages = Stages::default();
    stages.run("tidy", |_| tidy::run());
    stages.run("format", |counts| {
        follow(artifacts::cargo().args(["fmt", "--all", "--check"]), "format", counts)
    });
    // One thread links them for most of that time.
    let programs = Beside::begin("eBPF programs", |_| ebpf::build().map(drop));
    stages.run("build", |counts| {
        let arguments = ["build", "--locked", "--workspace", "--all-targets", "--timings"];
        follow(artifacts::cargo().args(arguments), "build", counts)
    });
    stages.join(programs);
    let object = artifacts::target().join("ebpf").join("penstock.bpf.o");
    let mut environment = vec![
        ("PENSTOCK_EBPF_OBJECT", object.into_os_string()),
        ("PENSTOCK_XTASK", this_program.into_os_string()),
    ];
    let mut lints = None;
    stages.run("unit tests", |counts| {
        let scope = ["--workspace", "--exclude", "penstock-tests"];
        follow_with(cargo_test(&scope).envs(environment.clone()), "unit", counts, |line| {
            // Two cargos wait for each other while they compile, and this one is done with that.
            if !options.no_lints && line.trim_start().starts_with("Running") {
                lints.get_or_insert_with(|| Beside::begin("lints", run_lints));
            }
        })
    });
    if root && !options.no_cluster {
        environment.push(("PENSTOCK_CLUSTER_TESTS", "1".into()));
    }
    stages.run("packet, network and cluster tests", |counts| {
        let scope = ["--package", "penstock-tests"];
        follow(cargo_test(&scope).envs(environment.clone()), "system", counts)
    });
    stages.run("other kernels", |counts| {
        match vm::run_if_there()? {
            Ok(outcomes) => {
                for it in outcomes {
                    counts.passed += it.passed;
                    counts.failed += it.failed;
                    counts.skipped += it.skipped;
                }
            }
            Err(why) => {
                println!("   SKIPPED: {why}");
                counts.skipped += 1;
            }
        }
        Ok(())
    });
    stages.run("licences and sources", |counts| {
        if !command::is_on_path("cargo-deny") {
            println!("   SKIPPED: cargo-deny is not installed (`cargo install cargo-deny --locked`)");
            counts.skipped += 1;
            return Ok(());
        }
        let arguments = ["deny", "--offline", "check", "licenses", "bans", "sources"];
        follow(artifacts::cargo().args(arguments), "licences", counts)
    });
    if !options.no_lints {
        // Tests that do not build run nothing that they could have begun with.
        stages.join(lints.unwrap_or_else(|| Beside::begin("lints", run_lints)));
    }
    stages.close(start.elapsed())
}

/// Compiles everything a second time, with what processors the tests leave: they wait for timers and programs often.
fn run_lints(counts: &mut Counts) -> Result<()> {
    let arguments = ["clippy", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"];
    follow(command::in_idle_time(artifacts::cargo().args(arguments)), "lints", counts)
}

// === impl Stages ===

impl Stages {
    fn run(&mut self, name: &str, work: impl FnOnce(&mut Counts) -> Result<()>) {
        println!("== {name}");
        let begin = Instant::now();
        let outcome = work(&mut self.counts);
        self.note(name, outcome, begin.elapsed());
    }

    /// Waits for a stage that was begun before.
    fn join(&mut self, stage: Beside) {
        println!("== {}, begun before", stage.name);
        let (outcome, counts, took) = stage.work.join().unwrap_or_else(|_| {
            (Err(anyhow::anyhow!("it panicked, see above")), Counts::default(), Duration::ZERO)
        });
        self.counts.add(counts);
        self.note(stage.name, outcome, took);
    }

    fn note(&mut self, name: &str, outcome: Result<()>, took: Duration) {
        match outcome {
            Ok(()) => println!("   {name}: {:.0} s", took.as_secs_f64()),
            Err(error) => {
                println!("   {name} FAILED after {:.0} s: {error:#}", took.as_secs_f64());
                self.failed.push(name.to_owned());
            }
        }
    }

    /// What failed, at the end, where whoever sees only that finds it, and the closing line.
    fn close(self, took: Duration) -> Result<()> {
        self.counts.failed_logs.iter().for_each(|log| print_failures(log));
        println!("{:.0} s in all", took.as_secs_f64());
        let failed = self.counts.failed + u64::try_from(self.failed.len())?;
        println!("{} passed, {failed} failed, {} skipped", self.counts.passed, self.counts.skipped);
        if failed > 0 {
            bail!("failed: {}", self.failed.join(", "));
        }
        Ok(())
    }
}

// === impl Beside ===

impl Beside {
    fn begin(name: &'static str, work: fn(&mut Counts) -> Result<()>) -> Self {
        println!("== {name}, beside what follows");
        let work = std::thread::spawn(move || {
            let (begin, mut counts) = (Instant::now(), Counts::default());
            let outcome = work(&mut counts);
            (outcome, counts, begin.elapsed())
        });
        Self { name, work }
    }
}

/// `cargo test` of some packages, whatever fails, with what the tests say: skipped ones say so.
fn cargo_test(scope: &[&str]) -> Command {
    let mut command = artifacts::cargo();
    command.args(["test", "--locked"]).args(scope).args(["--no-fail-fast", "--", "--show-output"]);
    command
}

/// Runs a command, shows the lines that matter, keeps all of them in a file and counts the tests.
fn follow(command: &mut Command, name: &str, counts: &mut Counts) -> Result<()> {
    follow_with(command, name, counts, |_| {})
}

/// The same, and tells of each line.
fn follow_with(
    command: &mut Command,
    name: &str,
    counts: &mut Counts,
    mut tell: impl FnMut(&str),
) -> Result<()> {
    let folder = artifacts::target().join("test-logs");
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let path = folder.join(format!("{name}.log"));
    let mut log = std::fs::File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    let (reader, writer) = std::io::pipe().context("cannot make a pipe")?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer)
        .spawn()
        .with_context(|| format!("cannot run {}", command.get_program().to_string_lossy()))?;
    // The command keeps its copies of the pipe's ends; reading only ends when they are closed.
    *command = Command::new("true");
    for line in BufReader::new(reader).split(b'\n') {
        let line = String::from_utf8_lossy(&line?).into_owned();
        writeln!(log, "{line}")?;
        counts.note(&line);
        tell(&line);
        if is_shown(&line) {
            println!("   {}", line.trim_end());
        }
    }
    let status = child.wait()?;
    if !status.success() {
        counts.failed_logs.push(path.clone());
        bail!("{status}; all of its output is in {}", path.display());
    }
    Ok(())
}

// === impl Counts ===

impl Counts {
    fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
        self.failed_logs.extend(other.failed_logs);
    }

    /// Reads `test result: ok. 3 passed; 0 failed; 1 ignored; ...` and our own `SKIPPED: why`.
    fn note(&mut self, line: &str) {
        if line.trim_start().starts_with("SKIPPED:") {
            self.skipped += 1;
        }
        let Some(rest) = line.strip_prefix("test result: ") else {
            return;
        };
        for part in rest.split([';', '.']) {
            let mut words = part.split_whitespace();
            let (Some(Ok(count)), Some(what)) = (words.next().map(str::parse::<u64>), words.next()) else {
                continue;
            };
            match what {
                "passed" => self.passed += count,
                "failed" => self.failed += count,
                "ignored" => self.skipped += count,
                _ => {}
            }
        }
    }
}

fn is_shown(line: &str) -> bool {
    let line = line.trim_start();
    ["Running", "test result: FAILED", "SKIPPED:", "error", "warning: unused", "Diff in", "panicked at"]
        .iter()
        .any(|start| line.starts_with(start))
        || line.ends_with("FAILED")
        || line.starts_with("scenario ")
}

/// Shows what failed tests said; of a command that failed otherwise the end of what it said.
fn print_failures(path: &Path) {
    println!("== failed, from {}", path.display());
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let failures = failures_in(&text);
    let lines =
        if failures.is_empty() { last(&text.lines().collect::<Vec<_>>(), 60).to_vec() } else { failures };
    for line in lines {
        println!("   | {line}");
    }
}

/// What the failed tests of some test programs said, of each the end: programs list them between `failures:` and
/// `test result:`, each below a line `---- NAME stdout ----`.
fn failures_in(log: &str) -> Vec<&str> {
    let (mut shown, mut section) = (Vec::new(), Vec::new());
    let mut of_failures = false;
    for line in log.lines() {
        let is_head = line.starts_with("---- ") && line.ends_with(" ----");
        let is_result = line.starts_with("test result: ");
        if is_head || is_result || line == "failures:" {
            shown.extend_from_slice(last(&section, 40));
            section.clear();
            of_failures = !is_result && (of_failures || line == "failures:");
        }
        match of_failures {
            true if is_head => shown.push(line),
            true => section.push(line),
            false => {}
        }
    }
    shown
}

fn last<'a, 'b>(lines: &'b [&'a str], count: usize) -> &'b [&'a str] {
    &lines[lines.len().saturating_sub(count)..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_and_skips_are_counted() {
        let mut counts = Counts::default();
        counts.note(
            "test result: ok. 12 passed; 1 failed; 2 ignored; 0 measured; 3 filtered out; finished in 0.10s",
        );
        counts.note("SKIPPED: no root");
        assert_eq!((counts.passed, counts.failed, counts.skipped), (12, 1, 3));
    }

    #[test]
    fn what_failed_tests_said_is_found_among_the_rest() {
        let log = "running 2 tests\ntest a ... ok\ntest b ... noise\nFAILED\n\nsuccesses:\n\n---- a stdout ----\nfine\n\n\
                   failures:\n\n---- b stdout ----\nit broke\n\nfailures:\n    b\n\n\
                   test result: FAILED. 1 passed; 1 failed;\nrunning 0 tests";
        let said = failures_in(log);
        assert!(
            said.contains(&"---- b stdout ----") && said.contains(&"it broke") && said.contains(&"    b")
        );
        assert!(!said.contains(&"fine") && !said.contains(&"running 0 tests"), "{said:?}");
    }
}
