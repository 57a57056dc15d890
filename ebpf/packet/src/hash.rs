//! Choosing by hash: the same flow gets the same backend on every packet and on every node.

use penstock_ebpf_common::FlowKey;

/// Spreads a flow's addresses and ports over 32 bits.
#[inline(always)]
pub fn flow(key: &FlowKey) -> u32 {
    flow_wide(key) as u32
}

/// The same over 64 bits.
#[inline(always)]
pub fn flow_wide(key: &FlowKey) -> u64 {
    let pair = |high: u32, low: u32| u64::from(high) << 32 | u64::from(low);
    let (from, to) = (&key.source.words, &key.destination.words);
    let ports =
        pair(u32::from(key.source_port) << 16 | u32::from(key.destination_port), u32::from(key.protocol));
    // The networks of both ends vary little: one round for both, each multiplied so that they do not cancel out.
    let networks = pair(from[0], from[1]).wrapping_mul(ODD) ^ pair(to[0], to[1]);
    let hosts = mix(networks) ^ pair(from[2], from[3]).wrapping_mul(ODD) ^ pair(to[2], to[3]);
    mix(mix(hosts) ^ ports)
}

/// Of a socket's number, for a table. Sockets have numbers in a row: four in a row have one first bucket, which is in the
/// cache then, and the next four its neighbour.
#[inline(always)]
pub const fn socket(cookie: u64) -> u64 {
    cookie >> 2 << 16 | mix(cookie) & 0xffff
}

/// How far the second bucket of a socket is from its first.
pub const SOCKETS_REACH: u32 = 7;

/// An odd number without pattern: the fraction of the golden ratio.
const ODD: u64 = 0x9e37_79b9_7f4a_7c15;

/// Maps a hash evenly onto `0..count` without a division.
#[inline(always)]
pub const fn reduce(hash: u32, count: u32) -> u32 {
    ((hash as u64 * count as u64) >> 32) as u32
}

/// The finishing step of a 64-bit hash: every input bit reaches every output bit (Stafford's variant 13).
#[inline(always)]
pub const fn mix(mut x: u64) -> u64 {
    x ^= x >> 30;
    x = x.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x ^= x >> 27;
    x = x.wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use core::net::IpAddr;

    use penstock_ebpf_common::Address;

    use super::*;

    fn key(host: u8, port: u16, network: &str) -> FlowKey {
        let address = |text: &str| Address::from(text.parse::<IpAddr>().expect("an address in the test"));
        let mut source = address(network);
        source.words[3] = u32::from_be_bytes([10, 0, 0, host]).to_be();
        FlowKey {
            source,
            destination: address("10.96.0.7"),
            source_port: port.to_be(),
            destination_port: 80_u16.to_be(),
            protocol: 6,
            ..FlowKey::default()
        }
    }

    #[test]
    fn neighbouring_clients_spread_evenly_over_any_number_of_backends() {
        for network in ["::ffff:10.0.0.0", "fd00::"] {
            for count in [2, 3, 7, 16] {
                let mut seen = [0_u32; 16];
                for host in 0..=255 {
                    for port in 40_000..40_064 {
                        seen[reduce(flow(&key(host, port, network)), count) as usize] += 1;
                    }
                }
                let fair = 256 * 64 / count;
                for (backend, seen) in seen.iter().take(count as usize).enumerate() {
                    assert!(seen.abs_diff(fair) < fair / 8, "{backend} of {count} got {seen}, not {fair}");
                }
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn any_hash_is_reduced_to_a_number_that_there_is(hash: u32, count in 1..=u32::MAX) {
            proptest::prop_assert!(reduce(hash, count) < count);
        }

        #[test]
        fn any_flow_has_one_hash_which_its_half_does_not_change(
            addresses: [[u8; 16]; 2],
            ports: [u16; 2],
            protocol: u8,
        ) {
            let [source, destination] = addresses.map(Address::from_bytes);
            let [source_port, destination_port] = ports;
            let key = FlowKey { source, destination, source_port, destination_port, protocol, ..FlowKey::default() };
            proptest::prop_assert_eq!(flow(&key), flow(&FlowKey { half: 1, ..key }));
        }
    }

    #[test]
    fn a_reduced_hash_is_in_range() {
        assert_eq!((reduce(0, 7), reduce(u32::MAX, 7), reduce(u32::MAX, 1)), (0, 6, 0));
    }
}
