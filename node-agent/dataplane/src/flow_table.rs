//! The table of flows as user space sees it: in memory that it shares with the programs, without a call for each entry.
//!
//! Mapped for the time of a look only, for it is as large as the table. What it changes it changes as the programs do
//! (`penstock-ebpf-packet`'s `table`). Must not know what flows are for.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering, fence};

use penstock_ebpf_common::{
    FLOW_CLOSING, FLOWS_PER_BUCKET, Flow, FlowBucket, FlowKey, FlowValue, Picked, map,
};
use penstock_ebpf_packet::hash;
use penstock_ebpf_packet::table::{self, Claimed, Found, Memory, WAYS};

use crate::{DataplaneError, kernel, sys};

const SECOND_NS: u64 = 1_000_000_000;
const _: () = assert!(FLOWS_PER_BUCKET == WAYS as usize);

/// How many buckets a table has that is to have room for so many entries.
pub const fn buckets_for(entries_max: u32) -> u32 {
    match entries_max.div_ceil(WAYS).checked_next_power_of_two() {
        Some(buckets) => buckets,
        None => 1 << (u32::BITS - 1),
    }
}

/// How many entries there is room for in so many buckets.
pub const fn entries_in(buckets: u32) -> u32 {
    buckets.saturating_mul(WAYS)
}

/// A table, opened from its pin.
#[derive(Debug)]
pub struct FlowTable {
    map: OwnedFd,
    buckets: u32,
}

/// A table in this process's memory.
#[derive(Debug)]
pub struct FlowMemory(Mapped);

/// The memory itself.
#[derive(Debug)]
struct Mapped {
    start: NonNull<FlowBucket>,
    buckets: u32,
}

// === impl FlowTable ===

impl FlowTable {
    /// Opens the one that an agent's programs use.
    pub fn open(directory: &Path) -> Result<Self, DataplaneError> {
        let map = sys::get(&kernel::pin(directory, map::FLOWS));
        map.and_then(Self::of).map_err(|source| failed("opening a pinned map", source))
    }

    /// Of a map.
    pub fn of(map: OwnedFd) -> io::Result<Self> {
        let info = sys::map_info(map.as_fd())?;
        if info.value_size as usize != size_of::<FlowBucket>() || !info.entries_max.is_power_of_two() {
            return Err(io::Error::other("it is no table of flows"));
        }
        Ok(Self { map, buckets: info.entries_max })
    }

    /// How many entries there is room for.
    pub fn entries_max(&self) -> u32 {
        entries_in(self.buckets)
    }

    /// Maps it.
    pub fn memory(&self) -> Result<FlowMemory, DataplaneError> {
        self.map_here().map_err(|source| failed("mapping a map", source))
    }

    pub(crate) fn map_here(&self) -> io::Result<FlowMemory> {
        FlowMemory::of(self.map.as_fd(), self.buckets)
    }
}

fn failed(doing: &'static str, source: io::Error) -> DataplaneError {
    DataplaneError::Kernel { doing, subject: map::FLOWS.to_owned(), source }
}

// === impl FlowMemory ===

