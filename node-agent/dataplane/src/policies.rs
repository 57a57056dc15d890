//! The kernel's maps of network policy: written as `penstock-policy` plans, and read back.
//!
//! A pod's table is a map in an array of maps, swapped as a whole. Where there is no room, what is not written is not allowed: an
//! address without its peer, a table without its ranges. Must not know what a policy is.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, mpsc};

use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, HashMap, MapData, MapError};
use ipnetwork::IpNetwork;
use penstock_ebpf_common::{Address, POLICY_HINTS_MAX, POLICY_RANGES_MAX, PolicyHeader, PolicyRange, map};
use penstock_policy::{Image, Operation, Table};

use crate::kernel::{failed, gone, open, pin};
use crate::sets::{MapArray, Settling};
use crate::{Dataplane, DataplaneError, sys};

/// Lets the maps of one outer map differ in size (Linux 5.10).
const BPF_F_INNER_MAP: u32 = 1 << 12;
/// How many tables are swapped in one call: each is an open file until the kernel has answered.
const SWAPPED_MAX: usize = 64;
/// Bits of an address before those of IPv4.
const MAPPED_BITS: u32 = 96;

/// What came of operations.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Written {
    /// Addresses of pods for which there was no room: no rule allows them by their pod.
    pub unplaced: BTreeSet<IpAddr>,
    /// Ranges for which there was no room, likewise.
    pub unplaced_blocks: BTreeSet<IpNetwork>,
    /// Links whose pod has more to look up than there is room for: it lets nothing through.
    pub too_large: BTreeSet<u32>,
}

/// The maps, opened from their pins.
pub(crate) struct PolicyMaps {
    tables: MapArray,
    tables_max: u32,
    links: HashMap<MapData, u32, u32>,
    hints: Array<MapData, u32>,
    peers: HashMap<MapData, Address, u32>,
    blocks: LpmTrie<MapData, Address, u32>,
    epoch: Array<MapData, u32>,
    /// Links to the numbers of their tables, and since when they have one.
    slots: BTreeMap<u32, (u32, u64)>,
    /// The number of the last table that was made.
    last_slot: u32,
    peers_known: usize,
    settling: Settling,
}

impl Dataplane {
    /// Writes what was planned. After an error the maps hold some of it, and what they hold is to be observed.
    pub fn write_policies(&self, operations: &[Operation]) -> Result<Written, DataplaneError> {
        self.with_policies(|maps| maps.write_all(operations))
    }

    /// What the maps hold of policies.
    pub fn observe_policies(&self) -> Result<Image, DataplaneError> {
        self.with_policies(|maps| maps.observe())
    }

    /// How many addresses of pods have a peer.
    pub(crate) fn policy_peers(&self) -> Result<usize, DataplaneError> {
        self.with_policies(|maps| Ok(maps.peers_known))
    }

    fn with_policies<T>(
        &self,
        act: impl FnOnce(&mut PolicyMaps) -> Result<T, DataplaneError>,
    ) -> Result<T, DataplaneError> {
        let mut policies = self.policies.lock();
        let mut maps = match policies.take() {
            Some(maps) => maps,
            None => PolicyMaps::open(self.directory())?,
        };
        let acted = act(&mut maps)?;
        *policies = Some(maps);
        Ok(acted)
    }
}

/// What an agent's maps hold of policies, for people: the whole of it.
pub(crate) fn observe(directory: &Path) -> Result<Image, DataplaneError> {
    PolicyMaps::open(directory)?.observe()
}

// === impl PolicyMaps ===

impl PolicyMaps {
    fn open(directory: &Path) -> Result<Self, DataplaneError> {
        let wrap = |source| DataplaneError::Kernel {
            doing: "opening a pinned map",
            subject: map::POLICY_TABLES.to_owned(),
            source,
        };
        let tables = MapArray::new(sys::get(&pin(directory, map::POLICY_TABLES)).map_err(wrap)?);
        let tables_max = tables.entries_max().map_err(wrap)?;
        let mut maps = Self {
            tables,
            tables_max,
            links: open(directory, map::POLICY_LINKS)?,
            hints: open(directory, map::POLICY_HINTS)?,
            peers: open(directory, map::POLICY_PEERS)?,
            blocks: open(directory, map::POLICY_BLOCKS)?,
            epoch: open(directory, map::POLICY_EPOCH)?,
            slots: BTreeMap::new(),
            last_slot: 0,
            peers_known: 0,
            settling: Settling::default(),
        };
        let links: Vec<_> =
            maps.links.iter().collect::<Result<_, _>>().map_err(reading(map::POLICY_LINKS))?;
        for (link, slot) in links {
            let since_ns = maps.table(slot)?.map_or(0, |(header, _)| header.since_ns);
            maps.slots.insert(link, (slot, since_ns));
            maps.last_slot = maps.last_slot.max(slot);
        }
        maps.peers_known = maps.peers.keys().count();
        Ok(maps)
    }

