//! What a packet tells the backend's node of the address that its client asked, so that the backend's answer comes from that
//! address and goes to the client without a detour (direct server return).
//!
//! It is an IPv4 option, or an IPv6 destination option in a header of its own, right behind the fixed IP header, of the
//! kinds that are for whoever experiments (RFC 4727). Who does not know it passes over it.

use penstock_ebpf_common::Address;

use crate::header::{
    AskedV4, AskedV6, Frame, IP_OFFSET, IPV4_LENGTH, IPV6_LENGTH, Ipv4, Ipv6, NEXT_DESTINATION,
    NEXT_HOP_BY_HOP,
};
use crate::{Kind, Packet};

/// How long the option is in an IPv4 header.
pub const V4_LENGTH: u32 = size_of::<AskedV4>() as u32;
/// How long the header with the option is behind an IPv6 header.
pub const V6_LENGTH: u32 = size_of::<AskedV6>() as u32;
/// The most words that the options of an IPv4 header take before this one fits no more.
const V4_WORDS_MAX: u8 = 15 - (V4_LENGTH / 4) as u8;
/// RFC 4727, 2 and 3: not copied to fragments; to be passed over by who does not know it, and not changed on the way.
const EXPERIMENT: u8 = 30;
/// Others experiment, too.
const MARK: u16 = u16::from_ne_bytes(*b"PD");

/// What the client asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The service's address.
    pub service: Address,
    /// Its port in network order.
    pub service_port: u16,
    /// The port the client asked from, in network order.
    pub client_port: u16,
}

/// How much longer a packet becomes by it.
#[inline(always)]
pub const fn length(v4: bool) -> u32 {
    if v4 { V4_LENGTH } else { V6_LENGTH }
}

/// Whether there is something between the fixed IP header and the transport header, as nearly no packet has it.
#[inline(always)]
pub fn may_tell(packet: &Packet) -> bool {
    let plain = IP_OFFSET + if packet.key.source.is_v4() { IPV4_LENGTH } else { IPV6_LENGTH };
    packet.transport > plain && matches!(packet.kind, Kind::Whole | Kind::FirstFragment)
}

/// Reads it.
#[inline(always)]
pub fn read<F: Frame>(frame: &F, v4: bool) -> Option<Asked> {
    if v4 {
        let ip: Ipv4 = frame.load(IP_OFFSET)?;
        if u32::from(ip.version_and_length & 0xf) * 4 < IPV4_LENGTH + V4_LENGTH {
            return None;
        }
        let said: AskedV4 = frame.load(IP_OFFSET + IPV4_LENGTH)?;
        let known = said.kind == EXPERIMENT && said.length as u32 == V4_LENGTH && said.mark == MARK;
        return known.then(|| Asked {
            service: Address::from_v4(said.service),
            service_port: said.service_port,
            client_port: said.client_port,
        });
    }
    let ip: Ipv6 = frame.load(IP_OFFSET)?;
    if ip.next != NEXT_DESTINATION {
        return None;
    }
    let said: AskedV6 = frame.load(IP_OFFSET + IPV6_LENGTH)?;
    let known = said.length == V6_UNITS && said.kind == EXPERIMENT && said.data_length == V6_DATA;
    known.then_some(Asked {
        service: Address { words: said.service },
        service_port: said.service_port,
        client_port: said.client_port,
    })
}

/// Units of eight bytes beyond the first, and what the option itself carries.
const V6_UNITS: u8 = (V6_LENGTH / 8 - 1) as u8;
const V6_DATA: u8 = (V6_LENGTH - 4) as u8;

