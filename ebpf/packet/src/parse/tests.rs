//! Packets read on the host: examples, and anything at all.

use core::mem::MaybeUninit;
use core::net::IpAddr;

use proptest::prelude::*;

use super::*;
use crate::header::Plain;

extern crate std;
use std::vec::Vec;

/// A frame in memory.
struct Bytes<'a, const FIXED: bool>(&'a [u8]);

impl<const FIXED: bool> Frame for Bytes<'_, FIXED> {
    const FIXED: bool = FIXED;

    fn ethertype(&self) -> u16 {
        self.load(12).unwrap_or(0)
    }

    fn length(&self) -> u32 {
        self.0.len() as u32
    }

    fn load<T: Plain>(&self, offset: u32) -> Option<T> {
        let start = offset as usize;
        let from = self.0.get(start..start.checked_add(size_of::<T>())?)?;
        let mut to = MaybeUninit::<T>::uninit();
        // SAFETY: as many bytes as `T` has are copied, and every pattern of bits is a `T`.
        unsafe {
            core::ptr::copy_nonoverlapping(from.as_ptr(), to.as_mut_ptr().cast(), size_of::<T>());
            Some(to.assume_init())
        }
    }
}

fn read(bytes: &[u8]) -> Option<Packet> {
    let mut packet = Packet::default();
    parse(&Bytes::<false>(bytes), &mut packet).then_some(packet)
}

fn v6(next: u8, body: &[u8]) -> Vec<u8> {
    let mut frame = std::vec![0_u8; 12];
    frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
    frame.extend((body.len() as u16).to_be_bytes());
    frame.extend([next, 64]);
    for last in [1, 2] {
        let mut address = [0_u8; 16];
        (address[0], address[15]) = (0xfd, last);
        frame.extend(address);
    }
    frame.extend(body);
    frame
}

const UDP: [u8; 8] = [0x9c, 0x40, 0, 53, 0, 8, 0, 0];

#[test]
fn extension_headers_are_walked_and_their_number_is_bounded() {
    let with = |extensions: usize| {
        let mut body = Vec::new();
        for left in (0..extensions).rev() {
            body.extend([if left == 0 { PROTOCOL_UDP } else { NEXT_DESTINATION }, 0, 1, 4, 0, 0, 0, 0]);
        }
        body.extend(UDP);
        v6(if extensions == 0 { PROTOCOL_UDP } else { NEXT_HOP_BY_HOP }, &body)
    };
    for extensions in 0..EXTENSIONS_MAX as usize {
        let packet = read(&with(extensions)).expect("a packet");
        assert_eq!(packet.key.destination_port, 53_u16.to_be());
        assert_eq!(packet.transport, 54 + 8 * extensions as u32);
    }
    assert_eq!(read(&with(EXTENSIONS_MAX as usize)), None);
    assert!(!parse(&Bytes::<true>(&with(1)), &mut Packet::default()), "not where it nearly always is");
}

#[test]
fn fragments_of_ipv6_are_told_apart() {
    let with = |offset: u16| {
        let mut body = std::vec![PROTOCOL_UDP, 0];
        body.extend(offset.to_be_bytes());
        body.extend([0, 0, 0, 7]);
        body.extend(UDP);
        read(&v6(NEXT_FRAGMENT, &body)).expect("a packet")
    };
    assert_eq!(
        (with(0).kind, with(1).kind, with(9).kind),
        (Kind::Whole, Kind::FirstFragment, Kind::LaterFragment)
    );
    assert_eq!(with(1).key.source_port, 40_000_u16.to_be());
    assert_eq!((with(9).key.source_port, with(8).kind), (0, Kind::LaterFragment));
    assert_eq!(with(1).fragment_key(), with(9).fragment_key());
}

#[test]
fn an_ipv6_packet_cannot_pretend_to_be_an_ipv4_one() {
    let mut frame = v6(PROTOCOL_UDP, &UDP);
    frame[22..38].copy_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, 1]);
    assert_eq!(read(&frame), None);
}

