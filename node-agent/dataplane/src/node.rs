//! What the programs are told of the node itself: its addresses, what is around it, and which source ports translated
//! traffic may use.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use penstock_ebpf_common::{
    Address, INSIDE_NEIGHBOURS, INSIDE_NODES, INSIDE_PODS, INSIDE_SERVICES, InsideKey,
};

use crate::load::{Inside, InsideRange};

/// The range the API server gives NodePorts from.
const NODE_PORTS: RangeInclusive<u16> = 30_000..=32_767;
const PRIVILEGED_MAX: u16 = 1_023;

/// The first address of a family; zero when there is none.
pub fn address_of(addresses: &[IpAddr], is_of_family: impl Fn(&IpAddr) -> bool) -> Address {
    addresses.iter().find(|address| is_of_family(address)).map_or(Address::default(), |it| Address::from(*it))
}

/// The ranges of the cluster as their map holds them.
pub fn inside(ranges: &[InsideRange]) -> BTreeMap<InsideKey, u32> {
    let entry = |range: &InsideRange| {
        let bits_before = if range.address.is_ipv4() { 96 } else { 0 };
        let prefix_len = (bits_before + u32::from(range.prefix)).min(128);
        let of = match range.of {
            Inside::Pods => INSIDE_PODS,
            Inside::Services => INSIDE_SERVICES,
            Inside::Neighbours => INSIDE_NEIGHBOURS,
        };
        (InsideKey { prefix_len, address: network(Address::from(range.address), prefix_len) }, of)
    };
    ranges.iter().map(entry).collect()
}

/// The nodes' addresses as the same map holds them.
pub fn nodes(addresses: &[IpAddr]) -> BTreeMap<InsideKey, u32> {
    let key = |address: &IpAddr| InsideKey { prefix_len: 128, address: Address::from(*address) };
    addresses.iter().map(|address| (key(address), INSIDE_NODES)).collect()
}

/// An address without the bits behind its prefix: the kernel ignores them, but two spellings of one range shall be one
/// key.
fn network(address: Address, prefix_len: u32) -> Address {
    let mut bytes = address.to_bytes();
    for (at, byte) in (0..).step_by(8).zip(&mut bytes) {
        let kept = prefix_len.saturating_sub(at).min(8);
        *byte &= (0xff00_u16 >> kept) as u8;
    }
    Address::from_bytes(bytes)
}

/// The longest range of ports that neither the node's own connections nor NodePorts use, so that no translated flow
/// ever has the addresses and ports of a local one.
pub fn snat_ports(ephemeral: RangeInclusive<u16>) -> RangeInclusive<u16> {
    let mut used = [NODE_PORTS, ephemeral];
    used.sort_by_key(|range| *range.start());
    let mut longest = 0..=0_u16;
    let mut free_from = u32::from(PRIVILEGED_MAX) + 1;
    let end = std::iter::once((u32::from(u16::MAX) + 1, u32::from(u16::MAX) + 1));
    for (start, after) in used.iter().map(|it| (u32::from(*it.start()), u32::from(*it.end()) + 1)).chain(end)
    {
        if start > free_from && start - free_from > u32::from(longest.end() - longest.start()) {
            longest = free_from as u16..=(start - 1) as u16;
        }
        free_from = free_from.max(after);
    }
    // A node that uses every port for itself leaves a choice among bad ones: listeners below NodePorts do no harm,
    // for a flow also has the backend's address and port.
    if longest.end() - longest.start() < 1_000 {
        PRIVILEGED_MAX + 1..=NODE_PORTS.start() - 1
    } else {
        longest
    }
}

/// The ports the node's own connections come from; Linux' default where it cannot be read.
pub fn observe_ephemeral_ports() -> RangeInclusive<u16> {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut numbers = text.split_whitespace().filter_map(|word| word.parse().ok());
    match (numbers.next(), numbers.next()) {
        (Some(first), Some(last)) if first <= last => first..=last,
        _ => 32_768..=60_999,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn translated_traffic_uses_the_longest_range_nobody_else_does() {
        assert_eq!(snat_ports(32_768..=60_999), 1_024..=29_999);
        assert_eq!(snat_ports(1_024..=40_000), 40_001..=65_535);
        assert_eq!(snat_ports(10_000..=65_535), 1_024..=9_999);
    }

    #[test]
    fn two_spellings_of_a_range_are_one_entry() {
        let range = |address: &str, prefix| InsideRange {
            address: address.parse().expect("an address in the test"),
            prefix,
            of: Inside::Pods,
        };
        let one = inside(&[range("10.244.1.2", 16), range("10.244.0.0", 16)]);
        assert_eq!(one.keys().map(|key| key.prefix_len).collect::<Vec<_>>(), [112]);
        assert_eq!(IpAddr::from(one.keys().next().expect("an entry").address), IpAddr::from([10, 244, 0, 0]));
        assert_eq!(inside(&[range("fd00::ffff", 64), range("fd00::1", 64)]).len(), 1);
        assert_eq!(inside(&[range("fd00::ffff", 128), range("fd00::1", 128), range("::", 0)]).len(), 3);
    }

    #[test]
    fn a_node_has_an_address_of_a_family_or_none() {
        let addresses = [IpAddr::from([10, 240, 0, 11])];
        assert_eq!(IpAddr::from(address_of(&addresses, IpAddr::is_ipv4)), addresses[0]);
        assert_eq!(address_of(&addresses, IpAddr::is_ipv6), Address::default());
    }

    #[test]
    fn a_node_that_uses_every_port_still_gets_a_range() {
        assert_eq!(snat_ports(1_024..=65_535), 1_024..=29_999);
    }
}
