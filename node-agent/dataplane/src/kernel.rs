//! The kernel's maps as a [`MapSink`]: the only writer of them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use aya::Pod;
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, HashMap, IterableMap, Map, MapData, MapError, PerCpuArray, PerCpuHashMap};
use penstock_ebpf_common::{
    Address, AffinityKey, AffinityValue, Backend, CHOICE_LEAST_CONNECTIONS, CHOICE_MAGLEV, CHOICE_RANDOM,
    CONFIG_SHARED_PORTS, Config, INSIDE_NODES, InsideKey, LocalPod, OpenKey, Picked, PickedPeer, PodDropKey,
    ServiceCount, ServiceName, SetHeader, SocketFlowKey, SocketFlowValue, SourceRangeKey, TABLE_PLACES,
    TablePiece, VipKey, VipValue, map,
};

use crate::counts::Counts;
use crate::diff::Operation;
use crate::flow_table::FlowTable;
use crate::image::{MapImage, SETS_PER_SERVICE, Set, SourceRange, set_ids};
use crate::noted::Noted;
use crate::peer_table::{PeerMemory, PeerTable};
use crate::picks::Picks;
use crate::sets::{MapArray, Settling};
use crate::sink::MapSink;
use crate::sys;
use crate::{Choice, DataplaneError, Limits, ServiceKey, maglev};

/// Lets the maps of one outer map differ in size (Linux 5.10).
const BPF_F_INNER_MAP: u32 = 1 << 12;

/// How many names or addresses go to the kernel in one call.
const BATCH_MAX: usize = 1024;

/// [`SetHeader::flags`]: stands for a set that was deleted. Entries of an array of maps can be cleared only one by one,
/// and each time the kernel waits for running programs; nothing leads to such a set.
const SET_VOID: u32 = 1 << 31;
static VOID: Set = Set { flags: SET_VOID, affinity_seconds: 0, choice: Choice::Random, backends: Vec::new() };

/// The maps, opened from their pins.
pub struct KernelMaps {
    pub(crate) config: Array<MapData, Config>,
    pub(crate) inside: LpmTrie<MapData, Address, u32>,
    pub(crate) vips: HashMap<MapData, VipKey, VipValue>,
    ranges: LpmTrie<MapData, SourceRangeKey, u32>,
    sets: MapArray,
    sets_max: u32,
    sets_at_once: usize,
    /// The map in the place of every set that was deleted.
    void: Option<Arc<OwnedFd>>,
    names: HashMap<MapData, u32, ServiceName>,
    /// Some maps again, for calls that aya does not have.
    fds: Fds,
    counts: Counts,
    settling: Settling,
    pub(crate) tallies: PerCpuArray<MapData, u64>,
    pods: HashMap<MapData, Address, LocalPod>,
    pod_drops: PerCpuHashMap<MapData, PodDropKey, u64>,
    changes: Array<MapData, u32>,
    pub(crate) flows: FlowTable,
    pub(crate) socket_flows: HashMap<MapData, SocketFlowKey, SocketFlowValue>,
    pub(crate) peers: PeerTable,
    pub(crate) open: HashMap<MapData, OpenKey, i64>,
    pub(crate) affinity: HashMap<MapData, AffinityKey, AffinityValue>,
    /// Those in this process's memory, once they were looked at.
    peer_memory: OnceLock<Arc<PeerMemory>>,
    picks: Option<Arc<Picks>>,
}

/// By what entries of some services are found; several who look may share it.
pub struct Looks {
    picks: Option<Arc<Picks>>,
    peers: Arc<PeerMemory>,
}

struct Fds {
    vips: OwnedFd,
    names: OwnedFd,
    policy_peers: OwnedFd,
    policy_flows: OwnedFd,
}

/// Where a map is pinned below an agent's directory.
pub fn pin(directory: &Path, name: &str) -> PathBuf {
    directory.join("maps").join(name)
}

