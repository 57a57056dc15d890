//! Headers as they lie in a packet: plain integers in network order.

/// A source of headers: a frame that starts with its Ethernet header.
pub trait Frame {
    /// Whether headers are read only where they lie in nearly every packet: an IPv4 header of twenty bytes, an IPv6
    /// header without extensions, no fragments, no errors. What differs is then nobody's.
    const FIXED: bool;

    /// The type of what follows the Ethernet header, in network order.
    fn ethertype(&self) -> u16;

    /// How many bytes there are, from the Ethernet header on.
    fn length(&self) -> u32;

    /// Copies a header; none when the frame ends before it does.
    fn load<T: Plain>(&self, offset: u32) -> Option<T>;
}

/// What may be copied out of a packet as it is.
///
/// # Safety
/// Integers only, for which every pattern of bits is a value, and `repr(C)`.
pub unsafe trait Plain: Copy {}

macro_rules! plain {
    ($($type:ty),+) => {$(
        // SAFETY: `repr(C)` of integers.
        unsafe impl Plain for $type {}
    )+};
}

plain!(u8, u16, u32, [u8; 2], [u8; 6], [u16; 2], [u16; 3], [u32; 2]);
plain!(Ipv4, Ipv6, AskedV4, AskedV6, Tcp, Udp, Sctp, Icmp, Fragment, Routing, Arp, Neighbour);

/// ETH_P_IP in network order.
pub const ETHERTYPE_IPV4: u16 = 0x0800_u16.to_be();
/// ETH_P_ARP in network order.
pub const ETHERTYPE_ARP: u16 = 0x0806_u16.to_be();
/// ETH_P_IPV6 in network order.
pub const ETHERTYPE_IPV6: u16 = 0x86dd_u16.to_be();

/// Where the IP header starts: links are Ethernet, and the kernel keeps VLAN tags outside the packet.
pub const IP_OFFSET: u32 = 14;
/// The length of an IPv4 header without options.
pub const IPV4_LENGTH: u32 = size_of::<Ipv4>() as u32;
/// The length of an IPv6 header.
pub const IPV6_LENGTH: u32 = size_of::<Ipv6>() as u32;

/// An IPv4 header without options.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Ipv4 {
    pub version_and_length: u8,
    pub service_type: u8,
    pub total_length: u16,
    pub id: u16,
    pub fragment: u16,
    pub hops: u8,
    pub protocol: u8,
    pub checksum: u16,
    pub source: u32,
    pub destination: u32,
}

/// An IPv6 header.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Ipv6 {
    pub version_and_flow: u32,
    pub payload_length: u16,
    pub next: u8,
    pub hops: u8,
    pub source: [u32; 4],
    pub destination: [u32; 4],
}

/// The IPv4 option of [`crate::direct`].
#[repr(C)]
#[derive(Clone, Copy)]
pub struct AskedV4 {
    pub kind: u8,
    pub length: u8,
    pub mark: u16,
    pub client_port: u16,
    pub service_port: u16,
    pub service: u32,
}

/// The IPv6 destination options header of [`crate::direct`], with its one option.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct AskedV6 {
    pub next: u8,
    pub length: u8,
    pub kind: u8,
    pub data_length: u8,
    pub client_port: u16,
    pub service_port: u16,
    pub service: [u32; 4],
}

/// The next header is one of hop-by-hop options, which comes first or not at all.
pub const NEXT_HOP_BY_HOP: u8 = 0;
/// The next header is one of destination options.
pub const NEXT_DESTINATION: u8 = 60;

/// The part of a TCP header that every one has.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Tcp {
    pub ports: [u16; 2],
    pub sequence: u32,
    pub acknowledgement: u32,
    pub data_offset: u8,
    pub flags: u8,
    pub window: u16,
    pub checksum: u16,
    pub urgent: u16,
}

/// A UDP header.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Udp {
    pub ports: [u16; 2],
    pub length: u16,
    pub checksum: u16,
}

/// SCTP's common header and the head of its first chunk.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Sctp {
    pub ports: [u16; 2],
    pub tag: u32,
    pub checksum: u32,
    pub chunk: u8,
    pub chunk_flags: u8,
    pub chunk_length: u16,
}

/// What ICMP and ICMPv6 messages have in common.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Icmp {
    pub kind: u8,
    pub code: u8,
    pub checksum: u16,
    /// Of echoes the identifier; of errors the upper half of what the kind says.
    pub id: u16,
    pub sequence: u16,
}

/// ARP between IPv4 and Ethernet (RFC 826).
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Arp {
    pub hardware: u16,
    pub protocol: u16,
    pub lengths: [u8; 2],
    pub operation: u16,
    pub sender_mac: [u8; 6],
    pub sender: [u8; 4],
    pub target_mac: [u8; 6],
    pub target: [u8; 4],
}

/// A neighbour solicitation or advertisement, but for its options (RFC 4861, 4.3 and 4.4).
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Neighbour {
    pub kind: u8,
    pub code: u8,
    pub checksum: u16,
    pub flags: u32,
    pub target: [u32; 4],
}

/// IPv6's fragment header.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Fragment {
    pub next: u8,
    pub reserved: u8,
    pub offset: u16,
    pub id: u32,
}

/// The head of IPv6's routing header.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Routing {
    pub next: u8,
    pub length: u8,
    pub kind: u8,
    pub segments_left: u8,
}

/// Where the checksum lies in a TCP header.
pub const TCP_CHECKSUM: u32 = 16;
/// Where it lies in a UDP header.
pub const UDP_CHECKSUM: u32 = 6;
/// Where it lies in an SCTP header.
pub const SCTP_CHECKSUM: u32 = 8;
/// Where it lies in an ICMP or ICMPv6 header.
pub const ICMP_CHECKSUM: u32 = 2;
/// Where an echo's identifier lies in an ICMP or ICMPv6 header.
pub const ICMP_ID: u32 = 4;
/// How long an ICMP or ICMPv6 header is; an error quotes the packet behind it.
pub const ICMP_LENGTH: u32 = size_of::<Icmp>() as u32;
