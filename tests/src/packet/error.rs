//! ICMP errors about packets.

use std::net::IpAddr;

use super::{ETHERNET, HOPS, Packet, fold, header, read_header, read_ip, sum_of, transport_sum};

/// Port unreachable, or of IPv6 the same, from somebody to the sender of a packet.
pub fn error_about(packet: &Packet, from: IpAddr) -> Vec<u8> {
    let quoted = &packet.bytes()[ETHERNET..];
    let to = packet.source.ip();
    let (number, kind, code) = if to.is_ipv6() { (58, 1, 4) } else { (1, 3, 3) };
    let mut icmp = vec![kind, code, 0, 0, 0, 0, 0, 0];
    icmp.extend_from_slice(quoted);
    let sum = !transport_sum(from, to, number, &icmp);
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    let mut frame = header(from, to, number, icmp.len(), HOPS);
    frame.extend_from_slice(&icmp);
    frame
}

/// From whom an error is, to whom, and about which packet, which it quotes whole. Every checksum is checked, within the
/// quoted packet too.
pub fn read_error(frame: &[u8]) -> (IpAddr, IpAddr, Packet) {
    let (from, to, number, start) = read_header(frame);
    assert!(number == 1 || number == 58, "protocol {number}");
    let icmp = &frame[start..];
    let sum = if number == 1 { fold(sum_of(icmp)) } else { transport_sum(from, to, number, icmp) };
    assert_eq!(sum, 0xffff, "the ICMP checksum");
    assert!([1, 2, 3, 11].contains(&icmp[0]), "an error, not {}", icmp[0]);
    let quoted = &icmp[8..];
    let (source, destination, number, start) = read_ip(quoted, true);
    (from, to, Packet::read_transport(source, destination, number, &quoted[start..]))
}

/// "Too big", as it arrives at who sent too much.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TooBig {
    /// Who says so.
    pub from: IpAddr,
    /// To whom.
    pub to: IpAddr,
    /// How much would fit.
    pub mtu: u32,
    /// The beginning of the packet, from its IP header on.
    pub quoted: Vec<u8>,
}

/// Reads "fragmentation needed", or of IPv6 "packet too big". Both checksums are checked.
pub fn read_too_big(frame: &[u8]) -> TooBig {
    let (from, to, number, start) = read_header(frame);
    let icmp = &frame[start..];
    let sum = if number == 1 { fold(sum_of(icmp)) } else { transport_sum(from, to, number, icmp) };
    assert_eq!(sum, 0xffff, "the ICMP checksum");
    assert!(matches!((number, icmp[0], icmp[1]), (1, 3, 4) | (58, 2, 0)), "{number} {:?}", &icmp[..2]);
    let mtu = u32::from_be_bytes([icmp[4], icmp[5], icmp[6], icmp[7]]);
    TooBig { from, to, mtu, quoted: icmp[8..].to_vec() }
}
