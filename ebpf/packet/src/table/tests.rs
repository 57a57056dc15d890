//! The rules of a table, against a map, and under threads that use it all at once.

extern crate std;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::hash;

/// Words of an entry that all say the same, so that a torn one shows.
const WORDS: usize = 4;

/// A table of numbers, whose entries are a key and some words.
struct Numbers {
    heads: Vec<AtomicU64>,
    entries: Vec<[AtomicU64; 1 + WORDS]>,
}

impl Numbers {
    fn new(buckets: usize) -> Self {
        let places = buckets * WAYS as usize;
        Self {
            heads: (0..places).map(|_| AtomicU64::new(0)).collect(),
            entries: (0..places).map(|_| Default::default()).collect(),
        }
    }

    fn insert(&self, key: u64, word: u64, now_s: u64) -> Claimed {
        let claimed = claim(self, hash::mix(key), &key, marks(0, now_s), (now_s, ANY_WORTH));
        if let Claimed::Place(place) = claimed {
            std::thread::yield_now();
            if clashes(self, hash::mix(key), &key, place) {
                give_up(self, place);
                return Claimed::Contended;
            }
            self.write(place, key, word);
            publish(self, place);
        }
        claimed
    }

    fn write(&self, place: u32, key: u64, word: u64) {
        let entry = &self.entries[place as usize];
        entry[0].store(key, Ordering::Relaxed);
        for to in &entry[1..] {
            to.store(word, Ordering::Relaxed);
            // Others are let in wherever they could do harm.
            std::thread::yield_now();
        }
    }

    /// The words of an entry, if they were of one entry all the time.
    fn words(&self, key: u64) -> Option<[u64; WORDS]> {
        let found = find(self, hash::mix(key), &key)?;
        let entry = &self.entries[found.place as usize];
        let words = std::array::from_fn(|at| {
            std::thread::yield_now();
            entry[1 + at].load(Ordering::Relaxed)
        });
        is_still(self, found).then_some(words)
    }

    fn get(&self, key: u64) -> Option<u64> {
        self.words(key).map(|words| words[0])
    }

    fn remove(&self, key: u64) -> bool {
        find(self, hash::mix(key), &key).is_some_and(|found| remove(self, found))
    }

    fn live(&self) -> usize {
        self.heads.iter().filter(|head| group_of(head.load(Ordering::Relaxed)).is_some()).count()
    }
}

impl Memory for Numbers {
    type Key = u64;

    fn mask(&self) -> u32 {
        self.heads.len() as u32 / WAYS - 1
    }

    fn opaque<const NUMBER: u32>(&self) -> u32 {
        NUMBER
    }

    fn heads(&self, bucket: u32) -> Option<*mut u64> {
        self.heads.get((bucket * WAYS) as usize).map(AtomicU64::as_ptr)
    }

    fn has(&self, heads: *mut u64, way: u32, key: &u64) -> bool {
        // SAFETY: heads of this table, which lie in one piece.
        let first = unsafe { heads.offset_from(self.heads[0].as_ptr()) } as usize;
        self.entries[first + way as usize][0].load(Ordering::Relaxed) == *key
    }

    fn read(&self, head: *mut u64) -> u64 {
        // SAFETY: a head of this table.
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
        // After all places were looked at, and before one is claimed.
        std::thread::yield_now();
        // SAFETY: as above.
        let head = unsafe { AtomicU64::from_ptr(head) };
        let swapped = head.compare_exchange(was, to, Ordering::SeqCst, Ordering::Relaxed).is_ok();
        fence(Ordering::SeqCst);
        swapped
    }
}

#[test]
fn a_table_is_three_quarters_full_before_anything_is_given_up() {
    let table = Numbers::new(1024);
    let places = table.heads.len();
    let mut kept = 0;
    for key in 0..places as u64 {
        assert!(matches!(table.insert(key, key, 9), Claimed::Place(_)));
        if table.live() < key as usize + 1 {
            break;
        }
        kept = key as usize + 1;
    }
    assert!(kept * 4 > places * 3, "{kept} of {places}");
}

/// The same table by sockets' numbers, whose second buckets are near their first.
struct Sockets(Numbers);

impl Memory for Sockets {
    type Key = u64;
    const REACH: u32 = hash::SOCKETS_REACH;

    fn mask(&self) -> u32 {
        self.0.mask()
    }

    fn opaque<const NUMBER: u32>(&self) -> u32 {
        NUMBER
    }

    fn heads(&self, bucket: u32) -> Option<*mut u64> {
        self.0.heads(bucket)
    }

    fn has(&self, heads: *mut u64, way: u32, key: &u64) -> bool {
        self.0.has(heads, way, key)
    }

