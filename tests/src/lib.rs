//! Test harness: cluster, namespaces, packets, golden files, conditions, faults.

pub mod dataplane;
pub mod netns;
pub mod packet;
