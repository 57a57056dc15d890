//! STATUS: could an ADD be served now?
//!
//! It exists so that a node is not Ready before its network is. It must not change anything.

use super::{out_of_step, refused};
use crate::agent;
use crate::protocol::{Request, Response, Why};
use crate::spec::{Code, Failure, NetworkConfig};

pub(super) fn run(config: &NetworkConfig) -> Result<(), Failure> {
    if !config.version.is_1_1() {
        let message = format!("STATUS does not exist in cniVersion {}", config.version.as_str());
        return Err(Failure::new(Code::IncompatibleVersion, message));
    }
    match agent::ask(&config.socket, &Request::Status) {
        Ok(Response::Done) => Ok(()),
        Ok(Response::Refused(refusal)) if refusal.why == Why::Limited => Err(refused(refusal)),
        Ok(Response::Refused(refusal)) => Err(Failure::new(Code::NotAvailable, refusal.message)),
        Ok(Response::Attached(_)) => Err(out_of_step()),
        // To STATUS, an agent that is away is an answer: not available. What is there goes on without it.
        Err(failure) => Err(Failure { code: Code::NotAvailable, ..failure }),
    }
}