/// The IPv4 header of a packet that tells it, with the option. None where it does not fit.
#[inline(always)]
pub fn told_v4(ip: &Ipv4, asked: &Asked) -> Option<(Ipv4, AskedV4)> {
    let words = ip.version_and_length & 0xf;
    let total = u32::from(u16::from_be(ip.total_length)) + V4_LENGTH;
    if words > V4_WORDS_MAX || total > u16::MAX as u32 {
        return None;
    }
    let said = AskedV4 {
        kind: EXPERIMENT,
        length: V4_LENGTH as u8,
        mark: MARK,
        client_port: asked.client_port,
        service_port: asked.service_port,
        service: asked.service.v4(),
    };
    let mut longer = *ip;
    longer.version_and_length += (V4_LENGTH / 4) as u8;
    longer.total_length = (total as u16).to_be();
    longer.checksum = resummed(ip, &longer, said.sum());
    Some((longer, said))
}

/// The IPv4 header of a packet that told it, without.
#[inline(always)]
pub fn untold_v4(ip: &Ipv4, said: &AskedV4) -> Ipv4 {
    let mut shorter = *ip;
    shorter.version_and_length -= (V4_LENGTH / 4) as u8;
    shorter.total_length = u16::from_be(ip.total_length).wrapping_sub(V4_LENGTH as u16).to_be();
    // A word that goes is as one that becomes its complement's zero.
    shorter.checksum = resummed(ip, &shorter, u64::from(!crate::checksum::fold16(said.sum())));
    shorter
}

/// The IPv6 header of a packet that tells it, with the header that comes next. None where it may not come next.
#[inline(always)]
pub fn told_v6(ip: &Ipv6, asked: &Asked) -> Option<(Ipv6, AskedV6)> {
    let payload = u32::from(u16::from_be(ip.payload_length)) + V6_LENGTH;
    if ip.next == NEXT_HOP_BY_HOP || payload > u16::MAX as u32 {
        return None;
    }
    let said = AskedV6 {
        next: ip.next,
        length: V6_UNITS,
        kind: EXPERIMENT,
        data_length: V6_DATA,
        client_port: asked.client_port,
        service_port: asked.service_port,
        service: asked.service.words,
    };
    let longer = Ipv6 { next: NEXT_DESTINATION, payload_length: (payload as u16).to_be(), ..*ip };
    Some((longer, said))
}

/// The IPv6 header of a packet that told it, without.
#[inline(always)]
pub fn untold_v6(ip: &Ipv6, said: &AskedV6) -> Ipv6 {
    let payload = u16::from_be(ip.payload_length).wrapping_sub(V6_LENGTH as u16);
    Ipv6 { next: said.next, payload_length: payload.to_be(), ..*ip }
}

#[inline(always)]
fn resummed(old: &Ipv4, new: &Ipv4, more: u64) -> u16 {
    let first = |ip: &Ipv4| u16::from_ne_bytes([ip.version_and_length, ip.service_type]);
    let changed = crate::checksum::difference16(first(old), first(new))
        + crate::checksum::difference16(old.total_length, new.total_length)
        + more;
    crate::checksum::mended(old.checksum, changed)
}