pub(crate) fn open<M>(directory: &Path, name: &'static str) -> Result<M, DataplaneError>
where
    M: TryFrom<Map, Error = MapError>,
{
    let mismatch = || DataplaneError::Mismatch { what: "map", name: name.to_owned() };
    let data = MapData::from_pin(pin(directory, name))
        .map_err(|error| failed("opening a pinned map", name, error))?;
    // Read from the kernel, so that key and value sizes are checked against what is there.
    M::try_from(Map::from_map_data(data).map_err(|_| mismatch())?).map_err(|_| mismatch())
}

/// A map error as one of ours, with the system's answer where there is one.
pub(crate) fn failed(doing: &'static str, subject: impl Into<String>, error: MapError) -> DataplaneError {
    let source = match error {
        MapError::SyscallError(error) => error.io_error,
        MapError::CreateError { io_error, .. } => io_error,
        other => std::io::Error::other(other),
    };
    DataplaneError::Kernel { doing, subject: subject.into(), source }
}

impl KernelMaps {
    /// Opens the maps an object was loaded with.
    pub fn open(directory: &Path) -> Result<Self, DataplaneError> {
        let get = |name: &'static str| {
            sys::get(&pin(directory, name)).map_err(|source| DataplaneError::Kernel {
                doing: "opening a pinned map",
                subject: name.to_owned(),
                source,
            })
        };
        let sets = MapArray::new(get(map::SETS)?);
        let sets_max = sets.entries_max().map_err(|source| DataplaneError::Kernel {
            doing: "asking for a map",
            subject: map::SETS.to_owned(),
            source,
        })?;
        Ok(Self {
            config: open(directory, map::CONFIG)?,
            inside: open(directory, map::INSIDE)?,
            vips: open(directory, map::VIPS)?,
            ranges: open(directory, map::SOURCE_RANGES)?,
            sets,
            sets_max,
            sets_at_once: MapArray::entries_at_once(sys::raise_open_files()),
            void: None,
            fds: Fds {
                vips: get(map::VIPS)?,
                names: get(map::NAMES)?,
                policy_peers: get(map::POLICY_PEERS)?,
                policy_flows: get(map::POLICY_FLOWS)?,
            },
            names: open(directory, map::NAMES)?,
            counts: Counts::open(directory)?,
            settling: Settling::default(),
            tallies: open(directory, map::TALLIES)?,
            pods: open(directory, map::PODS)?,
            pod_drops: open(directory, map::POD_DROPS)?,
            changes: open(directory, map::CHANGES)?,
            flows: FlowTable::open(directory)?,
            socket_flows: open(directory, map::SOCKET_FLOWS)?,
            peers: PeerTable::open(directory)?,
            open: open(directory, map::OPEN)?,
            affinity: open(directory, map::AFFINITY)?,
            peer_memory: OnceLock::new(),
            picks: None,
        })
    }

    /// How many service numbers there is room for, whatever was asked for when the maps were made.
    pub fn services_max(&self) -> u32 {
        self.counts.services_max().min(self.sets_max / SETS_PER_SERVICE)
    }

    /// How much there is room for, whatever was asked for when the maps were made.
    pub fn limits(&self) -> Result<Limits, DataplaneError> {
        let of = |name: &str, map: BorrowedFd<'_>| {
            let info = sys::map_info(map).map_err(|source| DataplaneError::Kernel {
                doing: "asking for a map",
                subject: name.to_owned(),
                source,
            });
            info.map(|info| info.entries_max)
        };
        Ok(Limits {
            services_max: self.services_max(),
            vips_max: of(map::VIPS, self.fds.vips.as_fd())?,
            source_ranges_max: of(map::SOURCE_RANGES, IterableMap::map(&self.ranges).fd().as_fd())?,
            flows_max: self.flows.entries_max(),
            socket_flows_max: of(map::SOCKET_FLOWS, IterableMap::map(&self.socket_flows).fd().as_fd())?,
            peers_max: self.peers.entries_max(),
            affinity_max: of(map::AFFINITY, IterableMap::map(&self.affinity).fd().as_fd())?,
            policy_peers_max: of(map::POLICY_PEERS, self.fds.policy_peers.as_fd())?,
            policy_flows_max: of(map::POLICY_FLOWS, self.fds.policy_flows.as_fd())?,
        })
    }

    /// Tells the programs of their node, and of the cluster's ranges. The nodes' addresses stay as they are: an agent that
    /// starts does not know them yet, and answers to them are under way.
    /// Which device leads to other nodes by an overlay stays as it was said last.
    pub fn configure(
        &mut self,
        config: &Config,
        inside: &BTreeMap<InsideKey, u32>,
    ) -> Result<(), DataplaneError> {
        self.count_change()?;
        self.set_inside(inside, |of| of != INSIDE_NODES)?;
        let known = self.config.get(&0, 0).map_err(|error| failed("reading a map", map::CONFIG, error))?;
        let mut config = Config { tunnel: known.tunnel, ..*config };
        let read = |error| failed("reading a map", map::VIPS, error);
        for vip in self.vips.keys() {
            if config.shares_port(&vip.map_err(read)?) {
                config.flags |= CONFIG_SHARED_PORTS;
                break;
            }
        }
        self.config.set(0, config, 0).map_err(|error| failed("writing a map", map::CONFIG, error))
    }

    /// Says which device leads to other nodes by an overlay; zero for none.
    pub fn set_tunnel(&mut self, ifindex: u32) -> Result<(), DataplaneError> {
        let wrap = |error| failed("writing a map", map::CONFIG, error);
        let config = self.config.get(&0, 0).map_err(wrap)?;
        if config.tunnel == ifindex {
            return Ok(());
        }
        self.config.set(0, Config { tunnel: ifindex, ..config }, 0).map_err(wrap)
    }

    /// Has programs look for services among the ports of translated traffic before one has such a port.
    fn note_shared_ports(&mut self, operations: &[Operation]) -> Result<(), DataplaneError> {
        let wrap = |error| failed("writing a map", map::CONFIG, error);
        let mut config = self.config.get(&0, 0).map_err(wrap)?;
        let shares =
            |operation: &Operation| matches!(operation, Operation::PutVip(vip, _) if config.shares_port(vip));
        if config.flags & CONFIG_SHARED_PORTS != 0 || !operations.iter().any(shares) {
            return Ok(());
        }
        config.flags |= CONFIG_SHARED_PORTS;
        self.config.set(0, config, 0).map_err(wrap)
    }

    /// Has every flow look up once more what its packets are for. To be called after a change of services' addresses, or of
    /// who may use them.
    fn count_change(&mut self) -> Result<(), DataplaneError> {
        let wrap = |error| failed("writing a map", map::CHANGES, error);
        let next = next_count(self.changes.get(&0, 0).map_err(wrap)?);
        self.changes.set(0, next, 0).map_err(wrap)
    }

    /// Makes the cluster's ranges of some kinds (`INSIDE_*`) be these and no others.
    pub fn set_inside(
        &mut self,
        inside: &BTreeMap<InsideKey, u32>,
        is_kind: impl Fn(u32) -> bool,
    ) -> Result<(), DataplaneError> {
        let wrap = |error| failed("writing a map", map::INSIDE, error);
        let key = |key: &InsideKey| Key::new(key.prefix_len, key.address);
        // First what is new: nothing that stays inside is outside for a moment.
        for (range, of) in inside {
            self.inside.insert(&key(range), of, 0).map_err(wrap)?;
        }
        let there: Vec<_> = self.inside.iter().collect::<Result<_, _>>().map_err(wrap)?;
        for (range, of) in there {
            let is = InsideKey { prefix_len: range.prefix_len(), address: range.data() };
            if is_kind(of) && !inside.contains_key(&is) {
                gone(self.inside.remove(&key(&is)), map::INSIDE)?;
            }
        }
        Ok(())
    }

    /// Leads a pod's addresses to its link, and no others.
    pub fn put_pod(&mut self, addresses: &[IpAddr], pod: &LocalPod) -> Result<(), DataplaneError> {
        let addresses: Vec<_> = addresses.iter().map(|address| Address::from(*address)).collect();
        for address in &addresses {
            let written = self.pods.insert(address, pod, 0);
            written.map_err(|error| failed("writing a map", map::PODS, error))?;
        }
        sweep(&mut self.pods, map::PODS, |address, other| {
            other.ifindex == pod.ifindex && !addresses.contains(address)
        })?;
        Ok(())
    }

    /// The addresses that lead to pods' links.
    pub fn pod_links(&self) -> Result<BTreeMap<IpAddr, u32>, DataplaneError> {
        let read = |error| failed("reading a map", map::PODS, error);
        let entries = self.pods.iter().map(|entry| entry.map(|(address, pod)| (address.into(), pod.ifindex)));
        entries.map(|entry| entry.map_err(read)).collect()
    }

    /// Forgets the addresses of pods whose links are not to be kept, and what was dropped of them.
    pub fn keep_pods(&mut self, is_kept: impl Fn(u32) -> bool) -> Result<(), DataplaneError> {
        sweep(&mut self.pods, map::PODS, |_, pod| !is_kept(pod.ifindex))?;
        for (key, _) in self.pod_drops()? {
            if !is_kept(key.ifindex) {
                gone(self.pod_drops.remove(&key), map::POD_DROPS)?;
            }
        }
        Ok(())
    }

    /// What was dropped of each pod's packets and why, over all CPUs.
    pub fn pod_drops(&self) -> Result<Vec<(PodDropKey, u64)>, DataplaneError> {
        let read = |error| failed("reading a map", map::POD_DROPS, error);
        let entries = self.pod_drops.iter().map(|entry| {
            let (key, counts) = entry.map_err(read)?;
            Ok((key, counts.iter().sum()))
        });
        entries.collect()
    }

    /// Service numbers and their names.
    pub fn names(&self) -> Result<Vec<(u32, String)>, DataplaneError> {
        let read = |error| failed("reading a map", map::NAMES, error);
        self.names
            .iter()
            .map(|entry| entry.map(|(number, name)| (number, text(&name))).map_err(read))
            .collect()
    }

    /// What was counted for a service, over all CPUs.
    pub fn service_count(&mut self, service: u32) -> Result<ServiceCount, DataplaneError> {
        self.counts.get(service)
    }

    /// From now on has entries picked out by programs, if the kernel took them.
    pub fn pick_by(&mut self, picks: Option<Arc<Picks>>) {
        self.picks = picks;
    }

    /// Whether programs pick out entries.
    pub fn has_picks(&self) -> bool {
        self.picks.is_some()
    }

    /// By what entries are found.
    pub fn looks(&self) -> Result<Looks, DataplaneError> {
        Ok(Looks { picks: self.picks.clone(), peers: self.peer_memory()? })
    }

    /// Finds them as another does.
    pub fn look_by(&mut self, looks: Looks) {
        self.picks = looks.picks;
        self.peer_memory = OnceLock::from(looks.peers);
    }

    /// Hands the flows of sockets that are not connected on that are of some services, and perhaps others.
    pub fn each_socket_flow(
        &self,
        of: &Picked,
        each_one: impl FnMut(&SocketFlowKey, &SocketFlowValue),
    ) -> Result<(), DataplaneError> {
        match &self.picks {
            Some(picks) => {
                let map = IterableMap::map(&self.socket_flows).fd().as_fd();
                pick(picks, map, map::SOCKET_FLOWS, of, each_one)
            }
            None => each(&self.socket_flows, map::SOCKET_FLOWS, each_one),
        }
    }

    /// The peers of connected sockets. Stays mapped: that takes longer than to look for the peers of a service.
    pub fn peer_memory(&self) -> Result<Arc<PeerMemory>, DataplaneError> {
        if let Some(memory) = self.peer_memory.get() {
            return Ok(memory.clone());
        }
        let memory = Arc::new(self.peers.memory()?);
        Ok(self.peer_memory.get_or_init(|| memory).clone())
    }

    /// Hands on the peers of connected sockets that are of some services, and perhaps others, with what the kernel has of the
    /// sockets. Reads all there are, so it is not for who may find none. Where no program picks there are none.
    pub fn each_named_peer(
        &self,
        of: &Picked,
        each_one: impl FnMut(&u64, &PickedPeer),
    ) -> Result<(), DataplaneError> {
        match &self.picks {
            Some(picks) => pick(picks, self.peers.as_fd(), map::PEERS, of, each_one),
            None => Ok(()),
        }
    }

    /// What programs may have noted for these services.
    pub fn noted(&mut self, services: &BTreeSet<u32>) -> Result<Noted, DataplaneError> {
        Noted::of(&mut self.counts, services)
    }

    /// What was swapped since the last call, to wait until nobody reads what was there before.
    pub fn take_settling(&mut self) -> Settling {
        std::mem::take(&mut self.settling)
    }

    /// A tally, over all CPUs.
    pub fn tally(&self, index: u32) -> Result<u64, DataplaneError> {
        let values =
            self.tallies.get(&index, 0).map_err(|error| failed("reading a map", map::TALLIES, error))?;
        Ok(values.iter().sum())
    }

    /// Makes, replaces or (without a set) deletes sets. When it returns they are in use.
    fn put_sets<'a>(
        &mut self,
        sets: impl Iterator<Item = (u32, Option<&'a Set>)>,
    ) -> Result<(), DataplaneError> {
        let mut sets = sets.peekable();
        while sets.peek().is_some() {
            let mut inner = Vec::with_capacity(self.sets_at_once);
            for (id, set) in sets.by_ref().take(self.sets_at_once) {
                let map = match set {
                    Some(set) => Arc::new(inner_map(id, set)?),
                    None => self.void()?,
                };
                inner.push((id, map));
            }
            let subject = format!("{} of them", inner.len());
            self.sets.swap(inner, &mut self.settling).map_err(|source| DataplaneError::Kernel {
                doing: "writing sets",
                subject,
                source,
            })?;
        }
        Ok(())
    }

    fn void(&mut self) -> Result<Arc<OwnedFd>, DataplaneError> {
        if let Some(void) = &self.void {
            return Ok(void.clone());
        }
        let void = Arc::new(inner_map(0, &VOID)?);
        self.void = Some(void.clone());
        Ok(void)
    }

    fn put_names(&mut self, names: &[(u32, String)]) -> Result<(), DataplaneError> {
        let numbers: Vec<u32> = names.iter().map(|(number, _)| *number).collect();
        self.counts.reset(&numbers, &mut self.settling)?;
        let texts: Vec<_> = names.iter().map(|(_, name)| text_as_name(name)).collect();
        put_batch(&self.fds.names, &numbers, &texts, map::NAMES)
    }

    fn set(&self, id: u32) -> Result<Option<Set>, DataplaneError> {
        let wrap =
            |source| DataplaneError::Kernel { doing: "reading a set", subject: format!("set {id}"), source };
        let Some(inner) = self.sets.get(id).map_err(wrap)? else { return Ok(None) };
        let entries_max = sys::map_info(inner.as_fd()).map_err(wrap)?.entries_max;
        let mut entries: Vec<Backend> = sys::read_array(inner.as_fd(), entries_max).map_err(wrap)?;
        let Some(first) = entries.first() else { return Ok(None) };
        let header = entry_as_header(first);
        if header.flags & SET_VOID != 0 {
            return Ok(None);
        }
        let table = entries.split_off(entries.len().min(header.count as usize + 1));
        entries.remove(0);
        let choice = choice_of(&header, &entries, &table);
        let (flags, affinity_seconds) = (header.flags, header.affinity_seconds);
        Ok(Some(Set { flags, affinity_seconds, choice, backends: entries }))
    }
}

