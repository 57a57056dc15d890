//! Packets for tests: written with right checksums, read back with their checksums checked.

use std::net::{Ipv4Addr, SocketAddrV4};

/// The transport of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// With these flags.
    Tcp(u8),
    /// With a checksum.
    Udp,
    /// With a checksum of zero, which means none.
    UdpUnsummed,
}

/// TCP flags.
pub const SYN: u8 = 0x02;
/// TCP flags.
pub const ACK: u8 = 0x10;
/// TCP flags.
pub const FIN: u8 = 0x01;
/// TCP flags.
pub const RST: u8 = 0x04;

/// What matters of a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// Source address and port.
    pub source: SocketAddrV4,
    /// Destination address and port.
    pub destination: SocketAddrV4,
    /// TCP with flags, or UDP.
    pub transport: Transport,
    /// What is carried.
    pub payload: Vec<u8>,
}

const ETHERNET: usize = 14;
const IP: usize = 20;

/// `"10.0.0.1:80"` as an address; tests write them out.
pub fn at(text: &str) -> SocketAddrV4 {
    text.parse().expect("an address and port in the test")
}

impl Packet {
    /// A packet with a little payload.
    pub fn new(transport: Transport, source: &str, destination: &str) -> Self {
        Self { source: at(source), destination: at(destination), transport, payload: b"penstock".to_vec() }
    }

    /// The frame as it lies on the wire.
    pub fn bytes(&self) -> Vec<u8> {
        let (number, header) = match self.transport {
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
        };
        let mut transport = header;
        transport[0..2].copy_from_slice(&self.source.port().to_be_bytes());
        transport[2..4].copy_from_slice(&self.destination.port().to_be_bytes());
        transport.extend_from_slice(&self.payload);
        let sum = !transport_sum(*self.source.ip(), *self.destination.ip(), number, &transport);
        match self.transport {
            Transport::Tcp(_) => transport[16..18].copy_from_slice(&sum.to_be_bytes()),
            Transport::Udp => {
                transport[6..8].copy_from_slice(&if sum == 0 { 0xffff } else { sum }.to_be_bytes())
            }
            Transport::UdpUnsummed => {}
        }

        let mut ip = [0_u8; IP];
        ip[0] = 0x45;
        ip[2..4].copy_from_slice(&((IP + transport.len()) as u16).to_be_bytes());
        ip[8] = 64;
        ip[9] = number;
        ip[12..16].copy_from_slice(&self.source.ip().octets());
        ip[16..20].copy_from_slice(&self.destination.ip().octets());
        let sum = !fold(sum_of(&ip));
        ip[10..12].copy_from_slice(&sum.to_be_bytes());

        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x08, 0x00];
        frame.extend_from_slice(&ip);
        frame.extend_from_slice(&transport);
        frame
    }

    /// Reads a frame back.
    ///
    /// # Panics
    /// When the frame is not IPv4 with TCP or UDP, or a checksum is wrong: both fail the test that asks.
    pub fn read(frame: &[u8]) -> Self {
        assert_eq!(frame[12..14], [0x08, 0x00], "an IPv4 frame");
        let ip = &frame[ETHERNET..ETHERNET + IP];
        assert_eq!(fold(sum_of(ip)), 0xffff, "the IP checksum");
        let transport = &frame[ETHERNET + IP..];
        let address = |at: usize| Ipv4Addr::new(ip[at], ip[at + 1], ip[at + 2], ip[at + 3]);
        let port = |at: usize| u16::from_be_bytes([transport[at], transport[at + 1]]);
        let (source, destination) = (address(12), address(16));
        let sum = transport_sum(source, destination, ip[9], transport);
        let (kind, header) = match ip[9] {
            6 => {
                assert_eq!(sum, 0xffff, "the TCP checksum");
                (Transport::Tcp(transport[13]), 20)
            }
            17 if port(6) == 0 => (Transport::UdpUnsummed, 8),
            17 => {
                assert_eq!(sum, 0xffff, "the UDP checksum");
                (Transport::Udp, 8)
            }
            other => panic!("protocol {other}"),
        };
        Self {
            source: SocketAddrV4::new(source, port(0)),
            destination: SocketAddrV4::new(destination, port(2)),
            transport: kind,
            payload: transport[header..].to_vec(),
        }
    }

    /// The answer to this packet.
    pub fn reply(&self) -> Self {
        let transport = match self.transport {
            Transport::Tcp(SYN) => Transport::Tcp(SYN | ACK),
            other => other,
        };
        Self { source: self.destination, destination: self.source, transport, payload: self.payload.clone() }
    }
}

fn sum_of(bytes: &[u8]) -> u32 {
    bytes.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]))).sum()
}

fn fold(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

fn transport_sum(source: Ipv4Addr, destination: Ipv4Addr, number: u8, transport: &[u8]) -> u16 {
    fold(
        sum_of(&source.octets())
            + sum_of(&destination.octets())
            + u32::from(number)
            + transport.len() as u32
            + sum_of(transport),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_reads_back_as_it_was_written() {
        for transport in [Transport::Tcp(SYN), Transport::Udp, Transport::UdpUnsummed] {
            let packet = Packet::new(transport, "192.0.2.1:40000", "10.240.0.11:30080");
            assert_eq!(Packet::read(&packet.bytes()), packet);
        }
    }
}
