//! A cluster on one machine: where its parts lie, its namespaces and links, its processes.

pub mod containerd;
pub mod host_network;
pub mod layout;
pub mod node_namespaces;
pub mod processes;
pub mod teardown;