impl MapSink for KernelMaps {
    type Error = DataplaneError;

    fn write(&mut self, operation: &Operation) -> Result<(), DataplaneError> {
        self.write_all(std::slice::from_ref(operation))
    }

    fn write_all(&mut self, operations: &[Operation]) -> Result<(), DataplaneError> {
        self.note_shared_ports(operations)?;
        let written = self.write_runs(operations);
        // Of what failed some may be written.
        if operations.iter().any(changes_addresses) {
            return written.and(self.count_change());
        }
        written
    }

    fn observe(&self) -> Result<MapImage, DataplaneError> {
        let mut image = MapImage::default();
        for (number, name) in self.names()? {
            for id in set_ids(number) {
                if let Some(set) = self.set(id)? {
                    image.sets.insert(id, set);
                }
            }
            // A name that is none cannot be anybody's: it stays until its number is given out again.
            if let Ok(key) = ServiceKey::try_from(name) {
                image.names.insert(number, Arc::new(key));
            }
        }
        for key in self.ranges.keys() {
            let key = key.map_err(|error| failed("reading a map", map::SOURCE_RANGES, error))?;
            let SourceRangeKey { service, address } = key.data();
            image.ranges.insert(SourceRange { service, address, prefix: prefix_of(&key) });
        }
        for entry in self.vips.iter() {
            let (key, value) = entry.map_err(|error| failed("reading a map", map::VIPS, error))?;
            image.vips.insert(key, value);
        }
        Ok(image)
    }
}

