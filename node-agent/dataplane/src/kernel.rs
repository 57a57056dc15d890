//! The kernel's maps as a [`MapSink`]: the only writer of them.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use aya::Pod;
use aya::maps::of_maps::ArrayOfMaps;
use aya::maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray, PerCpuValues};
use penstock_ebpf_common::{
    AffinityKey, AffinityValue, Backend, Config, FlowKey, FlowValue, ServiceCount, ServiceName, SetHeader,
    SocketFlowKey, SocketFlowValue, VipKey, VipValue, map,
};

use crate::DataplaneError;
use crate::diff::Operation;
use crate::image::{MapImage, Scope, Set, set_id};
use crate::sink::MapSink;
use crate::sys;

/// Lets the maps of one outer map differ in size (Linux 5.10).
const BPF_F_INNER_MAP: u32 = 1 << 12;

/// How many sets go to the kernel in one call: each is an open file until then.
const SETS_BATCH_MAX: usize = 128;

/// [`SetHeader::flags`]: stands for a set that was deleted. Entries of an array of maps can be cleared only one by one,
/// and each time the kernel waits for running programs; nothing leads to such a set.
const SET_VOID: u32 = 1 << 31;
static VOID: Set = Set { flags: SET_VOID, affinity_seconds: 0, backends: Vec::new() };

/// The maps, opened from their pins.
pub struct KernelMaps {
    pub(crate) config: Array<MapData, Config>,
    pub(crate) vips: HashMap<MapData, VipKey, VipValue>,
    sets: ArrayOfMaps<MapData, Array<MapData, Backend>>,
    /// The same map again, for calls that aya does not have.
    sets_data: MapData,
    names: HashMap<MapData, u32, ServiceName>,
    service_counts: PerCpuArray<MapData, ServiceCount>,
    pub(crate) tallies: PerCpuArray<MapData, u64>,
    pub(crate) flows: HashMap<MapData, FlowKey, FlowValue>,
    pub(crate) socket_flows: HashMap<MapData, SocketFlowKey, SocketFlowValue>,
    pub(crate) affinity: HashMap<MapData, AffinityKey, AffinityValue>,
}

/// Where a map is pinned below an agent's directory.
pub fn pin(directory: &Path, name: &str) -> PathBuf {
    directory.join("maps").join(name)
}

fn open<M>(directory: &Path, name: &'static str) -> Result<M, DataplaneError>
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
        Ok(Self {
            config: open(directory, map::CONFIG)?,
            vips: open(directory, map::VIPS)?,
            sets: open(directory, map::SETS)?,
            sets_data: MapData::from_pin(pin(directory, map::SETS))
                .map_err(|error| failed("opening a pinned map", map::SETS, error))?,
            names: open(directory, map::NAMES)?,
            service_counts: open(directory, map::SERVICE_COUNTS)?,
            tallies: open(directory, map::TALLIES)?,
            flows: open(directory, map::FLOWS)?,
            socket_flows: open(directory, map::SOCKET_FLOWS)?,
            affinity: open(directory, map::AFFINITY)?,
        })
    }

    /// How many service numbers there is room for, whatever was asked for when the maps were made.
    pub fn services_max(&self) -> u32 {
        self.service_counts.len().min(self.sets.len() / 2)
    }

    /// Tells the programs of their node.
    pub fn configure(&mut self, config: &Config) -> Result<(), DataplaneError> {
        self.config.set(0, config, 0).map_err(|error| failed("writing a map", map::CONFIG, error))
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
    pub fn service_count(&self, service: u32) -> Result<ServiceCount, DataplaneError> {
        let values = self
            .service_counts
            .get(&service, 0)
            .map_err(|error| failed("reading a map", map::SERVICE_COUNTS, error))?;
        Ok(values.iter().fold(ServiceCount::default(), |sum, count| ServiceCount {
            connects: sum.connects + count.connects,
            datagrams: sum.datagrams + count.datagrams,
            packets: sum.packets + count.packets,
            replies: sum.replies + count.replies,
            refused: sum.refused + count.refused,
            drops: sum.drops + count.drops,
        }))
    }

    /// A tally, over all CPUs.
    pub fn tally(&self, index: u32) -> Result<u64, DataplaneError> {
        let values =
            self.tallies.get(&index, 0).map_err(|error| failed("reading a map", map::TALLIES, error))?;
        Ok(values.iter().sum())
    }

    /// Makes or replaces sets, in batches. Returns when no program runs any more that read the former ones.
    fn put_sets<'a>(&mut self, sets: impl Iterator<Item = (u32, &'a Set)>) -> Result<(), DataplaneError> {
        let mut sets = sets.peekable();
        while sets.peek().is_some() {
            let mut inner = Vec::with_capacity(SETS_BATCH_MAX);
            for (id, set) in sets.by_ref().take(SETS_BATCH_MAX) {
                inner.push((id, inner_map(id, set)?));
            }
            let entries: Vec<_> = inner.iter().map(|(id, map)| (*id, map.as_fd())).collect();
            sys::update_array_of_maps(self.sets_data.fd().as_fd(), &entries).map_err(|source| {
                DataplaneError::Kernel {
                    doing: "writing sets",
                    subject: format!("{} of them", entries.len()),
                    source,
                }
            })?;
        }
        Ok(())
    }

    fn set(&self, id: u32) -> Result<Option<Set>, DataplaneError> {
        let wrap = |error| failed("reading a set", format!("set {id}"), error);
        let inner = match self.sets.get(&id, 0) {
            Ok(inner) => inner,
            Err(MapError::KeyNotFound) => return Ok(None),
            Err(error) => return Err(wrap(error)),
        };
        let header = entry_as_header(&inner.get(&0, 0).map_err(wrap)?);
        if header.flags & SET_VOID != 0 {
            return Ok(None);
        }
        let count = header.count.min(inner.len().saturating_sub(1));
        let backends =
            (1..=count).map(|index| inner.get(&index, 0).map_err(wrap)).collect::<Result<_, _>>()?;
        Ok(Some(Set { flags: header.flags, affinity_seconds: header.affinity_seconds, backends }))
    }
}

