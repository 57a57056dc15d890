//! What the programs did and how full their maps are, read from the pins: also by a process that is not the agent.

use std::collections::BTreeMap;
use std::path::Path;

use aya::maps::{MapData, MapError};
use penstock_ebpf_common::{Event, Reason, ServiceCount, map};
use serde::Serialize;

use crate::flow_table::FlowTable;
use crate::image::MapImage;
use crate::kernel::{KernelMaps, failed, pin};
use crate::links::Links;
use crate::peer_table::PeerTable;
use crate::sink::MapSink;
use crate::table;
use crate::uplink::XdpKind;
use crate::{Dataplane, DataplaneError};

/// All that was counted since the maps were made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// What was done, by name.
    pub events: BTreeMap<&'static str, u64>,
    /// What was dropped, by reason.
    pub drops: BTreeMap<&'static str, u64>,
    /// By service port, in the order of names.
    pub services: Vec<ServiceTraffic>,
    /// By pod of this node, in the order of their links.
    pub pods: Vec<PodDrops>,
}

/// What was dropped of a pod's packets for one reason: of those it sent, and of those to it whose receiver it was sure to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PodDrops {
    /// The node's end of its link.
    pub ifindex: u32,
    /// `namespace/name`; none while nobody has named it.
    pub pod: Option<String>,
    /// Why.
    pub reason: &'static str,
    /// How many packets.
    pub drops: u64,
}

/// What was counted for one service port.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ServiceTraffic {
    /// `namespace/name:port`.
    pub service: String,
    /// Connections translated at connect().
    pub connects: u64,
    /// Datagrams translated at sendmsg().
    pub datagrams: u64,
    /// Packets translated at an interface, towards backends.
    pub packets: u64,
    /// Packets and datagrams translated back.
    pub replies: u64,
    /// Refused because there is no backend.
    pub refused: u64,
    /// Dropped, for any reason.
    pub drops: u64,
}

/// How full a map is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MapFill {
    /// Its name.
    pub name: &'static str,
    /// Entries in it; none where the kernel cannot list them.
    pub entries: Option<u64>,
    /// Entries there is room for; none for storage that lives in its owners.
    pub entries_max: Option<u64>,
    /// Whether entries come and go by themselves, the least recently used first.
    pub evicts: bool,
    /// The agent's option that makes more room, where there is one. A map that is pinned keeps its size.
    pub raised_by: Option<&'static str>,
}

/// Reads the counters from an agent's directory on its bpf file system.
pub fn observe_counters(directory: &Path) -> Result<Counters, DataplaneError> {
    counters(&mut KernelMaps::open(directory)?)
}

fn counters(maps: &mut KernelMaps) -> Result<Counters, DataplaneError> {
    let mut counters = Counters::default();
    for event in Event::ALL {
        counters.events.insert(event.name(), maps.tally(event.index())?);
    }
    for reason in Reason::ALL {
        counters.drops.insert(reason.name(), maps.tally(reason.index())?);
    }
    for (number, service) in maps.names()? {
        let ServiceCount { connects, datagrams, packets, replies, refused, drops } =
            maps.service_count(number)?;
        counters.services.push(ServiceTraffic {
            service,
            connects,
            datagrams,
            packets,
            replies,
            refused,
            drops,
        });
    }
    counters.services.sort_by(|a, b| a.service.cmp(&b.service));
    let drops = maps.pod_drops()?;
    counters.pods.extend(drops.into_iter().filter_map(|(key, drops)| {
        // A newer program may have a reason that has no name here.
        let reason = Reason::ALL.get(key.reason as usize)?.name();
        Some(PodDrops { ifindex: key.ifindex, pod: None, reason, drops })
    }));
    counters.pods.sort_by_key(|it| (it.ifindex, it.reason));
    Ok(counters)
}

impl Counters {
    /// Names pods by their links.
    pub fn name_pods(&mut self, name: impl Fn(u32) -> Option<String>) {
        self.pods.iter_mut().for_each(|it| it.pod = name(it.ifindex));
    }
}

impl Dataplane {
    /// What the programs did since the maps were made.
    pub fn counters(&self) -> Result<Counters, DataplaneError> {
        counters(&mut self.state().maps)
    }
}

/// Reads what the maps hold of Services, for tests and for people: the whole of it.
pub fn observe_image(directory: &Path) -> Result<MapImage, DataplaneError> {
    KernelMaps::open(directory)?.observe()
}

