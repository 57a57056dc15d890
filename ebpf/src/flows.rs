//! The table of flows, through an exchange of maps as [`crate::kept`] has it.
//!
//! The steps that look at a bucket are functions of their own, proven once each.

use core::mem::offset_of;

use penstock_ebpf_common::{Flow, FlowBucket, FlowKey, FlowValue};
use penstock_ebpf_packet::hash;
use penstock_ebpf_packet::table::{self, Claimed, Found};

use crate::clock::SECOND_NS;
use crate::entries::{self, ENTRIES_OFFSET, Entries, FORMER, PRESENT};
use crate::kept::carries;
use crate::maps;
use crate::work;

/// How many buckets there are less one, put in when the programs are loaded.
#[unsafe(no_mangle)]
static FLOWS_MASK: u32 = 0;
/// The same of the map that is being replaced.
#[unsafe(no_mangle)]
static FORMER_FLOWS_MASK: u32 = 0;

/// Flows as entries of a table.
#[derive(Clone, Copy)]
struct Flows;

impl Entries for Flows {
    type Key = FlowKey;
    type Entry = Flow;
    const REACH: u32 = u32::MAX;

    #[inline(always)]
    fn mask(former: bool) -> *const u32 {
        if former { &raw const FORMER_FLOWS_MASK } else { &raw const FLOWS_MASK }
    }

    #[inline(always)]
    fn bucket(former: bool, bucket: u32) -> Option<*mut u64> {
        const { assert!(offset_of!(FlowBucket, flows) == ENTRIES_OFFSET) };
        let bucket =
            if former { maps::FORMER_FLOWS.get_ptr_mut(bucket) } else { maps::FLOWS.get_ptr_mut(bucket) };
        bucket.map(<*mut FlowBucket>::cast)
    }

    #[inline(always)]
    fn is_of(entry: *const Flow, key: &FlowKey) -> bool {
        const WORDS: usize = size_of::<FlowKey>() / size_of::<u64>();
        const { assert!(WORDS == 5 && offset_of!(Flow, key) == 0) };
        let (key, there) = ((&raw const *key).cast::<u64>(), entry.cast::<u64>());
        // SAFETY: the words of both keys. Volatile, for others may write an entry meanwhile, and the head tells.
        let same = |at: usize| unsafe { there.add(at).read_volatile() == key.add(at).read_volatile() };
        // What differs most comes first.
        same(4) && same(1) && same(3) && same(0) && same(2)
    }
}

type Table = entries::Table<Flows>;

// === Steps ===

/// The number of a place and one, above it the lower half of its head; zero for none.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn penstock_flow_find(key: *const FlowKey, hash: u64, which: u32) -> u64 {
    if key.is_null() {
        return 0;
    }
    // SAFETY: not null, and of the type.
    let found = table::find(&Table::of(which), hash, unsafe { &*key });
    found.map_or(0, |found| found.head << 32 | u64::from(found.place) + 1)
}

/// Of what [`penstock_flow_claim`] answers: the key has a place.
const EXISTS: u32 = 1 << 31;

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn penstock_flow_claim(key: *const FlowKey, hash: u64, marks: u64, which: u32) -> u32 {
    if key.is_null() {
        return 0;
    }
    // SAFETY: not null, and of the type.
    let (key, table) = (unsafe { &*key }, Table::of(which));
    match table::claim(&table, hash, key, marks, (table::seen_of(marks), table::ANY_WORTH)) {
        Claimed::Place(place) if table::clashes(&table, hash, key, place) => {
            table::give_up(&table, place);
            0
        }
        Claimed::Place(place) => place + 1,
        Claimed::Exists(place) => (place + 1) | EXISTS,
        Claimed::Contended => 0,
    }
}

/// Makes an entry, or (with `anew`) writes it anew. Zero when there is one, or no place.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn penstock_flow_insert(
    key: *const FlowKey,
    value: *const FlowValue,
    anew: u32,
    which: u32,
) -> u32 {
    if key.is_null() || value.is_null() {
        return 0;
    }
    // SAFETY: not null, and of the types.
    let (key, value) = unsafe { (&*key, &*value) };
    insert(Table::of(which), key, value, anew != 0) as u32
}

#[inline(always)]
fn insert(table: Table, key: &FlowKey, value: &FlowValue, anew: bool) -> bool {
    match claim(table, key, hash::flow_wide(key), marks(value)) {
        Some(claim) if anew || !claim.exists => put_into(table, &claim, key, value),
        _ => false,
    }
}

/// Claims a place that has the key already. Zero when it has another by now.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn penstock_flow_claim_again(key: *const FlowKey, place: u32, marks: u64, which: u32) -> u32 {
    if key.is_null() {
        return 0;
    }
    // SAFETY: not null, and of the type.
    let key = unsafe { &*key };
    table::claim_again(&Table::of(which), hash::flow_wide(key), key, place, marks) as u32
}

#[inline(always)]
fn put_into(table: Table, claim: &Claim, key: &FlowKey, value: &FlowValue) -> bool {
    if claim.exists && penstock_flow_claim_again(key, claim.place, marks(value), table.which) == 0 {
        return false;
    }
    fill(table, claim.place, key, value)
}

/// A place for an entry.
#[derive(Clone, Copy)]
pub struct Claim {
    place: u32,
    /// Whether the key has it, so that it is not the caller's yet.
    pub exists: bool,
}

#[inline(always)]
fn claim(table: Table, key: &FlowKey, hash: u64, marks: u64) -> Option<Claim> {
    let answer = penstock_flow_claim(key, hash, marks, table.which);
    (answer != 0).then(|| Claim { place: (answer & !EXISTS) - 1, exists: answer & EXISTS != 0 })
}

