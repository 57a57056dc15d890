//! What is read from the node itself: which source ports translated traffic may use.

use std::ops::RangeInclusive;

/// The range the API server gives NodePorts from.
const NODE_PORTS: RangeInclusive<u16> = 30_000..=32_767;
const PRIVILEGED_MAX: u16 = 1_023;

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
    fn a_node_that_uses_every_port_still_gets_a_range() {
        assert_eq!(snat_ports(1_024..=65_535), 1_024..=29_999);
    }
}