impl KernelMaps {
    fn write_one(&mut self, operation: &Operation) -> Result<(), DataplaneError> {
        match operation {
            Operation::PutName(number, key) => self.put_names(&[(*number, key.to_string())]),
            Operation::PutSet(id, set) => self.put_sets(std::iter::once((*id, Some(set)))),
            Operation::PutVip(key, value) => {
                self.vips.insert(key, value, 0).map_err(|error| failed("writing a map", map::VIPS, error))
            }
            Operation::PutRange(range) => self
                .ranges
                .insert(&range_key(range), 1, 0)
                .map_err(|error| failed("writing a map", map::SOURCE_RANGES, error)),
            Operation::DeleteVip(key) => gone(self.vips.remove(key), map::VIPS),
            Operation::DeleteRange(range) => gone(self.ranges.remove(&range_key(range)), map::SOURCE_RANGES),
            Operation::DeleteSet(id) => self.put_sets(std::iter::once((*id, None))),
            Operation::DeleteName(number) => gone(self.names.remove(number), map::NAMES),
        }
    }

    /// What is written in one call is written in one call.
    fn write_runs(&mut self, operations: &[Operation]) -> Result<(), DataplaneError> {
        for run in operations.chunk_by(|a, b| kind(a) == kind(b)) {
            match kind(&run[0]) {
                Kind::Name => {
                    let names: Vec<_> = run
                        .iter()
                        .filter_map(|operation| match operation {
                            Operation::PutName(number, key) => Some((*number, key.to_string())),
                            _ => None,
                        })
                        .collect();
                    self.put_names(&names)?;
                }
                Kind::Set => self.put_sets(run.iter().filter_map(|operation| match operation {
                    Operation::PutSet(id, set) => Some((*id, Some(set))),
                    Operation::DeleteSet(id) => Some((*id, None)),
                    _ => None,
                }))?,
                Kind::Vip => {
                    let (keys, values): (Vec<_>, Vec<_>) = run
                        .iter()
                        .filter_map(|operation| match operation {
                            Operation::PutVip(key, value) => Some((*key, *value)),
                            _ => None,
                        })
                        .unzip();
                    put_batch(&self.fds.vips, &keys, &values, map::VIPS)?;
                }
                Kind::Other => run.iter().try_for_each(|operation| self.write_one(operation))?,
            }
        }
        Ok(())
    }
}

