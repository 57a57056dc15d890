//! Who asks for the link address of whom: ARP requests and neighbour solicitations.
//!
//! Reading is apart from checking: a message about somebody else's address is not ours, however broken it is, and
//! passes on to the kernel. One about an announced address is answered for the node by a program, so that the program
//! checks what the kernel would.

use penstock_ebpf_common::{Address, PROTOCOL_ICMPV6};

use crate::checksum::fold16;
use crate::header::{Arp, Frame, IP_OFFSET, IPV6_LENGTH, Ipv6, Neighbour};

/// An Ethernet address.
pub type Mac = [u8; 6];

/// Where an Ethernet frame says who sent it.
const SOURCE_MAC: u32 = 6;

const HARDWARE_ETHERNET: u16 = 1_u16.to_be();
const PROTOCOL_IPV4: u16 = 0x0800_u16.to_be();
const REQUEST: u16 = 1_u16.to_be();
const REPLY: u16 = 2_u16.to_be();

const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
/// Neighbour discovery never crosses a router (RFC 4861, 7.1).
const HOPS: u8 = 255;
/// Where its options start.
const OPTIONS: u32 = IP_OFFSET + IPV6_LENGTH + size_of::<Neighbour>() as u32;
/// How long a solicitation is without options.
const PLAIN: u32 = size_of::<Neighbour>() as u32;
/// How many units of eight bytes of options are read. A solicitation has one option of one unit, with a nonce two (RFC
/// 7527); signed ones (RFC 3971) are longer and are not answered.
const UNITS_MAX: u32 = 8;
const OPTION_SOURCE_LINK_ADDRESS: u8 = 1;

/// A message about an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// Who has it?
    Question,
    /// I have it.
    Claim,
}

/// What is asked, or said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct About {
    /// Which.
    pub message: Message,
    /// The address it is about.
    pub address: Address,
    /// Who says so; the unspecified address when it has none yet.
    pub sender: Address,
}

/// That a message is none that a neighbour may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// Reads an ARP message; none when it is of no interest.
#[inline(always)]
pub fn arp<F: Frame>(frame: &F) -> Option<(About, Arp)> {
    let arp: Arp = frame.load(IP_OFFSET)?;
    if arp.hardware != HARDWARE_ETHERNET || arp.protocol != PROTOCOL_IPV4 || arp.lengths != [6, 4] {
        return None;
    }
    let sender = Address::from_v4(u32::from_ne_bytes(arp.sender));
    let target = Address::from_v4(u32::from_ne_bytes(arp.target));
    let about = match arp.operation {
        // An announcement is a request for one's own address (RFC 5227, 3).
        REQUEST if sender == target => About { message: Message::Claim, address: sender, sender },
        REQUEST => About { message: Message::Question, address: target, sender },
        REPLY => About { message: Message::Claim, address: sender, sender },
        _ => return None,
    };
    Some((about, arp))
}

/// To whom the answer to an ARP request goes.
#[inline(always)]
pub fn arp_asker(arp: &Arp) -> Result<Mac, Malformed> {
    if is_station(&arp.sender_mac) { Ok(arp.sender_mac) } else { Err(Malformed) }
}

/// Reads a solicitation or an advertisement; none when it is neither.
#[inline(always)]
pub fn discovery<F: Frame>(frame: &F) -> Option<(About, Ipv6)> {
    let ip: Ipv6 = frame.load(IP_OFFSET)?;
    if ip.version_and_flow as u8 >> 4 != 6 || ip.next != PROTOCOL_ICMPV6 {
        return None;
    }
    let neighbour: Neighbour = frame.load(IP_OFFSET + IPV6_LENGTH)?;
    let message = match neighbour.kind {
        SOLICITATION => Message::Question,
        ADVERTISEMENT => Message::Claim,
        _ => return None,
    };
    let (address, sender) = (Address { words: neighbour.target }, Address { words: ip.source });
    // An IPv4 address in IPv6's clothes is an ARP request's, not this one's.
    (!address.is_v4()).then_some((About { message, address, sender }, ip))
}

