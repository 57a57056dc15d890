//! `cargo xtask test`: everything CI checks, one stage after another, and one closing line.
//!
//! A stage's whole output goes to a file below the target folder; what a reader needs is shown as it comes.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::{artifacts, ebpf, packages, tidy, vm};

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
}

pub fn run(options: &Options) -> Result<()> {
    let mut counts = Counts::default();
    let start = Instant::now();
    packages::ensure(packages::FOR_BUILD)?;
    let root = nix::unistd::Uid::effective().is_root();
    if root {
        packages::ensure(packages::FOR_CLUSTER)?;
        packages::ensure(packages::FOR_TESTS)?;
    }
    let mut failed_stages = Vec::new();
    let mut stage = |name: &str, counts: &mut Counts, work: &mut dyn FnMut(&mut Counts) -> Result<()>| {
        println!("== {name}");
        let begin = Instant::now();
        match work(counts) {
            Ok(()) => println!("   {name}: {:.0} s", begin.elapsed().as_secs_f64()),
            Err(error) => {
                println!("   {name} FAILED: {error:#}");
                failed_stages.push(name.to_owned());
            }
        }
    };
    stage("tidy", &mut counts, &mut |_| tidy::run());
    stage("format", &mut counts, &mut |counts| {
        follow(artifacts::cargo().args(["fmt", "--all", "--check"]), "format", counts)
    });
    stage("eBPF programs", &mut counts, &mut |_| ebpf::build().map(drop));
    let object = artifacts::target().join("ebpf").join("penstock.bpf.o");
    let mut environment = vec![
        ("PENSTOCK_EBPF_OBJECT", object.into_os_string()),
        ("PENSTOCK_XTASK", std::env::current_exe().context("cannot find this program")?.into_os_string()),
    ];
    stage("build", &mut counts, &mut |counts| {
        follow(artifacts::cargo().args(["build", "--locked", "--workspace"]), "build", counts)
    });
    stage("unit tests", &mut counts, &mut |counts| {
        let scope = ["--workspace", "--exclude", "penstock-tests"];
        follow(cargo_test(&scope).envs(environment.clone()), "unit", counts)
    });
    if root && !options.no_cluster {
        environment.push(("PENSTOCK_CLUSTER_TESTS", "1".into()));
    }
    stage("packet, network and cluster tests", &mut counts, &mut |counts| {
        let scope = ["--package", "penstock-tests"];
        follow(cargo_test(&scope).envs(environment.clone()), "system", counts)
    });
    stage("other kernels", &mut counts, &mut |counts| {
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
    if !options.no_lints {
        stage("lints", &mut counts, &mut |counts| {
            let arguments = ["clippy", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"];
            follow(artifacts::cargo().args(arguments), "lints", counts)
        });
    }
    println!("{:.0} s in all", start.elapsed().as_secs_f64());
    let failed = counts.failed + u64::try_from(failed_stages.len())?;
    println!("{} passed, {failed} failed, {} skipped", counts.passed, counts.skipped);
    if failed > 0 {
        bail!("failed: {}", failed_stages.join(", "));
    }
    Ok(())
}

/// `cargo test` of some packages, whatever fails, with what the tests say: skipped ones say so.
fn cargo_test(scope: &[&str]) -> Command {
    let mut command = artifacts::cargo();
    command.args(["test", "--locked"]).args(scope).args(["--no-fail-fast", "--", "--show-output"]);
    command
}

/// Runs a command, shows the lines that matter, keeps all of them in a file and counts the tests.
fn follow(command: &mut Command, name: &str, counts: &mut Counts) -> Result<()> {
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
        if is_shown(&line) {
            println!("   {}", line.trim_end());
        }
    }
    let status = child.wait()?;
    if !status.success() {
        print_tail(&path);
        bail!("{status}; all of its output is in {}", path.display());
    }
    Ok(())
}

impl Counts {
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

fn print_tail(path: &Path) {
    const LINES: usize = 60;
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    for line in &lines[lines.len().saturating_sub(LINES)..] {
        println!("   | {line}");
    }
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
}
