//! The CNI specification's side: versions, environment, configuration, results and errors.
//!
//! Facts are from the specification at 1.1.0 (containernetworking/cni, SPEC.md). It must not know the agent.

mod config;
mod environment;
mod error;
mod result;
mod version;

pub use config::{CONFIG_BYTES_MAX, NetworkConfig};
pub use environment::{Environment, Verb};
pub use error::{Code, Failure};
pub use result::render_add;
pub use version::{SUPPORTED, Version};
