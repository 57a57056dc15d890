//! The control loops against the API they drive: embedded store, API server and loops in one process, no sockets.
//!
//! Nodes are objects only; a stand-in for their agents reports pods as running. Every wait is for a condition.

#[path = "loops/cluster.rs"]
mod cluster;
#[path = "loops/deployments.rs"]
mod deployments;
#[path = "loops/jobs.rs"]
mod jobs;
#[path = "loops/joining.rs"]
mod joining;
#[path = "loops/nodes.rs"]
mod nodes;
#[path = "loops/ownership.rs"]
mod ownership;
#[path = "loops/service_accounts.rs"]
mod service_accounts;
#[path = "loops/services.rs"]
mod services;
#[path = "loops/sets.rs"]
mod sets;
#[path = "loops/stand_in.rs"]
mod stand_in;
#[path = "loops/volumes.rs"]
mod volumes;
