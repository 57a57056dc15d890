//! The names of the maps, which are also the names of their pins.
//!
//! A name ends with the version of its layout. Programs of a newer layout get new maps; what older programs noted is
//! carried over (`penstock-dataplane`'s `migrate`), and the old maps go last.

/// [`crate::Config`] at entry 0.
pub const CONFIG: &str = "config_v3";
/// [`crate::InsideKey`] to `INSIDE_*`.
pub const INSIDE: &str = "inside_v1";
/// [`crate::VipKey`] to [`crate::VipValue`].
pub const VIPS: &str = "vips_v2";
/// [`crate::SourceRangeKey`] to anything.
pub const SOURCE_RANGES: &str = "source_ranges_v1";
/// Set number to a map of one [`crate::SetHeader`] and its [`crate::Backend`]s.
pub const SETS: &str = "sets_v2";
/// Service number to [`crate::ServiceName`].
pub const NAMES: &str = "names_v1";
/// [`crate::Address`] to [`crate::LocalPod`].
pub const PODS: &str = "pods_v1";
/// How often services' addresses changed, or who may use them: the lower half of the number at entry 0, never zero.
pub const CHANGES: &str = "changes_v1";
/// A table of flows: [`crate::FlowBucket`]s by number, a power of two of them.
pub const FLOWS: &str = "flows_v2";
/// [`crate::FlowKey`] to [`crate::FlowValue`], as it was until then.
pub const FLOWS_BY_KEY: &str = "flows_v1";
/// [`crate::FragmentKey`] to [`crate::FragmentValue`].
pub const FRAGMENTS: &str = "fragments_v1";
/// [`crate::SocketFlowKey`] to [`crate::SocketFlowValue`].
pub const SOCKET_FLOWS: &str = "socket_flows_v1";
/// A table of connected sockets' peers: [`crate::PeerBucket`]s by number, a power of two of them.
pub const PEERS: &str = "peers_v4";
/// Socket cookie to [`crate::Peer`], as it was until then.
pub const PEERS_BY_COOKIE: &str = "peers_v3";
/// [`crate::OpenKey`] to the number of open connections, as i64.
pub const OPEN: &str = "open_v1";
/// [`crate::AffinityKey`] to [`crate::AffinityValue`].
pub const AFFINITY: &str = "affinity_v1";
/// [`crate::Event`]s and [`crate::Reason`]s.
pub const TALLIES: &str = "tallies_v1";
/// Page of [`crate::SERVICE_COUNTS_PAGE`] service numbers to a map of as many [`crate::ServiceCount`]s.
pub const SERVICE_COUNTS: &str = "service_counts_v2";
/// [`crate::PodDropKey`] to how many packets were dropped, as u64.
pub const POD_DROPS: &str = "pod_drops_v1";
/// [`crate::Address`] to [`crate::Announced`].
pub const ANNOUNCED: &str = "announced_v1";
/// Number of a pod's table to a map of one [`crate::PolicyHeader`] and its [`crate::PolicyRange`]s.
pub const POLICY_TABLES: &str = "policy_tables_v1";
/// The node's end of a pod's link to the number of its table; only of pods that a policy selects.
pub const POLICY_LINKS: &str = "policy_links_v1";
/// The lower bits of a link's number to how many such pods have them.
pub const POLICY_HINTS: &str = "policy_hints_v1";
/// [`crate::Address`] of a pod to the peer it is.
pub const POLICY_PEERS: &str = "policy_peers_v1";
/// A range of addresses to the peer its addresses are besides.
pub const POLICY_BLOCKS: &str = "policy_blocks_v1";
/// How often policies changed, or who is which peer, at entry 0: what was judged before is judged anew.
pub const POLICY_EPOCH: &str = "policy_epoch_v1";
/// [`crate::PolicyFlowKey`] to [`crate::PolicyFlowValue`].
pub const POLICY_FLOWS: &str = "policy_flows_v1";
/// [`crate::ANYBODY`] and the number of each observer to [`crate::Observer`].
pub const OBSERVERS: &str = "observers_v1";
/// Number of an observer to its ring buffer of [`crate::Told`]s.
pub const RINGS: &str = "rings_v1";
/// Number of an observer to how much could not be told for want of room in its ring buffer, as u64.
pub const LOST: &str = "lost_v1";

/// The tables of our own (`penstock-ebpf-packet`'s `table`), whose sizes are numbers of buckets.
pub const TABLES: &[&str] = &[FLOWS, PEERS];

/// The maps whose entries programs make, with the name under which programs know the one that each replaces.
pub const KEPT: &[(&str, &str)] = &[
    (FLOWS, "former_flows"),
    (SOCKET_FLOWS, "former_sflows"),
    (PEERS, "former_peers"),
    (AFFINITY, "former_affinity"),
];

/// All of them, in the order in which tables show them. The kernel cuts names at 15 bytes; pins keep them whole.
pub const ALL: &[&str] = &[
    CONFIG,
    INSIDE,
    VIPS,
    SOURCE_RANGES,
    SETS,
    NAMES,
    PODS,
    CHANGES,
    FLOWS,
    FRAGMENTS,
    SOCKET_FLOWS,
    PEERS,
    OPEN,
    AFFINITY,
    TALLIES,
    SERVICE_COUNTS,
    POD_DROPS,
    ANNOUNCED,
    POLICY_TABLES,
    POLICY_LINKS,
    POLICY_HINTS,
    POLICY_PEERS,
    POLICY_BLOCKS,
    POLICY_EPOCH,
    POLICY_FLOWS,
    OBSERVERS,
    RINGS,
    LOST,
];
