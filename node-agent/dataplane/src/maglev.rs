//! Maglev tables: which backend has which place. Pure.
//!
//! After Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer" (NSDI 2016), 3.4: every backend
//! prefers the places in an order of its own, and they take turns at taking the best that is left. So each has the same
//! share to within one place, and a backend that comes or goes moves little but its own share. The orders follow from
//! addresses and ports alone: every node makes the same table of the same backends, whatever numbers it gave them.
//! Must not know sets or maps.

use penstock_ebpf_common::Backend;

/// Up to how many backends which size of a table does. Sizes are prime, so that every step visits every place, and far
/// apart: a set whose table gets another size moves nearly all its flows, which happens only at these counts. There are
/// at least a hundred places a backend up to 8,192 of them, and more than twelve up to the bound.
const SIZES: [(usize, u32); 4] = [(32, 3_203), (512, 51_203), (8_192, 819_229), (BACKENDS_MAX, 819_229)];

/// Places hold 16 bits. Sets with more backends choose at random.
pub const BACKENDS_MAX: usize = u16::MAX as usize;

/// How many places the table of so many backends has; none where there is no table.
pub fn places(backends: usize) -> Option<u32> {
    let fits = |(max, _): &&(usize, u32)| backends <= *max;
    (backends > 0).then(|| SIZES.iter().find(fits)).flatten().map(|(_, places)| *places)
}

/// For each place the number of a backend, from one. Empty where there is no table. Backends are in the order of their
/// addresses, each once.
pub fn compile_table(backends: &[Backend]) -> Vec<u16> {
    let Some(places) = places(backends.len()) else { return Vec::new() };
    let mut orders: Vec<Order> = backends.iter().map(|backend| Order::of(backend, places)).collect();
    let mut table = vec![0_u16; places as usize];
    let mut left = places;
    loop {
        for (backend, order) in (1_u16..).zip(&mut orders) {
            while table[order.next as usize] != 0 {
                order.advance(places);
            }
            table[order.next as usize] = backend;
            order.advance(places);
            left -= 1;
            if left == 0 {
                return table;
            }
        }
    }
}

/// The order in which a backend prefers places: from one on, always the same step further.
struct Order {
    next: u32,
    step: u32,
}

impl Order {
    fn of(backend: &Backend, places: u32) -> Self {
        let [first, second, third, last] = backend.address.words.map(u64::from);
        let name = mix(mix(first << 32 | second) ^ (third << 32 | last)) ^ u64::from(backend.port);
        let (offset, step) = (mix(name), mix(name ^ STEP));
        Self { next: (offset % u64::from(places)) as u32, step: (step % u64::from(places - 1)) as u32 + 1 }
    }

    fn advance(&mut self, places: u32) {
        self.next = (self.next + self.step) % places;
    }
}

/// Any number: what a backend starts with and how it steps shall not follow from each other.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// Every input bit reaches every output bit (Stafford's variant 13).
fn mix(mut x: u64) -> u64 {
    x ^= x >> 30;
    x = x.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x ^= x >> 27;
    x = x.wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;

    fn backend(host: u16, six: bool, port: u16) -> Backend {
        let [high, low] = host.to_be_bytes();
        let four: IpAddr = Ipv4Addr::new(10, 244, high, low).into();
        let six_address: IpAddr = Ipv6Addr::new(0xfd00, 0x244, 0, 0, 0, 0, 0, host).into();
        let address = if six { six_address } else { four };
        Backend { address: address.into(), port: port.to_be(), ..Backend::default() }
    }

    /// By place, the backend's host.
    fn owners(backends: &[Backend]) -> Vec<Backend> {
        compile_table(backends).into_iter().map(|entry| backends[usize::from(entry) - 1]).collect()
    }

    fn hosts(hosts: &BTreeSet<u16>, six: bool) -> Vec<Backend> {
        hosts.iter().map(|host| backend(*host, six, 8080)).collect()
    }

    #[test]
    fn sizes_are_prime_and_give_a_hundred_places_a_backend() {
        for (backends, size) in SIZES {
            assert!((2..).take_while(|it| it * it <= size).all(|it| size % it != 0), "{size}");
            let least = if backends == BACKENDS_MAX { 12 } else { 100 };
            assert!(size as usize >= least * backends, "{size}");
        }
        assert_eq!((places(0), places(1), places(BACKENDS_MAX + 1)), (None, Some(3_203), None));
        assert_eq!(compile_table(&[]), Vec::<u16>::new());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn each_backend_has_its_share_whatever_numbers_it_was_given(
            all in proptest::collection::btree_set(any::<u16>(), 1..64), six: bool,
        ) {
            let mut backends = hosts(&all, six);
            let table = owners(&backends);
            let mut shares = BTreeMap::new();
            table.iter().for_each(|owner| *shares.entry(owner.address).or_insert(0_usize) += 1);
            prop_assert_eq!(shares.len(), backends.len());
            let (least, most) = (shares.values().min().expect("one"), shares.values().max().expect("one"));
            prop_assert!(most - least <= 1, "{least} to {most}");
            // Another node numbers backends otherwise and has others of them.
            for (id, backend) in backends.iter_mut().enumerate() {
                (backend.id, backend.local) = (7 * id as u32 + 3, (id % 2) as u16);
            }
            let elsewhere: Vec<_> = owners(&backends).iter().map(|it| (it.address, it.port)).collect();
            prop_assert_eq!(elsewhere, table.iter().map(|it| (it.address, it.port)).collect::<Vec<_>>());
        }

        #[test]
        fn a_backend_that_goes_moves_its_own_places_and_few_others(
            all in proptest::collection::btree_set(any::<u16>(), 2..33),
            leaving in any::<proptest::sample::Index>(), six: bool,
        ) {
            let gone = *leaving.get(&all.iter().copied().collect::<Vec<_>>());
            let mut fewer = all.clone();
            fewer.remove(&gone);
            let (before, after) = (owners(&hosts(&all, six)), owners(&hosts(&fewer, six)));
            prop_assert_eq!(before.len(), after.len());
            let gone = backend(gone, six, 8080).address;
            let others = before.iter().zip(&after).filter(|(was, is)| was.address != gone && was != is).count();
            // The paper measures a few percent for a hundred places a backend.
            prop_assert!(others * 10 <= before.len(), "{others} of {} moved for nothing", before.len());
        }
    }

    #[test]
    fn two_ports_of_one_address_are_two_backends() {
        let table = owners(&[backend(1, false, 80), backend(1, false, 81)]);
        let first = table.iter().filter(|it| it.port == 80_u16.to_be()).count();
        assert!(first.abs_diff(table.len() - first) <= 1);
    }
}
