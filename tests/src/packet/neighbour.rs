//! ARP messages and neighbour discovery, as a host on the link writes and reads them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{ETHERNET, header, read_header, transport_sum};

/// An Ethernet address.
pub type Mac = [u8; 6];

/// The host of the frames that tests write.
pub const HOST_MAC: Mac = [2, 0, 0, 0, 0, 2];

/// What an answer says.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    /// To which link address the frame goes, and from which.
    pub to: Mac,
    pub from: Mac,
    /// To whom it is sent.
    pub asker: IpAddr,
    /// Whose link address it tells, and which that is.
    pub address: IpAddr,
    pub mac: Mac,
    /// Of an advertisement whether it answers a question, and whether it overrides what is known.
    pub flags: u8,
}

/// "Who has `target`? Tell `sender`."
pub fn arp_request(sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    arp(1, sender, target)
}

/// An ARP message of any kind.
pub fn arp(operation: u8, sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend(HOST_MAC);
    frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, operation]);
    frame.extend(HOST_MAC);
    frame.extend(sender.octets());
    frame.extend([0; 6]);
    frame.extend(target.octets());
    // To the least that Ethernet carries.
    frame.resize(60, 0);
    frame
}

/// Reads an ARP reply.
pub fn read_arp_reply(frame: &[u8]) -> Answer {
    assert_eq!(frame[12..22], [8, 6, 0, 1, 8, 0, 6, 4, 0, 2], "an ARP reply");
    let mac = |at: usize| Mac::try_from(&frame[at..at + 6]).expect("six bytes");
    let address = |at: usize| IpAddr::from(<[u8; 4]>::try_from(&frame[at..at + 4]).expect("four bytes"));
    assert_eq!(mac(32), mac(0), "to the one it names");
    Answer { to: mac(0), from: mac(6), asker: address(38), address: address(28), mac: mac(22), flags: 0 }
}

/// A neighbour solicitation to the group of `target`, with its checksum. With `::` as sender it asks whether the address
/// is free.
pub fn solicitation(sender: Ipv6Addr, target: Ipv6Addr) -> Vec<u8> {
    let mut options = Vec::new();
    if !sender.is_unspecified() {
        options.extend([1, 1]);
        options.extend(HOST_MAC);
    }
    neighbour(135, sender, target, &options)
}

/// Any message of neighbour discovery about an address.
pub fn neighbour(kind: u8, sender: Ipv6Addr, target: Ipv6Addr, options: &[u8]) -> Vec<u8> {
    let last = target.octets();
    let group = Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, last[13], last[14], last[15]]);
    let mut message = vec![kind, 0, 0, 0, 0, 0, 0, 0];
    message.extend(target.octets());
    message.extend(options);
    let sum = !transport_sum(sender.into(), group.into(), 58, &message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let mut frame = header(sender.into(), group.into(), 58, message.len(), 255);
    frame[..6].copy_from_slice(&[0x33, 0x33, 0xff, last[13], last[14], last[15]]);
    frame[6..12].copy_from_slice(&HOST_MAC);
    frame.extend(message);
    frame
}

/// Reads a neighbour advertisement; its checksum is right.
pub fn read_advertisement(frame: &[u8]) -> Answer {
    let (source, destination, number, start) = read_header(frame);
    let message = &frame[start..];
    assert_eq!((number, frame[ETHERNET + 7], message[0], message[1]), (58, 255, 136, 0), "an advertisement");
    assert_eq!(transport_sum(source, destination, 58, message), 0xffff, "the checksum");
    let target = IpAddr::from(<[u8; 16]>::try_from(&message[8..24]).expect("sixteen bytes"));
    assert_eq!((target, &message[24..26], message.len()), (source, &[2, 1][..], 32), "its own link address");
    let mac = |bytes: &[u8]| Mac::try_from(bytes).expect("six bytes");
    Answer {
        to: mac(&frame[..6]),
        from: mac(&frame[6..12]),
        asker: destination,
        address: target,
        mac: mac(&message[26..32]),
        flags: message[4] >> 5,
    }
}