/// To whom the answer to a solicitation goes, after every check of RFC 4861, 7.1.1. Nobody in particular when the
/// sender asks whether it may have the address itself.
#[inline(always)]
pub fn discovery_asker<F: Frame>(frame: &F, about: &About, ip: &Ipv6) -> Result<Option<Mac>, Malformed> {
    let length = u32::from(u16::from_be(ip.payload_length));
    let neighbour: Neighbour = frame.load(IP_OFFSET + IPV6_LENGTH).ok_or(Malformed)?;
    let options = length.wrapping_sub(PLAIN);
    if ip.hops != HOPS
        || neighbour.code != 0
        || length < PLAIN
        || options % 8 != 0
        || options > UNITS_MAX * 8
        || frame.length() < IP_OFFSET + IPV6_LENGTH + length
    {
        return Err(Malformed);
    }
    let units = options / 8;
    if !sums_up(frame, ip, &neighbour, units) {
        return Err(Malformed);
    }
    let named = source_link_address(frame, units)?;
    if about.sender == Address::default() {
        let wanted = solicited_node(&about.address);
        return if named.is_none() && ip.destination == wanted.words { Ok(None) } else { Err(Malformed) };
    }
    if about.sender.words[0] as u8 == 0xff {
        return Err(Malformed);
    }
    let mac = match named {
        Some(mac) => mac,
        None => frame.load::<Mac>(SOURCE_MAC).ok_or(Malformed)?,
    };
    if is_station(&mac) { Ok(Some(mac)) } else { Err(Malformed) }
}

/// The group to which solicitations for an address go (RFC 4291, 2.7.1).
#[inline(always)]
pub fn solicited_node(address: &Address) -> Address {
    let last = address.words[3] & 0x00ff_ffff_u32.to_be() | 0xff00_0000_u32.to_be();
    Address { words: [0xff02_0000_u32.to_be(), 0, 1_u32.to_be(), last] }
}

/// Whether it is one station's address, not a group's and not none.
#[inline(always)]
fn is_station(mac: &Mac) -> bool {
    let [first, second, third, fourth, fifth, sixth] = *mac;
    first & 1 == 0 && first | second | third | fourth | fifth | sixth != 0
}

#[inline(always)]
fn source_link_address<F: Frame>(frame: &F, units: u32) -> Result<Option<Mac>, Malformed> {
    let (mut found, mut at, mut seen) = (None, 0, 0);
    while seen < UNITS_MAX {
        seen += 1;
        if at >= units {
            break;
        }
        let start = OPTIONS + at * 8;
        let [kind, length] = frame.load::<[u8; 2]>(start).ok_or(Malformed)?;
        if length == 0 {
            return Err(Malformed);
        }
        if kind == OPTION_SOURCE_LINK_ADDRESS {
            if length != 1 {
                return Err(Malformed);
            }
            found = Some(frame.load::<Mac>(start + 2).ok_or(Malformed)?);
        }
        at += u32::from(length);
    }
    if at == units { Ok(found) } else { Err(Malformed) }
}

/// Whether the checksum over everything is right.
#[inline(always)]
fn sums_up<F: Frame>(frame: &F, ip: &Ipv6, neighbour: &Neighbour, units: u32) -> bool {
    let mut sum = pseudo_header(ip, PLAIN + units * 8)
        + u64::from(u16::from_ne_bytes([neighbour.kind, neighbour.code]))
        + u64::from(neighbour.checksum)
        + u64::from(neighbour.flags);
    sum = words(sum, &neighbour.target);
    let mut at = 0;
    while at < UNITS_MAX {
        if at < units {
            let Some([first, second]) = frame.load::<[u32; 2]>(OPTIONS + at * 8) else {
                return false;
            };
            sum += u64::from(first) + u64::from(second);
        }
        at += 1;
    }
    fold16(sum) == 0xffff
}

/// The checksum of an advertisement with one option of one unit, whose checksum field is zero.
#[inline(always)]
pub fn advertisement_sum(ip: &Ipv6, neighbour: &Neighbour, option: [u32; 2]) -> u16 {
    let mut sum = pseudo_header(ip, PLAIN + 8)
        + u64::from(u16::from_ne_bytes([neighbour.kind, neighbour.code]))
        + u64::from(neighbour.flags);
    sum = words(sum, &neighbour.target);
    !fold16(sum + u64::from(option[0]) + u64::from(option[1]))
}

#[inline(always)]
fn pseudo_header(ip: &Ipv6, length: u32) -> u64 {
    let start = u64::from(length.to_be()) + u64::from(u32::from(PROTOCOL_ICMPV6).to_be());
    words(words(start, &ip.source), &ip.destination)
}

#[inline(always)]
fn words(sum: u64, words: &[u32; 4]) -> u64 {
    let [first, second, third, fourth] = *words;
    sum + u64::from(first) + u64::from(second) + u64::from(third) + u64::from(fourth)
}

#[cfg(test)]
mod tests;
