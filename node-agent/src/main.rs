//! The node agent: pods and network of one node, in one process or in two.
//!
//! It exists to read the command line and to put the halves together. It must not know what either half does.

mod cluster;
mod desired;
mod inspect;
mod joining;
mod kernel;
mod network;
mod options;
mod rotation;
mod run;

use std::process::ExitCode;

use clap::Parser;

use options::{Command, LogFormat, Options};

/// What is logged without `RUST_LOG`. The client's own lines repeat, for every attempt, what its callers say once.
const LOG_DEFAULT: &str = "info,kube_client::client::builder=off";

fn main() -> ExitCode {
    let options = Options::parse();
    let outcome = match options.command {
        Command::Run(run) => {
            log_to_stderr(run.log_format);
            start(run)
        }
        Command::Counters(counters) => inspect::counters(&counters),
        Command::Status(inspect) => inspect::status(&inspect),
        Command::Maps(inspect) => inspect::maps(&inspect),
        Command::Explain(explain) => inspect::explain(&explain),
        Command::Observe(observe) => inspect::observe(&observe),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("node-agent: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(options: Box<options::Run>) -> anyhow::Result<()> {
    penstock_process::memory::limit_arenas();
    penstock_process::memory::map_what_is_large();
    // Several crates bring TLS; the process decides once which cryptography they share.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let outcome = runtime.block_on(run::run(options));
    // A hook or a disk that hangs must not keep the process from ending.
    runtime.shutdown_timeout(std::time::Duration::from_secs(5));
    outcome
}

fn log_to_stderr(format: LogFormat) {
    use tracing_subscriber::EnvFilter;
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(LOG_DEFAULT));
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => subscriber.init(),
        LogFormat::Json => subscriber.json().init(),
    }
}
