//! DEL: takes away what ADD gave.
//!
//! The specification wants it to succeed when there is nothing left, and to be called as often as it takes. An
//! agent that is away is error 11 instead: success would let the runtime forget an attachment nobody removed. It
//! must not need CNI_NETNS, which is unset once the namespace is gone.

use super::{out_of_step, refused};
use crate::agent;
use crate::protocol::{DelRequest, Request, Response, Why};
use crate::spec::{Environment, Failure, NetworkConfig};

pub(super) fn run(environment: &Environment, config: &NetworkConfig) -> Result<(), Failure> {
    let request = Request::Del(DelRequest { id: environment.attachment()? });
    match agent::ask(&config.socket, &request)? {
        Response::Done => Ok(()),
        Response::Refused(refusal) if refusal.why == Why::Unknown => Ok(()),
        Response::Refused(refusal) => Err(refused(refusal)),
        Response::Attached(_) => Err(out_of_step()),
    }
}
