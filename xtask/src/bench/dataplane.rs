//! `cargo xtask bench dataplane`: builds the program that measures the data plane (tests/bench), runs it, shows its rows.
//!
//! The measuring is a program of its own because it links the data plane, which this one need not.

use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context, Result, bail};

use super::report::Report;
use crate::{artifacts, command, ebpf, packages};

const PACKAGE: &str = "penstock-bench";
const PROGRAM: &str = "penstock-bench-dataplane";

/// What it calls besides our own programs.
const WANTED: &[packages::Wanted] = &[
    packages::Wanted { program: "ip", package: "iproute2", why: "makes the namespaces' links and routes" },
    packages::Wanted { program: "nft", package: "nftables", why: "loads the peer's rules" },
    packages::Wanted { program: "iptables-restore", package: "iptables", why: "loads the peer's rules" },
];

#[derive(clap::Args)]
pub struct Options {
    /// Fewer rounds, fewer peers, smaller clusters: under two minutes
    #[arg(long)]
    quick: bool,
    /// Rounds of every comparison
    #[arg(long)]
    rounds: Option<usize>,
    /// Only cases whose name contains this, such as `nodeport`, `TCP_CRR` or `cold start`; `--list` shows the names
    #[arg(long, value_name = "CASE")]
    only: Option<String>,
    /// Print the names of all cases and measure nothing
    #[arg(long)]
    list: bool,
    /// Both ends of every path run on this CPU [default: the last]
    #[arg(long)]
    cpu: Option<usize>,
    /// The real peer in the place of the renderings of its rules: kube-proxy=PATH
    #[arg(long, value_name = "NAME=PATH")]
    peer: Option<String>,
    /// Cargo's profile for the measuring program; `dist` is what ships and takes minutes to build
    #[arg(long, default_value = "dev")]
    profile: String,
}

/// The rows; none when only the names of cases were asked for.
pub fn run(options: &Options) -> Result<Option<Report>> {
    if options.list {
        let mut list = std::process::Command::new(build(options)?);
        list.arg("list");
        if options.quick {
            list.arg("--quick");
        }
        if let Some(only) = &options.only {
            list.args(["--only", only]);
        }
        if let Some(peer) = &options.peer {
            list.args(["--peer", peer]);
        }
        command::show(&mut list).context("no case to list")?;
        return Ok(None);
    }
    if !nix::unistd::Uid::effective().is_root() {
        bail!("this bench makes namespaces and loads programs: run it as root");
    }
    packages::ensure(WANTED)?;
    let object = ebpf::build()?;
    let mut run = std::process::Command::new(build(options)?);
    run.arg("run").env("PENSTOCK_EBPF_OBJECT", object);
    if options.quick {
        run.arg("--quick");
    }
    let numbers = [("--rounds", options.rounds), ("--cpu", options.cpu)];
    for (name, value) in numbers.iter().filter_map(|(name, value)| Some((name, (*value)?))) {
        run.args([*name, &value.to_string()]);
    }
    if let Some(only) = &options.only {
        run.args(["--only", only]);
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

/// Builds the measuring program, and ours beside it that it starts, and returns where it is.
fn build(options: &Options) -> Result<PathBuf> {
    let mut build = artifacts::cargo();
    build.args(["build", "--locked", "--profile", &options.profile]);
    for package in [PACKAGE, "orchestrator", "node-agent", "cni"] {
        build.args(["--package", package]);
    }
    command::show(&mut build).context("the measuring program does not build")?;
    let folder = if options.profile == "dev" { "debug" } else { options.profile.as_str() };
    Ok(artifacts::target().join(folder).join(PROGRAM))
}
