//! One address type for both families, so that no map changes its shape when IPv6 arrives.

use crate::shared;

/// An IPv6 address in network order; IPv4 addresses are mapped (`::ffff:a.b.c.d`).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Address {
    /// The sixteen bytes as four words, each as it lies in memory.
    pub words: [u32; 4],
}

shared!(Address, 16, [[u32; 4]]);

/// The third word of a mapped IPv4 address.
const MAPPED: u32 = 0x0000_ffff_u32.to_be();

impl Address {
    /// Maps an IPv4 address given as it lies in a packet (network order).
    #[inline(always)]
    pub const fn from_v4(network_order: u32) -> Self {
        Self { words: [0, 0, MAPPED, network_order] }
    }

    /// The IPv4 address in network order; meaningless for an address that is not mapped.
    #[inline(always)]
    pub const fn v4(&self) -> u32 {
        self.words[3]
    }

    /// Whether this is a mapped IPv4 address.
    #[inline(always)]
    pub const fn is_v4(&self) -> bool {
        self.words[0] == 0 && self.words[1] == 0 && self.words[2] == MAPPED
    }

    /// The identity of a network namespace in the place of an address: no packet carries such an address (it is in
    /// the discard prefix 100::/64, RFC 6666).
    #[inline(always)]
    pub const fn from_netns_cookie(cookie: u64) -> Self {
        Self { words: [0x0100_0000_u32.to_be(), 0, (cookie >> 32) as u32, cookie as u32] }
    }

    /// The address of a byte array in network order.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        let mut words = [0; 4];
        let mut at = 0;
        while at < 4 {
            words[at] =
                u32::from_ne_bytes([bytes[at * 4], bytes[at * 4 + 1], bytes[at * 4 + 2], bytes[at * 4 + 3]]);
            at += 1;
        }
        Self { words }
    }

    /// The sixteen bytes in network order.
    pub fn to_bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        for (chunk, word) in bytes.chunks_exact_mut(4).zip(self.words) {
            chunk.copy_from_slice(&word.to_ne_bytes());
        }
        bytes
    }
}

/// By their bytes: as people order addresses, and the same on every machine.
impl Ord for Address {
    fn cmp(&self, other: &Self) -> core::cmp::Ordering {
        self.to_bytes().cmp(&other.to_bytes())
    }
}

impl PartialOrd for Address {
    fn partial_cmp(&self, other: &Self) -> Option<core::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl From<core::net::IpAddr> for Address {
    fn from(address: core::net::IpAddr) -> Self {
        match address {
            core::net::IpAddr::V4(v4) => Self::from_v4(u32::from_ne_bytes(v4.octets())),
            core::net::IpAddr::V6(v6) => Self::from_bytes(v6.octets()),
        }
    }
}

impl From<Address> for core::net::IpAddr {
    fn from(address: Address) -> Self {
        if address.is_v4() {
            Self::V4(address.v4().to_ne_bytes().into())
        } else {
            Self::V6(address.to_bytes().into())
        }
    }
}

#[cfg(test)]
mod tests {
    use core::net::IpAddr;

    use super::*;

    #[test]
    fn an_address_of_either_family_reads_back_what_was_put_in() {
        for text in ["10.96.0.1", "0.0.0.0", "255.255.255.255", "fd00::1", "::"] {
            let address: IpAddr = text.parse().expect(text);
            assert_eq!(IpAddr::from(Address::from(address)), address);
        }
    }

    #[test]
    fn a_namespace_is_never_an_ipv4_address() {
        assert!(!Address::from_netns_cookie(0xffff_0a60_0001).is_v4());
        assert_ne!(Address::from_netns_cookie(1), Address::from_netns_cookie(1 << 32));
    }
}
