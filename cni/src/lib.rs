//! The CNI plugin: what the runtime says (`spec`), what each verb does (`verbs`), and how the agent on the node
//! is asked (`agent`, `protocol`).
//!
//! It is a library beside its binary so that the agent shares `protocol` and nothing is described twice.
//! It must not know how pods are wired: links, addresses and routes belong to the agent, and but for bringing `lo` up
//! the plugin never touches the kernel. That keeps it small, and lets an agent be upgraded without touching the plugin.

pub mod agent;
pub mod protocol;
pub mod spec;
pub mod verbs;