impl MapSink for KernelMaps {
    type Error = DataplaneError;

    fn write(&mut self, operation: &Operation) -> Result<(), DataplaneError> {
        match operation {
            Operation::PutName(number, name) => {
                let cpus = aya::util::nr_cpus().map_err(|(path, source)| DataplaneError::Path {
                    doing: "reading",
                    path: path.into(),
                    source,
                })?;
                let zero = PerCpuValues::try_from(vec![ServiceCount::default(); cpus]).map_err(|source| {
                    DataplaneError::Kernel { doing: "writing a map", subject: name.clone(), source }
                })?;
                self.service_counts
                    .set(*number, zero, 0)
                    .map_err(|error| failed("writing a map", name, error))?;
                self.names
                    .insert(number, text_as_name(name), 0)
                    .map_err(|error| failed("writing a map", name, error))
            }
            Operation::PutSet(id, set) => self.put_sets(std::iter::once((*id, set))),
            Operation::PutVip(key, value) => {
                self.vips.insert(key, value, 0).map_err(|error| failed("writing a map", map::VIPS, error))
            }
            Operation::DeleteVip(key) => gone(self.vips.remove(key), map::VIPS),
            Operation::DeleteSet(id) => self.put_sets(std::iter::once((*id, &VOID))),
            Operation::DeleteName(number) => gone(self.names.remove(number), map::NAMES),
        }
    }

    fn write_all(&mut self, operations: &[Operation]) -> Result<(), DataplaneError> {
        // Sets are written in runs; all else is one quick call each.
        let as_set =
            |operation: &'_ Operation| matches!(operation, Operation::PutSet(..) | Operation::DeleteSet(_));
        for run in operations.chunk_by(|a, b| as_set(a) && as_set(b)) {
            if as_set(&run[0]) {
                self.put_sets(run.iter().filter_map(|operation| match operation {
                    Operation::PutSet(id, set) => Some((*id, set)),
                    Operation::DeleteSet(id) => Some((*id, &VOID)),
                    _ => None,
                }))?;
            } else {
                self.write(&run[0])?;
            }
        }
        Ok(())
    }

    fn observe(&self) -> Result<MapImage, DataplaneError> {
        let mut image = MapImage::default();
        for (number, name) in self.names()? {
            for id in [set_id(number, Scope::Cluster), set_id(number, Scope::Local)] {
                if let Some(set) = self.set(id)? {
                    image.sets.insert(id, set);
                }
            }
            image.names.insert(number, name);
        }
        for entry in self.vips.iter() {
            let (key, value) = entry.map_err(|error| failed("reading a map", map::VIPS, error))?;
            image.vips.insert(key, value);
        }
        Ok(image)
    }
}

/// A deletion of what is not there is done already.
fn gone(answer: Result<(), MapError>, name: &'static str) -> Result<(), DataplaneError> {
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
    let header = SetHeader {
        count: set.backends.len() as u32,
        flags: set.flags,
        affinity_seconds: set.affinity_seconds,
        table_len: 0,
        choice: 0,
        zero: 0,
    };
    let entries: Vec<Backend> =
        std::iter::once(header_as_entry(&header)).chain(set.backends.iter().copied()).collect();
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

fn text_as_name(text: &str) -> ServiceName {
    let mut name = ServiceName { text: [0; 160] };
    for (to, from) in name.text.iter_mut().zip(text.bytes()) {
        *to = from;
    }
    name
}

fn text(name: &ServiceName) -> String {
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
    for entry in entries.iter() {
        match entry {
            Ok((key, value)) if is_over(&key, &value) => over.push(key),
            Ok(_) => {}
            Err(error) => return Err(failed("reading a map", name, error)),
        }
    }
    for key in &over {
        gone(entries.remove(key), name)?;
    }
    Ok(over.len())
}