    fn observe(&self) -> Result<Image, DataplaneError> {
        let mut image = Image::default();
        for (link, (slot, _)) in &self.slots {
            if let Some((header, ranges)) = self.table(*slot)? {
                image.tables.insert(*link, Table { flags: header.flags, ranges });
            }
        }
        for entry in self.peers.iter() {
            let (address, peer) = entry.map_err(reading(map::POLICY_PEERS))?;
            image.peers.insert(address.into(), peer);
        }
        for entry in self.blocks.iter() {
            let (key, peer) = entry.map_err(reading(map::POLICY_BLOCKS))?;
            let address = IpAddr::from(key.data());
            let prefix = key.prefix_len() - if address.is_ipv4() { MAPPED_BITS } else { 0 };
            if let Ok(range) = IpNetwork::new(address, prefix as u8) {
                image.blocks.insert(range, peer);
            }
        }
        Ok(image)
    }

    fn table(&self, slot: u32) -> Result<Option<(PolicyHeader, Vec<PolicyRange>)>, DataplaneError> {
        let wrap = |source| about_table("reading a table of policies", slot, source);
        let Some(inner) = self.tables.get(slot).map_err(wrap)? else { return Ok(None) };
        let entries_max = sys::map_info(inner.as_fd()).map_err(wrap)?.entries_max;
        let mut entries: Vec<PolicyRange> = sys::read_array(inner.as_fd(), entries_max).map_err(wrap)?;
        if entries.is_empty() {
            return Ok(None);
        }
        let header = range_as_header(&entries.remove(0));
        entries.truncate(header.count as usize);
        Ok(Some((header, entries)))
    }

    fn write_all(&mut self, operations: &[Operation]) -> Result<Written, DataplaneError> {
        let mut written = Written::default();
        let is_table = |operation: &Operation| matches!(operation, Operation::PutTable(..));
        for run in operations.chunk_by(|one, other| is_table(one) && is_table(other)) {
            if is_table(&run[0]) {
                let tables = run.iter().filter_map(|operation| match operation {
                    Operation::PutTable(link, table) => Some((*link, table)),
                    _ => None,
                });
                let tables: Vec<_> = tables.collect();
                for tables in tables.chunks(SWAPPED_MAX) {
                    self.put_tables(tables, &mut written)?;
                }
            } else {
                run.iter().try_for_each(|operation| self.write(operation, &mut written))?;
            }
        }
        Ok(written)
    }

    fn write(&mut self, operation: &Operation, written: &mut Written) -> Result<(), DataplaneError> {
        match operation {
            Operation::PutTable(link, table) => self.put_tables(&[(*link, table)], written),
            Operation::DeleteTable(link) => self.delete_table(*link),
            Operation::PutPeer(address, peer) => {
                let key = Address::from(*address);
                let is_new = matches!(self.peers.get(&key, 0), Err(MapError::KeyNotFound));
                match self.peers.insert(key, peer, 0) {
                    Ok(()) => self.peers_known += usize::from(is_new),
                    Err(error) if is_full(&error) => drop(written.unplaced.insert(*address)),
                    Err(error) => return Err(failed("writing a map", map::POLICY_PEERS, error)),
                }
                Ok(())
            }
            Operation::DeletePeer(address) => {
                self.peers_known = self.peers_known.saturating_sub(1);
                gone(self.peers.remove(&Address::from(*address)), map::POLICY_PEERS)
            }
            Operation::PutBlock(range, peer) => match self.blocks.insert(&block_key(range), peer, 0) {
                Err(error) if is_full(&error) => {
                    written.unplaced_blocks.insert(*range);
                    Ok(())
                }
                other => other.map_err(|error| failed("writing a map", map::POLICY_BLOCKS, error)),
            },
            Operation::DeleteBlock(range) => gone(self.blocks.remove(&block_key(range)), map::POLICY_BLOCKS),
            Operation::Settle => {
                let (tells, told) = mpsc::channel();
                std::mem::take(&mut self.settling).then(Box::new(move || drop(tells)));
                // Nothing is sent: the end is what is waited for.
                let _: Result<(), _> = told.recv();
                Ok(())
            }
            Operation::Bump => {
                let wrap = |error| failed("writing a map", map::POLICY_EPOCH, error);
                let next = self.epoch.get(&0, 0).map_err(wrap)?.wrapping_add(1);
                self.epoch.set(0, next, 0).map_err(wrap)
            }
        }
    }