/// What is written in runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Name,
    Set,
    Vip,
    Other,
}

fn kind(operation: &Operation) -> Kind {
    match operation {
        Operation::PutName(..) => Kind::Name,
        Operation::PutSet(..) | Operation::DeleteSet(_) => Kind::Set,
        Operation::PutVip(..) => Kind::Vip,
        _ => Kind::Other,
    }
}

/// Whether flows may be for something else afterwards.
fn changes_addresses(operation: &Operation) -> bool {
    matches!(
        operation,
        Operation::PutVip(..) | Operation::DeleteVip(_) | Operation::PutRange(_) | Operation::DeleteRange(_)
    )
}

/// The count after a count of changes. Flows hold its lower half, where zero stands for none.
fn next_count(count: u32) -> u32 {
    let next = count.wrapping_add(1);
    if next as u16 == 0 { next.wrapping_add(1) } else { next }
}

fn put_batch<K: Pod, V: Pod>(
    map: &OwnedFd,
    keys: &[K],
    values: &[V],
    name: &'static str,
) -> Result<(), DataplaneError> {
    for (keys, values) in keys.chunks(BATCH_MAX).zip(values.chunks(BATCH_MAX)) {
        sys::update_entries(map.as_fd(), keys, values).map_err(|source| DataplaneError::Kernel {
            doing: "writing a map",
            subject: name.to_owned(),
            source,
        })?;
    }
    Ok(())
}

