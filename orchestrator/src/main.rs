//! `orchestrator`: the control plane in one program.
//!
//! This crate is wiring: it reads the command line, makes keys, and puts store, API server and control loops
//! together. What any of them does is in their own crates.

mod access;
mod backup;
mod cli;
mod config;
mod control;
mod credentials;
mod data_dir;
mod election;
mod kubeconfig;
mod loops;
mod pki;
mod progress;
mod renewal;
mod run;
mod store_check;
mod tokens;

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;
use penstock_process::private_files as files;
use tracing_subscriber::EnvFilter;

use cli::{Cli, Command, LogFormat};

/// More threads than this serve nothing that two cores could use, and each costs memory.
const WORKER_THREADS_MAX: usize = 8;
const BLOCKING_THREADS_MAX: usize = 64;
/// What is logged without `RUST_LOG`. The client's own lines repeat, for every attempt, what its callers say once.
const LOG_DEFAULT: &str = "info,kube_client::client::builder=off";

fn main() -> ExitCode {
    let cli = Cli::parse();
    penstock_process::memory::limit_arenas();
    match start(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // One sentence, causes included: `{:#}` joins the chain.
            eprintln!("orchestrator: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(cli: Cli) -> anyhow::Result<()> {
    match cli.command {
        Command::Credentials { of } => credentials::write(of),
        Command::Run(arguments) => {
            log_to_stderr(arguments.log_format);
            let config = config::RunConfig::new(*arguments)?;
            runtime()?.block_on(run::run(config))
        }
        Command::Token { command } => quietly(tokens::run(command)),
        Command::Backup(arguments) => quietly(backup::backup(arguments)),
        Command::Restore(arguments) => quietly(backup::restore(arguments)),
        Command::Check(arguments) => quietly(store_check::run(arguments)),
    }
}

/// A command that ends: its answer is what it prints, so only failures are logged.
fn quietly(command: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("error"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    runtime()?.block_on(command)
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cores.clamp(2, WORKER_THREADS_MAX))
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .enable_all()
        .build()
}

/// What is logged is chosen by `RUST_LOG`; without it, what an operator should see.
fn log_to_stderr(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(LOG_DEFAULT));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    match format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
}
