//! A table of entries in an array: found, made, and the one longest not seen given up where there is no room.
//!
//! Entries lie in buckets of [`WAYS`], and a key may be in either of two, so that a table is three quarters full before anything
//! is given up. Each place has a head, a word that says which entry may be there; those of a bucket lie in one line of the cache.
//! A place is claimed by compare and swap of its head, filled, and published with another version, by which
//! a reader knows that what it read was one entry all the time. Nobody waits for anybody: who was stopped in the
//! middle keeps one place from others, and nothing else. Must not know what entries are.

/// Places of a bucket: as many heads as fit a line of the cache.
pub const WAYS: u32 = 8;

/// The entry is over, and given up before all others.
pub const OVER: u64 = 1 << 2;

// What a head says, from the lowest bits: state, `OVER`, version, tag, group, when the entry was last seen.
const STATE: u64 = 3;
const FREE: u64 = 0;
const TAKEN: u64 = 1;
const LIVE: u64 = 2;
const VERSION_ONE: u64 = 1 << 4;
const VERSION: u64 = 0xfff << 4;
const TAG: u64 = 0xffff << 16;
const GROUP_SHIFT: u32 = 32;
const SEEN_SHIFT: u32 = 48;
const SEEN: u64 = 0xffff << SEEN_SHIFT;
const TAKEN_WORTH: u64 = 1 << 20;
/// Above the number of a bucket, of which there are fewer.
const WAY_SHIFT: u32 = 28;
const BUCKETS_MASK: u32 = (1 << WAY_SHIFT) - 1;

/// How the memory of a table is read and written.
pub trait Memory {
    /// What entries are found by.
    type Key;
    /// How far the second bucket of a key may be from the first. Keys that come one after the other may have first buckets that
    /// are neighbours: within reach of each other their second ones are in the cache as well.
    const REACH: u32 = u32::MAX;

    /// How many buckets there are less one, all of its bits being ones.
    fn mask(&self) -> u32;
    /// A number that the compiler does not know: a loop up to it is not unrolled.
    fn opaque<const NUMBER: u32>(&self) -> u32;
    /// The heads of a bucket, [`WAYS`] of them.
    fn heads(&self, bucket: u32) -> Option<*mut u64>;
    /// Whether the place of this way has a key, of the bucket with these heads.
    fn has(&self, heads: *mut u64, way: u32, key: &Self::Key) -> bool;
    /// Reads a head; what is read of its entry afterwards is not older.
    fn read(&self, head: *mut u64) -> u64;
    /// Reads a head; what was read of its entry before is not newer.
    fn read_again(&self, head: *mut u64) -> u64;
    /// Writes a head whose place is the caller's, after all that was written there.
    fn publish(&self, head: *mut u64, to: u64);
    /// Changes a head that is still what it was. What is written afterwards is not seen before it.
    fn swap(&self, head: *mut u64, was: u64, to: u64) -> bool;
}

/// A place that has a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its number: the bucket's times [`WAYS`], and the way.
    pub place: u32,
    /// Its head as it was.
    pub head: u64,
}

/// What came of the wish for a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claimed {
    /// It is the caller's alone; nobody finds its entry until [`publish`].
    Place(u32),
    /// The key has one.
    Exists(u32),
    /// Another is about to make an entry that may have the key, or took the place: try again, or do without.
    Contended,
}

// === Heads ===

/// What a head says of its entry: some number of whom it belongs to, and when it was last seen, in seconds.
#[inline(always)]
pub fn marks(group: u32, seen_s: u64) -> u64 {
    u64::from(group as u16) << GROUP_SHIFT | seen_s << SEEN_SHIFT
}

/// When the entry with these marks was last seen.
#[inline(always)]
pub const fn seen_of(marks: u64) -> u64 {
    marks >> SEEN_SHIFT
}

/// The group of the entry that others may read, if there is one: its lower sixteen bits.
#[inline(always)]
pub fn group_of(head: u64) -> Option<u16> {
    (head & STATE == LIVE).then_some((head >> GROUP_SHIFT) as u16)
}

/// Whether an entry that was read is the one that a head was of.
#[inline(always)]
pub fn is_same(head: u64, later: u64) -> bool {
    (head ^ later) & (STATE | VERSION | TAG) == 0
}

#[inline(always)]
fn tag(hash: u64) -> u64 {
    (hash & 0xffff) << 16
}

/// How far another processor's clock may be ahead before what it just saw is taken for the oldest.
const AHEAD_S: u64 = 16;

/// How much would be missed with the entry of a head: free places nothing, those taken everything. Without a branch, for the
/// verifier would follow both ways of it in every place.
#[inline(always)]
fn worth(head: u64, now_s: u64) -> u64 {
    let age = (now_s + AHEAD_S).wrapping_sub(head >> SEEN_SHIFT) & 0xffff;
    let of_live = 1 + (0xffff - age) + ((!head & OVER) << 14);
    (of_live * (head >> 1 & 1)) | ((head & 1) * TAKEN_WORTH)
}

