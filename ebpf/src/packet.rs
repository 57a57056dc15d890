//! What a program must know of a packet: its five-tuple and where its headers lie.
//!
//! Only packets that can belong to a service are parsed; everything else is not ours and passes untouched. Broken
//! packets are not ours either: the kernel's own stack drops and counts them.

use aya_ebpf::programs::TcContext;
use penstock_ebpf_common::{Address, FlowKey, PROTOCOL_TCP, PROTOCOL_UDP};

/// Where the IPv4 header starts: links are Ethernet, and the kernel keeps VLAN tags outside the packet.
pub const IP_OFFSET: usize = 14;
const IP_LENGTH_MIN: usize = 20;

const ETHERTYPE_IPV4: u32 = 0x0800_u16.to_be() as u32;
const FRAGMENT_MORE: u16 = 0x2000;
const FRAGMENT_OFFSET: u16 = 0x1fff;

const TCP_FIN: u8 = 1;
const TCP_SYN: u8 = 1 << 1;
const TCP_RST: u8 = 1 << 2;
const TCP_ACK: u8 = 1 << 4;

/// An IPv4 packet of TCP or UDP that has ports.
#[derive(Clone, Copy)]
pub struct Packet {
    /// Source address in network order.
    pub source: u32,
    /// Destination address in network order.
    pub destination: u32,
    /// Source port in network order.
    pub source_port: u16,
    /// Destination port in network order.
    pub destination_port: u16,
    /// IPPROTO_TCP or IPPROTO_UDP.
    pub protocol: u8,
    /// The TCP flags; zero for UDP.
    pub tcp_flags: u8,
    /// Whether more fragments follow, which carry no ports.
    pub first_fragment: bool,
    /// Whether the transport header is all there.
    pub whole: bool,
    /// Where the transport header starts, from the start of the frame.
    pub transport: usize,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Ipv4Header {
    version_and_length: u8,
    service_type: u8,
    total_length: u16,
    id: u16,
    fragment: u16,
    hops: u8,
    protocol: u8,
    checksum: u16,
    source: u32,
    destination: u32,
}

/// The part of a TCP header that is looked at; a UDP header ends after the ports and two more words.
#[repr(C)]
#[derive(Clone, Copy)]
struct TcpHeader {
    source_port: u16,
    destination_port: u16,
    sequence: u32,
    acknowledgement: u32,
    data_offset: u8,
    flags: u8,
    window: u16,
    checksum: u16,
    urgent: u16,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct UdpHeader {
    source_port: u16,
    destination_port: u16,
    length: u16,
    checksum: u16,
}

/// Reads the headers; none when the packet cannot belong to a service.
#[inline(always)]
pub fn parse(ctx: &TcContext) -> Option<Packet> {
    if ctx.skb.protocol() != ETHERTYPE_IPV4 {
        return None;
    }
    let ip: Ipv4Header = ctx.load(IP_OFFSET).ok()?;
    let length = ((ip.version_and_length & 0xf) as usize) * 4;
    if ip.version_and_length >> 4 != 4 || length < IP_LENGTH_MIN {
        return None;
    }
    let fragment = u16::from_be(ip.fragment);
    if fragment & FRAGMENT_OFFSET != 0 {
        return None;
    }
    let transport = IP_OFFSET + length;
    let mut packet = Packet {
        source: ip.source,
        destination: ip.destination,
        source_port: 0,
        destination_port: 0,
        protocol: ip.protocol,
        tcp_flags: 0,
        first_fragment: fragment & FRAGMENT_MORE != 0,
        whole: true,
        transport,
    };
    match ip.protocol {
        PROTOCOL_TCP => match ctx.load::<TcpHeader>(transport) {
            Ok(tcp) => {
                packet.source_port = tcp.source_port;
                packet.destination_port = tcp.destination_port;
                packet.tcp_flags = tcp.flags;
            }
            Err(_) => {
                // Ports without the rest: enough to say whose packet was broken.
                let ports: [u16; 2] = ctx.load(transport).ok()?;
                packet.source_port = ports[0];
                packet.destination_port = ports[1];
                packet.whole = false;
            }
        },
        PROTOCOL_UDP => {
            let ports: [u16; 2] = ctx.load(transport).ok()?;
            packet.source_port = ports[0];
            packet.destination_port = ports[1];
            packet.whole = ctx.len() as usize >= transport + size_of::<UdpHeader>();
        }
        _ => return None,
    }
    Some(packet)
}

impl Packet {
    /// The packet as the key of one half of a flow.
    #[inline(always)]
    pub fn key(&self, half: u8) -> FlowKey {
        FlowKey {
            source: Address::from_v4(self.source),
            destination: Address::from_v4(self.destination),
            source_port: self.source_port,
            destination_port: self.destination_port,
            protocol: self.protocol,
            half,
            zero: 0,
        }
    }

    /// Whether it opens a TCP connection.
    #[inline(always)]
    pub fn opens(&self) -> bool {
        self.tcp_flags & (TCP_SYN | TCP_ACK) == TCP_SYN
    }

    /// Whether it closes a TCP connection, or begins to.
    #[inline(always)]
    pub fn closes(&self) -> bool {
        self.tcp_flags & (TCP_FIN | TCP_RST) != 0
    }
}
