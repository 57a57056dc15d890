//! The free addresses of a node's range.
//!
//! Addresses are given in a circle, so that one that was just released is the last to come back: flows and caches
//! that still name it have the longest time to go. It must not know who holds an address.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnetwork::IpNetwork;

/// The range and who is out of it.
#[derive(Debug)]
pub(crate) struct Pool {
    range: IpNetwork,
    taken: BTreeSet<IpAddr>,
    /// A place in the range.
    next: u32,
}

impl Pool {
    pub(crate) fn new(range: IpNetwork) -> Self {
        Self { range, taken: BTreeSet::new(), next: 0 }
    }

    /// First and last place of addresses given to pods. The network address is the node's end of the overlay, the next one
    /// is left free because people and tools take it for a gateway, the last is the broadcast address of IPv4. Of a range of
    /// more than 2^32 addresses only so many are ever given.
    fn bounds(&self) -> Option<(u32, u32)> {
        let width = if self.range.is_ipv4() { 32 } else { 128 };
        let highest = u32::MAX.checked_shr(32_u32.saturating_sub(width - u32::from(self.range.prefix())));
        let (first, last) = (2, highest.unwrap_or_default().saturating_sub(1));
        (first <= last).then_some((first, last))
    }

    /// How many pods the range has addresses for.
    pub(crate) fn capacity(&self) -> usize {
        self.bounds().map_or(0, |(first, last)| (last - first + 1) as usize)
    }

    /// Takes the next free address; `None` when there is none.
    pub(crate) fn take(&mut self) -> Option<IpAddr> {
        let (first, last) = self.bounds()?;
        let start = self.next.clamp(first, last);
        let place = (start..=last)
            .chain(first..start)
            .find(|place| at(self.range, *place).is_some_and(|address| !self.taken.contains(&address)))?;
        let free = at(self.range, place)?;
        self.taken.insert(free);
        self.next = place.checked_add(1).filter(|next| *next <= last).unwrap_or(first);
        Some(free)
    }

    /// Marks an address found on disk. It may lie outside the range, when the node was given another one.
    pub(crate) fn mark(&mut self, address: IpAddr) {
        self.taken.insert(address);
        if let Some(place) = place_of(self.range, address) {
            self.next = self.next.max(place.saturating_add(1));
        }
    }

    pub(crate) fn release(&mut self, address: IpAddr) {
        self.taken.remove(&address);
    }
}

/// The address at a place of a range; `None` behind its end.
pub(crate) fn at(range: IpNetwork, place: u32) -> Option<IpAddr> {
    let address = match range.network() {
        IpAddr::V4(network) => IpAddr::V4(u32::from(network).checked_add(place)?.into()),
        IpAddr::V6(network) => IpAddr::V6(u128::from(network).checked_add(place.into())?.into()),
    };
    range.contains(address).then_some(address)
}

/// The place of an address in a range; `None` for one that is not in it, or too far from its start to be given to pods.
pub(crate) fn place_of(range: IpNetwork, address: IpAddr) -> Option<u32> {
    let place = match (range.network(), address) {
        (IpAddr::V4(network), IpAddr::V4(address)) => u32::from(address).checked_sub(network.into()),
        (IpAddr::V6(network), IpAddr::V6(address)) => {
            u128::from(address).checked_sub(network.into()).and_then(|place| u32::try_from(place).ok())
        }
        _ => None,
    };
    place.filter(|_| range.contains(address))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pool(range: &str) -> Pool {
        Pool::new(range.parse().unwrap())
    }

    fn take(range: &str) -> Option<String> {
        pool(range).take().map(|address| address.to_string())
    }

    #[test]
    fn a_released_address_is_the_last_to_come_back() {
        let mut pool = pool("10.244.1.0/29");
        let first = pool.take().unwrap();
        assert_eq!(first, IpAddr::from([10, 244, 1, 2]));
        pool.release(first);
        let rest: Vec<_> = std::iter::from_fn(|| pool.take()).collect();
        assert_eq!(rest.len(), pool.capacity());
        assert_eq!(rest.last(), Some(&first));
    }

    #[test]
    fn a_range_too_small_for_a_pod_has_no_capacity() {
        for small in ["10.0.0.0/31", "fd00::/127", "fd00::/128"] {
            assert_eq!(pool(small).capacity(), 0, "{small}");
        }
        assert_eq!(take("10.0.0.0/32"), None);
        assert_eq!(take("0.0.0.0/0").as_deref(), Some("0.0.0.2"));
        assert_eq!(take("255.255.255.252/30").as_deref(), Some("255.255.255.254"));
        assert_eq!(take("fd00::fc/126").as_deref(), Some("fd00::fe"));
    }

    #[test]
    fn a_range_of_ipv6_gives_its_first_addresses_and_goes_on_behind_those_on_disk() {
        let mut pool = pool("fd00:244:0:1::/64");
        assert_eq!(pool.capacity(), u32::MAX as usize - 2);
        let mut take = || pool.take().unwrap().to_string();
        assert_eq!((take(), take()), ("fd00:244:0:1::2".into(), "fd00:244:0:1::3".into()));
        pool.mark("fd00:244:0:1::10".parse().unwrap());
        pool.mark("fd00:244:0:2::20".parse().unwrap());
        pool.mark("10.244.1.99".parse().unwrap());
        assert_eq!(pool.take().unwrap().to_string(), "fd00:244:0:1::11");
    }

    proptest! {
        #[test]
        fn no_address_is_given_twice_and_none_is_lost(
            bits in 1u8..8,
            is_v6 in any::<bool>(),
            steps in proptest::collection::vec(any::<Option<u8>>(), 0..400),
        ) {
            let range = if is_v6 { format!("fd00::/{}", 128 - bits) } else { format!("10.1.1.0/{}", 32 - bits) };
            let mut pool = Pool::new(range.parse().unwrap());
            let mut held: Vec<IpAddr> = Vec::new();
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
