//! GC: removes every attachment of this network that the runtime does not name.
//!
//! It exists so that nothing leaks when a DEL was lost for good. It must not run without a list: an absent list
//! would mean removing every pod of the node.

use super::{out_of_step, refused};
use crate::agent;
use crate::protocol::{GcRequest, Request, Response};
use crate::spec::{Code, Failure, NetworkConfig};

pub(super) fn run(config: &NetworkConfig) -> Result<(), Failure> {
    if !config.version.is_1_1() {
        let message = format!("GC does not exist in cniVersion {}", config.version.as_str());
        return Err(Failure::new(Code::IncompatibleVersion, message));
    }
    let Some(keep) = config.valid_attachments()? else {
        return Err(Failure::new(Code::InvalidConfig, "GC needs cni.dev/valid-attachments"));
    };
    match agent::ask(&config.socket, &Request::Gc(GcRequest { network: config.name.clone(), keep }))? {
        Response::Done => Ok(()),
        Response::Refused(refusal) => Err(refused(refusal)),
        Response::Attached(_) => Err(out_of_step()),
    }
}