impl FlowMemory {
    pub(crate) fn of(map: BorrowedFd<'_>, buckets: u32) -> io::Result<Self> {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping of memory that the kernel keeps as long as it is mapped.
        let start = unsafe {
            libc::mmap(std::ptr::null_mut(), length(buckets), access, libc::MAP_SHARED, map.as_raw_fd(), 0)
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or_else(|| io::Error::other("mapped nowhere"))?;
        Ok(Self(Mapped { start, buckets }))
    }

    /// Hands on every entry.
    pub fn each(&self, each: impl FnMut(&FlowKey, &FlowValue)) {
        self.each_of(|_| true, each);
    }

    /// Hands on the entries of some services, and perhaps others.
    pub fn each_picked(&self, of: &Picked, each: impl FnMut(&FlowKey, &FlowValue)) {
        self.each_of(|group| of.has(u32::from(group)), each);
    }

    fn each_of(&self, wanted: impl Fn(u16) -> bool, mut each: impl FnMut(&FlowKey, &FlowValue)) {
        for place in 0..entries_in(self.0.buckets) {
            let Some(own) = table::head(&self.0, place) else { return };
            let head = self.0.read(own);
            if table::group_of(head).is_some_and(&wanted) {
                let flow = self.0.copy(place);
                if table::is_still(&self.0, Found { place, head }) {
                    each(&flow.key, &flow.value);
                }
            }
        }
    }

    /// How many entries there are.
    pub fn count(&self) -> usize {
        let heads = (0..entries_in(self.0.buckets)).filter_map(|place| table::head(&self.0, place));
        heads.filter(|head| table::group_of(self.0.read(*head)).is_some()).count()
    }

    /// The value of a key.
    pub fn get(&self, key: &FlowKey) -> Option<FlowValue> {
        let found = table::find(&self.0, hash::flow_wide(key), key)?;
        let flow = self.0.copy(found.place);
        table::is_still(&self.0, found).then_some(flow.value)
    }

    /// Removes an entry; false when there is none.
    pub fn remove(&self, key: &FlowKey) -> bool {
        let found = table::find(&self.0, hash::flow_wide(key), key);
        found.is_some_and(|found| table::remove(&self.0, found))
    }

    /// Has a flow close, in its place: programs find it all the time.
    pub fn close(&self, key: &FlowKey) {
        let Some(found) = table::find(&self.0, hash::flow_wide(key), key) else { return };
        // SAFETY: the flags of an entry of the table, which others may change as well.
        let flags = unsafe { &*(&raw mut (*self.0.flow(found.place)).value.flags).cast::<AtomicU16>() };
        flags.fetch_or(FLOW_CLOSING, Ordering::Relaxed);
    }

    /// Makes an entry that is not there; false when it is, or when all in its place are worth more.
    pub fn insert_new(&self, key: &FlowKey, value: &FlowValue, now_ns: u64) -> bool {
        let hash = hash::flow_wide(key);
        let marks = table::marks(value.service, value.seen_ns / SECOND_NS);
        let over = if value.flags & FLOW_CLOSING == 0 { 0 } else { table::OVER };
        let now_s = now_ns / SECOND_NS;
        let worth = table::worth_of(marks | over, now_s);
        let Claimed::Place(place) = table::claim(&self.0, hash, key, marks | over, (now_s, worth)) else {
            return false;
        };
        if table::clashes(&self.0, hash, key, place) {
            table::give_up(&self.0, place);
            return false;
        }
        self.0.write(place, &Flow { key: *key, value: *value });
        table::publish(&self.0, place);
        true
    }
}

// === impl Mapped ===

impl Mapped {
    fn flow(&self, place: u32) -> *mut Flow {
        debug_assert!(place < entries_in(self.buckets));
        // SAFETY: within the mapping.
        unsafe {
            let bucket = self.start.as_ptr().add((place / WAYS) as usize);
            (&raw mut (*bucket).flows).cast::<Flow>().add((place % WAYS) as usize)
        }
    }

    /// Copies an entry word by word, for programs may write it meanwhile: its head tells.
    fn copy(&self, place: u32) -> Flow {
        let mut flow = Flow::default();
        let (to, from) = ((&raw mut flow).cast::<u32>(), self.flow(place).cast::<AtomicU32>());
        for at in 0..size_of::<Flow>() / size_of::<u32>() {
            // SAFETY: words of a flow, which is plain integers.
            unsafe { to.add(at).write((*from.add(at)).load(Ordering::Relaxed)) };
        }
        flow
    }

    fn write(&self, place: u32, flow: &Flow) {
        let (from, to) = ((&raw const *flow).cast::<u32>(), self.flow(place).cast::<AtomicU32>());
        for at in 0..size_of::<Flow>() / size_of::<u32>() {
            // SAFETY: as above; the place is this process's own.
            unsafe { (*to.add(at)).store(from.add(at).read(), Ordering::Relaxed) };
        }
    }
}

const fn length(buckets: u32) -> usize {
    buckets as usize * size_of::<FlowBucket>()
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: mapped by `of`, and nothing refers to it any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), length(self.buckets)) };
    }
}

impl Memory for Mapped {
    type Key = FlowKey;

    fn mask(&self) -> u32 {
        self.buckets - 1
    }

    fn opaque<const NUMBER: u32>(&self) -> u32 {
        NUMBER
    }

    fn heads(&self, bucket: u32) -> Option<*mut u64> {
        // SAFETY: within the mapping.
        (bucket < self.buckets).then(|| unsafe { self.start.as_ptr().add(bucket as usize) }.cast())
    }

    fn has(&self, heads: *mut u64, way: u32, key: &FlowKey) -> bool {
        // SAFETY: heads lie at the beginning of a bucket of the mapping.
        let bucket = unsafe { heads.cast::<u8>().offset_from(self.start.as_ptr().cast()) } as usize
            / size_of::<FlowBucket>();
        self.copy(bucket as u32 * WAYS + way).key == *key
    }

    fn read(&self, head: *mut u64) -> u64 {
        // SAFETY: a head of the mapping, aligned.
        unsafe { AtomicU64::from_ptr(head) }.load(Ordering::Acquire)
    }

    fn read_again(&self, head: *mut u64) -> u64 {
        fence(Ordering::Acquire);
        self.read(head)
    }

    fn publish(&self, head: *mut u64, to: u64) {
        // SAFETY: as above.
        unsafe { AtomicU64::from_ptr(head) }.store(to, Ordering::Release);
    }

    fn swap(&self, head: *mut u64, was: u64, to: u64) -> bool {
        // SAFETY: as above.
        let head = unsafe { AtomicU64::from_ptr(head) };
        let swapped = head.compare_exchange(was, to, Ordering::SeqCst, Ordering::Relaxed).is_ok();
        fence(Ordering::SeqCst);
        swapped
    }
}
