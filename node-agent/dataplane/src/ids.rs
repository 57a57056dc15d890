//! Numbers for services and backends: stable while their owner lives, and not soon used again after.
//!
//! A number that changed its owner between two moments would send a flow of the old owner to the new one. So numbers
//! go round before they are used again, and never pass from one owner to another within one change: what is given
//! back rests until [`Ids::end_change`].

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use crate::image::{Endpoint, MapImage};
use crate::{Limits, ServiceKey};

/// Who has which number.
#[derive(Debug, Clone, Default)]
pub struct Ids {
    /// By service port.
    pub services: ServiceNumbers,
    /// By address and port.
    pub backends: BackendNumbers,
}

/// The numbers of service ports, from one up to a limit.
#[derive(Debug, Clone, Default)]
pub struct ServiceNumbers {
    numbers: BTreeMap<Arc<ServiceKey>, u32>,
    taken: HashSet<u32>,
    /// Given back within this change.
    resting: Vec<u32>,
    /// The last number given out; the search for a free one starts after it.
    last: u32,
    max: u32,
}

/// The numbers of backends: one for an endpoint, however many sets it is in, for as long as it is in one.
#[derive(Debug, Clone, Default)]
pub struct BackendNumbers {
    /// Those of IPv4, by address and port: half as large, and in most clusters all there are.
    v4: HashMap<(u32, u16), Numbered>,
    v6: HashMap<Endpoint, Numbered>,
    last: u32,
    /// Numbers in use, known only once the count went round: four thousand million backends are a long life.
    wrapped: Option<HashSet<u32>>,
}

#[derive(Debug, Clone, Copy)]
struct Numbered {
    number: u32,
    /// In how many sets it is.
    sets: u32,
}

// === impl Ids ===

impl Ids {
    /// No owner yet.
    pub fn new(limits: &Limits) -> Self {
        let services =
            ServiceNumbers { max: limits.services_max.saturating_sub(1), ..ServiceNumbers::default() };
        Self { services, backends: BackendNumbers::default() }
    }

    /// The numbers an earlier agent gave out, read back from what it wrote.
    pub fn recover(image: &MapImage, limits: &Limits) -> Self {
        let mut ids = Self::new(limits);
        for (number, name) in &image.names {
            ids.services.numbers.insert(name.clone(), *number);
            ids.services.taken.insert(*number);
            ids.services.last = ids.services.last.max(*number);
        }
        for backend in image.sets.values().flat_map(|set| &set.backends) {
            ids.backends.recover((backend.address, backend.port), backend.id);
            ids.backends.last = ids.backends.last.max(backend.id);
        }
        ids
    }

    /// Makes room for more. Never less: numbers may be in use.
    pub fn grow(&mut self, limits: &Limits) {
        self.services.max = self.services.max.max(limits.services_max.saturating_sub(1));
    }

    /// From now on what was given back may be given out again.
    pub fn end_change(&mut self) {
        self.services.end_change();
    }
}

// === impl ServiceNumbers ===

impl ServiceNumbers {
    /// The number of an owner.
    pub fn get(&self, owner: &ServiceKey) -> Option<u32> {
        self.numbers.get(owner).copied()
    }

    /// How many numbers there are in all.
    pub fn max(&self) -> u32 {
        self.max
    }

    /// How many numbers may be given out now.
    pub fn free(&self) -> usize {
        (self.max as usize).saturating_sub(self.taken.len())
    }

    /// The number of an owner, a new one if it has none; none when all are taken.
    pub fn ensure(&mut self, owner: &Arc<ServiceKey>) -> Option<u32> {
        if let Some(number) = self.get(owner) {
            return Some(number);
        }
        if self.free() == 0 {
            return None;
        }
        let mut number = self.last;
        loop {
            number = if number >= self.max { 1 } else { number + 1 };
            if self.taken.insert(number) {
                break;
            }
        }
        self.last = number;
        self.numbers.insert(owner.clone(), number);
        Some(number)
    }

    /// Gives back the number of an owner that is gone.
    pub fn release(&mut self, owner: &ServiceKey) {
        if let Some(number) = self.numbers.remove(owner) {
            self.resting.push(number);
        }
    }

    fn end_change(&mut self) {
        for number in self.resting.drain(..) {
            self.taken.remove(&number);
        }
    }
}

// === impl BackendNumbers ===

impl BackendNumbers {
    /// The number of an endpoint that is in a set.
    pub fn get(&self, endpoint: &Endpoint) -> Option<u32> {
        let known = match small(endpoint) {
            Some(endpoint) => self.v4.get(&endpoint),
            None => self.v6.get(endpoint),
        };
        known.map(|it| it.number)
    }

