//! Which address belongs to which attachment.
//!
//! It exists to make leaking impossible by construction: an address is taken if and only if its file exists, and
//! the file holds all it takes to find out whether its owner lives. It must not know links or namespaces.

mod ledger;
mod pool;

pub(crate) use ledger::Ledger;
pub use ledger::{IpamError, observe_attachments};
pub(crate) use pool::{Pool, at, place_of};
