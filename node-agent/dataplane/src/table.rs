//! A table ([`penstock_ebpf_packet::table`]) as user space sees it: in memory that it shares with the programs, without a call for
//! each entry.
//!
//! A large one is mapped for the time of a look only, for its memory counts as this process's. What it changes it changes as the programs do. Must not
//! know what entries are for: [`crate::flow_table`] and [`crate::peer_table`] do.

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use penstock_ebpf_common::{ENTRIES_PER_BUCKET, Picked};
use penstock_ebpf_packet::table::{self, Claimed, Found, WAYS};

use crate::{DataplaneError, kernel, sys};

const _: () = assert!(ENTRIES_PER_BUCKET == WAYS as usize);

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

/// A kind of entries, and the bucket they lie in.
pub trait Entry: aya::Pod + Default {
    /// What one is found by.
    type Key: Copy + PartialEq;
    /// What is known by that.
    type Value: Copy;

    /// The map's name.
    const MAP: &'static str;
    /// How far the second bucket of a key is from the first, as programs have it.
    const REACH: u32;

    /// Puts one together.
    fn of(key: &Self::Key, value: &Self::Value) -> Self;
    /// Its two parts.
    fn parts(&self) -> (&Self::Key, &Self::Value);
    /// As programs hash the key.
    fn hash(key: &Self::Key) -> u64;
    /// Claims a place for one that is brought.
    fn claim(
        memory: &impl table::Memory<Key = Self::Key>,
        key: &Self::Key,
        value: &Self::Value,
        now_s: u64,
    ) -> Claimed;
}

/// A table, opened from its pin.
#[derive(Debug)]
pub struct Table<E> {
    map: OwnedFd,
    buckets: u32,
    kind: PhantomData<E>,
}

/// A table in this process's memory.
#[derive(Debug)]
pub struct Memory<E>(pub(crate) Mapped<E>);

/// The memory itself.
#[derive(Debug)]
pub(crate) struct Mapped<E> {
    start: NonNull<u8>,
    buckets: u32,
    kind: PhantomData<E>,
}

// === impl Table ===

impl<E: Entry> Table<E> {
    /// Opens the one that an agent's programs use.
    pub fn open(directory: &Path) -> Result<Self, DataplaneError> {
        let map = sys::get(&kernel::pin(directory, E::MAP));
        map.and_then(Self::of).map_err(|source| failed::<E>("opening a pinned map", source))
    }

    /// Of a map.
    pub fn of(map: OwnedFd) -> io::Result<Self> {
        let info = sys::map_info(map.as_fd())?;
        if info.value_size as usize != Mapped::<E>::BUCKET || !info.entries_max.is_power_of_two() {
            return Err(io::Error::other("it is no such table"));
        }
        Ok(Self { map, buckets: info.entries_max, kind: PhantomData })
    }

    /// How many entries there is room for.
    pub fn entries_max(&self) -> u32 {
        entries_in(self.buckets)
    }

    /// Maps it.
    pub fn memory(&self) -> Result<Memory<E>, DataplaneError> {
        self.map_here().map_err(|source| failed::<E>("mapping a map", source))
    }

    pub(crate) fn map_here(&self) -> io::Result<Memory<E>> {
        Memory::of(self.map.as_fd(), self.buckets)
    }
}

impl<E> AsFd for Table<E> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.map.as_fd()
    }
}

fn failed<E: Entry>(doing: &'static str, source: io::Error) -> DataplaneError {
    DataplaneError::Kernel { doing, subject: E::MAP.to_owned(), source }
}

// === impl Memory ===

