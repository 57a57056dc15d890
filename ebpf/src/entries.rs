//! Entries of one kind in a table ([`penstock_ebpf_packet::table`]) that is a map, and in the one that it replaces.

use core::arch::asm;
use core::marker::PhantomData;

use penstock_ebpf_common::ENTRIES_PER_BUCKET;
use penstock_ebpf_packet::table::{self, Memory};

use crate::kept::carries;

/// Where entries begin in a bucket: behind the heads.
pub const ENTRIES_OFFSET: usize = ENTRIES_PER_BUCKET * size_of::<u64>();

/// Which of the maps.
pub const PRESENT: u32 = 0;
pub const FORMER: u32 = 1;

/// A kind of entries.
pub trait Entries: Copy {
    /// What one is found by.
    type Key;
    /// An entry as it lies in a bucket.
    type Entry;
    /// [`Memory::REACH`].
    const REACH: u32;

    /// How many buckets there are less one, at a place that the loader fills: of the map or the one before.
    fn mask(former: bool) -> *const u32;
    /// A bucket of the map or of the one before, which begins with heads.
    fn bucket(former: bool, bucket: u32) -> Option<*mut u64>;
    /// Whether an entry, which may be written meanwhile, has a key.
    fn is_of(entry: *const Self::Entry, key: &Self::Key) -> bool;
}

/// One of the maps.
#[derive(Clone, Copy)]
pub struct Table<E> {
    /// [`PRESENT`] or [`FORMER`].
    pub which: u32,
    kind: PhantomData<E>,
}

impl<E: Entries> Table<E> {
    #[inline(always)]
    pub const fn of(which: u32) -> Self {
        Self { which, kind: PhantomData }
    }

    /// The entry of a place.
    #[inline(always)]
    pub fn entry(self, place: u32) -> Option<*mut E::Entry> {
        self.heads(place / table::WAYS).map(|heads| entry_of::<E>(heads, place % table::WAYS))
    }

    #[inline(always)]
    fn is_former(self) -> bool {
        carries() && self.which == FORMER
    }
}

/// An entry of the bucket with these heads.
#[inline(always)]
fn entry_of<E: Entries>(heads: *mut u64, way: u32) -> *mut E::Entry {
    // SAFETY: heads lie at the beginning of a bucket, and the way is one of it.
    unsafe { heads.cast::<u8>().add(ENTRIES_OFFSET).cast::<E::Entry>().add(way as usize) }
}

impl<E: Entries> Memory for Table<E> {
    type Key = E::Key;
    const REACH: u32 = E::REACH;

    #[inline(always)]
    fn mask(&self) -> u32 {
        // SAFETY: a valid place; volatile, for the loader changes the value behind the compiler's back.
        unsafe { E::mask(self.is_former()).read_volatile() }
    }

    #[inline(always)]
    fn opaque<const NUMBER: u32>(&self) -> u32 {
        let number: u64;
        // SAFETY: puts a number into a register. The verifier sees it, and so an end of the loop.
        unsafe {
            asm!("{to} = {number}", to = out(reg) number, number = const NUMBER, options(pure, nomem, nostack))
        };
        number as u32
    }

    #[inline(always)]
    fn heads(&self, bucket: u32) -> Option<*mut u64> {
        E::bucket(self.is_former(), bucket)
    }

    #[inline(always)]
    fn has(&self, heads: *mut u64, way: u32, key: &E::Key) -> bool {
        E::is_of(entry_of::<E>(heads, way), key)
    }

    #[inline(always)]
    fn read(&self, head: *mut u64) -> u64 {
        // SAFETY: a head of the table. The machines these programs are built for do not put reads off.
        unsafe { head.read_volatile() }
    }

    #[inline(always)]
    fn read_again(&self, head: *mut u64) -> u64 {
        self.read(head)
    }

    #[inline(always)]
    fn publish(&self, head: *mut u64, to: u64) {
        // SAFETY: as above, nor writes.
        unsafe { head.write_volatile(to) };
    }

    #[inline(always)]
    fn swap(&self, head: *mut u64, was: u64, to: u64) -> bool {
        let mut before = was;
        // The library has none for this target (see `open`).
        // SAFETY: a head of the table, aligned; the instruction takes and gives what was there in its first register.
        unsafe {
            asm!("r0 = cmpxchg_64({head} + 0, r0, {to})", head = in(reg) head, to = in(reg) to, inout("r0") before)
        };
        before == was
    }
}