    fn read(&self, head: *mut u64) -> u64 {
        self.0.read(head)
    }

    fn read_again(&self, head: *mut u64) -> u64 {
        self.0.read_again(head)
    }

    fn publish(&self, head: *mut u64, to: u64) {
        self.0.publish(head, to);
    }

    fn swap(&self, head: *mut u64, was: u64, to: u64) -> bool {
        self.0.swap(head, was, to)
    }
}

impl Sockets {
    fn note(&self, cookie: u64) -> bool {
        let Claimed::Place(place) = claim_free(self, hash::socket(cookie), &cookie, marks(0, 0)) else {
            return false;
        };
        self.0.write(place, cookie, cookie);
        publish(self, place);
        true
    }

    fn forget(&self, cookie: u64) {
        let found = find(self, hash::socket(cookie), &cookie).expect("there");
        give_up(self, found.place);
    }
}

#[test]
fn sockets_that_stay_and_sockets_that_come_and_go_find_a_place_while_half_of_all_are_free() {
    let table = Sockets(Numbers::new(1024));
    let places = table.0.heads.len() as u64;
    // As the kernel numbers them: in a row. Of every ten one stays, until half of the table is full.
    let mut stay = Vec::new();
    for cookie in 1.. {
        assert!(table.note(cookie), "with {} of {places}", stay.len());
        if cookie % 10 == 0 {
            stay.push(cookie)
        } else {
            table.forget(cookie)
        }
        if stay.len() as u64 == places / 2 {
            break;
        }
    }
    for cookie in &stay {
        assert!(find(&table, hash::socket(*cookie), cookie).is_some());
    }
}

#[test]
fn sockets_in_a_row_find_a_place_until_half_are_taken_and_nobody_s_is_given_up() {
    let table = Sockets(Numbers::new(1024));
    let places = table.0.heads.len() as u64;
    let first = (0..).find(|cookie| !table.note(*cookie)).expect("it is full some time");
    assert!(first >= places / 2, "{first} of {places}");
    let others = (first + 1..8 * places).filter(|cookie| table.note(*cookie)).count() as u64;
    assert_eq!(
        (first + others, table.0.live() as u64),
        (places, places),
        "all are taken, and none was given up"
    );
}

#[test]
fn what_is_over_is_given_up_first_and_then_what_was_longest_not_seen() {
    let table = Numbers::new(2);
    for key in 0..16 {
        table.insert(key, key, 100 + key);
    }
    let over = find(&table, hash::mix(9), &9).expect("there");
    mark(&table, over, 500, true);
    let seen = find(&table, hash::mix(0), &0).expect("there");
    mark(&table, seen, 501, false);
    for (key, gone) in [(20, 9), (21, 1), (22, 2)] {
        assert!(matches!(table.insert(key, key, 502), Claimed::Place(_)));
        assert_eq!((table.get(gone), table.get(key)), (None, Some(key)));
    }
    assert_eq!((table.get(0), table.live()), (Some(0), 16));
}

#[test]
fn what_another_processor_saw_a_moment_later_is_not_the_oldest() {
    assert!(worth(LIVE | marks(0, 101), 100) > worth(LIVE | marks(0, 99), 100));
    assert!(
        worth(LIVE | marks(0, 3), 0x1_0002) > worth(LIVE | marks(0, 0xfff0), 0x1_0002),
        "when seconds begin anew"
    );
}

#[test]
fn an_older_entry_takes_no_place_of_newer_ones() {
    let table = Numbers::new(2);
    for key in 0..16 {
        table.insert(key, key, 100);
    }
    let older = (100, worth_of(marks(0, 90), 100));
    assert_eq!(claim(&table, hash::mix(99), &99, marks(0, 90), older), Claimed::Contended);
    assert!(table.remove(3));
    assert!(matches!(claim(&table, hash::mix(99), &99, marks(0, 90), older), Claimed::Place(_)));
}

#[test]
fn a_free_place_that_another_fills_before_it_is_claimed_is_not_taken_from_it() {
    let table = Numbers::new(4);
    let hash = hash::mix(7);
    let Look::Free(place) = look(&table, hash, &7) else { panic!("a place") };
    table.write(place, 8, 8);
    publish(&table, place);
    assert_eq!(claim_free_of(&table, hash, Look::Free(place), marks(0, 1)), Claimed::Contended);
    assert!(matches!(table.insert(7, 7, 1), Claimed::Place(other) if other != place));
}

