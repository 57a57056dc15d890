//! What a node says that takes an address: frames as they lie on the wire.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An Ethernet address.
pub type Mac = [u8; 6];

const BROADCAST: Mac = [0xff; 6];
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_NODES_MAC: Mac = [0x33, 0x33, 0, 0, 0, 1];

/// The frames that tell everybody on the link that an address is at this link address now. Of IPv4 both forms, for some
/// hosts mind only one of them (RFC 5227, 3).
pub fn takeover_frames(address: IpAddr, mac: Mac) -> Vec<Vec<u8>> {
    match address {
        IpAddr::V4(address) => vec![arp(address, mac, 1), arp(address, mac, 2)],
        IpAddr::V6(address) => vec![advertisement(address, mac)],
    }
}

fn ethernet(to: Mac, from: Mac, ethertype: u16) -> Vec<u8> {
    let mut frame = Vec::with_capacity(86);
    frame.extend_from_slice(&to);
    frame.extend_from_slice(&from);
    frame.extend_from_slice(&ethertype.to_be_bytes());
    frame
}

fn arp(address: Ipv4Addr, mac: Mac, operation: u16) -> Vec<u8> {
    let mut frame = ethernet(BROADCAST, mac, 0x0806);
    frame.extend_from_slice(&[0, 1, 8, 0, 6, 4]);
    frame.extend_from_slice(&operation.to_be_bytes());
    frame.extend_from_slice(&mac);
    frame.extend_from_slice(&address.octets());
    frame.extend_from_slice(if operation == 1 { &[0; 6] } else { &BROADCAST });
    frame.extend_from_slice(&address.octets());
    frame
}

/// Unsolicited, overriding what is known (RFC 4861, 7.2.6).
fn advertisement(address: Ipv6Addr, mac: Mac) -> Vec<u8> {
    let mut message = vec![136, 0, 0, 0, 0x20, 0, 0, 0];
    message.extend_from_slice(&address.octets());
    message.extend_from_slice(&[2, 1]);
    message.extend_from_slice(&mac);
    let sum = checksum(address, ALL_NODES, &message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let mut frame = ethernet(ALL_NODES_MAC, mac, 0x86dd);
    frame.extend_from_slice(&[0x60, 0, 0, 0]);
    frame.extend_from_slice(&(message.len() as u16).to_be_bytes());
    frame.extend_from_slice(&[58, 255]);
    frame.extend_from_slice(&address.octets());
    frame.extend_from_slice(&ALL_NODES.octets());
    frame.extend_from_slice(&message);
    frame
}

fn checksum(source: Ipv6Addr, destination: Ipv6Addr, message: &[u8]) -> u16 {
    let sum = |bytes: &[u8]| -> u32 {
        bytes.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum()
    };
    let mut total = sum(&source.octets()) + sum(&destination.octets()) + sum(message);
    total += message.len() as u32 + 58;
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    !(total as u16)
}

/// The group to which questions for an IPv6 address go (RFC 4291, 2.7.1).
pub fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let [.., third, second, first] = address.octets();
    Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, third, second, first])
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: Mac = [2, 0, 0, 0, 0, 7];

    #[test]
    fn an_ipv4_address_is_told_by_a_request_and_a_reply_of_its_own() {
        let frames = takeover_frames([192, 0, 2, 9].into(), MAC);
        assert_eq!(frames.len(), 2);
        for (frame, operation) in frames.iter().zip([1, 2]) {
            assert_eq!(frame.len(), 42);
            assert_eq!((&frame[..6], &frame[6..12], &frame[12..14]), (&[0xff; 6][..], &MAC[..], &[8, 6][..]));
            assert_eq!(frame[21], operation);
            assert_eq!((&frame[22..28], &frame[28..32]), (&MAC[..], &[192, 0, 2, 9][..]));
            assert_eq!(&frame[38..42], [192, 0, 2, 9]);
        }
    }

    #[test]
    fn an_ipv6_address_is_told_by_an_advertisement_to_all_nodes() {
        let address: Ipv6Addr = "2001:db8::9".parse().unwrap();
        let frames = takeover_frames(address.into(), MAC);
        assert_eq!(frames.len(), 1);
        let frame = &frames[0];
        assert_eq!(frame.len(), 86);
        assert_eq!((&frame[..6], frame[21]), (&ALL_NODES_MAC[..], 255));
        assert_eq!((frame[54], frame[58]), (136, 0x20), "unsolicited, overriding");
        assert_eq!(frame[62..78], address.octets());
        assert_eq!(frame[80..86], MAC);
        let mut message = frame[54..].to_vec();
        message[2..4].fill(0);
        assert_eq!(frame[56..58], checksum(address, ALL_NODES, &message).to_be_bytes());
    }

    #[test]
    fn questions_for_an_address_go_to_its_group() {
        let address: Ipv6Addr = "2001:db8::1:22:3344".parse().unwrap();
        assert_eq!(solicited_node(address), "ff02::1:ff22:3344".parse::<Ipv6Addr>().unwrap());
    }
}
