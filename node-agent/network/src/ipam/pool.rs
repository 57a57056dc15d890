//! The free addresses of a node's range.
//!
//! Addresses are given in a circle, so that one that was just released is the last to come back: flows and caches
//! that still name it have the longest time to go. It must not know who holds an address.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use ipnetwork::Ipv4Network;

/// The range and who is out of it.
#[derive(Debug)]
pub(crate) struct Pool {
    range: Ipv4Network,
    taken: BTreeSet<Ipv4Addr>,
    next: u32,
}

impl Pool {
    pub(crate) fn new(range: Ipv4Network) -> Self {
        Self { range, taken: BTreeSet::new(), next: 0 }
    }

    /// First and last address given to pods. The network address is the node's end of the overlay, the next one is
    /// left free because people and tools take it for a gateway, the last is the broadcast address.
    fn bounds(&self) -> Option<(u32, u32)> {
        let first = u32::from(self.range.network()).checked_add(2)?;
        let last = u32::from(self.range.broadcast()).checked_sub(1)?;
        (first <= last).then_some((first, last))
    }

    /// How many pods the range has addresses for.
    pub(crate) fn capacity(&self) -> usize {
        self.bounds().map_or(0, |(first, last)| (last - first + 1) as usize)
    }

    /// Takes the next free address; `None` when there is none.
    pub(crate) fn take(&mut self) -> Option<Ipv4Addr> {
        let (first, last) = self.bounds()?;
        let start = self.next.clamp(first, last);
        let free =
            (start..=last).chain(first..start).map(Ipv4Addr::from).find(|a| !self.taken.contains(a))?;
        self.taken.insert(free);
        self.next = u32::from(free).checked_add(1).filter(|next| *next <= last).unwrap_or(first);
        Some(free)
    }

    /// Marks an address found on disk. It may lie outside the range, when the node was given another one.
    pub(crate) fn mark(&mut self, address: Ipv4Addr) {
        self.taken.insert(address);
        if self.range.contains(address) {
            self.next = self.next.max(u32::from(address).saturating_add(1));
        }
    }

    pub(crate) fn release(&mut self, address: Ipv4Addr) {
        self.taken.remove(&address);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pool(range: &str) -> Pool {
        Pool::new(range.parse().unwrap())
    }

    #[test]
    fn a_released_address_is_the_last_to_come_back() {
        let mut pool = pool("10.244.1.0/29");
        let first = pool.take().unwrap();
        assert_eq!(first, Ipv4Addr::new(10, 244, 1, 2));
        pool.release(first);
        let rest: Vec<_> = std::iter::from_fn(|| pool.take()).collect();
        assert_eq!(rest.len(), pool.capacity());
        assert_eq!(rest.last(), Some(&first));
    }

    #[test]
    fn a_range_too_small_for_a_pod_has_no_capacity() {
        assert_eq!(pool("10.0.0.0/31").capacity(), 0);
        assert_eq!(pool("10.0.0.0/32").take(), None);
        assert_eq!(pool("0.0.0.0/0").take(), Some(Ipv4Addr::new(0, 0, 0, 2)));
        assert_eq!(pool("255.255.255.252/30").take(), Some(Ipv4Addr::new(255, 255, 255, 254)));
    }

    proptest! {
        #[test]
        fn no_address_is_given_twice_and_none_is_lost(prefix in 24u8..31, steps in proptest::collection::vec(any::<Option<u8>>(), 0..400)) {
            let mut pool = Pool::new(Ipv4Network::new(Ipv4Addr::new(10, 1, 1, 0), prefix).unwrap());
            let mut held: Vec<Ipv4Addr> = Vec::new();
            for step in steps {
                match step {
                    Some(index) if !held.is_empty() => {
                        let address = held.swap_remove(index as usize % held.len());
                        pool.release(address);
                    }
                    _ => match pool.take() {
                        Some(address) => {
                            prop_assert!(!held.contains(&address));
                            prop_assert!(pool.range.contains(address));
                            held.push(address);
                        }
                        None => prop_assert_eq!(held.len(), pool.capacity()),
                    },
                }
            }
        }
    }
}
