//! Packets for tests, of both families: written with right checksums, read back with their checksums checked.

use std::net::{IpAddr, SocketAddr};

mod direct;
mod error;
mod fragment;
pub mod neighbour;
mod sum;

pub use direct::{read_asked, telling};
pub use error::{TooBig, error_about, read_error, read_too_big};
pub use fragment::{assemble, fragments};
use sum::{crc32c, fold, sum_of, transport_sum};

/// The transport of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// With these flags.
    Tcp(u8),
    /// With a checksum.
    Udp,
    /// With a checksum of zero, which means none.
    UdpUnsummed,
    /// With this first chunk.
    Sctp(u8),
    /// With a checksum of zero, which the card is to fill in.
    SctpUnsummed(u8),
    /// An echo request; its identifier is the source port, the destination port is zero.
    Echo,
    /// An echo reply; its identifier is the destination port, the source port is zero.
    EchoReply,
}

/// TCP flags.
pub const SYN: u8 = 0x02;
/// TCP flags.
pub const ACK: u8 = 0x10;
/// TCP flags.
pub const FIN: u8 = 0x01;
/// TCP flags.
pub const RST: u8 = 0x04;

/// The chunk of SCTP that opens an association.
pub const INIT: u8 = 1;

/// What matters of a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// Source address and port.
    pub source: SocketAddr,
    /// Destination address and port.
    pub destination: SocketAddr,
    /// Protocol, and what is told apart within it.
    pub transport: Transport,
    /// What is carried.
    pub payload: Vec<u8>,
}

const ETHERNET: usize = 14;
const IPV4: usize = 20;
const IPV6: usize = 40;
/// The station that all frames are addressed to, as `ip` writes it.
pub const STATION: &str = "02:00:00:00:00:01";
/// The hops a packet starts with.
pub const HOPS: u8 = 64;

/// `"10.0.0.1:80"` or `"[fd00::1]:80"` as an address; tests write them out.
pub fn at(text: &str) -> SocketAddr {
    text.parse().expect("an address and port in the test")
}

impl Packet {
    /// A packet with a little payload.
    pub fn new(transport: Transport, source: &str, destination: &str) -> Self {
        Self { source: at(source), destination: at(destination), transport, payload: b"penstock".to_vec() }
    }

    /// The frame as it lies on the wire.
    pub fn bytes(&self) -> Vec<u8> {
        self.bytes_with_hops(HOPS)
    }

    /// The frame as it lies on the wire after some hops.
    pub fn bytes_with_hops(&self, hops: u8) -> Vec<u8> {
        let (number, transport) = self.transport_bytes();
        let mut frame = header(self.source.ip(), self.destination.ip(), number, transport.len(), hops);
        frame.extend_from_slice(&transport);
        frame
    }

    /// Protocol number and transport header, with its checksum and payload.
    fn transport_bytes(&self) -> (u8, Vec<u8>) {
        let v6 = self.source.is_ipv6();
        let (number, mut bytes) = match self.transport {
            Transport::Tcp(flags) => {
                let mut tcp = vec![0_u8; 20];
                tcp[4..8].copy_from_slice(&7_u32.to_be_bytes());
                tcp[12] = 5 << 4;
                tcp[13] = flags;
                tcp[14..16].copy_from_slice(&64_000_u16.to_be_bytes());
                (6, tcp)
            }
            Transport::Udp | Transport::UdpUnsummed => {
                let mut udp = vec![0_u8; 8];
                udp[4..6].copy_from_slice(&(8 + self.payload.len() as u16).to_be_bytes());
                (17, udp)
            }
            Transport::Sctp(chunk) | Transport::SctpUnsummed(chunk) => {
                let mut sctp = vec![0_u8; 16];
                sctp[7] = 9;
                sctp[12] = chunk;
                sctp[14..16].copy_from_slice(&(4 + self.payload.len() as u16).to_be_bytes());
                (132, sctp)
            }
            Transport::Echo | Transport::EchoReply => {
                let mut icmp = vec![0_u8; 8];
                icmp[0] = match (self.transport == Transport::Echo, v6) {
                    (true, false) => 8,
                    (false, false) => 0,
                    (true, true) => 128,
                    (false, true) => 129,
                };
                let id = self.source.port() | self.destination.port();
                icmp[4..6].copy_from_slice(&id.to_be_bytes());
                (if v6 { 58 } else { 1 }, icmp)
            }
        };
        if number != 1 && number != 58 {
            bytes[0..2].copy_from_slice(&self.source.port().to_be_bytes());
            bytes[2..4].copy_from_slice(&self.destination.port().to_be_bytes());
        }
        bytes.extend_from_slice(&self.payload);
        let sum = !transport_sum(self.source.ip(), self.destination.ip(), number, &bytes);
        match self.transport {
            Transport::Tcp(_) => bytes[16..18].copy_from_slice(&sum.to_be_bytes()),
            Transport::Udp => bytes[6..8].copy_from_slice(&if sum == 0 { 0xffff } else { sum }.to_be_bytes()),
            Transport::Sctp(_) => {
                let crc = crc32c(&bytes);
                bytes[8..12].copy_from_slice(&crc.to_le_bytes());
            }
            Transport::Echo | Transport::EchoReply => bytes[2..4].copy_from_slice(&sum.to_be_bytes()),
            Transport::UdpUnsummed | Transport::SctpUnsummed(_) => {}
        }
        (number, bytes)
    }

