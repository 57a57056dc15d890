//! What a program must know of a packet: the flow it belongs to and where its headers lie.
//!
//! Only packets that can belong to a flow are read; everything else is not ours and passes untouched. Broken packets
//! without ports are not ours either: the kernel's own stack drops and counts them.

use penstock_ebpf_common::{
    Address, FlowKey, FragmentKey, PROTOCOL_ICMP, PROTOCOL_ICMPV6, PROTOCOL_SCTP, PROTOCOL_TCP, PROTOCOL_UDP,
};

use crate::header::{
    ETHERTYPE_IPV4, ETHERTYPE_IPV6, Fragment, Frame, ICMP_LENGTH, IP_OFFSET, IPV4_LENGTH, IPV6_LENGTH, Icmp,
    Ipv4, Ipv6, NEXT_DESTINATION, NEXT_HOP_BY_HOP, Routing, Sctp, Tcp, Udp,
};

const FRAGMENT_MORE_V4: u16 = 0x2000;
const FRAGMENT_OFFSET_V4: u16 = 0x1fff;
const FRAGMENT_MORE_V6: u16 = 1;
const FRAGMENT_OFFSET_V6: u16 = 0xfff8;
/// More extension headers than any packet has that means well (RFC 8504, 5.3 lets a host refuse more than eight).
const EXTENSIONS_MAX: u32 = 8;
const NEXT_ROUTING: u8 = 43;
const NEXT_FRAGMENT: u8 = 44;

const FIN: u8 = 1;
const SYN: u8 = 1 << 1;
const RST: u8 = 1 << 2;
const ACK: u8 = 1 << 4;

/// What a packet is to the flow it belongs to.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Kind {
    /// A packet of TCP, UDP or SCTP with its ports.
    #[default]
    Whole,
    /// A fragment with the ports, which later ones lack.
    FirstFragment,
    /// A fragment without ports: those of the key are zero until the first one tells.
    LaterFragment,
    /// An echo request or its reply; its identifier is the port of whoever asks.
    Echo,
    /// An error about a packet. The key is the answer to the packet it quotes, so that it names the flow.
    Error,
}

/// A packet of a flow.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Packet {
    /// Addresses, ports and protocol; which half is set by whoever looks it up.
    pub key: FlowKey,
    /// Who sends an error; of other packets it is nothing.
    pub error_source: Address,
    /// To whom.
    pub error_destination: Address,
    /// Where the transport header starts, from the start of the frame.
    pub transport: u32,
    /// Where the transport header of the packet starts that an error quotes.
    pub quoted_transport: u32,
    /// How long the packet is, from the IP header on.
    pub length: u32,
    /// The identification of a fragment, as it lies in the packet.
    pub fragment_id: u32,
    /// The hops left: time to live, hop limit.
    pub hops: u8,
    /// The TCP flags, or those an SCTP packet would have as TCP.
    pub flags: u8,
    /// What it is to its flow.
    pub kind: Kind,
    /// Whether all is there that the headers speak of.
    pub whole: bool,
    /// How long the transport header is; segments that the card cuts each have one.
    pub transport_length: u32,
}

/// What the IP header tells, but for addresses and protocol.
struct Network {
    transport: u32,
    length: u32,
    fragment_id: u32,
    hops: u8,
    first: bool,
    later: bool,
}

/// Reads the headers; false when the packet can belong to no flow.
#[inline(always)]
pub fn parse<F: Frame>(frame: &F, packet: &mut Packet) -> bool {
    let Some(network) = network(frame, IP_OFFSET, frame.ethertype(), &mut packet.key) else {
        return false;
    };
    packet.transport = network.transport;
    packet.length = network.length;
    packet.fragment_id = network.fragment_id;
    packet.hops = network.hops;
    packet.flags = 0;
    packet.transport_length = 0;
    packet.key.source_port = 0;
    packet.key.destination_port = 0;
    packet.whole = frame.length() >= IP_OFFSET + network.length;
    if network.later {
        packet.kind = Kind::LaterFragment;
        return true;
    }
    packet.kind = if network.first { Kind::FirstFragment } else { Kind::Whole };
    // What the IP header counts, less itself.
    let counted = (IP_OFFSET + network.length).saturating_sub(network.transport);
    match packet.key.protocol {
        PROTOCOL_TCP => match frame.load::<Tcp>(network.transport) {
            Some(tcp) => {
                packet.flags = tcp.flags;
                packet.transport_length = u32::from(tcp.data_offset >> 4) * 4;
                packet.whole &= counted >= size_of::<Tcp>() as u32;
                ports(packet, tcp.ports)
            }
            None => ports_only(frame, packet),
        },
        PROTOCOL_UDP => match frame.load::<Udp>(network.transport) {
            Some(udp) => {
                packet.transport_length = size_of::<Udp>() as u32;
                packet.whole &= counted >= size_of::<Udp>() as u32;
                ports(packet, udp.ports)
            }
            None => ports_only(frame, packet),
        },
        PROTOCOL_SCTP if !F::FIXED => match frame.load::<Sctp>(network.transport) {
            Some(sctp) => {
                packet.flags = as_tcp_flags(sctp.chunk);
                packet.whole &= counted >= size_of::<Sctp>() as u32;
                ports(packet, sctp.ports)
            }
            None => ports_only(frame, packet),
        },
        PROTOCOL_ICMP | PROTOCOL_ICMPV6 if !F::FIXED && !network.first => icmp(frame, packet),
        _ => false,
    }
}