impl<E: Entry> Memory<E> {
    pub(crate) fn of(map: BorrowedFd<'_>, buckets: u32) -> io::Result<Self> {
        let (access, length) = (libc::PROT_READ | libc::PROT_WRITE, Mapped::<E>::length(buckets));
        // SAFETY: a new mapping of memory that the kernel keeps as long as it is mapped.
        let start =
            unsafe { libc::mmap(std::ptr::null_mut(), length, access, libc::MAP_SHARED, map.as_raw_fd(), 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or_else(|| io::Error::other("mapped nowhere"))?;
        Ok(Self(Mapped { start, buckets, kind: PhantomData }))
    }

    /// Hands on every entry.
    pub fn each(&self, each: impl FnMut(&E::Key, &E::Value)) {
        self.each_of(|_| true, each);
    }

    /// Hands on the entries of some services, and perhaps others.
    pub fn each_picked(&self, of: &Picked, each: impl FnMut(&E::Key, &E::Value)) {
        self.each_of(|group| of.has(u32::from(group)), each);
    }

    fn each_of(&self, wanted: impl Fn(u16) -> bool, mut each: impl FnMut(&E::Key, &E::Value)) {
        for bucket in 0..self.0.buckets {
            let Some(heads) = table::Memory::heads(&self.0, bucket) else { return };
            for way in 0..WAYS {
                // SAFETY: a bucket has so many heads.
                let head = table::Memory::read(&self.0, unsafe { heads.add(way as usize) });
                if !table::group_of(head).is_some_and(&wanted) {
                    continue;
                }
                let place = bucket * WAYS + way;
                let entry = self.0.copy(place);
                if table::is_still(&self.0, Found { place, head }) {
                    let (key, value) = entry.parts();
                    each(key, value);
                }
            }
        }
    }

    /// How many entries there are.
    pub fn count(&self) -> usize {
        let heads = (0..entries_in(self.0.buckets)).filter_map(|place| table::head(&self.0, place));
        heads.filter(|head| table::group_of(table::Memory::read(&self.0, *head)).is_some()).count()
    }

    /// The value of a key.
    pub fn get(&self, key: &E::Key) -> Option<E::Value> {
        let found = self.find(key)?;
        let entry = self.0.copy(found.place);
        table::is_still(&self.0, found).then(|| *entry.parts().1)
    }

    /// Removes an entry; false when there is none.
    pub fn remove(&self, key: &E::Key) -> bool {
        self.find(key).is_some_and(|found| table::remove(&self.0, found))
    }

    /// Makes an entry that is not there; false when it is, or when all in its place are worth more.
    pub fn insert_new(&self, key: &E::Key, value: &E::Value, now_ns: u64) -> bool {
        let Claimed::Place(place) = E::claim(&self.0, key, value, now_ns / SECOND_NS) else {
            return false;
        };
        if table::clashes(&self.0, E::hash(key), key, place) {
            table::give_up(&self.0, place);
            return false;
        }
        self.0.write(place, &E::of(key, value));
        table::publish(&self.0, place);
        true
    }

    pub(crate) fn find(&self, key: &E::Key) -> Option<Found> {
        table::find(&self.0, E::hash(key), key)
    }
}

/// One second.
pub const SECOND_NS: u64 = 1_000_000_000;

// === impl Mapped ===

impl<E: Entry> Mapped<E> {
    const HEADS: usize = ENTRIES_PER_BUCKET * size_of::<u64>();
    const BUCKET: usize = Self::HEADS + ENTRIES_PER_BUCKET * size_of::<E>();

    const fn length(buckets: u32) -> usize {
        buckets as usize * Self::BUCKET
    }

    pub(crate) fn entry(&self, place: u32) -> *mut E {
        debug_assert!(place < entries_in(self.buckets));
        let (bucket, way) = ((place / WAYS) as usize, (place % WAYS) as usize);
        // SAFETY: within the mapping: entries are behind the heads.
        unsafe { self.start.as_ptr().add(bucket * Self::BUCKET + Self::HEADS).cast::<E>().add(way) }
    }

    /// Copies an entry word by word, for programs may write it meanwhile: its head tells.
    fn copy(&self, place: u32) -> E {
        let mut entry = E::default();
        let (to, from) = ((&raw mut entry).cast::<u32>(), self.entry(place).cast::<AtomicU32>());
        for at in 0..size_of::<E>() / size_of::<u32>() {
            // SAFETY: words of an entry, which is plain integers.
            unsafe { to.add(at).write((*from.add(at)).load(Ordering::Relaxed)) };
        }
        entry
    }

    fn write(&self, place: u32, entry: &E) {
        let (from, to) = ((&raw const *entry).cast::<u32>(), self.entry(place).cast::<AtomicU32>());
        for at in 0..size_of::<E>() / size_of::<u32>() {
            // SAFETY: as above; the place is this process's own.
            unsafe { (*to.add(at)).store(from.add(at).read(), Ordering::Relaxed) };
        }
    }
}

// SAFETY: nothing but a mapping, which is no thread's. What others write meanwhile is read and written word by word.
unsafe impl<E> Send for Mapped<E> {}
// SAFETY: as above.
unsafe impl<E> Sync for Mapped<E> {}

impl<E> Drop for Mapped<E> {
    fn drop(&mut self) {
        let bucket = ENTRIES_PER_BUCKET * (size_of::<u64>() + size_of::<E>());
        // SAFETY: mapped by `of`, and nothing refers to it any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.buckets as usize * bucket) };
    }
}

impl<E: Entry> table::Memory for Mapped<E> {
    type Key = E::Key;
    const REACH: u32 = E::REACH;

    fn mask(&self) -> u32 {
        self.buckets - 1
    }

    fn opaque<const NUMBER: u32>(&self) -> u32 {
        NUMBER
    }

    fn heads(&self, bucket: u32) -> Option<*mut u64> {
        // SAFETY: within the mapping.
        (bucket < self.buckets)
            .then(|| unsafe { self.start.as_ptr().add(bucket as usize * Self::BUCKET) }.cast())
    }

    fn has(&self, heads: *mut u64, way: u32, key: &E::Key) -> bool {
        // SAFETY: heads lie at the beginning of a bucket of the mapping.
        let bucket = unsafe { heads.cast::<u8>().offset_from(self.start.as_ptr()) } as usize / Self::BUCKET;
        self.copy(bucket as u32 * WAYS + way).parts().0 == key
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
