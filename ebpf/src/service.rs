//! From an address to a backend.

use core::hint::black_box;

use penstock_ebpf_common::{
    Address, AffinityKey, Backend, CHOICE_LEAST_CONNECTIONS, CHOICE_MAGLEV, SET_EMPTY_IS_DROP,
    SETS_PER_SERVICE, SetHeader, TABLE_PLACES, TablePiece, VipKey, VipValue,
};

use crate::affinity;
use crate::hash;
use crate::maps::{SETS, Set, VIPS};
use crate::open;

/// What choosing came to.
pub enum Choice {
    /// A backend.
    Backend(Backend),
    /// The service has none anywhere: the client is to be refused.
    Nobody,
    /// The service has none on this node, and only those on this node may answer: the client is to be left waiting.
    NobodyHere,
    /// The set is missing.
    NoSet,
}

/// Looks up what is reached by an address, if anything.
#[inline(always)]
pub fn find(address: Address, port: u16, protocol: u8) -> Option<VipValue> {
    let key = VipKey { address, port, protocol, zero: 0 };
    // SAFETY: the value is copied at once; user space replaces values as a whole.
    unsafe { VIPS.get(&key) }.copied()
}

/// Chooses a backend of a set by a number that is random or a flow's hash. The client is asked for only when the set
/// wants its clients to keep their backends.
#[inline(always)]
pub fn choose(set: u32, number: u32, client: impl FnOnce() -> Address) -> Choice {
    choose_counted(set, number, client).0
}

/// The same, and whether the set wants open connections counted.
#[inline(always)]
pub fn choose_counted(set: u32, number: u32, client: impl FnOnce() -> Address) -> (Choice, bool) {
    // One pointer, taken once: header and backends are of the same moment.
    let Some(set_map) = SETS.get(set) else {
        return (Choice::NoSet, false);
    };
    let Some(first) = set_map.get_ptr(0) else {
        return (Choice::NoSet, false);
    };
    // SAFETY: entry 0 of a set is a header by construction; both types have one size and alignment.
    let header = unsafe { *first.cast::<SetHeader>() };
    if header.count == 0 {
        let nobody = if header.flags & SET_EMPTY_IS_DROP != 0 { Choice::NobodyHere } else { Choice::Nobody };
        return (nobody, false);
    }
    let counted = header.choice == CHOICE_LEAST_CONNECTIONS;
    if header.affinity_seconds == 0 {
        return (pick(set_map, &header, set, number), counted);
    }
    let key = AffinityKey { client: client(), set, zero: 0 };
    if let Some(kept) = affinity::kept(&key, header.affinity_seconds) {
        return (Choice::Backend(kept), counted);
    }
    let picked = pick(set_map, &header, set, number);
    if let Choice::Backend(backend) = &picked {
        affinity::keep(&key, backend);
    }
    (picked, counted)
}

/// Picks a backend the way the set wants it.
#[inline(always)]
fn pick(set_map: &Set, header: &SetHeader, set: u32, number: u32) -> Choice {
    let entry = match header.choice {
        CHOICE_MAGLEV => by_table(set_map, header, number),
        CHOICE_LEAST_CONNECTIONS => less_busy(set_map, header, set, number),
        _ => 1 + hash::reduce(number, header.count),
    };
    match backend(set_map, entry) {
        Some(backend) => Choice::Backend(*backend),
        None => Choice::NoSet,
    }
}

/// The backend at a place of a set.
#[inline(always)]
fn backend(set_map: &Set, entry: u32) -> Option<&Backend> {
    // SAFETY: behind a set's header lie backends by construction, as many bytes as the map's values; the map lives as long as
    // the program runs.
    set_map.get_ptr(entry).map(|place| unsafe { &*place.cast::<Backend>() })
}

/// The entry of the backend that has the number's place in the Maglev table.
#[inline(always)]
fn by_table(set_map: &Set, header: &SetHeader, number: u32) -> u32 {
    let place = hash::reduce(number, header.table_len);
    let Some(piece) = set_map.get_ptr(1 + header.count + place / TABLE_PLACES as u32) else {
        return 1 + hash::reduce(number, header.count);
    };
    // The verifier does not follow a remainder, so that it has to see the bound; which the compiler, who does, would
    // remove.
    let at = black_box(place as usize % TABLE_PLACES);
    if at >= TABLE_PLACES {
        return 1;
    }
    // SAFETY: behind a set's backends lie pieces of its table by construction; both types have one size and alignment.
    // The index is within the piece.
    let entry = unsafe { *piece.cast::<TablePiece>().cast::<u16>().add(at) } as u32;
    // Never an entry that is no backend, whatever the table says.
    if entry == 0 || entry > header.count { 1 } else { entry }
}

/// The entry of the backend with fewer open connections, of two that are not the same unless there is only one. Two
/// choices are enough to keep the busiest close to the average, and cost the same however many backends there are
/// (Mitzenmacher, "The power of two choices in randomized load balancing").
#[inline(always)]
fn less_busy(set_map: &Set, header: &SetHeader, set: u32, number: u32) -> u32 {
    let one = hash::reduce(number, header.count);
    if header.count == 1 {
        return 1;
    }
    let step = 1 + hash::reduce(hash::mix(number as u64) as u32, header.count - 1);
    let other = if one + step >= header.count { one + step - header.count } else { one + step };
    let service = set / SETS_PER_SERVICE;
    let busy = |index: u32| {
        // SAFETY: only a field is copied, at once.
        backend(set_map, 1 + index).map_or(0, |backend| open::count(service, backend.id))
    };
    1 + if busy(other) < busy(one) { other } else { one }
}
