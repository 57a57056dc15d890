//! What every long-running program of ours does alike: with its own process, with files that hold secrets, when it renews a
//! certificate, and which it need not verify.
//!
//! It exists because `orchestrator` and `node-agent` do not depend on each other. It must not know what they do.

pub mod any_server;
pub mod memory;
pub mod private_files;
pub mod renewal;