#[inline(always)]
fn ports(packet: &mut Packet, ports: [u16; 2]) -> bool {
    packet.key.source_port = ports[0];
    packet.key.destination_port = ports[1];
    true
}

/// Ports without the rest: enough to say whose packet was broken.
#[inline(always)]
fn ports_only<F: Frame>(frame: &F, packet: &mut Packet) -> bool {
    packet.whole = false;
    match frame.load::<[u16; 2]>(packet.transport) {
        Some(found) => ports(packet, found),
        None => false,
    }
}

/// How an SCTP packet begins or ends its association, by its first chunk (RFC 9260, 3.2).
#[inline(always)]
const fn as_tcp_flags(chunk: u8) -> u8 {
    match chunk {
        1 => SYN,
        2 => SYN | ACK,
        6 | 14 => RST,
        _ => ACK,
    }
}

/// Reads the IP header at a place into the key.
#[inline(always)]
fn network<F: Frame>(frame: &F, at: u32, ethertype: u16, key: &mut FlowKey) -> Option<Network> {
    match ethertype {
        ETHERTYPE_IPV4 => network_v4(frame, at, key),
        ETHERTYPE_IPV6 => network_v6(frame, at, key),
        _ => None,
    }
}

#[inline(always)]
fn network_v4<F: Frame>(frame: &F, at: u32, key: &mut FlowKey) -> Option<Network> {
    let ip: Ipv4 = frame.load(at)?;
    let mut header = u32::from(ip.version_and_length & 0xf) * 4;
    if ip.version_and_length >> 4 != 4 || header < IPV4_LENGTH {
        return None;
    }
    let fragment = u16::from_be(ip.fragment);
    let (first, later) = (fragment & FRAGMENT_MORE_V4 != 0, fragment & FRAGMENT_OFFSET_V4 != 0);
    if F::FIXED {
        if header != IPV4_LENGTH || first || later {
            return None;
        }
        header = IPV4_LENGTH;
    }
    key.source = Address::from_v4(ip.source);
    key.destination = Address::from_v4(ip.destination);
    key.protocol = ip.protocol;
    Some(Network {
        transport: at + header,
        length: length(frame, at, u32::from(u16::from_be(ip.total_length))),
        fragment_id: u32::from(ip.id),
        hops: ip.hops,
        first: first && !later,
        later,
    })
}

#[inline(always)]
fn network_v6<F: Frame>(frame: &F, at: u32, key: &mut FlowKey) -> Option<Network> {
    let ip: Ipv6 = frame.load(at)?;
    if ip.version_and_flow as u8 >> 4 != 6 {
        return None;
    }
    key.source = Address { words: ip.source };
    key.destination = Address { words: ip.destination };
    // In a key such an address would be an IPv4 one, which is another packet's (RFC 4942, 2.2: not for the wire).
    if key.source.is_v4() || key.destination.is_v4() {
        return None;
    }
    let payload = u32::from(u16::from_be(ip.payload_length));
    let mut network = Network {
        transport: at + IPV6_LENGTH,
        length: length(frame, at, if payload == 0 { 0 } else { IPV6_LENGTH + payload }),
        fragment_id: 0,
        hops: ip.hops,
        first: false,
        later: false,
    };
    key.protocol = if F::FIXED { ip.next } else { extensions(frame, ip.next, &mut network)? };
    Some(network)
}

/// Walks the extension headers and returns the protocol behind them. Of a later fragment that is unknown.
#[inline(always)]
fn extensions<F: Frame>(frame: &F, next: u8, network: &mut Network) -> Option<u8> {
    let mut next = next;
    let mut seen = 0;
    while seen < EXTENSIONS_MAX {
        seen += 1;
        match next {
            NEXT_HOP_BY_HOP | NEXT_DESTINATION => {
                let [following, length] = frame.load::<[u8; 2]>(network.transport)?;
                next = following;
                network.transport += (u32::from(length) + 1) * 8;
            }
            NEXT_ROUTING => {
                let routing: Routing = frame.load(network.transport)?;
                // Somebody else is the destination in the end.
                if routing.segments_left != 0 {
                    return None;
                }
                next = routing.next;
                network.transport += (u32::from(routing.length) + 1) * 8;
            }
            NEXT_FRAGMENT => {
                let fragment: Fragment = frame.load(network.transport)?;
                let bits = u16::from_be(fragment.offset);
                network.fragment_id = fragment.id;
                network.later = bits & FRAGMENT_OFFSET_V6 != 0;
                if network.later {
                    return Some(0);
                }
                // Without offset and without more to come it is the only one (RFC 6946).
                network.first = bits & FRAGMENT_MORE_V6 != 0;
                next = fragment.next;
                network.transport += size_of::<Fragment>() as u32;
            }
            other => return Some(other),
        }
    }
    None
}

