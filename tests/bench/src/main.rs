//! Measures the data plane beside its peers; `cargo xtask bench dataplane` builds and runs it.
//!
//! A crate of its own, so that xtask need not link the data plane. Prints one JSON document on standard output and
//! progress on standard error. Makes all it needs in namespaces of its own and leaves nothing.

mod bpf;
mod cases;
mod cluster;
mod control;
mod fleet;
mod guard;
mod map_memory;
mod peer;
mod process;
mod programmed;
mod report;
mod rounds;
mod stage;
mod worker;
mod world;

use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};
use peer::RealPeer;
use penstock_tests::netns;
use report::Report;
use stage::{Scope, Stage};

const ROUNDS: usize = 201;
const QUICK_ROUNDS: usize = 31;

/// Measure Penstock's data plane beside its peers.
#[derive(Parser)]
#[command(version, max_term_width = 110)]
struct Menu {
    #[command(subcommand)]
    role: Role,
}

#[derive(Subcommand)]
enum Role {
    /// Measure, and clean up afterwards
    Run(Options),
    /// Print the names of all cases
    List(Selection),
    /// Measure, watched by `run`
    #[command(hide = true)]
    Measure(Options),
    /// The serving end of a path
    #[command(hide = true)]
    Server(End),
    /// The asking end of a path
    #[command(hide = true)]
    Client(End),
    /// A client that watches where a service leads
    #[command(hide = true)]
    Prober,
    /// A client that holds many connections
    #[command(hide = true)]
    Crowd,
    /// A server that holds all it accepts
    #[command(hide = true)]
    Holder(Held),
}

#[derive(Args)]
struct Options {
    /// Rounds of every comparison
    #[arg(long)]
    rounds: Option<usize>,
    #[command(flatten)]
    selection: Selection,
    /// The CPU on which both ends of a path run [default: the last]
    #[arg(long)]
    cpu: Option<usize>,
}

#[derive(Args)]
struct Selection {
    /// Only cases whose name contains this
    #[arg(long, value_name = "CASE")]
    only: Option<String>,
    /// Fewer rounds, fewer peers, smaller clusters
    #[arg(long)]
    quick: bool,
    /// A real peer in the place of the renderings of its rules: kube-proxy=PATH
    #[arg(long, value_name = "NAME=PATH")]
    peer: Option<RealPeer>,
}

impl Selection {
    fn scope(&self) -> Scope {
        Scope { quick: self.quick, kube_proxy: self.peer.as_ref().map(|peer| peer.program.clone()) }
    }
}

#[derive(Args)]
struct End {
    #[arg(long)]
    cpu: usize,
    #[arg(long)]
    address: Ipv4Addr,
}

#[derive(Args)]
struct Held {
    addresses: Vec<SocketAddrV4>,
}

fn main() -> ExitCode {
    let done = match Menu::parse().role {
        Role::Run(options) => watched(&options),
        Role::List(selection) => list(&selection).map(|()| ExitCode::SUCCESS),
        Role::Measure(options) => measure(&options).map(|()| ExitCode::SUCCESS),
        Role::Server(end) => worker::server::run(end.cpu, end.address).map(|()| ExitCode::SUCCESS),
        Role::Prober => worker::prober::run().map(|()| ExitCode::SUCCESS),
        Role::Crowd => worker::crowd::run().map(|()| ExitCode::SUCCESS),
        Role::Holder(held) => worker::crowd::serve(&held.addresses).map(|()| ExitCode::SUCCESS),
        Role::Client(end) => worker::client::run(end.cpu).map(|()| ExitCode::SUCCESS),
    };
    done.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

fn watched(options: &Options) -> Result<ExitCode> {
    // What cannot be measured is refused before anything is made.
    cases::select(options.selection.only.as_deref(), &options.selection.scope())?;
    guard::run(&std::env::args().skip(2).collect::<Vec<_>>())
}

fn list(selection: &Selection) -> Result<()> {
    for case in cases::select(selection.only.as_deref(), &selection.scope())? {
        println!("{case}");
    }
    Ok(())
}

fn measure(options: &Options) -> Result<()> {
    let variable = |name| std::env::var(name).with_context(|| format!("{name} is not set: use `run`"));
    let processors = std::thread::available_parallelism()?.get();
    let rounds = options.rounds.unwrap_or(if options.selection.quick { QUICK_ROUNDS } else { ROUNDS }).max(1);
    let stage = Stage::new(
        PathBuf::from(variable("PENSTOCK_BENCH_FOLDER")?),
        variable("PENSTOCK_BENCH_PREFIX")?,
        options.cpu.unwrap_or(processors - 1),
        rounds,
        options.selection.scope(),
        options.selection.only.clone(),
    )?;
    let rows = netns::isolated(|| cases::run(&stage));
    let report = Report { configuration: configuration(&stage, processors)?, rows };
    println!("{}", serde_json::to_string_pretty(&report)?);
    Ok(())
}

fn configuration(stage: &Stage, processors: usize) -> Result<String> {
    let kernel = nix::sys::utsname::uname()?;
    let model = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = model.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let version = |program: &str| {
        let output = std::process::Command::new(program).arg("--version").output().ok();
        output.map_or_else(
            || format!("no {program}"),
            |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        )
    };
    let proxy = stage.scope.kube_proxy.as_ref().map(|program| program.display().to_string());
    let proxy = proxy.map_or_else(
        || "renderings of kube-proxy's rules".to_owned(),
        |program| format!("kube-proxy {}", version(&program)),
    );
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    Ok(format!(
        "Linux {}, {processors} processors ({}), both ends of every path on CPU {} at SCHED_FIFO, {} interleaved rounds, \
         load {}\npeers in the same run: bare hops; {proxy}; {}; {}; congestion control cubic",
        kernel.release().to_string_lossy(),
        model.map_or("unknown", |(_, name)| name),
        stage.cpu,
        stage.rounds,
        load.split_whitespace().next().unwrap_or("unknown"),
        version("iptables"),
        version("nft"),
    ))
}
