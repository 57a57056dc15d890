//! Which node announces which load-balancer address, and telling the network so.
//!
//! For each address the nodes that may announce it are ranked by a hash ([`plan_groups`]), the first few are its group,
//! and the first of these that lives holds it ([`Election`], pure). They know of each other's life by beats, small
//! datagrams several times a second ([`Beat`]), so that the API server has no part in a failover. Whoever takes an
//! address says so by gratuitous ARP or an unsolicited advertisement ([`takeover_frames`]); questions are answered by
//! somebody else ([`Answerer`]).
//! Must not know the Kubernetes API, nor the programs that answer.

mod beat;
mod election;
mod frames;
mod groups;
mod run;
mod sockets;

pub use beat::Beat;
pub use election::{Effect, Election, Timing};
pub use frames::takeover_frames;
pub use groups::{GROUP_MAX, Groups, Wanted, plan_groups};
pub use run::{Announcer, Answerer, Held, run};
pub use sockets::AnnounceError;

/// The name of a node; shared, for it is said once for every address.
pub type NodeName = std::sync::Arc<str>;