/// What an IP header says of the packet's length. It says nothing of packets that the kernel has put together from more
/// than it can count (BIG TCP).
#[inline(always)]
fn length<F: Frame>(frame: &F, at: u32, said: u32) -> u32 {
    if said == 0 { frame.length().saturating_sub(at) } else { said }
}

// === ICMP ===

/// Kinds of messages, of ICMP and ICMPv6.
mod kind {
    pub const ECHO: u8 = 8;
    pub const ECHO_REPLY: u8 = 0;
    pub const UNREACHABLE: u8 = 3;
    pub const TIME_EXCEEDED: u8 = 11;
    pub const PARAMETER_PROBLEM: u8 = 12;
    pub const V6_ECHO: u8 = 128;
    pub const V6_ECHO_REPLY: u8 = 129;
    pub const V6_ERROR_FIRST: u8 = 1;
    pub const V6_ERROR_LAST: u8 = 4;
}

#[inline(always)]
fn icmp<F: Frame>(frame: &F, packet: &mut Packet) -> bool {
    let v6 = packet.key.protocol == PROTOCOL_ICMPV6;
    // ICMP in IPv6 or the other way round is no message.
    if packet.key.source.is_v4() == v6 {
        return false;
    }
    let Some(message) = frame.load::<Icmp>(packet.transport) else {
        return false;
    };
    match (v6, message.kind) {
        (false, kind::ECHO | kind::ECHO_REPLY) | (true, kind::V6_ECHO | kind::V6_ECHO_REPLY) => {
            packet.kind = Kind::Echo;
            echo(&mut packet.key, &message);
            true
        }
        (false, kind::UNREACHABLE | kind::TIME_EXCEEDED | kind::PARAMETER_PROBLEM)
        | (true, kind::V6_ERROR_FIRST..=kind::V6_ERROR_LAST) => {
            packet.kind = Kind::Error;
            quoted(frame, packet)
        }
        _ => false,
    }
}

/// The identifier of an echo is a port of whoever asks.
#[inline(always)]
fn echo(key: &mut FlowKey, message: &Icmp) {
    if matches!(message.kind, kind::ECHO_REPLY | kind::V6_ECHO_REPLY) {
        key.destination_port = message.id;
    } else {
        key.source_port = message.id;
    }
}

/// Reads the packet that an error quotes, and turns it round: as its answer it names the flow.
#[inline(always)]
fn quoted<F: Frame>(frame: &F, packet: &mut Packet) -> bool {
    packet.error_source = packet.key.source;
    packet.error_destination = packet.key.destination;
    let at = packet.transport + ICMP_LENGTH;
    let key = &mut packet.key;
    let Some(network) = network(frame, at, frame.ethertype(), key) else {
        return false;
    };
    if network.later {
        return false;
    }
    packet.quoted_transport = network.transport;
    match key.protocol {
        PROTOCOL_TCP | PROTOCOL_UDP | PROTOCOL_SCTP => {
            let Some(ports) = frame.load::<[u16; 2]>(network.transport) else {
                return false;
            };
            key.source_port = ports[0];
            key.destination_port = ports[1];
        }
        PROTOCOL_ICMP | PROTOCOL_ICMPV6 => {
            let Some(message) = frame.load::<Icmp>(network.transport) else {
                return false;
            };
            if !matches!(message.kind, kind::ECHO | kind::ECHO_REPLY | kind::V6_ECHO | kind::V6_ECHO_REPLY) {
                return false;
            }
            echo(key, &message);
        }
        _ => return false,
    }
    core::mem::swap(&mut key.source, &mut key.destination);
    core::mem::swap(&mut key.source_port, &mut key.destination_port);
    true
}

// === impl Packet ===

impl Packet {
    /// Whether it opens a connection.
    #[inline(always)]
    pub const fn opens(&self) -> bool {
        self.flags & (SYN | ACK) == SYN
    }

    /// Whether it closes a connection, or begins to.
    #[inline(always)]
    pub const fn closes(&self) -> bool {
        self.flags & (FIN | RST) != 0
    }

    /// The fragmented packet it is part of.
    #[inline(always)]
    pub const fn fragment_key(&self) -> FragmentKey {
        FragmentKey {
            source: self.key.source,
            destination: self.key.destination,
            id: self.fragment_id,
            // Behind IPv6's fragment header there may be more headers: later fragments do not know the protocol.
            protocol: if self.key.source.is_v4() { self.key.protocol as u32 } else { 0 },
        }
    }
}

#[cfg(test)]
mod tests;