/// The bits of a range's key before its address.
const SERVICE_BITS: u32 = u32::BITS;

fn range_key(range: &SourceRange) -> Key<SourceRangeKey> {
    let SourceRange { service, address, prefix } = *range;
    Key::new(SERVICE_BITS + u32::from(prefix), SourceRangeKey { service, address })
}

fn prefix_of(key: &Key<SourceRangeKey>) -> u8 {
    key.prefix_len().saturating_sub(SERVICE_BITS).min(128) as u8
}

/// A deletion of what is not there is done already.
pub(crate) fn gone(answer: Result<(), MapError>, name: &'static str) -> Result<(), DataplaneError> {
    match answer {
        Ok(()) | Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        Err(error) => Err(failed("deleting from a map", name, error)),
    }
}

/// The map of one set.
fn inner_map(id: u32, set: &Set) -> Result<OwnedFd, DataplaneError> {
    let wrap =
        |source| DataplaneError::Kernel { doing: "making a set", subject: format!("set {id}"), source };
    let table = set.compile_table();
    let choice = match set.choice {
        Choice::Random => CHOICE_RANDOM,
        Choice::Maglev => CHOICE_MAGLEV,
        Choice::LeastConnections => CHOICE_LEAST_CONNECTIONS,
    };
    let header = SetHeader {
        count: set.backends.len() as u32,
        flags: set.flags,
        affinity_seconds: set.affinity_seconds,
        table_len: table.len() as u32,
        choice,
        zero: 0,
    };
    let entries: Vec<Backend> = std::iter::once(header_as_entry(&header))
        .chain(set.backends.iter().copied())
        .chain(table.chunks(TABLE_PLACES).map(piece_as_entry))
        .collect();
    let inner = sys::create_array(size_of::<Backend>() as u32, entries.len() as u32, BPF_F_INNER_MAP)
        .map_err(wrap)?;
    sys::fill_array(inner.as_fd(), &entries).map_err(wrap)?;
    Ok(inner)
}