    /// Swaps tables in. Those of links that had none are in force when all are there.
    fn put_tables(&mut self, tables: &[(u32, &Table)], written: &mut Written) -> Result<(), DataplaneError> {
        let (mut swapped, mut begins) = (Vec::new(), Vec::new());
        for (link, table) in tables {
            let (slot, since_ns) = match self.slots.get(link) {
                Some(known) => *known,
                None => {
                    let slot = self.free_slot()?;
                    begins.push(*link);
                    let known = (slot, sys::monotonic_ns());
                    self.slots.insert(*link, known);
                    known
                }
            };
            let nothing = Table { flags: table.flags, ranges: Vec::new() };
            let fits = table.ranges.len() <= POLICY_RANGES_MAX as usize;
            if !fits {
                written.too_large.insert(*link);
            }
            let inner = inner_map(slot, if fits { table } else { &nothing }, since_ns)?;
            swapped.push((slot, Arc::new(inner)));
        }
        let subject = format!("{} of them", swapped.len());
        self.tables.swap(swapped, &mut self.settling).map_err(|source| DataplaneError::Kernel {
            doing: "writing tables of policies",
            subject,
            source,
        })?;
        for link in begins {
            let slot = self.slots.get(&link).map_or(0, |it| it.0);
            self.links
                .insert(link, slot, 0)
                .map_err(|error| failed("writing a map", map::POLICY_LINKS, error))?;
            self.hint(link)?;
        }
        Ok(())
    }

    fn delete_table(&mut self, link: u32) -> Result<(), DataplaneError> {
        let Some((slot, _)) = self.slots.remove(&link) else { return Ok(()) };
        self.hint(link)?;
        gone(self.links.remove(&link), map::POLICY_LINKS)?;
        let void = inner_map(slot, &Table::default(), 0)?;
        self.tables
            .swap(vec![(slot, Arc::new(void))], &mut self.settling)
            .map_err(|source| about_table("clearing a table of policies", slot, source))
    }

    /// Says how many links with policies have these lower bits.
    fn hint(&mut self, link: u32) -> Result<(), DataplaneError> {
        let place = link % POLICY_HINTS_MAX;
        let count = self.slots.keys().filter(|link| **link % POLICY_HINTS_MAX == place).count();
        self.hints
            .set(place, count as u32, 0)
            .map_err(|error| failed("writing a map", map::POLICY_HINTS, error))
    }

    /// A number that no table has: one that was not given for long, for a program may still read what had the last.
    fn free_slot(&mut self) -> Result<u32, DataplaneError> {
        let used: BTreeSet<u32> = self.slots.values().map(|it| it.0).collect();
        let from = self.last_slot.wrapping_add(1) % self.tables_max;
        let slot = (from..self.tables_max).chain(0..from).find(|slot| !used.contains(slot));
        let slot = slot.ok_or(DataplaneError::Full {
            what: "pods with network policies",
            count: used.len() + 1,
            max: self.tables_max as usize,
        })?;
        self.last_slot = slot;
        Ok(slot)
    }
}

fn inner_map(slot: u32, table: &Table, since_ns: u64) -> Result<OwnedFd, DataplaneError> {
    let wrap = |source| about_table("making a table of policies", slot, source);
    let header = PolicyHeader { count: table.ranges.len() as u32, flags: table.flags, since_ns };
    let entries: Vec<PolicyRange> =
        std::iter::once(header_as_range(&header)).chain(table.ranges.iter().copied()).collect();
    let inner = sys::create_array(size_of::<PolicyRange>() as u32, entries.len() as u32, BPF_F_INNER_MAP)
        .map_err(wrap)?;
    sys::fill_array(inner.as_fd(), &entries).map_err(wrap)?;
    Ok(inner)
}

fn header_as_range(header: &PolicyHeader) -> PolicyRange {
    // SAFETY: both are plain integers of one size without padding, as `penstock-ebpf-common` asserts.
    unsafe { std::mem::transmute::<PolicyHeader, PolicyRange>(*header) }
}

fn range_as_header(range: &PolicyRange) -> PolicyHeader {
    // SAFETY: as above.
    unsafe { std::mem::transmute::<PolicyRange, PolicyHeader>(*range) }
}

fn block_key(range: &IpNetwork) -> Key<Address> {
    let before = if range.is_ipv4() { MAPPED_BITS } else { 0 };
    Key::new(before + u32::from(range.prefix()), Address::from(range.network()))
}

/// Whether a map has no room: a hash map says so by E2BIG, one of prefixes by ENOSPC.
fn is_full(error: &MapError) -> bool {
    let MapError::SyscallError(error) = error else { return false };
    matches!(error.io_error.raw_os_error(), Some(libc::E2BIG | libc::ENOSPC))
}

fn reading(name: &'static str) -> impl Fn(MapError) -> DataplaneError {
    move |error| failed("reading a map", name, error)
}

fn about_table(doing: &'static str, slot: u32, source: std::io::Error) -> DataplaneError {
    DataplaneError::Kernel { doing, subject: format!("table {slot}"), source }
}
