//! Ways that packets took a moment ago, so that not every packet asks the routing table.
//!
//! A way is remembered for less than ten ticks of the kernel's clock, which is 10 to 100 ms: what changes in routes and
//! neighbours is followed as soon as that. Each address has one place, which it may lose to another address of the same
//! hash at any time.

use penstock_ebpf_common::Address;

use crate::clock;
use crate::maps::WAYS;
use crate::work::{self, Work};

/// How many ways a CPU remembers. A power of two.
pub const WAYS_MAX: usize = 1 << WAYS_BITS;
const WAYS_BITS: u32 = 10;
/// The kernel ticks 100 to 1,000 times a second (CONFIG_HZ).
const FRESH_TICKS: u64 = 10;

/// A way that was found.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Way {
    /// When, in ticks; zero for never.
    found: u64,
    source: Address,
    destination: Address,
    /// The interface the packet came by.
    came_by: u32,
    /// The interface it leaves by.
    ifindex: u32,
    /// The longest packet that it takes.
    mtu: u32,
    neighbour: [u8; 6],
    /// Whether that is known.
    has_neighbour: bool,
    zero: u8,
}

/// Finds the way of a packet with the addresses in `work.to`, as [`remember`] noted it: the same answer in `work.fib` as the
/// routing table gave.
#[inline(always)]
pub fn recall(work: &mut Work, needs_neighbour: bool) -> bool {
    let Some(way) = WAYS.get_ptr(place(&work.to.source, &work.to.destination)) else {
        return false;
    };
    // SAFETY: this CPU's entry, which nothing else refers to while the program runs.
    let way = unsafe { &*way };
    if clock::ticks().wrapping_sub(way.found) >= FRESH_TICKS
        || differ(&way.destination, &work.to.destination) | differ(&way.source, &work.to.source) != 0
        || way.came_by != work.ifindex
        || way.mtu < work.wire_length
        || (needs_neighbour && !way.has_neighbour)
    {
        return false;
    }
    work.fib.ifindex = way.ifindex;
    work::copy_mac(&mut work.fib.dmac, &way.neighbour);
    true
}

/// Remembers the routing table's answer in `work.fib`.
#[inline(always)]
pub fn remember(work: &Work, has_neighbour: bool) {
    let Some(way) = WAYS.get_ptr_mut(place(&work.to.source, &work.to.destination)) else {
        return;
    };
    // SAFETY: as above.
    let way = unsafe { &mut *way };
    way.found = clock::ticks();
    work::copy(&mut way.source, &work.to.source);
    work::copy(&mut way.destination, &work.to.destination);
    way.came_by = work.ifindex;
    way.ifindex = work.fib.ifindex;
    // SAFETY: the routing table wrote this field with its answer.
    way.mtu = unsafe { work.fib.__bindgen_anon_1.mtu_result } as u32;
    way.has_neighbour = has_neighbour;
    work::copy_mac(&mut way.neighbour, &work.fib.dmac);
}

/// Zero for equal addresses; without a branch for each word.
#[inline(always)]
const fn differ(one: &Address, other: &Address) -> u32 {
    let (one, other) = (&one.words, &other.words);
    (one[0] ^ other[0]) | (one[1] ^ other[1]) | (one[2] ^ other[2]) | (one[3] ^ other[3])
}

/// Where the way between two addresses is remembered.
#[inline(always)]
fn place(source: &Address, destination: &Address) -> u32 {
    const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
    let fold = |of: &Address| {
        u64::from(of.words[0] ^ of.words[2]) << 32 | u64::from(of.words[1].rotate_left(16) ^ of.words[3])
    };
    let mixed = (fold(destination).wrapping_mul(ODD) ^ fold(source)).wrapping_mul(ODD);
    (mixed >> (u64::BITS - WAYS_BITS)) as u32
}
