//! The data plane: desired state, compiled, compared, applied.
//!
//! [`Desired`] is what the cluster wants; [`compile()`] (pure) turns it into the [`MapImage`] the kernel's maps should
//! hold; [`diff()`] (pure) orders the changes so that no packet meets a dangling number. [`Planner`] does the same for
//! one Service at a time, so that a change costs what changed; [`Dataplane`] writes what it plans and owns the programs.
//! The same operations run on [`MemoryMaps`] in tests.
//! Must not know the Kubernetes API, CNI or any node but its own.

mod announced;
mod apply;
mod classifiers;
mod compile;
mod counts;
mod desired;
mod diag;
mod diff;
mod dump;
mod endings;
mod error;
mod flow_table;
mod growth;
mod ids;
mod image;
mod interfaces;
mod kernel;
mod lacks;
mod leaving;
mod links;
mod load;
mod maglev;
mod migrate;
mod names;
mod namespaces;
mod netlink;
mod node;
mod noted;
mod observed;
mod observer;
mod peer_table;
mod picks;
mod planner;
mod policies;
mod remembered;
mod restore;
mod sets;
mod sink;
mod snapshot;
mod sockets;
mod sweep;
mod sys;
mod table;
mod threads;
mod uplink;

pub use announced::{Announcements, Station};
pub use apply::{Applied, Listing};
pub use compile::{Compiled, compile, is_a_host};
pub use desired::{
    Backend, BadChoice, BadForwarding, BadServiceKey, Choice, Desired, Forwarding, Hint, NodeFacts, Protocol,
    Service, ServiceChange, ServiceKey,
};
pub use diag::socket_ports;
pub use diff::{Operation, diff};
pub use error::DataplaneError;
pub use flow_table::{FlowMemory, FlowTable};
pub use growth::{CEILING, Fill, plan_growth};
pub use ids::Ids;
pub use image::{MapImage, Set, SourceRange, service_of};
pub use interfaces::{Tc, TcKind, observe_tc};
pub use lacks::Lack;
pub use load::{Dataplane, Inside, InsideRange, Limits, LoadOptions, PodLink, detach, verify};
pub use migrate::{CONVERSIONS, Conversion};
pub use names::ServiceNames;
pub use observed::{
    Counters, MapFill, PodDrops, ServiceTraffic, observe_counters, observe_image, observe_maps, observe_xdp,
};
pub use observer::{Observer, TIME as OBSERVER_TIME, Wanted, is_observed};
pub use peer_table::{PeerMemory, PeerTable};
pub use penstock_ebpf_common::Verdict;
pub use planner::{Planned, Planner};
pub use policies::Written as PoliciesWritten;
pub use remembered::{Client, Connected, Remembered};
pub use restore::Restored;
pub use sink::{MapSink, MemoryMaps};
pub use snapshot::Snapshot;
pub use sweep::{Departed, Left};
pub use sys::{netns_cookie, now_ns as monotonic_ns};
pub use table::{Entry as TableEntry, Memory as TableMemory, Table};
pub use uplink::{Xdp, XdpKind};
