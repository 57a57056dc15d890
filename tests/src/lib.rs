//! Test harness: cluster, namespaces, packets, golden files, conditions, faults.

pub mod cluster;
pub mod complaints;
pub mod dataplane;
pub mod eventually;
pub mod https;
pub mod lateness;
pub mod load;
pub mod netns;
pub mod packet;
pub mod press;
