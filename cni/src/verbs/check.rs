//! CHECK: is the sandbox's network as ADD left it?
//!
//! It exists so that a runtime can find a pod whose link was broken by someone else. It must not repair.

use super::{out_of_step, refused};
use crate::agent;
use crate::protocol::{CheckRequest, Request, Response};
use crate::spec::{Code, Environment, Failure, NetworkConfig};

pub(super) fn run(environment: &Environment, config: &NetworkConfig) -> Result<(), Failure> {
    if !config.version.has_check() {
        let message = format!("CHECK does not exist in cniVersion {}", config.version.as_str());
        return Err(Failure::new(Code::IncompatibleVersion, message));
    }
    let Some(previous) = config.previous()? else {
        return Err(Failure::new(Code::InvalidConfig, "CHECK needs the prevResult of the ADD"));
    };
    let id = environment.attachment()?;
    let mtu = previous.mtus.get(&id.interface).copied();
    let addresses = previous.addresses;
    let request = Request::Check(CheckRequest { id, netns: environment.netns()?, addresses, mtu });
    match agent::ask(&config.socket, &request)? {
        Response::Done => Ok(()),
        Response::Refused(refusal) => Err(refused(refusal)),
        Response::Attached(_) => Err(out_of_step()),
    }
}