// === Places ===

/// The two buckets a key may be in: the first, and what makes each the other.
#[inline(always)]
fn buckets<M: Memory>(memory: &M, hash: u64) -> (u32, u32) {
    let mask = memory.mask();
    let home = (hash >> 16) as u32 & mask;
    let step = u32::from(hash as u16).wrapping_mul(0x5bd1_e995) | 1;
    (home, step & mask & M::REACH)
}

/// A head by the number of its place.
#[inline(always)]
pub fn head<M: Memory>(memory: &M, place: u32) -> Option<*mut u64> {
    // SAFETY: within the heads of the bucket.
    memory.heads(place / WAYS).map(|heads| unsafe { heads.add((place % WAYS) as usize) })
}

// Of the loops below the one over both buckets stays a loop; those over the ways of a bucket become a row of looks, of which each
// is only as long as it takes to see that the tag is another's, so that the processor is at the second bucket while it still
// waits for the first.

/// Finds an entry.
#[inline(always)]
pub fn find<M: Memory>(memory: &M, hash: u64, key: &M::Key) -> Option<Found> {
    let wanted = LIVE | tag(hash);
    let (home, step) = buckets(memory, hash);
    let mut bucket = home ^ step;
    let mut round = 0;
    while round < memory.opaque::<2>() {
        round += 1;
        bucket ^= step;
        let heads = memory.heads(bucket)?;
        for way in 0..WAYS {
            // SAFETY: within the heads of the bucket.
            let head = memory.read(unsafe { heads.add(way as usize) });
            if (head ^ wanted) & (STATE | TAG) == 0 && memory.has(heads, way, key) {
                return Some(Found { place: bucket * WAYS + way, head });
            }
        }
    }
    None
}

/// Claims a place for a new entry of a key, with [`marks`]. To be followed by [`clashes`]. Given up is what is worth least, and
/// nothing that is worth `worth_max`.
#[inline(always)]
pub fn claim<M: Memory>(
    memory: &M,
    hash: u64,
    key: &M::Key,
    marks: u64,
    (now_s, worth_max): (u64, u64),
) -> Claimed {
    match look(memory, hash, key) {
        Look::Full => match least(memory, hash, now_s, worth_max) {
            Some(place) => take(memory, hash, place, marks, |state| state != TAKEN),
            None => Claimed::Contended,
        },
        other => claim_free_of(memory, hash, other, marks),
    }
}

/// The same where nothing is given up: a place that is free.
#[inline(always)]
pub fn claim_free<M: Memory>(memory: &M, hash: u64, key: &M::Key, marks: u64) -> Claimed {
    claim_free_of(memory, hash, look(memory, hash, key), marks)
}

#[inline(always)]
fn claim_free_of<M: Memory>(memory: &M, hash: u64, look: Look, marks: u64) -> Claimed {
    match look {
        Look::Has(place) => Claimed::Exists(place),
        Look::Free(place) => take(memory, hash, place, marks, |state| state == FREE),
        Look::Full | Look::Taken => Claimed::Contended,
    }
}

/// What both buckets of a key have.
enum Look {
    /// The key, in this place.
    Has(u32),
    /// A place for which somebody may be about to make an entry with the key.
    Taken,
    /// This free place, and not the key.
    Free(u32),
    /// Neither.
    Full,
}

#[inline(always)]
fn look<M: Memory>(memory: &M, hash: u64, key: &M::Key) -> Look {
    let (home, step) = buckets(memory, hash);
    // The lowest free way of both buckets, so that both fill evenly.
    let (mut free, mut free_bucket) = (WAYS, home);
    let mut bucket = home ^ step;
    let mut round = 0;
    while round < memory.opaque::<2>() {
        round += 1;
        bucket ^= step;
        let Some(heads) = memory.heads(bucket) else { return Look::Full };
        let mut lowest = WAYS;
        for way in (0..WAYS).rev() {
            // SAFETY: within the heads of the bucket.
            let head = memory.read(unsafe { heads.add(way as usize) });
            if (head ^ tag(hash)) & TAG == 0 {
                if head & STATE == LIVE && memory.has(heads, way, key) {
                    return Look::Has(bucket * WAYS + way);
                }
                if head & STATE == TAKEN {
                    return Look::Taken;
                }
            }
            if head & STATE == FREE {
                lowest = way;
            }
        }
        if lowest < free {
            (free, free_bucket) = (lowest, bucket);
        }
    }
    if free < WAYS { Look::Free(free_bucket * WAYS + free) } else { Look::Full }
}

