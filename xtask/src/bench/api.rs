//! `cargo xtask bench api`: builds the program that measures API servers (tests/bench-api), runs it, shows its rows.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::report::Report;
use crate::{artifacts, command, packages};

const PACKAGE: &str = "penstock-bench-api";

/// What it calls besides our own programs.
const WANTED: &[packages::Wanted] = &[packages::Wanted {
    program: "etcd",
    package: "etcd-server",
    why: "keeps the objects of the peer, and of ours in a second row",
}];

#[derive(clap::Args)]
pub struct Options {
    /// Fewer rounds, fewer pods and watchers: under two minutes
    #[arg(long)]
    quick: bool,
    /// Rounds of every comparison
    #[arg(long)]
    rounds: Option<usize>,
    /// Only cases whose name contains this, such as `creates`, `list: 50000` or `p99`; `--list` shows the names
    #[arg(long, value_name = "CASE")]
    only: Option<String>,
    /// Print the names of all cases and measure nothing
    #[arg(long)]
    list: bool,
    /// What to measure beside ours: kube-apiserver=PATH starts that program on an etcd of its own; NAME=KUBECONFIG is a
    /// cluster that runs, in which a namespace `bench` is filled and left behind
    #[arg(long, value_name = "NAME=PATH")]
    peer: Option<String>,
    /// Cargo's profile of both programs; `dist` is what ships and takes minutes to build
    #[arg(long, default_value = "dev")]
    profile: String,
}

/// The rows; none when only the names of cases were asked for.
pub fn run(options: &Options) -> Result<Option<Report>> {
    let folder = build(options)?;
    let mut run = Command::new(folder.join(PACKAGE));
    run.arg(if options.list { "list" } else { "run" });
    if options.quick {
        run.arg("--quick");
    }
    if let Some(only) = &options.only {
        run.args(["--only", only]);
    }
    if options.list {
        command::show(&mut run).context("no case to list")?;
        return Ok(None);
    }
    packages::ensure(WANTED)?;
    run.arg("--orchestrator").arg(folder.join("orchestrator"));
    if let Some(rounds) = options.rounds {
        run.args(["--rounds", &rounds.to_string()]);
    }
    if let Some(peer) = &options.peer {
        run.args(["--peer", peer]);
    }
    let output = run.stdin(Stdio::null()).stderr(Stdio::inherit()).output().context("running the bench")?;
    if !output.status.success() {
        bail!("the bench could not measure ({})", output.status);
    }
    let mut report: Report = serde_json::from_slice(&output.stdout).context("reading the bench's rows")?;
    report.configuration = format!("profile {}; {}", options.profile, report.configuration);
    Ok(Some(report))
}

/// Builds the measuring program and ours that it starts, and returns the folder they are in.
fn build(options: &Options) -> Result<PathBuf> {
    let mut build = artifacts::cargo();
    build.args(["build", "--locked", "--profile", &options.profile]);
    for package in [PACKAGE, "orchestrator"] {
        build.args(["--package", package]);
    }
    command::show(&mut build).context("the measuring program does not build")?;
    let folder = if options.profile == "dev" { "debug" } else { options.profile.as_str() };
    Ok(artifacts::target().join(folder))
}
