//! Checksums computed the plain way, to hold those against which the programs mend.

use std::net::IpAddr;

pub fn sum_of(bytes: &[u8]) -> u32 {
    bytes.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]))).sum()
}

pub fn fold(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

fn sum_of_address(address: IpAddr) -> u32 {
    match address {
        IpAddr::V4(address) => sum_of(&address.octets()),
        IpAddr::V6(address) => sum_of(&address.octets()),
    }
}

/// The sum over a transport header with its payload and, where it counts, the pseudo header.
pub fn transport_sum(source: IpAddr, destination: IpAddr, number: u8, transport: &[u8]) -> u16 {
    if number == 1 {
        return fold(sum_of(transport));
    }
    let pseudo = sum_of_address(source) + sum_of_address(destination) + u32::from(number);
    fold(pseudo + transport.len() as u32 + sum_of(transport))
}

/// CRC32c, a bit at a time.
pub fn crc32c(bytes: &[u8]) -> u32 {
    let mut register = u32::MAX;
    for byte in bytes {
        register ^= u32::from(*byte);
        for _ in 0..8 {
            register = (register >> 1) ^ if register & 1 == 1 { 0x82f6_3b78 } else { 0 };
        }
    }
    !register
}
