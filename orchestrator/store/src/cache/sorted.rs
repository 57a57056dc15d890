//! Records in key order, in pieces that snapshots share.
//!
//! A snapshot costs a pointer a piece, not one a record; a change while a snapshot is held copies one piece. How many
//! records lie between two keys is told by the lengths of the pieces between them, so that a page of a large kind does
//! not cost what the kind holds.

use std::ops::Range;
use std::sync::Arc;

use super::Item;

/// A piece with more records than this is cut in two.
const PIECE_RECORDS_MAX: usize = 512;
/// Records of a piece when many are added in order, which leaves room for others.
const PIECE_RECORDS_FILLED: usize = 384;

type Piece<T> = Arc<Vec<Arc<Item<T>>>>;

/// A sorted map of records by their key. Cloning it makes a snapshot.
pub(super) struct Sorted<T> {
    /// None is empty.
    pieces: Vec<Piece<T>>,
}

/// A place between records: which piece, and where in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    piece: usize,
    within: usize,
}

// === impl Sorted ===

impl<T> Sorted<T> {
    pub(super) fn new() -> Self {
        Self { pieces: Vec::new() }
    }

    /// Adds a record with a key beyond all others; with any other key it is an ordinary insertion.
    pub(super) fn push(&mut self, item: Arc<Item<T>>) {
        let last = self.pieces.last().and_then(|piece| piece.last());
        if last.is_some_and(|last| last.key >= item.key) {
            drop(self.insert(item));
            return;
        }
        match self.pieces.last_mut() {
            Some(piece) if piece.len() < PIECE_RECORDS_FILLED => Arc::make_mut(piece).push(item),
            _ => self.pieces.push(Arc::new(vec![item])),
        }
    }

    pub(super) fn get(&self, key: &str) -> Option<&Arc<Item<T>>> {
        let place = self.first_not(|it| it < key);
        self.at(place).filter(|item| &*item.key == key)
    }

    /// Puts a record in its place; gives the one that was there.
    pub(super) fn insert(&mut self, item: Arc<Item<T>>) -> Option<Arc<Item<T>>> {
        let mut place = self.first_not(|it| it < &*item.key);
        if let Some(there) = self.at(place)
            && there.key == item.key
        {
            let piece = Arc::make_mut(&mut self.pieces[place.piece]);
            return Some(std::mem::replace(&mut piece[place.within], item));
        }
        if place.piece == self.pieces.len() {
            // Beyond everything: into the last piece.
            match self.pieces.last() {
                None => {
                    self.pieces.push(Arc::new(vec![item]));
                    return None;
                }
                Some(last) => place = Place { piece: self.pieces.len() - 1, within: last.len() },
            }
        }
        let piece = Arc::make_mut(&mut self.pieces[place.piece]);
        piece.insert(place.within, item);
        if piece.len() > PIECE_RECORDS_MAX {
            // At the very end records are probably added in order: the piece stays full.
            let at_end =
                place.piece + 1 == self.pieces.len() && place.within + 1 == self.pieces[place.piece].len();
            let piece = Arc::make_mut(&mut self.pieces[place.piece]);
            let cut = if at_end { PIECE_RECORDS_FILLED } else { piece.len() / 2 };
            let rest = piece.split_off(cut);
            piece.shrink_to_fit();
            self.pieces.insert(place.piece + 1, Arc::new(rest));
        }
        None
    }

    pub(super) fn remove(&mut self, key: &str) -> Option<Arc<Item<T>>> {
        let place = self.first_not(|it| it < key);
        self.at(place).filter(|item| &*item.key == key)?;
        let piece = Arc::make_mut(&mut self.pieces[place.piece]);
        let removed = piece.remove(place.within);
        if piece.is_empty() {
            self.pieces.remove(place.piece);
        }
        Some(removed)
    }

    /// The records under a prefix after a key, if one is given, and at most so many; and how many more there are.
    pub(super) fn page(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: Option<usize>,
    ) -> (Vec<Arc<Item<T>>>, usize) {
        let end = self.first_not(|it| it < prefix || it.starts_with(prefix));
        let begin = match after.filter(|after| *after >= prefix) {
            Some(after) => self.first_not(|it| it <= after),
            None => self.first_not(|it| it < prefix),
        };
        if begin >= end {
            return (Vec::new(), 0);
        }
        let there = self.count(begin, end);
        let given = limit.unwrap_or(usize::MAX).min(there);
        let mut items = Vec::with_capacity(given);
        for (number, piece) in self.pieces.iter().enumerate().skip(begin.piece) {
            if items.len() == given {
                break;
            }
            let from = if number == begin.piece { begin.within } else { 0 };
            let part = &piece[from..];
            items.extend(part.iter().take(given - items.len()).cloned());
        }
        (items, there - given)
    }

