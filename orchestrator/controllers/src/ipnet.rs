//! Address ranges, as much as node ranges need: parse, print, cut into equal parts.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// A range of addresses; the address has no bits below the prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cidr {
    pub address: IpAddr,
    pub prefix: u8,
}

/// Why text is not a range.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{text:?} is not an address range such as 10.244.0.0/16")]
pub struct CidrError {
    pub text: String,
}

impl Cidr {
    /// A range; bits of `address` below the prefix are cleared, a prefix too long is shortened.
    pub fn new(address: IpAddr, prefix: u8) -> Self {
        let width = width_bits(address);
        let prefix = prefix.min(width);
        let bits = to_bits(address) & mask(prefix, width);
        Self { address: from_bits(bits, address.is_ipv6()), prefix }
    }

    /// How many ranges of `part_prefix` fit; capped at 2^32.
    pub fn parts(&self, part_prefix: u8) -> u64 {
        part_prefix.checked_sub(self.prefix).map_or(0, |bits| 1u64 << bits.min(32))
    }

    /// The range number `index` of that size.
    pub fn part(&self, part_prefix: u8, index: u64) -> Option<Self> {
        if index >= self.parts(part_prefix) {
            return None;
        }
        let width = width_bits(self.address);
        let step = width.checked_sub(part_prefix)?;
        let offset = u128::from(index).checked_shl(u32::from(step)).unwrap_or(0);
        Some(Self {
            address: from_bits(to_bits(self.address) + offset, self.address.is_ipv6()),
            prefix: part_prefix,
        })
    }

    /// Which part of that size an equally sized range is.
    pub fn index_of(&self, part: &Self) -> Option<u64> {
        if part.address.is_ipv6() != self.address.is_ipv6() || part.prefix < self.prefix {
            return None;
        }
        let width = width_bits(self.address);
        let bits = to_bits(part.address);
        if bits & mask(self.prefix, width) != to_bits(self.address) {
            return None;
        }
        let offset = bits - to_bits(self.address);
        u64::try_from(offset.checked_shr(u32::from(width - part.prefix)).unwrap_or(0)).ok()
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl FromStr for Cidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Self, CidrError> {
        let error = || CidrError { text: text.to_owned() };
        let (address, prefix) = text.split_once('/').ok_or_else(error)?;
        let address: IpAddr = address.parse().map_err(|_| error())?;
        let prefix: u8 = prefix.parse().map_err(|_| error())?;
        if prefix > width_bits(address) {
            return Err(error());
        }
        Ok(Self::new(address, prefix))
    }
}

fn width_bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn mask(prefix: u8, width: u8) -> u128 {
    if prefix == 0 {
        return 0;
    }
    (u128::MAX << (width - prefix)) & if width == 32 { u128::from(u32::MAX) } else { u128::MAX }
}

fn to_bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(a) => u128::from(a.to_bits()),
        IpAddr::V6(a) => a.to_bits(),
    }
}

fn from_bits(bits: u128, ipv6: bool) -> IpAddr {
    if ipv6 { Ipv6Addr::from_bits(bits).into() } else { Ipv4Addr::from_bits(bits as u32).into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_cut_and_found_again() {
        let cluster: Cidr = "10.244.0.0/16".parse().unwrap();
        assert_eq!(cluster.parts(24), 256);
        let third = cluster.part(24, 3).unwrap();
        assert_eq!(third.to_string(), "10.244.3.0/24");
        assert_eq!(cluster.index_of(&third), Some(3));
        assert_eq!(cluster.part(24, 256), None);
        assert_eq!(cluster.index_of(&"10.245.0.0/24".parse().unwrap()), None);
        let v6: Cidr = "fd00:10::/48".parse().unwrap();
        assert_eq!(v6.part(64, 5).unwrap().to_string(), "fd00:10:0:5::/64");
    }

    #[test]
    fn text_that_is_no_range_is_refused() {
        for text in ["", "10.0.0.0", "10.0.0.0/33", "x/8", "::/129", "10.0.0.0/-1"] {
            assert!(text.parse::<Cidr>().is_err(), "{text}");
        }
        assert_eq!("10.1.2.3/16".parse::<Cidr>().unwrap().to_string(), "10.1.0.0/16");
    }
}
