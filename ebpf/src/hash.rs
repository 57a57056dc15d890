//! Choosing by hash: the same flow gets the same backend on every packet and, later, on every node.

use crate::packet::Packet;

/// Spreads a flow's addresses and ports over 32 bits.
#[inline(always)]
pub fn flow(packet: &Packet) -> u32 {
    let ports =
        (packet.source_port as u64) << 32 | (packet.destination_port as u64) << 8 | packet.protocol as u64;
    mix(mix((packet.source as u64) << 32 | packet.destination as u64) ^ ports) as u32
}

/// Maps a hash evenly onto `0..count` without a division.
#[inline(always)]
pub fn reduce(hash: u32, count: u32) -> u32 {
    ((hash as u64 * count as u64) >> 32) as u32
}

/// The finishing step of a 64-bit hash: every input bit reaches every output bit (Stafford's variant 13).
#[inline(always)]
pub fn mix(mut x: u64) -> u64 {
    x ^= x >> 30;
    x = x.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x ^= x >> 27;
    x = x.wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
