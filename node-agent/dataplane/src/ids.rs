//! Numbers for services and backends: stable while their owner lives, and not soon used again after.
//!
//! A number that changed its owner between two moments would send a flow of the old owner to the new one. So numbers
//! go round before they are used again, and never pass from one owner to another within one change.

use std::collections::{BTreeMap, BTreeSet};

use crate::image::{Endpoint, MapImage};
use crate::{Limits, ServiceKey};

/// Who has which number.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ids {
    /// By service port.
    pub services: Table<ServiceKey>,
    /// By address and port.
    pub backends: Table<Endpoint>,
}

/// The numbers of one kind of owner, from one up to a limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table<K> {
    numbers: BTreeMap<K, u32>,
    /// The last number given out; the search for a free one starts after it.
    last: u32,
    max: u32,
}

impl<K> Default for Table<K> {
    fn default() -> Self {
        Self { numbers: BTreeMap::new(), last: 0, max: u32::MAX - 1 }
    }
}

impl<K: Ord + Clone> Table<K> {
    /// The number of an owner.
    pub fn get(&self, owner: &K) -> Option<u32> {
        self.numbers.get(owner).copied()
    }

    /// The table for the next moment: owners that stay keep their numbers, new ones get numbers nobody has or had
    /// the moment before. Owners for whom there is none are returned.
    pub fn next(&self, owners: &BTreeSet<K>) -> (Self, Vec<K>) {
        let mut next = Self { numbers: BTreeMap::new(), last: self.last, max: self.max };
        let mut taken: BTreeSet<u32> = self.numbers.values().copied().collect();
        let mut without = Vec::new();
        for owner in owners {
            if let Some(number) = self.get(owner) {
                next.numbers.insert(owner.clone(), number);
            }
        }
        for owner in owners {
            if next.numbers.contains_key(owner) {
                continue;
            }
            match free_after(next.last, next.max, &taken) {
                Some(number) => {
                    taken.insert(number);
                    next.last = number;
                    next.numbers.insert(owner.clone(), number);
                }
                None => without.push(owner.clone()),
            }
        }
        (next, without)
    }
}

/// The first number after `last` that is not taken, going round once.
fn free_after(last: u32, max: u32, taken: &BTreeSet<u32>) -> Option<u32> {
    if taken.len() >= max as usize {
        return None;
    }
    let mut number = last;
    loop {
        number = if number >= max { 1 } else { number + 1 };
        if !taken.contains(&number) {
            return Some(number);
        }
    }
}

impl Ids {
    /// No owner yet.
    pub fn new(limits: &Limits) -> Self {
        let services =
            Table { numbers: BTreeMap::new(), last: 0, max: limits.services_max.saturating_sub(1) };
        Self { services, backends: Table::default() }
    }

    /// The numbers an earlier agent gave out, read back from what it wrote.
    pub fn recover(image: &MapImage, limits: &Limits) -> Self {
        let mut ids = Self::new(limits);
        for (number, name) in &image.names {
            if let Ok(key) = ServiceKey::try_from(name.clone()) {
                ids.services.numbers.insert(key, *number);
                ids.services.last = ids.services.last.max(*number);
            }
        }
        for backend in image.sets.values().flat_map(|set| &set.backends) {
            ids.backends.numbers.insert((backend.address, backend.port), backend.id);
            ids.backends.last = ids.backends.last.max(backend.id);
        }
        ids
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owners(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn table(max: u32) -> Table<String> {
        Table { numbers: BTreeMap::new(), last: 0, max }
    }

    #[test]
    fn owners_that_stay_keep_their_numbers() {
        let (first, _) = table(10).next(&owners(&["a", "b", "c"]));
        let (second, _) = first.next(&owners(&["b", "c", "d"]));
        assert_eq!(
            (second.get(&"b".into()), second.get(&"c".into())),
            (first.get(&"b".into()), first.get(&"c".into()))
        );
        assert_eq!(second.get(&"a".into()), None);
    }

    #[test]
    fn a_number_does_not_pass_to_another_owner_within_one_change() {
        let (first, _) = table(2).next(&owners(&["a", "b"]));
        let (second, without) = first.next(&owners(&["b", "c"]));
        assert_eq!(without, ["c"], "the number of a is not free yet");
        let (third, without) = second.next(&owners(&["b", "c"]));
        assert!(without.is_empty());
        assert_eq!(third.get(&"c".into()), first.get(&"a".into()));
    }

    #[test]
    fn numbers_go_round_before_they_are_used_again() {
        let mut now = table(5);
        let mut seen = Vec::new();
        for name in ["a", "b", "c", "d", "e", "f"] {
            now = now.next(&owners(&[name])).0;
            seen.extend(now.get(&name.to_owned()));
        }
        assert_eq!(seen, [1, 2, 3, 4, 5, 1]);
    }
}