    /// Reads a frame back.
    ///
    /// # Panics
    /// When the frame is of no protocol above, or a checksum is wrong: both fail the test that asks.
    pub fn read(frame: &[u8]) -> Self {
        let (source, destination, number, start) = read_header(frame);
        Self::read_transport(source, destination, number, &frame[start..])
    }

    fn read_transport(source: IpAddr, destination: IpAddr, number: u8, transport: &[u8]) -> Self {
        let port = |at: usize| u16::from_be_bytes([transport[at], transport[at + 1]]);
        let sum = transport_sum(source, destination, number, transport);
        let (kind, header) = match number {
            6 => {
                assert_eq!(sum, 0xffff, "the TCP checksum");
                (Transport::Tcp(transport[13]), 20)
            }
            17 if port(6) == 0 => (Transport::UdpUnsummed, 8),
            17 => {
                assert_eq!(sum, 0xffff, "the UDP checksum");
                (Transport::Udp, 8)
            }
            132 if transport[8..12] == [0; 4] => (Transport::SctpUnsummed(transport[12]), 16),
            132 => {
                let mut unsummed = transport.to_vec();
                unsummed[8..12].fill(0);
                assert_eq!(transport[8..12], crc32c(&unsummed).to_le_bytes(), "the SCTP checksum");
                (Transport::Sctp(transport[12]), 16)
            }
            1 | 58 => {
                assert_eq!(sum, 0xffff, "the ICMP checksum");
                let kind = match transport[0] {
                    8 | 128 => Transport::Echo,
                    0 | 129 => Transport::EchoReply,
                    other => panic!("an ICMP message of type {other}"),
                };
                (kind, 8)
            }
            other => panic!("protocol {other}"),
        };
        let (from, to) = match kind {
            Transport::Echo => (port(4), 0),
            Transport::EchoReply => (0, port(4)),
            _ => (port(0), port(2)),
        };
        Self {
            source: SocketAddr::new(source, from),
            destination: SocketAddr::new(destination, to),
            transport: kind,
            payload: transport[header..].to_vec(),
        }
    }

    /// The answer to this packet.
    pub fn reply(&self) -> Self {
        let transport = match self.transport {
            Transport::Tcp(SYN) => Transport::Tcp(SYN | ACK),
            Transport::Echo => Transport::EchoReply,
            other => other,
        };
        Self { source: self.destination, destination: self.source, transport, payload: self.payload.clone() }
    }
}

/// The hops a frame has left.
pub fn hops(frame: &[u8]) -> u8 {
    if frame[12] == 0x08 { frame[ETHERNET + 8] } else { frame[ETHERNET + 7] }
}

