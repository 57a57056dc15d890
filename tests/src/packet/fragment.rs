//! Packets cut into fragments, and put together again.

use std::net::IpAddr;

use super::{ETHERNET, IPV4, IPV6, Packet, fold, read_ip, sum_of};

const FRAGMENT: usize = 8;

/// Cuts a packet into frames that carry `size` bytes of it each, a multiple of eight.
pub fn fragments(packet: &Packet, id: u16, size: usize) -> Vec<Vec<u8>> {
    let whole = packet.bytes();
    let v6 = packet.source.is_ipv6();
    let start = ETHERNET + if v6 { IPV6 } else { IPV4 };
    let count = (whole.len() - start).div_ceil(size);
    let cut = |(index, part): (usize, &[u8])| {
        let (offset, more) = ((index * size) as u16, index + 1 < count);
        let mut frame = whole[..start].to_vec();
        if v6 {
            let length = (FRAGMENT + part.len()) as u16;
            frame[ETHERNET + 4..][..2].copy_from_slice(&length.to_be_bytes());
            let next = std::mem::replace(&mut frame[ETHERNET + 6], 44);
            frame.extend([next, 0]);
            frame.extend((offset | u16::from(more)).to_be_bytes());
            frame.extend(u32::from(id).to_be_bytes());
        } else {
            let ip = &mut frame[ETHERNET..];
            ip[2..4].copy_from_slice(&((IPV4 + part.len()) as u16).to_be_bytes());
            ip[4..6].copy_from_slice(&id.to_be_bytes());
            ip[6..8].copy_from_slice(&((offset / 8) | (u16::from(more) << 13)).to_be_bytes());
            ip[10..12].fill(0);
            let sum = !fold(sum_of(ip));
            ip[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        frame.extend(part);
        frame
    };
    whole[start..].chunks(size).enumerate().map(cut).collect()
}

/// Puts frames together that come in order, checking what can be.
pub fn assemble(frames: &[Vec<u8>]) -> Packet {
    let mut transport = Vec::new();
    let mut ends: Option<(IpAddr, IpAddr)> = None;
    let mut number = 0;
    for frame in frames {
        let (source, destination, protocol, mut start) = read_ip(&frame[ETHERNET..], true);
        number = protocol;
        if source.is_ipv6() {
            number = frame[ETHERNET + IPV6];
            start += FRAGMENT;
        }
        assert_eq!(*ends.get_or_insert((source, destination)), (source, destination), "of one packet");
        transport.extend_from_slice(&frame[ETHERNET + start..]);
    }
    let (source, destination) = ends.expect("at least one fragment");
    Packet::read_transport(source, destination, number, &transport)
}
