//! Measures an API server beside its peers; `cargo xtask bench api` builds and runs it.
//!
//! The same load goes to every server in turn, over HTTP/1.1 and TLS, from bodies that are made before. Prints one JSON
//! document on standard output and progress on standard error. What it starts ends with it.

mod cases;
mod contender;
mod http;
mod kubeconfig;
mod pki;
mod pods;
#[path = "../../bench/src/report.rs"]
mod report;
mod rounds;
mod server;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand};

use cases::Case;
use contender::{Contender, Peer};
use report::Report;

const ROUNDS: usize = 5;
const QUICK_ROUNDS: usize = 2;

/// Measure an API server beside its peers.
#[derive(Parser)]
#[command(version, max_term_width = 110)]
struct Menu {
    #[command(subcommand)]
    role: Role,
}

#[derive(Subcommand)]
enum Role {
    /// Measure
    Run(Options),
    /// Print the names of all cases
    List(Selection),
}

#[derive(Args)]
struct Options {
    #[command(flatten)]
    selection: Selection,
    /// Rounds of every comparison
    #[arg(long)]
    rounds: Option<usize>,
    /// Our own program
    #[arg(long, value_name = "FILE")]
    orchestrator: PathBuf,
    /// What to measure beside it: kube-apiserver=PATH of its program, or NAME=KUBECONFIG of a cluster that runs
    #[arg(long, value_name = "NAME=PATH")]
    peer: Option<Peer>,
}

#[derive(Args)]
struct Selection {
    /// Fewer rounds, fewer pods and watchers
    #[arg(long)]
    quick: bool,
    /// Only cases whose name contains this
    #[arg(long, value_name = "CASE")]
    only: Option<String>,
}

fn main() -> ExitCode {
    // Every TLS user of this process takes the provider from here.
    drop(rustls::crypto::ring::default_provider().install_default());
    let done = match Menu::parse().role {
        Role::Run(options) => run(&options),
        Role::List(selection) => chosen(&selection).map(|cases| {
            cases.iter().for_each(|case| println!("{}", case.name()));
        }),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<()> {
    let cases = chosen(&options.selection)?;
    let quick = options.selection.quick;
    let rounds = options.rounds.unwrap_or(if quick { QUICK_ROUNDS } else { ROUNDS });
    if rounds == 0 {
        bail!("--rounds 0 measures nothing: use 1 or more");
    }
    raise_file_limit()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let report = runtime.block_on(async {
        let contenders = Contender::all(&options.orchestrator, options.peer.as_ref()).await?;
        let load_before = load();
        let rows = cases::run(&cases, &contenders, rounds).await?;
        let names: Vec<_> = contenders.iter().map(Contender::described).collect();
        let kernel = nix::sys::utsname::uname()?;
        let configuration = format!(
            "{}; Linux {}, {} processors shared by servers and load, load average {load_before} before and {} after; {rounds} \
             interleaved round(s)",
            names.join("; "),
            kernel.release().to_string_lossy(),
            std::thread::available_parallelism()?,
            load(),
        );
        anyhow::Ok(Report { configuration, rows })
    })?;
    println!("{}", serde_json::to_string(&report)?);
    Ok(())
}

fn chosen(selection: &Selection) -> Result<Vec<Case>> {
    let mut cases = cases::all(selection.quick);
    if let Some(only) = &selection.only {
        cases.retain(|case| case.name().contains(only.as_str()));
        if cases.is_empty() {
            bail!("no case has {only:?} in its name; `list` prints them");
        }
    }
    Ok(cases)
}

/// A thousand watchers are as many sockets here, and as many in the servers started from here.
fn raise_file_limit() -> Result<()> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).context("raising the limit of open files")
}

fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().unwrap_or("unknown").to_owned()
}