#[test]
fn an_error_names_the_flow_of_the_packet_it_quotes() {
    let inner = v6(PROTOCOL_UDP, &UDP);
    let mut body = std::vec![1, 4, 0, 0, 0, 0, 0, 0];
    body.extend(&inner[14..]);
    let packet = read(&v6(PROTOCOL_ICMPV6, &body)).expect("an error");
    assert_eq!(packet.kind, Kind::Error);
    assert_eq!((packet.key.source_port, packet.key.destination_port), (53_u16.to_be(), 40_000_u16.to_be()));
    assert_eq!(packet.key.source.to_bytes()[15], 2);
    assert_eq!(packet.error_source.to_bytes()[15], 1);
    assert_eq!(packet.quoted_transport, 54 + 8 + 40);
}

/// Bytes that are likelier than chance to be a packet.
fn frames() -> impl Strategy<Value = Vec<u8>> {
    let start = prop_oneof![
        Just(std::vec![8_u8, 0, 0x45]),
        Just(std::vec![8, 0, 0x4f]),
        Just(std::vec![0x86, 0xdd, 0x60]),
        prop::collection::vec(any::<u8>(), 0..4)
    ];
    let protocols = prop::sample::select(std::vec![0_u8, 1, 6, 17, 43, 44, 51, 58, 60, 132, 255]);
    (start, prop::collection::vec(any::<u8>(), 0..200), protocols).prop_map(|(start, rest, protocol)| {
        let mut frame = std::vec![0_u8; 12];
        frame.extend(start);
        frame.extend(rest);
        for at in [20, 23, 54, 62, 80] {
            if let Some(byte) = frame.get_mut(at) {
                *byte = protocol;
            }
        }
        frame
    })
}

/// A packet that means well, with what it was built of.
#[derive(Debug, Clone)]
struct Built {
    frame: Vec<u8>,
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    ports: [[u8; 2]; 2],
    transport: usize,
    hops: u8,
}

/// Packets of both families with any addresses, ports (0 too) and hops, floods of options and chains of extension headers
/// as far as they are allowed, and any payload.
fn built() -> impl Strategy<Value = Built> {
    let addresses = prop_oneof![
        any::<[[u8; 4]; 2]>().prop_map(|pair| pair.map(IpAddr::from)),
        // The mapped ones, which nobody may send, are refused.
        any::<[[u8; 16]; 2]>()
            .prop_filter("a mapped address", |pair| pair.iter().all(|it| it[..10] != [0; 10]))
            .prop_map(|pair| pair.map(IpAddr::from)),
    ];
    let protocol = prop::sample::select(std::vec![PROTOCOL_TCP, PROTOCOL_UDP, PROTOCOL_SCTP]);
    let extensions = prop::collection::vec((any::<bool>(), 0..3_u8), 0..EXTENSIONS_MAX as usize);
    let ports = any::<[[u8; 2]; 2]>();
    let rest = (0..11_u8, extensions, prop::collection::vec(any::<u8>(), 0..64));
    (addresses, protocol, ports, any::<u8>(), rest).prop_map(|(addresses, protocol, ports, hops, rest)| {
        let (options, extensions, payload) = rest;
        let [source, destination] = addresses;
        let transport = transport_header(protocol, ports, &payload);
        let mut frame = std::vec![0_u8; 12];
        match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let length = 20 + usize::from(options) * 4 + transport.len();
                frame.extend([8, 0, 0x45 + options, 0]);
                frame.extend((length as u16).to_be_bytes());
                frame.extend([0, 7, 0x40, 0, hops, protocol, 0, 0]);
                frame.extend(source.octets());
                frame.extend(destination.octets());
                frame.extend(core::iter::repeat_n(1, usize::from(options) * 4));
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let mut chain = Vec::new();
                for (at, (_, length)) in extensions.iter().enumerate() {
                    chain.push(extensions.get(at + 1).map_or(protocol, extension));
                    chain.push(*length);
                    chain.extend(core::iter::repeat_n(0, 6 + usize::from(*length) * 8));
                }
                frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
                frame.extend(((chain.len() + transport.len()) as u16).to_be_bytes());
                frame.extend([extensions.first().map_or(protocol, extension), hops]);
                frame.extend(source.octets());
                frame.extend(destination.octets());
                frame.extend(chain);
            }
            _ => unreachable!("both are of one family"),
        }
        let at = frame.len();
        frame.extend(transport);
        Built { frame, source, destination, protocol, ports, transport: at, hops }
    })
}