impl AskedV4 {
    /// What it adds to the header's sum.
    #[inline(always)]
    fn sum(&self) -> u64 {
        u64::from(u16::from_ne_bytes([self.kind, self.length]))
            + u64::from(self.mark)
            + u64::from(self.client_port)
            + u64::from(self.service_port)
            + u64::from(self.service)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checksum::fold16;

    fn asked(service: Address) -> Asked {
        Asked { service, service_port: 80_u16.to_be(), client_port: 40_000_u16.to_be() }
    }

    fn header(words: u8, total: u16) -> Ipv4 {
        let mut ip = Ipv4 {
            version_and_length: 0x40 | words,
            service_type: 0x10,
            total_length: total.to_be(),
            id: 7,
            fragment: 0,
            hops: 64,
            protocol: 6,
            checksum: 0,
            source: u32::from_ne_bytes([192, 0, 2, 1]),
            destination: u32::from_ne_bytes([10, 244, 2, 2]),
        };
        ip.checksum = !fold16(sum(&ip));
        ip
    }

    /// Of a header without other options, or with such as sum up to nothing.
    fn sum(ip: &Ipv4) -> u64 {
        u64::from(u16::from_ne_bytes([ip.version_and_length, ip.service_type]))
            + u64::from(ip.total_length)
            + u64::from(ip.id)
            + u64::from(ip.fragment)
            + u64::from(u16::from_ne_bytes([ip.hops, ip.protocol]))
            + u64::from(ip.checksum)
            + u64::from(ip.source)
            + u64::from(ip.destination)
    }

    #[test]
    fn an_ipv4_header_has_a_right_sum_with_and_without_it() {
        let service = Address::from_v4(u32::from_ne_bytes([203, 0, 113, 9]));
        for (words, total) in [(5, 40), (5, 1500), (12, 65_523)] {
            let ip = header(words, total);
            let (longer, said) = told_v4(&ip, &asked(service)).expect("room for it");
            assert_eq!(longer.version_and_length, ip.version_and_length + 3);
            assert_eq!(u16::from_be(longer.total_length), total + 12);
            assert_eq!(fold16(sum(&longer) + said.sum()), 0xffff);
            let shorter = untold_v4(&longer, &said);
            assert_eq!(fold16(sum(&shorter)), 0xffff);
            assert_eq!(
                (shorter.version_and_length, shorter.total_length),
                (ip.version_and_length, ip.total_length)
            );
        }
        assert!(told_v4(&header(13, 100), &asked(service)).is_none(), "no room among the options");
        assert!(told_v4(&header(5, 65_524), &asked(service)).is_none(), "no room in the packet");
    }

    #[test]
    fn an_ipv6_header_comes_back_as_it_was() {
        let ip = Ipv6 {
            version_and_flow: 0x60,
            payload_length: 20_u16.to_be(),
            next: 6,
            hops: 64,
            source: [1; 4],
            destination: [2; 4],
        };
        let (longer, said) = told_v6(&ip, &asked(Address { words: [3; 4] })).expect("room for it");
        assert_eq!((longer.next, u16::from_be(longer.payload_length), said.next), (60, 44, 6));
        let shorter = untold_v6(&longer, &said);
        assert_eq!((shorter.next, shorter.payload_length), (ip.next, ip.payload_length));
        assert!(told_v6(&Ipv6 { next: 0, ..ip }, &asked(Address { words: [3; 4] })).is_none());
    }

    /// A frame of these bytes.
    struct Bytes<'a>(&'a [u8]);

    impl Frame for Bytes<'_> {
        const FIXED: bool = false;

        fn ethertype(&self) -> u16 {
            u16::from_ne_bytes([self.0[12], self.0[13]])
        }

        fn length(&self) -> u32 {
            self.0.len() as u32
        }

        fn load<T: crate::header::Plain>(&self, offset: u32) -> Option<T> {
            let bytes = self.0.get(offset as usize..)?.get(..size_of::<T>())?;
            // SAFETY: as many bytes as a `T` has, every pattern of which is one.
            Some(unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
        }
    }

    #[test]
    fn only_what_is_whole_and_of_the_known_kind_is_read() {
        let mut frame = vec_of_v4();
        let right = Asked {
            service: Address::from_v4(u32::from_ne_bytes([203, 0, 113, 9])),
            service_port: 80_u16.to_be(),
            client_port: 40_000_u16.to_be(),
        };
        assert_eq!(read(&Bytes(&frame), true), Some(right));
        for length in 0..46 {
            assert_eq!(read(&Bytes(&frame[..length]), true), None, "{length} bytes");
        }
        for at in 34..38 {
            frame[at] ^= 1;
            assert_eq!(read(&Bytes(&frame), true), None, "byte {at}");
            frame[at] ^= 1;
        }
        frame[14] = 0x47;
        assert_eq!(read(&Bytes(&frame), true), None, "it is not within the header");
    }

    fn vec_of_v4() -> [u8; 66] {
        let mut frame = [0; 66];
        frame[12..14].copy_from_slice(&[8, 0]);
        frame[14] = 0x48;
        frame[34..46].copy_from_slice(&[30, 12, b'P', b'D', 0x9c, 0x40, 0, 80, 203, 0, 113, 9]);
        frame
    }
}