fn header_as_entry(header: &SetHeader) -> Backend {
    // SAFETY: both are plain integers of one size without padding, as `penstock-ebpf-common` asserts.
    unsafe { std::mem::transmute::<SetHeader, Backend>(*header) }
}

fn entry_as_header(entry: &Backend) -> SetHeader {
    // SAFETY: as above.
    unsafe { std::mem::transmute::<Backend, SetHeader>(*entry) }
}

/// A piece of a table: up to [`TABLE_PLACES`] places.
fn piece_as_entry(places: &[u16]) -> Backend {
    let mut piece = TablePiece { places: [0; TABLE_PLACES] };
    piece.places.iter_mut().zip(places).for_each(|(to, from)| *to = *from);
    // SAFETY: both are plain integers of one size without padding, as `penstock-ebpf-common` asserts.
    unsafe { std::mem::transmute::<TablePiece, Backend>(piece) }
}

/// How a set in the kernel chooses. A table that is not what its backends give, such as another version wrote it, counts
/// as none, so that it is written anew.
fn choice_of(header: &SetHeader, backends: &[Backend], table: &[Backend]) -> Choice {
    match header.choice {
        CHOICE_LEAST_CONNECTIONS => Choice::LeastConnections,
        CHOICE_MAGLEV => {
            let wanted = maglev::compile_table(backends);
            let is_same = header.table_len as usize == wanted.len()
                && wanted.chunks(TABLE_PLACES).map(piece_as_entry).eq(table.iter().copied());
            if is_same { Choice::Maglev } else { Choice::Random }
        }
        _ => Choice::Random,
    }
}

fn text_as_name(text: &str) -> ServiceName {
    let mut name = ServiceName { text: [0; 160] };
    for (to, from) in name.text.iter_mut().zip(text.bytes()) {
        *to = from;
    }
    name
}

pub(crate) fn text(name: &ServiceName) -> String {
    let end = name.text.iter().position(|byte| *byte == 0).unwrap_or(name.text.len());
    String::from_utf8_lossy(&name.text[..end]).into_owned()
}

/// Deletes the entries of a map that a test picks. Entries made meanwhile may be missed: callers delete only what can
/// no longer be made.
pub(crate) fn sweep<K: Pod, V: Pod>(
    entries: &mut HashMap<MapData, K, V>,
    name: &'static str,
    is_over: impl Fn(&K, &V) -> bool,
) -> Result<usize, DataplaneError> {
    let mut over = Vec::new();
    each(entries, name, |key: &K, value| {
        if is_over(key, value) {
            over.push(*key);
        }
    })?;
    for key in &over {
        gone(entries.remove(key), name)?;
    }
    Ok(over.len())
}

/// Hands on entries of a map that a program picks: those of some services, and perhaps others.
fn pick<K: Pod, T: Pod>(
    picks: &Picks,
    map: BorrowedFd<'_>,
    name: &'static str,
    of: &Picked,
    each: impl FnMut(&K, &T),
) -> Result<(), DataplaneError> {
    picks.each(name, map, of, each).map_err(|source| DataplaneError::Kernel {
        doing: "picking entries of a map",
        subject: name.to_owned(),
        source,
    })
}

/// Hands every entry of a map on.
pub(crate) fn each<K: Pod, V: Pod>(
    entries: &HashMap<MapData, K, V>,
    name: &'static str,
    each: impl FnMut(&K, &V),
) -> Result<(), DataplaneError> {
    let data = IterableMap::map(entries);
    sys::read_hash(data.fd().as_fd(), each).map_err(|source| DataplaneError::Kernel {
        doing: "reading a map",
        subject: name.to_owned(),
        source,
    })
}
