//! Peers of connected sockets, in a table by the sockets' numbers, through an exchange of maps as [`crate::kept`] has it.
//!
//! A socket's own entry is written and removed only by calls on the socket, which the kernel lets in one at a time; user space
//! only reads it, or brings it over. Nothing is given up for a new one: without a place nothing is noted.

use core::mem::offset_of;

use penstock_ebpf_common::{KnownPeer, PEER_COUNTED, Peer, PeerBucket};
use penstock_ebpf_packet::hash;
use penstock_ebpf_packet::table::{self, Claimed, Found};

use crate::entries::{self, ENTRIES_OFFSET, Entries, FORMER, PRESENT};
use crate::kept::carries;
use crate::maps;
use crate::work;

/// How many buckets there are less one, put in when the programs are loaded.
#[unsafe(no_mangle)]
static PEERS_MASK: u32 = 0;
/// The same of the map that is being replaced.
#[unsafe(no_mangle)]
static FORMER_PEERS_MASK: u32 = 0;

/// How often a place is asked for: another processor may take the one that was chosen.
const TRIES: u32 = 4;

#[derive(Clone, Copy)]
struct Peers;

impl Entries for Peers {
    type Key = u64;
    type Entry = KnownPeer;
    const REACH: u32 = hash::SOCKETS_REACH;

    #[inline(always)]
    fn mask(former: bool) -> *const u32 {
        if former { &raw const FORMER_PEERS_MASK } else { &raw const PEERS_MASK }
    }

    #[inline(always)]
    fn bucket(former: bool, bucket: u32) -> Option<*mut u64> {
        const { assert!(offset_of!(PeerBucket, peers) == ENTRIES_OFFSET) };
        let bucket =
            if former { maps::FORMER_PEERS.get_ptr_mut(bucket) } else { maps::PEERS.get_ptr_mut(bucket) };
        bucket.map(<*mut PeerBucket>::cast)
    }

    #[inline(always)]
    fn is_of(entry: *const KnownPeer, key: &u64) -> bool {
        // SAFETY: within the entry; volatile, for others may write it meanwhile.
        unsafe { (&raw const (*entry).cookie).read_volatile() == *key }
    }
}

type Table = entries::Table<Peers>;
const TABLE: Table = Table::of(PRESENT);
const FORMER_TABLE: Table = Table::of(FORMER);

// === Steps, proven once each ===

/// The number of a place and one, above it the lower half of its head; zero for none.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn penstock_peer_find(cookie: u64, which: u32) -> u64 {
    let found = table::find(&Table::of(which), hash::socket(cookie), &cookie);
    found.map_or(0, |found| found.head << 32 | u64::from(found.place) + 1)
}

/// Of what [`penstock_peer_claim`] answers: the socket has a place, which is claimed again.
const AGAIN: u32 = 1 << 31;

/// The number of a place and one that is the caller's alone from now on; zero for none.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn penstock_peer_claim(cookie: u64, service: u32, which: u32) -> u32 {
    let (memory, hash) = (Table::of(which), hash::socket(cookie));
    // Of when it was seen nobody asks.
    let marks = table::marks(service, 0);
    match table::claim_free(&memory, hash, &cookie, marks) {
        // Calls on one socket come one at a time; but who brings entries over may be about to bring this one.
        Claimed::Place(place) if carries() && table::clashes(&memory, hash, &cookie, place) => {
            table::give_up(&memory, place);
            0
        }
        Claimed::Place(place) => place + 1,
        Claimed::Exists(place) if table::claim_again(&memory, hash, &cookie, place, marks) => {
            (place + 1) | AGAIN
        }
        _ => 0,
    }
}

#[inline(always)]
fn find(table: Table, cookie: u64) -> Option<Found> {
    let answer = penstock_peer_find(cookie, table.which);
    let place = answer as u32;
    (place != 0).then(|| Found { place: place - 1, head: answer >> 32 })
}

// === Peers ===

/// What was noted of a socket's peer.
#[inline(always)]
pub fn get(cookie: u64) -> Option<&'static Peer> {
    let found = match find(TABLE, cookie) {
        None if carries() => {
            bring(cookie);
            find(TABLE, cookie)
        }
        found => found,
    }?;
    // SAFETY: within the entry, which is there as long as the socket, which is here.
    TABLE.entry(found.place).map(|entry| unsafe { &(*entry).peer })
}

/// Whose connection is counted as open: a service and its backend.
pub type Counted = (u32, u32);

/// Nothing could be noted.
pub struct NoPlace;

/// Notes a socket's peer in the place of what was noted before. Returns whose connection was counted for that.
#[inline(always)]
pub fn note(cookie: u64, peer: &Peer) -> Result<Option<Counted>, NoPlace> {
    if carries() {
        bring(cookie);
    }
    let before = write(TABLE, cookie, peer)?;
    if carries() {
        // Full, it lacks what is in the other.
        let _ = write(FORMER_TABLE, cookie, peer);
    }
    Ok(before)
}

/// Forgets a socket's peer. Returns whose connection was counted.
#[inline(always)]
pub fn forget(cookie: u64) -> Option<Counted> {
    if carries() {
        bring(cookie);
        // The former map first: who brings entries over looks there again after the fact.
        take(FORMER_TABLE, cookie);
    }
    take(TABLE, cookie)
}

#[inline(always)]
fn write(table: Table, cookie: u64, peer: &Peer) -> Result<Option<Counted>, NoPlace> {
    let mut attempt = 0;
    while attempt < TRIES {
        attempt += 1;
        let answer = penstock_peer_claim(cookie, peer.service, table.which);
        if answer == 0 {
            continue;
        }
        let place = (answer & !AGAIN) - 1;
        let Some(entry) = table.entry(place) else { return Err(NoPlace) };
        // SAFETY: the place is this program's until it is published.
        let entry = unsafe { &mut *entry };
        let before = if answer & AGAIN != 0 { counted(&entry.peer) } else { None };
        entry.cookie = cookie;
        work::copy(&mut entry.peer, peer);
        table::publish(&table, place);
        return Ok(before);
    }
    Err(NoPlace)
}

#[inline(always)]
fn take(table: Table, cookie: u64) -> Option<Counted> {
    let found = find(table, cookie)?;
    // SAFETY: within the entry, which is there as long as the socket, which is here.
    let counted = table.entry(found.place).and_then(|entry| counted(unsafe { &(*entry).peer }));
    // Only who brings entries over may change its head besides.
    if carries() {
        table::remove(&table, found);
    } else {
        table::give_up(&table, found.place);
    }
    counted
}

#[inline(always)]
fn counted(peer: &Peer) -> Option<Counted> {
    (peer.flags & PEER_COUNTED != 0).then_some((peer.service, peer.backend_id))
}

/// Brings a socket's peer over from the former map, unless it is there.
#[inline(always)]
fn bring(cookie: u64) {
    penstock_peer_bring(cookie);
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn penstock_peer_bring(cookie: u64) -> u32 {
    if !carries() || find(TABLE, cookie).is_some() {
        return 0;
    }
    let Some(found) = find(FORMER_TABLE, cookie) else { return 0 };
    let Some(entry) = FORMER_TABLE.entry(found.place) else { return 0 };
    // SAFETY: within the entry.
    write(TABLE, cookie, unsafe { &(*entry).peer }).is_ok() as u32
}
