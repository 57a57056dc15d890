//! One file a verb, and the one place that picks among them.
//!
//! It exists so that a verb can be read without the others. It must not print: `run` returns what to print.

mod add;
mod check;
mod del;
mod gc;
pub mod loopback;
mod status;
mod version;

use serde_json::Value;

use crate::protocol::{Refusal, Why};
use crate::spec::{Code, Environment, Failure, NetworkConfig, Verb};

/// Carries out what the environment and the configuration ask. `None` means success without output.
pub fn run(environment: &Environment, config: &[u8]) -> Result<Option<Value>, Failure> {
    let verb = environment.verb()?;
    if verb == Verb::Version {
        return version::run(config).map(Some);
    }
    let config = NetworkConfig::parse(config)?;
    if config.kind == loopback::LOOPBACK {
        return loopback::run(verb, environment, &config);
    }
    match verb {
        Verb::Add => add::run(environment, &config).map(Some),
        Verb::Del => del::run(environment, &config).map(|()| None),
        Verb::Check => check::run(environment, &config).map(|()| None),
        Verb::Gc => gc::run(&config).map(|()| None),
        Verb::Status => status::run(&config).map(|()| None),
        Verb::Version => version::run(&[]).map(Some),
    }
}

/// The failure a refusal means to a runtime.
fn refused(refusal: Refusal) -> Failure {
    let code = match refusal.why {
        Why::Unknown => Code::UnknownContainer,
        Why::NotReady => Code::TryAgainLater,
        Why::Limited => Code::Limited,
        Why::Exhausted => Code::AddressesExhausted,
        Why::Invalid => Code::InvalidConfig,
        Why::Failed => Code::AgentFailed,
        Why::Differs => Code::Differs,
    };
    Failure::new(code, refusal.message)
}

/// An agent that answers another question than the one asked is another version's.
fn out_of_step() -> Failure {
    Failure::new(
        Code::AgentFailed,
        "the node agent answered another verb; plugin and agent are of different versions",
    )
}