fn extension(of: &(bool, u8)) -> u8 {
    if of.0 { NEXT_HOP_BY_HOP } else { NEXT_DESTINATION }
}

fn transport_header(protocol: u8, ports: [[u8; 2]; 2], payload: &[u8]) -> Vec<u8> {
    let mut header = ports.concat();
    match protocol {
        PROTOCOL_TCP => header.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, SYN, 0, 0, 0, 0, 0, 0]),
        PROTOCOL_UDP => {
            header.extend((8 + payload.len() as u16).to_be_bytes());
            header.extend([0, 0]);
        }
        _ => header.extend([0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 4]),
    }
    header.extend(payload);
    header
}

proptest! {
    #[test]
    fn whatever_arrives_is_read_within_its_bounds(frame in frames()) {
        if let Some(packet) = read(&frame) {
            prop_assert!(packet.transport as usize <= frame.len() || packet.kind == Kind::LaterFragment);
            if matches!(packet.kind, Kind::Whole | Kind::FirstFragment) {
                prop_assert!(packet.transport as usize + 4 <= frame.len());
            }
            if packet.whole {
                prop_assert!(frame.len() as u32 >= 14 + packet.length);
            }
        }
    }

    #[test]
    fn what_is_read_at_fixed_places_is_read_the_same_anywhere(frame in frames()) {
        let mut packet = Packet::default();
        if parse(&Bytes::<true>(&frame), &mut packet) {
            prop_assert_eq!(read(&frame), Some(packet));
            prop_assert_eq!(packet.kind, Kind::Whole);
        }
    }

    #[test]
    fn a_packet_that_was_built_is_read_as_it_was_built(built in built()) {
        let packet = read(&built.frame).expect("a packet");
        let port = |bytes: [u8; 2]| u16::from_ne_bytes(bytes);
        prop_assert_eq!(packet.key.protocol, built.protocol);
        prop_assert_eq!(packet.key.source, Address::from(built.source));
        prop_assert_eq!(packet.key.destination, Address::from(built.destination));
        prop_assert_eq!(packet.key.source_port, port(built.ports[0]));
        prop_assert_eq!(packet.key.destination_port, port(built.ports[1]));
        prop_assert_eq!(packet.transport as usize, built.transport);
        prop_assert_eq!(packet.length as usize + 14, built.frame.len());
        prop_assert_eq!(packet.hops, built.hops);
        prop_assert!(packet.whole);
        prop_assert_eq!(packet.kind, Kind::Whole);
    }

    #[test]
    fn a_packet_that_was_built_and_changed_anywhere_is_read_within_its_bounds(
        built in built(),
        changes in prop::collection::vec((12..200_usize, any::<u8>()), 0..16),
        cut in 0..256_usize,
    ) {
        let mut frame = built.frame;
        for (at, value) in changes {
            if let Some(byte) = frame.get_mut(at) {
                *byte = value;
            }
        }
        frame.truncate(cut);
        if let Some(packet) = read(&frame) {
            prop_assert!(packet.transport as usize <= frame.len() || packet.kind == Kind::LaterFragment);
            prop_assert!(!packet.whole || frame.len() as u32 >= 14 + packet.length);
        }
    }

    #[test]
    fn a_packet_cut_anywhere_is_never_whole(length in 0..62_usize) {
        let frame = v6(PROTOCOL_UDP, &UDP);
        prop_assert!(read(&frame[..length]).is_none_or(|packet| !packet.whole));
    }
}
