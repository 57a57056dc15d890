//! What packets tell the backend's node of what their client asked, written and read by its layout alone: an IPv4 option
//! of twelve bytes, or an IPv6 header of destination options of twenty-four.

use std::net::{IpAddr, SocketAddr};

use super::{ETHERNET, IPV4, IPV6, Packet, fold, sum_of};

/// The frame of a packet that tells so: its client asked this service, from this port.
pub fn telling(packet: &Packet, asked: SocketAddr, client_port: u16) -> Vec<u8> {
    let mut frame = packet.bytes();
    let mut ports = client_port.to_be_bytes().to_vec();
    ports.extend_from_slice(&asked.port().to_be_bytes());
    match asked.ip() {
        IpAddr::V4(service) => {
            let option = [&[30, 12, b'P', b'D'], &ports[..], &service.octets()].concat();
            frame.splice(ETHERNET + IPV4..ETHERNET + IPV4, option);
            let length = (frame.len() - ETHERNET) as u16;
            let ip = &mut frame[ETHERNET..ETHERNET + IPV4 + 12];
            ip[0] = 0x48;
            ip[2..4].copy_from_slice(&length.to_be_bytes());
            ip[10..12].fill(0);
            let sum = !fold(sum_of(ip));
            ip[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        IpAddr::V6(service) => {
            let next = std::mem::replace(&mut frame[ETHERNET + 6], 60);
            let header = [&[next, 2, 30, 20], &ports[..], &service.octets()].concat();
            frame.splice(ETHERNET + IPV6..ETHERNET + IPV6, header);
            let length = (frame.len() - ETHERNET - IPV6) as u16;
            frame[ETHERNET + 4..ETHERNET + 6].copy_from_slice(&length.to_be_bytes());
        }
    }
    frame
}

/// What a frame tells: the service that was asked, and the port it was asked from.
pub fn read_asked(frame: &[u8]) -> Option<(SocketAddr, u16)> {
    let port = |at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
    if frame[ETHERNET] >> 4 == 4 {
        let at = ETHERNET + IPV4;
        let service = <[u8; 4]>::try_from(frame.get(at + 8..at + 12)?).ok()?;
        let told = frame[ETHERNET] == 0x48 && frame[at..at + 4] == [30, 12, b'P', b'D'];
        return told.then(|| (SocketAddr::new(service.into(), port(at + 6)), port(at + 4)));
    }
    let at = ETHERNET + IPV6;
    let service = <[u8; 16]>::try_from(frame.get(at + 8..at + 24)?).ok()?;
    let told = frame[ETHERNET + 6] == 60 && frame[at + 1..at + 4] == [2, 30, 20];
    told.then(|| (SocketAddr::new(service.into(), port(at + 6)), port(at + 4)))
}
