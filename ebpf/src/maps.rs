//! The maps, as user space finds them under the names in `penstock_ebpf_common::map`.
//!
//! Sizes here are defaults; user space overrides them when it creates a map. Those in [`crate::kept`] are used through it.

use aya_ebpf::bindings::{BPF_F_INNER_MAP, BPF_F_MMAPABLE, BPF_F_NO_PREALLOC};
use aya_ebpf::btf_maps::{
    Array, ArrayOfMaps, HashMap, LpmTrie, LruHashMap, LruPerCpuHashMap, PerCpuArray, RingBuf,
};
use aya_ebpf::macros::btf_map;
use penstock_ebpf_common as shared;

use crate::too_big::Answers;
use crate::way::{self, Way};
use crate::work::Work;

/// Entry 0 is a `SetHeader`, then come backends, then perhaps a Maglev table; the flag lets each set have its own size (Linux 5.10).
/// Declared as words: older kernels (6.1: `bpf_map_meta_equal` compares `timer_off`) take no map without a description of its types,
/// as user space makes them, for one of structures.
pub type Set = Array<[u32; size_of::<shared::Backend>() / 4], 2, { BPF_F_INNER_MAP as usize }>;

#[btf_map(name = "config_v3")]
pub static CONFIG: Array<shared::Config, 1> = Array::new();

/// Its keys are [`shared::InsideKey`]s.
#[btf_map(name = "inside_v1")]
pub static INSIDE: LpmTrie<shared::Address, u32, 256> = LpmTrie::new();

#[btf_map(name = "vips_v2")]
pub static VIPS: HashMap<shared::VipKey, shared::VipValue, 65_536, { BPF_F_NO_PREALLOC as usize }> =
    HashMap::new();

#[btf_map(name = "source_ranges_v1")]
pub static SOURCE_RANGES: LpmTrie<shared::SourceRangeKey, u32, 65_536> = LpmTrie::new();

#[btf_map(name = "sets_v2")]
pub static SETS: ArrayOfMaps<Set, 32_768> = ArrayOfMaps::new();

/// Only user space uses it; it lives here so that all maps are made and pinned in one way.
#[btf_map(name = "names_v1")]
pub static NAMES: HashMap<u32, shared::ServiceName, 16_384, { BPF_F_NO_PREALLOC as usize }> = HashMap::new();

/// A node has at most a few hundred pods.
#[btf_map(name = "pods_v1")]
pub static PODS: HashMap<shared::Address, shared::LocalPod, 4_096, { BPF_F_NO_PREALLOC as usize }> =
    HashMap::new();

#[btf_map(name = "changes_v1")]
pub static CHANGES: Array<u32, 1> = Array::new();

/// In memory that user space maps, which begins at a page: so that heads lie in one line of the cache.
#[btf_map(name = "flows_v2")]
pub static FLOWS: Array<shared::FlowBucket, 16_384, { BPF_F_MMAPABLE as usize }> = Array::new();

/// Only packets that come in fragments and belong to a flow have an entry.
#[btf_map(name = "fragments_v1")]
pub static FRAGMENTS: LruHashMap<shared::FragmentKey, shared::FragmentValue, 8_192> = LruHashMap::new();

/// Of each CPU, and of one packet at a time: programs at interfaces run with soft interrupts off and never within each
/// other. Not pinned, for it holds nothing between packets.
#[btf_map(name = "work")]
pub static WORK: PerCpuArray<Work, 1> = PerCpuArray::new();

/// Of each CPU; not pinned, for it holds nothing for longer than a second.
#[btf_map(name = "answers")]
pub static ANSWERS: PerCpuArray<Answers, 1> = PerCpuArray::new();

/// Of each CPU; not pinned, for it holds nothing for longer than a tenth of a second.
#[btf_map(name = "ways")]
pub static WAYS: PerCpuArray<Way, { way::WAYS_MAX }> = PerCpuArray::new();

#[btf_map(name = "socket_flows_v1")]
pub static SOCKET_FLOWS: LruHashMap<shared::SocketFlowKey, shared::SocketFlowValue, 65_536> =
    LruHashMap::new();

/// Not evicted from: entries go when their sockets close. Storage in the socket would need no limit, but costs as much as
/// all the rest of the hook.
#[btf_map(name = "peers_v4")]
pub static PEERS: Array<shared::PeerBucket, 4_096, { BPF_F_MMAPABLE as usize }> = Array::new();

/// Signed: what is taken off after the entry was made anew goes below zero, and counts as none.
#[btf_map(name = "open_v1")]
pub static OPEN: HashMap<shared::OpenKey, i64, 65_536, { BPF_F_NO_PREALLOC as usize }> = HashMap::new();

