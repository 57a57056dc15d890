//! What every long-running program of ours does alike: with its own process, with files that hold secrets, and when it
//! renews a certificate.
//!
//! It exists because `orchestrator` and `node-agent` do not depend on each other. It must not know what they do.

pub mod memory;
pub mod private_files;
pub mod renewal;