/// Reads by which kind of XDP packets from outside are met, and on which interface; none when only tc meets them.
pub fn observe_xdp(directory: &Path) -> Result<Option<(XdpKind, u32)>, DataplaneError> {
    Links::below(directory).observe_xdp()
}

/// Reads how full each map is. Lists every key: milliseconds for large maps.
pub fn observe_maps(directory: &Path) -> Result<Vec<MapFill>, DataplaneError> {
    map::ALL.iter().map(|name| fill(directory, name)).collect()
}

fn fill(directory: &Path, name: &'static str) -> Result<MapFill, DataplaneError> {
    let open = || {
        MapData::from_pin(pin(directory, name)).map_err(|error| failed("opening a pinned map", name, error))
    };
    let data = open()?;
    let info = data.info().map_err(|error| failed("asking for a map", name, error))?;
    let entries_max = match name {
        map::FLOWS | map::PEERS => table::entries_in(info.max_entries()),
        _ => info.max_entries(),
    };
    let entries_max = Some(u64::from(entries_max)).filter(|max| *max > 0);
    let count =
        |keys: &mut dyn Iterator<Item = Result<(), MapError>>| keys.take_while(Result::is_ok).count() as u64;
    use aya::maps::{HashMap, Map, PerCpuHashMap, lpm_trie::LpmTrie, of_maps::ArrayOfMaps};
    use penstock_ebpf_common as shared;
    /// Counts the keys of a map of known types: a hash map, or what is named.
    macro_rules! keys {
        ($key:ty, $value:ty) => {
            keys!(HashMap, $key, $value)
        };
        ($map:ident, $key:ty, $value:ty) => {
            Map::from_map_data(data)
                .and_then($map::<MapData, $key, $value>::try_from)
                .map(|entries| count(&mut entries.keys().map(|key| key.map(drop))))
                .map_err(|error| failed("listing a map", name, error))?
        };
    }
    let entries = match name {
        map::VIPS => Some(keys!(shared::VipKey, shared::VipValue)),
        map::SOURCE_RANGES => Some(keys!(LpmTrie, shared::SourceRangeKey, u32)),
        map::NAMES => Some(keys!(u32, shared::ServiceName)),
        map::PODS => Some(keys!(shared::Address, shared::LocalPod)),
        map::FLOWS => Some(FlowTable::open(directory)?.memory()?.count() as u64),
        map::INSIDE => Some(keys!(LpmTrie, shared::Address, u32)),
        map::FRAGMENTS => Some(keys!(shared::FragmentKey, shared::FragmentValue)),
        map::SOCKET_FLOWS => Some(keys!(shared::SocketFlowKey, shared::SocketFlowValue)),
        map::PEERS => Some(PeerTable::open(directory)?.memory()?.count() as u64),
        map::OPEN => Some(keys!(shared::OpenKey, i64)),
        map::AFFINITY => Some(keys!(shared::AffinityKey, shared::AffinityValue)),
        map::POD_DROPS => Some(keys!(PerCpuHashMap, shared::PodDropKey, u64)),
        map::ANNOUNCED => Some(keys!(shared::Address, shared::Announced)),
        map::POLICY_LINKS => Some(keys!(u32, u32)),
        map::POLICY_PEERS => Some(keys!(shared::Address, u32)),
        map::POLICY_BLOCKS => Some(keys!(LpmTrie, shared::Address, u32)),
        map::POLICY_FLOWS => Some(keys!(shared::PolicyFlowKey, shared::PolicyFlowValue)),
        map::SETS | map::RINGS | map::POLICY_TABLES => {
            let sets = Map::from_map_data(data)
                .and_then(ArrayOfMaps::<MapData, MapData>::try_from)
                .map_err(|error| failed("listing a map", name, error))?;
            Some((0..sets.len()).filter(|index| sets.get(index, 0).is_ok()).count() as u64)
        }
        _ => None,
    };
    let evicts =
        [map::FLOWS, map::FRAGMENTS, map::SOCKET_FLOWS, map::AFFINITY, map::POD_DROPS, map::POLICY_FLOWS]
            .contains(&name);
    let raised_by = match name {
        map::SETS | map::NAMES | map::SERVICE_COUNTS => Some("--services-max"),
        map::VIPS => Some("--service-addresses-max"),
        _ => None,
    };
    Ok(MapFill { name, entries, entries_max, evicts, raised_by })
}