#[btf_map(name = "affinity_v1")]
pub static AFFINITY: LruHashMap<shared::AffinityKey, shared::AffinityValue, 65_536> = LruHashMap::new();

/// The maps that are being replaced, of programs that know both; else they have one entry and nobody looks. All of the
/// layout of those that replace them: see [`crate::kept`].
#[btf_map(name = "former_flows")]
pub static FORMER_FLOWS: Array<shared::FlowBucket, 1, { BPF_F_MMAPABLE as usize }> = Array::new();
#[btf_map(name = "former_sflows")]
pub static FORMER_SOCKET_FLOWS: LruHashMap<shared::SocketFlowKey, shared::SocketFlowValue, 1> =
    LruHashMap::new();
#[btf_map(name = "former_peers")]
pub static FORMER_PEERS: Array<shared::PeerBucket, 1, { BPF_F_MMAPABLE as usize }> = Array::new();
#[btf_map(name = "former_affinity")]
pub static FORMER_AFFINITY: LruHashMap<shared::AffinityKey, shared::AffinityValue, 1> = LruHashMap::new();

/// Which entries are wanted by who reads maps through the programs of `pick`.
#[btf_map(name = "picked")]
pub static PICKED: Array<shared::Picked, 1> = Array::new();

#[btf_map(name = "tallies_v1")]
pub static TALLIES: PerCpuArray<u64, { shared::TALLIES_MAX as usize }> = PerCpuArray::new();

/// Of a few hundred pods with some reasons each; written only when something is dropped.
#[btf_map(name = "pod_drops_v1")]
pub static POD_DROPS: LruPerCpuHashMap<shared::PodDropKey, u64, 4_096> = LruPerCpuHashMap::new();

/// Seldom more than a few: what all nodes announce is divided among them.
#[btf_map(name = "announced_v1")]
pub static ANNOUNCED: HashMap<shared::Address, shared::Announced, 4_096, { BPF_F_NO_PREALLOC as usize }> =
    HashMap::new();

/// What a pod with policies lets in and out: `PolicyHeader` and `PolicyRange`s, declared as words like [`Set`].
pub type PolicyTable = Array<[u64; size_of::<shared::PolicyRange>() / 8], 2, { BPF_F_INNER_MAP as usize }>;

/// A node has at most as many pods.
#[btf_map(name = "policy_tables_v1")]
pub static POLICY_TABLES: ArrayOfMaps<PolicyTable, 4_096> = ArrayOfMaps::new();

#[btf_map(name = "policy_links_v1")]
pub static POLICY_LINKS: HashMap<u32, u32, 4_096, { BPF_F_NO_PREALLOC as usize }> = HashMap::new();

#[btf_map(name = "policy_hints_v1")]
pub static POLICY_HINTS: Array<u32, { shared::POLICY_HINTS_MAX as usize }> = Array::new();

#[btf_map(name = "policy_peers_v1")]
pub static POLICY_PEERS: HashMap<shared::Address, u32, 65_536, { BPF_F_NO_PREALLOC as usize }> =
    HashMap::new();

/// Its keys are [`shared::InsideKey`]s.
#[btf_map(name = "policy_blocks_v1")]
pub static POLICY_BLOCKS: LpmTrie<shared::Address, u32, 65_536> = LpmTrie::new();

#[btf_map(name = "policy_epoch_v1")]
pub static POLICY_EPOCH: Array<u32, 1> = Array::new();

/// Of pods with policies alone. Who is evicted is judged anew, by the next packet of whoever opened the flow.
#[btf_map(name = "policy_flows_v1")]
pub static POLICY_FLOWS: LruHashMap<shared::PolicyFlowKey, shared::PolicyFlowValue, 32_768> =
    LruHashMap::new();

/// The counts of consecutive service numbers: `ServiceCount`s, declared as words like [`Set`].
pub type CountsPage =
    PerCpuArray<[u64; size_of::<shared::ServiceCount>() / 8], { shared::SERVICE_COUNTS_PAGE as usize }>;

#[btf_map(name = "service_counts_v2")]
pub static SERVICE_COUNTS: ArrayOfMaps<CountsPage, 256> = ArrayOfMaps::new();

/// One more than there can be observers: the first entry stands for all of them.
const PLACES: usize = shared::OBSERVERS_MAX as usize + 1;

#[btf_map(name = "observers_v1")]
pub static OBSERVERS: Array<shared::Observer, PLACES> = Array::new();

/// The size stands for any: each observer brings its own.
pub type Ring = RingBuf<shared::Told, 4096>;

#[btf_map(name = "rings_v1")]
pub static RINGS: ArrayOfMaps<Ring, PLACES> = ArrayOfMaps::new();

#[btf_map(name = "lost_v1")]
pub static LOST: PerCpuArray<u64, PLACES> = PerCpuArray::new();