#[test]
fn a_key_whose_place_is_claimed_and_not_filled_is_not_found_nor_claimed_twice() {
    let table = Numbers::new(4);
    let hash = hash::mix(7);
    let Claimed::Place(place) = claim(&table, hash, &7, marks(0, 1), (1, ANY_WORTH)) else {
        panic!("a place")
    };
    assert!(!clashes(&table, hash, &7, place));
    assert_eq!((table.get(7), table.insert(7, 8, 1)), (None, Claimed::Contended));
    table.write(place, 7, 9);
    publish(&table, place);
    assert_eq!((table.get(7), table.insert(7, 8, 1)), (Some(9), Claimed::Exists(place)));
    assert!(!claim_again(&table, hash, &8, place, 0) && table.get(7) == Some(9), "another key's");
    assert!(claim_again(&table, hash, &7, place, 0) && table.get(7).is_none());
}

proptest! {
    #[test]
    fn a_table_with_room_is_as_a_map(steps in proptest::collection::vec((0..3, 0..40_u64, 0..9_u64), 1..400)) {
        let (table, mut model) = (Numbers::new(64), BTreeMap::new());
        for (what, key, word) in steps {
            match what {
                0 => {
                    let is_new = matches!(table.insert(key, word, 5), Claimed::Place(_));
                    prop_assert_eq!(is_new, !model.contains_key(&key));
                    model.entry(key).or_insert(word);
                }
                1 => prop_assert_eq!(table.remove(key), model.remove(&key).is_some()),
                _ => prop_assert_eq!(table.get(key), model.get(&key).copied()),
            }
            prop_assert_eq!(table.live(), model.len());
        }
    }
}

/// Threads that make, read and remove the same few keys all the time.
#[test]
fn no_entry_is_read_torn_or_made_twice_or_lost_by_many_threads() {
    const THREADS: u64 = 4;
    /// They fit whichever bucket they are in: nothing is given up.
    const KEYS: u64 = 8;
    const ROUNDS: u64 = 4_000;
    let table = Numbers::new(2);
    // How often each key was made and removed: never more than one more.
    let balance: Vec<_> = (0..KEYS).map(|_| AtomicU64::new(0)).collect();
    let table = &table;
    let balance = &balance;
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            scope.spawn(move || {
                let mut chance = thread + 1;
                for round in 0..ROUNDS {
                    chance = hash::mix(chance.wrapping_add(round));
                    let key = chance % KEYS;
                    match chance >> 32 & 3 {
                        0 => {
                            if let Claimed::Place(_) = table.insert(key, key << 32 | round, 5) {
                                balance[key as usize].fetch_add(1, Ordering::SeqCst);
                            }
                        }
                        1 => {
                            if table.remove(key) {
                                // Made before it was removed, though perhaps not counted yet.
                                balance[key as usize].fetch_sub(1, Ordering::SeqCst);
                            }
                        }
                        _ => {
                            if let Some(words) = table.words(key) {
                                assert!(words.iter().all(|word| *word == words[0]), "torn: {words:x?}");
                                assert_eq!(words[0] >> 32, key, "another key's");
                            }
                        }
                    }
                }
            });
        }
    });
    let there = |key: u64| {
        (0..table.heads.len())
            .filter(|place| table.heads[*place].load(Ordering::Relaxed) & STATE == LIVE)
            .filter(|place| table.entries[*place][0].load(Ordering::Relaxed) == key)
            .count() as u64
    };
    for key in 0..KEYS {
        assert_eq!(balance[key as usize].load(Ordering::SeqCst), there(key), "of key {key}");
        assert!(there(key) <= 1);
    }
    assert!(
        table.heads.iter().all(|head| head.load(Ordering::Relaxed) & STATE != TAKEN),
        "none is left claimed"
    );
}

#[test]
fn threads_that_push_each_other_s_entries_out_read_whole_ones() {
    let table = &Numbers::new(2);
    std::thread::scope(|scope| {
        for thread in 0..4_u64 {
            scope.spawn(move || {
                let mut chance = thread + 1;
                for round in 0..4_000 {
                    chance = hash::mix(chance.wrapping_add(round));
                    let key = chance % 200;
                    if chance >> 32 & 1 == 0 {
                        table.insert(key, key << 32 | round, round / 50);
                    } else if let Some(words) = table.words(key) {
                        assert!(words.iter().all(|word| *word == words[0]), "torn: {words:x?}");
                        assert_eq!(words[0] >> 32, key, "another key's");
                    }
                }
            });
        }
    });
    let mut keys: Vec<_> = table.entries.iter().map(|entry| entry[0].load(Ordering::Relaxed)).collect();
    keys.sort_unstable();
    assert_eq!(keys.windows(2).filter(|pair| pair[0] == pair[1]).count(), 0, "made twice: {keys:?}");
}