    /// Takes note of an endpoint in one more set.
    pub fn acquire(&mut self, endpoint: Endpoint) -> u32 {
        if let Some(known) = self.get_mut(&endpoint) {
            known.sets += 1;
            return known.number;
        }
        if self.last == u32::MAX {
            self.wrapped = Some(self.v4.values().chain(self.v6.values()).map(|it| it.number).collect());
            self.last = 0;
        }
        self.last += 1;
        if let Some(taken) = &mut self.wrapped {
            // There are more numbers than memory could hold owners, so one is free.
            while !taken.insert(self.last) {
                self.last = self.last.checked_add(1).unwrap_or(1);
            }
        }
        self.recover(endpoint, self.last);
        self.last
    }

    /// Takes note of an endpoint in one set less.
    pub fn release(&mut self, endpoint: &Endpoint) {
        let Some(known) = self.get_mut(endpoint) else { return };
        known.sets -= 1;
        if known.sets > 0 {
            return;
        }
        let number = known.number;
        if let Some(taken) = &mut self.wrapped {
            taken.remove(&number);
        }
        match small(endpoint) {
            Some(endpoint) => self.v4.remove(&endpoint),
            None => self.v6.remove(endpoint),
        };
    }

    /// Takes note of an endpoint in one more set, whose number is this if it has none yet.
    fn recover(&mut self, endpoint: Endpoint, number: u32) {
        let new = Numbered { number, sets: 0 };
        let known = match small(&endpoint) {
            Some(endpoint) => self.v4.entry(endpoint).or_insert(new),
            None => self.v6.entry(endpoint).or_insert(new),
        };
        known.sets += 1;
    }

    fn get_mut(&mut self, endpoint: &Endpoint) -> Option<&mut Numbered> {
        match small(endpoint) {
            Some(endpoint) => self.v4.get_mut(&endpoint),
            None => self.v6.get_mut(endpoint),
        }
    }
}

/// An endpoint of IPv4 in as few bytes as it needs.
fn small((address, port): &Endpoint) -> Option<(u32, u16)> {
    address.is_v4().then(|| (address.v4(), *port))
}

#[cfg(test)]
mod tests {
    use penstock_ebpf_common::Address;

    use super::*;

    fn key(name: &str) -> Arc<ServiceKey> {
        Arc::new(ServiceKey::new("ns", name, ""))
    }

    fn table(max: u32) -> ServiceNumbers {
        ServiceNumbers { max, ..ServiceNumbers::default() }
    }

    #[test]
    fn owners_that_stay_keep_their_numbers() {
        let mut table = table(10);
        let before = ["a", "b"].map(|name| table.ensure(&key(name)));
        table.release(&key("c"));
        table.end_change();
        assert_eq!(["a", "b"].map(|name| table.ensure(&key(name))), before);
        assert_eq!(table.get(&key("c")), None);
    }

    #[test]
    fn a_number_does_not_pass_to_another_owner_within_one_change() {
        let mut table = table(2);
        let first = table.ensure(&key("a"));
        table.ensure(&key("b"));
        table.end_change();
        table.release(&key("a"));
        assert_eq!(table.ensure(&key("c")), None, "the number of a is not free yet");
        table.end_change();
        assert_eq!(table.ensure(&key("c")), first);
    }

    #[test]
    fn numbers_go_round_before_they_are_used_again() {
        let mut table = table(5);
        let mut seen = Vec::new();
        for name in ["a", "b", "c", "d", "e", "f"] {
            seen.extend(table.ensure(&key(name)));
            table.release(&key(name));
            table.end_change();
        }
        assert_eq!(seen, [1, 2, 3, 4, 5, 1]);
    }

    #[test]
    fn a_backend_keeps_its_number_while_any_set_has_it() {
        let mut table = BackendNumbers::default();
        let endpoint = |last: u8| (Address::from_v4(u32::from_ne_bytes([10, 0, 0, last])), 80);
        let first = table.acquire(endpoint(1));
        assert_eq!(table.acquire(endpoint(1)), first, "a second set");
        table.release(&endpoint(1));
        assert_eq!(table.get(&endpoint(1)), Some(first));
        table.release(&endpoint(1));
        assert_ne!(table.acquire(endpoint(1)), first, "it comes back as another");
    }

    #[test]
    fn numbers_of_backends_go_round_and_pass_over_those_in_use() {
        let mut table = BackendNumbers::default();
        let endpoint = |last: u8| (Address::from_v4(u32::from_ne_bytes([10, 0, 0, last])), 80);
        assert_eq!(table.acquire(endpoint(1)), 1);
        table.last = u32::MAX - 1;
        assert_eq!([2, 3, 4].map(|last| table.acquire(endpoint(last))), [u32::MAX, 2, 3]);
    }
}