    /// The first place whose record the condition does not hold of. It must hold of all before and none after.
    fn first_not(&self, holds: impl Fn(&str) -> bool) -> Place {
        let piece = self.pieces.partition_point(|piece| piece.last().is_some_and(|last| holds(&last.key)));
        let within = self.pieces.get(piece).map_or(0, |piece| piece.partition_point(|it| holds(&it.key)));
        Place { piece, within }
    }

    fn at(&self, place: Place) -> Option<&Arc<Item<T>>> {
        self.pieces.get(place.piece)?.get(place.within)
    }

    fn count(&self, begin: Place, end: Place) -> usize {
        let pieces = Range { start: begin.piece, end: end.piece };
        let whole: usize = self.pieces[pieces].iter().map(|piece| piece.len()).sum();
        whole + end.within - begin.within
    }
}

impl<T> Clone for Sorted<T> {
    fn clone(&self) -> Self {
        Self { pieces: self.pieces.clone() }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::Revision;

    fn item(key: &str, value: u32) -> Arc<Item<u32>> {
        Arc::new(Item { key: key.into(), created: Revision(1), revision: Revision(1), value_bytes: 0, value })
    }

    fn key(n: u16) -> String {
        format!("/{}/{n:05}", n % 3)
    }

    fn keys(items: &[Arc<Item<u32>>]) -> Vec<String> {
        items.iter().map(|item| item.key.to_string()).collect()
    }

    #[derive(Clone, Debug)]
    enum Step {
        Insert(u16, u32),
        Remove(u16),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let numbers = 0u16..2_000;
        let step = prop_oneof![
            4 => (numbers.clone(), any::<u32>()).prop_map(|(n, value)| Step::Insert(n, value)),
            1 => numbers.prop_map(Step::Remove),
        ];
        prop::collection::vec(step, 0..3_000)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn it_does_what_a_map_does_and_snapshots_stay_what_they_were(
            steps in steps(), limit in 0usize..700, after: prop::sample::Index, snapshot_at: prop::sample::Index,
        ) {
            let (mut sorted, mut map) = (Sorted::new(), BTreeMap::new());
            let mut snapshot = (sorted.clone(), map.clone());
            let when = snapshot_at.index(steps.len() + 1);
            for (number, step) in steps.iter().enumerate() {
                if number == when {
                    snapshot = (sorted.clone(), map.clone());
                }
                match step {
                    Step::Insert(n, value) => {
                        let before = sorted.insert(item(&key(*n), *value)).map(|item| item.value);
                        prop_assert_eq!(before, map.insert(key(*n), *value));
                    }
                    Step::Remove(n) => {
                        let before = sorted.remove(&key(*n)).map(|item| item.value);
                        prop_assert_eq!(before, map.remove(&key(*n)));
                    }
                }
            }
            for (sorted, map) in [(&sorted, &map), (&snapshot.0, &snapshot.1)] {
                for prefix in ["/", "/0/", "/1/", "/2/", "/3/", "0"] {
                    let under: Vec<String> = map.keys().filter(|key| key.starts_with(prefix)).cloned().collect();
                    let (items, remaining) = sorted.page(prefix, None, None);
                    prop_assert_eq!((keys(&items), remaining), (under.clone(), 0));
                    let after = key(u16::try_from(after.index(2_000)).unwrap());
                    let rest: Vec<String> = under.into_iter().filter(|key| *key > after).collect();
                    let (items, remaining) = sorted.page(prefix, Some(&after), Some(limit));
                    prop_assert_eq!(keys(&items), rest[..limit.min(rest.len())].to_vec());
                    prop_assert_eq!(remaining, rest.len() - limit.min(rest.len()));
                }
                for n in 0..2_000 {
                    prop_assert_eq!(sorted.get(&key(n)).map(|item| item.value), map.get(&key(n)).copied());
                }
            }
        }
    }

    #[test]
    fn records_pushed_in_order_are_all_there_and_pieces_have_room() {
        let mut sorted = Sorted::new();
        (0..2_000).for_each(|n| sorted.push(item(&format!("/{n:05}"), n)));
        sorted.push(item("/00007", 70));
        assert_eq!(sorted.page("/", None, None).0.len(), 2_000);
        assert_eq!(sorted.get("/00007").unwrap().value, 70);
        assert!(sorted.pieces.iter().all(|piece| piece.len() <= PIECE_RECORDS_FILLED));
    }

    #[test]
    fn a_change_copies_only_the_piece_it_is_in() {
        let mut sorted = Sorted::new();
        (0..2_000).for_each(|n| sorted.push(item(&format!("/{n:05}"), n)));
        let snapshot = sorted.clone();
        sorted.insert(item("/01000", 0));
        let pairs = sorted.pieces.iter().zip(&snapshot.pieces);
        assert_eq!(pairs.filter(|(now, then)| !Arc::ptr_eq(now, then)).count(), 1);
        assert_eq!(snapshot.get("/01000").unwrap().value, 1_000);
    }
}