/// Ethernet and IP header of a packet that carries so many bytes.
fn header(source: IpAddr, destination: IpAddr, number: u8, length: usize, hops: u8) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let mut ip = [0_u8; IPV4];
            ip[0] = 0x45;
            ip[2..4].copy_from_slice(&((IPV4 + length) as u16).to_be_bytes());
            ip[8] = hops;
            ip[9] = number;
            ip[12..16].copy_from_slice(&source.octets());
            ip[16..20].copy_from_slice(&destination.octets());
            let sum = !fold(sum_of(&ip));
            ip[10..12].copy_from_slice(&sum.to_be_bytes());
            frame.extend_from_slice(&[0x08, 0x00]);
            frame.extend_from_slice(&ip);
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let mut ip = [0_u8; IPV6];
            ip[0] = 0x60;
            ip[4..6].copy_from_slice(&(length as u16).to_be_bytes());
            ip[6] = number;
            ip[7] = hops;
            ip[8..24].copy_from_slice(&source.octets());
            ip[24..40].copy_from_slice(&destination.octets());
            frame.extend_from_slice(&[0x86, 0xdd]);
            frame.extend_from_slice(&ip);
        }
        other => panic!("two families in the test: {other:?}"),
    }
    frame
}

/// Addresses, protocol, and where the transport header starts.
fn read_header(frame: &[u8]) -> (IpAddr, IpAddr, u8, usize) {
    let read = read_ip(&frame[ETHERNET..], true);
    (read.0, read.1, read.2, ETHERNET + read.3)
}

/// The same of bytes that start with the IP header.
fn read_ip(ip: &[u8], whole: bool) -> (IpAddr, IpAddr, u8, usize) {
    match ip[0] >> 4 {
        4 => {
            let length = usize::from(ip[0] & 0xf) * 4;
            assert_eq!(fold(sum_of(&ip[..length])), 0xffff, "the IP checksum");
            if whole {
                assert_eq!(u16::from_be_bytes([ip[2], ip[3]]) as usize, ip.len(), "the IP length");
            }
            let address = |at: usize| IpAddr::from(<[u8; 4]>::try_from(&ip[at..at + 4]).expect("four bytes"));
            (address(12), address(16), ip[9], length)
        }
        6 => {
            if whole {
                assert_eq!(u16::from_be_bytes([ip[4], ip[5]]) as usize + IPV6, ip.len(), "the IP length");
            }
            let address =
                |at: usize| IpAddr::from(<[u8; 16]>::try_from(&ip[at..at + 16]).expect("sixteen bytes"));
            // Destination options, as far as there are any.
            let (number, length) =
                if ip[6] == 60 { (ip[40], IPV6 + (usize::from(ip[41]) + 1) * 8) } else { (ip[6], IPV6) };
            (address(8), address(24), number, length)
        }
        other => panic!("IP version {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KINDS: [Transport; 7] = [
        Transport::Tcp(SYN),
        Transport::Udp,
        Transport::UdpUnsummed,
        Transport::Sctp(INIT),
        Transport::SctpUnsummed(INIT),
        Transport::Echo,
        Transport::EchoReply,
    ];

    #[test]
    fn a_packet_reads_back_as_it_was_written() {
        for (source, destination) in
            [("192.0.2.1:40000", "10.240.0.11:30080"), ("[fd00::1]:40000", "[fd00::2]:30080")]
        {
            for transport in KINDS {
                let mut packet = Packet::new(transport, source, destination);
                match transport {
                    Transport::Echo => packet.destination.set_port(0),
                    Transport::EchoReply => packet.source.set_port(0),
                    _ => {}
                }
                assert_eq!(Packet::read(&packet.bytes()), packet);
            }
        }
    }

    #[test]
    fn fragments_make_up_the_packet_they_are_of() {
        for (source, destination) in
            [("192.0.2.1:40000", "10.240.0.11:30080"), ("[fd00::1]:40000", "[fd00::2]:30080")]
        {
            let mut packet = Packet::new(Transport::Udp, source, destination);
            packet.payload = (0..=255).collect();
            let frames = fragments(&packet, 7, 64);
            assert_eq!(frames.len(), 5);
            assert_eq!(assemble(&frames), packet);
        }
    }

    #[test]
    fn an_error_quotes_the_packet_it_is_about() {
        for (router, source, destination) in [
            ("192.0.2.9", "192.0.2.1:40000", "10.240.0.11:30080"),
            ("fd00::9", "[fd00::1]:40000", "[fd00::2]:30080"),
        ] {
            let packet = Packet::new(Transport::Udp, source, destination);
            let router: IpAddr = router.parse().expect("an address");
            let error = error_about(&packet, router);
            assert_eq!(read_error(&error), (router, packet.source.ip(), packet));
        }
    }
}
