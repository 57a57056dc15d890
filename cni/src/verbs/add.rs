//! ADD: an address and a link for a sandbox.
//!
//! It exists to put the runtime's words into the agent's and the answer into the runtime's. It must not know how a
//! link is made.

use serde_json::Value;

use super::{out_of_step, refused};
use crate::agent;
use crate::protocol::{AddRequest, Request, Response};
use crate::spec::{Environment, Failure, NetworkConfig, render_add};

pub(super) fn run(environment: &Environment, config: &NetworkConfig) -> Result<Value, Failure> {
    let netns = environment.netns()?;
    let request = Request::Add(AddRequest {
        id: environment.attachment()?,
        netns: netns.clone(),
        network: config.name.clone(),
        pod: environment.pod(),
        port_mappings: config.port_mappings()?,
        bandwidth: config.bandwidth()?,
    });
    match agent::ask(&config.socket, &request)? {
        Response::Attached(attached) => Ok(render_add(config.version, &netns, &attached)),
        Response::Refused(refusal) => Err(refused(refusal)),
        Response::Done => Err(out_of_step()),
    }
}