/// Writes an entry into a place that is the caller's.
#[inline(always)]
fn fill(table: Table, place: u32, key: &FlowKey, value: &FlowValue) -> bool {
    let Some(flow) = table.entry(place) else {
        return false;
    };
    // SAFETY: the place is this program's until it is published.
    let flow = unsafe { &mut *flow };
    work::copy(&mut flow.key, key);
    work::copy(&mut flow.value, value);
    table::publish(&table, place);
    true
}

#[inline(always)]
fn marks(value: &FlowValue) -> u64 {
    table::marks(value.service, value.seen_ns / SECOND_NS)
}

#[inline(always)]
fn find(table: Table, key: &FlowKey, hash: u64) -> Option<Found> {
    let answer = penstock_flow_find(key, hash, table.which);
    let place = answer as u32;
    (place != 0).then(|| Found { place: place - 1, head: answer >> 32 })
}

// === Flows ===

const TABLE: Table = Table::of(PRESENT);
const FORMER_TABLE: Table = Table::of(FORMER);

/// A flow that was found.
#[derive(Clone, Copy)]
pub struct Held {
    found: Found,
    /// The value in its place.
    pub value: *mut FlowValue,
}

impl Held {
    /// Whether what was read of it was of this flow all the time.
    #[inline(always)]
    pub fn is_still(&self) -> bool {
        table::is_still(&TABLE, self.found)
    }

    /// Notes in its head when it was seen, and whether it is over.
    #[inline(always)]
    pub fn mark(&self, seen_ns: u64, over: bool) {
        table::mark(&TABLE, self.found, seen_ns / SECOND_NS, over);
    }
}

/// Finds a flow.
#[inline(always)]
pub fn get(key: &FlowKey) -> Option<Held> {
    get_hashed(key, hash::flow_wide(key))
}

/// The same, of whose key the hash is known.
#[inline(always)]
fn get_hashed(key: &FlowKey, hash: u64) -> Option<Held> {
    let found = match find(TABLE, key, hash) {
        None if carries() => {
            bring(key);
            find(TABLE, key, hash)
        }
        found => found,
    }?;
    // SAFETY: within the entry.
    TABLE.entry(found.place).map(|flow| Held { found, value: unsafe { &raw mut (*flow).value } })
}

/// Finds a flow by its key and the key's hash, and copies it.
#[inline(always)]
pub fn read(key: &FlowKey, hash: u64, to: &mut FlowValue) -> Option<Held> {
    let held = get_hashed(key, hash)?;
    // SAFETY: valid while the program runs; should it become another flow's meanwhile, that is seen.
    work::copy(to, unsafe { &*held.value });
    held.is_still().then_some(held)
}

/// Claims a place for a new flow of a service that is seen in this second, to be filled by [`put`] or given up.
#[inline(always)]
pub fn reserve(key: &FlowKey, hash: u64, service: u32, now_s: u64) -> Option<Claim> {
    if carries() {
        bring(key);
    }
    claim(TABLE, key, hash, table::marks(service, now_s))
}

/// The flow of a place that exists.
#[inline(always)]
pub fn at(claim: &Claim) -> Option<*mut FlowValue> {
    // SAFETY: within the entry.
    TABLE.entry(claim.place).map(|flow| unsafe { &raw mut (*flow).value })
}

/// Gives up a new place.
#[inline(always)]
pub fn give_up(claim: &Claim) {
    if !claim.exists {
        table::give_up(&TABLE, claim.place);
    }
}

/// Writes the flow.
#[inline(always)]
pub fn put(claim: &Claim, key: &FlowKey, value: &FlowValue) -> bool {
    let filled = put_into(TABLE, claim, key, value);
    if filled && carries() {
        insert(FORMER_TABLE, key, value, true);
    }
    filled
}

/// Makes an entry where there is none.
#[inline(always)]
pub fn insert_new(key: &FlowKey, value: &FlowValue) -> bool {
    if carries() {
        bring(key);
    }
    insert_into_both(key, value, 0)
}

/// Makes an entry, or writes it anew.
#[inline(always)]
pub fn set(key: &FlowKey, value: &FlowValue) -> bool {
    insert_into_both(key, value, 1)
}

#[inline(always)]
fn insert_into_both(key: &FlowKey, value: &FlowValue, anew: u32) -> bool {
    let made = penstock_flow_insert(key, value, anew, PRESENT) != 0;
    if made && carries() {
        penstock_flow_insert(key, value, 1, FORMER);
    }
    made
}

/// Removes a flow. From the former map first: who brings entries over looks there again after the fact.
#[inline(always)]
pub fn remove(key: &FlowKey) {
    if carries()
        && let Some(found) = find(FORMER_TABLE, key, hash::flow_wide(key))
    {
        table::remove(&FORMER_TABLE, found);
    }
    if let Some(found) = find(TABLE, key, hash::flow_wide(key)) {
        table::remove(&TABLE, found);
    }
}

/// Brings a flow over from the former map, unless it is there.
#[inline(always)]
fn bring(key: &FlowKey) {
    penstock_flow_bring(key);
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn penstock_flow_bring(key: *const FlowKey) -> u32 {
    if key.is_null() || !carries() {
        return 0;
    }
    // SAFETY: not null, and of the type.
    let key = unsafe { &*key };
    let (Some(work), Some(found)) = (work::get(), find(FORMER_TABLE, key, hash::flow_wide(key))) else {
        return 0;
    };
    let Some(flow) = FORMER_TABLE.entry(found.place) else {
        return 0;
    };
    // SAFETY: copied, and looked at after that.
    work::copy(&mut work.brought, unsafe { &(*flow).value });
    if !table::is_still(&FORMER_TABLE, found) {
        return 0;
    }
    insert(TABLE, key, &work.brought, false) as u32
}
