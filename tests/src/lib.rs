//! Test harness: cluster, namespaces, packets, golden files, conditions, faults.

pub mod cluster;
pub mod eventually;
pub mod load;
