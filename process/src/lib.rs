//! What every long-running program of ours does with its own process.
//!
//! It exists because `orchestrator` and `node-agent` do not depend on each other. It must not know what they do.

pub mod memory;