/// The place of both buckets of a key whose entry is worth least, and less than `worth_max`.
#[inline(always)]
fn least<M: Memory>(memory: &M, hash: u64, now_s: u64, worth_max: u64) -> Option<u32> {
    let (home, step) = buckets(memory, hash);
    // What is worth least, and where it is.
    let mut least = worth_max << 32;
    let mut bucket = home ^ step;
    let mut round = 0;
    while round < memory.opaque::<2>() {
        round += 1;
        bucket ^= step;
        let heads = memory.heads(bucket)?;
        let mut way = 0;
        while way < memory.opaque::<WAYS>() {
            // SAFETY: within the heads of the bucket.
            let head = memory.read(unsafe { heads.add(way as usize) });
            let this = worth(head, now_s) << 32 | u64::from(way << WAY_SHIFT | bucket);
            if this < least {
                least = this;
            }
            way += 1;
        }
    }
    (least >> 32 < worth_max).then(|| (least as u32 & BUCKETS_MASK) * WAYS + (least as u32 >> WAY_SHIFT))
}

/// Claims a place that was chosen, if its state is still a right one.
#[inline(always)]
fn take<M: Memory>(
    memory: &M,
    hash: u64,
    place: u32,
    marks: u64,
    is_right: impl FnOnce(u64) -> bool,
) -> Claimed {
    let Some(own) = head(memory, place) else { return Claimed::Contended };
    let was = memory.read(own);
    let taken = TAKEN | next_version(was) | tag(hash) | marks;
    if !is_right(was & STATE) || !memory.swap(own, was, taken) {
        return Claimed::Contended;
    }
    Claimed::Place(place)
}

/// The worth of no place.
pub const ANY_WORTH: u64 = TAKEN_WORTH;

/// The worth of a new entry with these marks, so that it takes the place of none that is worth as much.
#[inline(always)]
pub fn worth_of(marks: u64, now_s: u64) -> u64 {
    worth(marks | LIVE, now_s)
}

#[inline(always)]
fn next_version(head: u64) -> u64 {
    head.wrapping_add(VERSION_ONE) & VERSION
}

/// Whether another place has the key, or may be about to: to be asked by who has claimed a place and not filled it, and is then to
/// give it up. Of two who claim for one key at the same time each looks after it has claimed, so that one at least sees the
/// other.
#[inline(always)]
pub fn clashes<M: Memory>(memory: &M, hash: u64, key: &M::Key, own: u32) -> bool {
    let (home, step) = buckets(memory, hash);
    let mut bucket = home ^ step;
    let mut round = 0;
    while round < memory.opaque::<2>() {
        round += 1;
        bucket ^= step;
        let Some(heads) = memory.heads(bucket) else { return true };
        for way in 0..WAYS {
            // SAFETY: within the heads of the bucket.
            let head = memory.read(unsafe { heads.add(way as usize) });
            if (head ^ tag(hash)) & TAG == 0
                && head & STATE != FREE
                && bucket * WAYS + way != own
                && (head & STATE == TAKEN || memory.has(heads, way, key))
            {
                return true;
            }
        }
    }
    false
}

/// Claims a place that has a key already, to write its entry anew.
#[inline(always)]
pub fn claim_again<M: Memory>(memory: &M, hash: u64, key: &M::Key, place: u32, marks: u64) -> bool {
    let Some(heads) = memory.heads(place / WAYS) else { return false };
    let way = place % WAYS;
    // SAFETY: within the heads of the bucket.
    let own = unsafe { heads.add(way as usize) };
    let was = memory.read(own);
    if (was ^ (LIVE | tag(hash))) & (STATE | TAG) != 0 {
        return false;
    }
    if !memory.swap(own, was, TAKEN | next_version(was) | tag(hash) | marks) {
        return false;
    }
    if !memory.has(heads, way, key) {
        memory.publish(own, was);
        return false;
    }
    true
}

/// Has everybody find the entry of a place that was claimed and is filled.
#[inline(always)]
pub fn publish<M: Memory>(memory: &M, place: u32) {
    if let Some(own) = head(memory, place) {
        memory.publish(own, memory.read(own) & !STATE | LIVE);
    }
}

/// Gives up a place that was claimed.
#[inline(always)]
pub fn give_up<M: Memory>(memory: &M, place: u32) {
    if let Some(own) = head(memory, place) {
        memory.publish(own, memory.read(own) & !STATE);
    }
}

/// Removes the entry that was found.
#[inline(always)]
pub fn remove<M: Memory>(memory: &M, found: Found) -> bool {
    let Some(own) = head(memory, found.place) else { return false };
    let now = memory.read(own);
    is_same(found.head, now) && memory.swap(own, now, now & !STATE)
}

/// Notes when the entry that was found was last seen, and perhaps that it is over.
#[inline(always)]
pub fn mark<M: Memory>(memory: &M, found: Found, seen_s: u64, over: bool) {
    if let Some(own) = head(memory, found.place) {
        let now = memory.read(own);
        if is_same(found.head, now) {
            let over = if over { OVER } else { 0 };
            // Another marked it just now, or took it.
            let _ = memory.swap(own, now, now & !SEEN | seen_s << SEEN_SHIFT | over);
        }
    }
}

/// Whether what was read of the entry that was found was that entry all the time.
#[inline(always)]
pub fn is_still<M: Memory>(memory: &M, found: Found) -> bool {
    head(memory, found.place).is_some_and(|own| is_same(found.head, memory.read_again(own)))
}

#[cfg(test)]
mod tests;
