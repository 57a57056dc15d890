//! Changing a packet's addresses and ports at tc, and every checksum over them.
//!
//! Three kinds of checksum travel with a socket buffer: one in the packet, one that the card will finish (there the field
//! holds the pseudo header only, so that changes of addresses must be told apart from changes of ports), and a sum over
//! the whole packet that the card has made, which must follow what changes without a checksum of its own. The kernel's
//! helpers know which; what a store changes unseen by any checksum is stored with `BPF_F_RECOMPUTE_CSUM`.

use aya_ebpf::bindings::{BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR, BPF_F_RECOMPUTE_CSUM};
use aya_ebpf::programs::TcContext;
use penstock_ebpf_common::{
    Address, PROTOCOL_ICMP, PROTOCOL_ICMPV6, PROTOCOL_SCTP, PROTOCOL_TCP, PROTOCOL_UDP,
};
use penstock_ebpf_packet::checksum::{address_difference, difference16, fold32, mended};
use penstock_ebpf_packet::header::{
    Frame, ICMP_CHECKSUM, ICMP_ID, ICMP_LENGTH, IP_OFFSET, SCTP_CHECKSUM, TCP_CHECKSUM, UDP_CHECKSUM,
};
use penstock_ebpf_packet::{Kind, crc32c};

use crate::tc::Tc;
use crate::work::Work;

const V4_HOPS: u32 = 8;
const V4_CHECKSUM: u32 = 10;
const V4_ADDRESSES: u32 = 12;
const V6_HOPS: u32 = 7;
const V6_ADDRESSES: u32 = 8;

const PSEUDO: u64 = BPF_F_PSEUDO_HDR as u64;
const RECOMPUTE: u64 = BPF_F_RECOMPUTE_CSUM as u64;
const MANGLED_0: u64 = BPF_F_MARK_MANGLED_0 as u64;

/// Gives the packet the addresses and ports of its flow; `onward` takes a hop off. On an error the packet may be half
/// changed: drop it.
#[inline(always)]
pub fn apply(ctx: &TcContext, work: &Work, onward: bool) -> Result<(), i64> {
    let key = &work.packet.key;
    let to = &work.to;
    let addresses =
        address_difference(&key.source, &to.source) + address_difference(&key.destination, &to.destination);
    match work.packet.kind {
        Kind::Whole | Kind::FirstFragment => ports(ctx, work, addresses)?,
        Kind::Echo => echo(ctx, work, addresses)?,
        Kind::LaterFragment | Kind::Error => {}
    }
    network(ctx, work, &to.source, &to.destination, addresses, onward)
}

/// Takes a hop off and changes nothing else.
#[inline(always)]
pub fn take_hop(ctx: &TcContext, work: &Work) -> Result<(), i64> {
    let hops = work.packet.hops;
    // Of an error the key is the quoted packet's, of the same family.
    if !work.packet.key.source.is_v4() {
        return ctx.store((IP_OFFSET + V6_HOPS) as usize, &hops.wrapping_sub(1), RECOMPUTE);
    }
    // Hops and protocol are one half word, the checksum the next.
    let [first, checksum]: [u16; 2] = Tc(ctx).load(IP_OFFSET + V4_HOPS).ok_or(-1)?;
    let lowered = first.wrapping_sub(1);
    let mended = mended(checksum, difference16(first, lowered));
    ctx.store((IP_OFFSET + V4_HOPS) as usize, &[lowered, mended], 0)
}

/// The IP header.
#[inline(always)]
fn network(
    ctx: &TcContext,
    work: &Work,
    source: &Address,
    destination: &Address,
    addresses: u64,
    onward: bool,
) -> Result<(), i64> {
    let hops = work.packet.hops;
    if source.is_v4() {
        // Hops and protocol are a half word, the checksum the next, then come the addresses: one store changes all. A sum
        // over the whole packet stays as it is, as the header's own sum does.
        const { assert!(V4_CHECKSUM == V4_HOPS + 2 && V4_ADDRESSES == V4_HOPS + 4) };
        let [first, checksum]: [u16; 2] = Tc(ctx).load(IP_OFFSET + V4_HOPS).ok_or(-1)?;
        let lowered = if onward { first.wrapping_sub(1) } else { first };
        let checksum = mended(checksum, addresses + difference16(first, lowered));
        let head = u32::from(lowered) | u32::from(checksum) << 16;
        return ctx.store((IP_OFFSET + V4_HOPS) as usize, &[head, source.v4(), destination.v4()], 0);
    }
    if onward {
        ctx.store((IP_OFFSET + V6_HOPS) as usize, &hops.wrapping_sub(1), RECOMPUTE)?;
    }
    ctx.store((IP_OFFSET + V6_ADDRESSES) as usize, &[source.words, destination.words], RECOMPUTE)
}

/// TCP, UDP and SCTP.
#[inline(always)]
fn ports(ctx: &TcContext, work: &Work, addresses: u64) -> Result<(), i64> {
    let (key, to) = (&work.packet.key, &work.to);
    let transport = work.packet.transport;
    if key.protocol == PROTOCOL_SCTP {
        return sctp_ports(ctx, work);
    }
    let changed = difference16(key.source_port, to.source_port)
        + difference16(key.destination_port, to.destination_port);
    // A UDP checksum of zero means none and stays zero.
    let (checksum, flags) = if key.protocol == PROTOCOL_UDP {
        ((transport + UDP_CHECKSUM) as usize, MANGLED_0)
    } else {
        ((transport + TCP_CHECKSUM) as usize, 0)
    };
    // Size 0 says: the last number is already a difference.
    ctx.l4_csum_replace(checksum, 0, fold32(addresses), flags | PSEUDO)?;
    ctx.l4_csum_replace(checksum, 0, fold32(changed), flags)?;
    ctx.store(transport as usize, &[to.source_port, to.destination_port], 0)
}

/// SCTP's checksum is a CRC of all but addresses. It is zero where the card, or the kernel at the last moment, is yet to
/// compute it; of four thousand million packets one has a zero of its own, and is lost.
#[inline(always)]
fn sctp_ports(ctx: &TcContext, work: &Work) -> Result<(), i64> {
    let (key, to) = (&work.packet.key, &work.to);
    let word = |source: u16, destination: u16| u32::from(source) | u32::from(destination) << 16;
    let changed = word(key.source_port, key.destination_port) ^ word(to.source_port, to.destination_port);
    if changed == 0 {
        return Ok(());
    }
    if work.packet.kind != Kind::Whole {
        // The checksum covers fragments that are not here.
        return Err(-1);
    }
    let transport = work.packet.transport;
    let checksum: u32 = Tc(ctx).load(transport + SCTP_CHECKSUM).ok_or(-1)?;
    if checksum != 0 {
        let length = (IP_OFFSET + work.packet.length).wrapping_sub(transport) & 0xffff;
        let new = checksum ^ crc32c::change(changed, length);
        ctx.store((transport + SCTP_CHECKSUM) as usize, &new, RECOMPUTE)?;
    }
    ctx.store(transport as usize, &[to.source_port, to.destination_port], RECOMPUTE)
}

/// An echo: its identifier is the one port it has. ICMPv6 sums up addresses, ICMP does not.
#[inline(always)]
fn echo(ctx: &TcContext, work: &Work, addresses: u64) -> Result<(), i64> {
    let (key, to) = (&work.packet.key, &work.to);
    let transport = work.packet.transport;
    let (old, new) = (key.source_port | key.destination_port, to.source_port | to.destination_port);
    let checksum = (transport + ICMP_CHECKSUM) as usize;
    if key.protocol == PROTOCOL_ICMPV6 {
        ctx.l4_csum_replace(checksum, 0, fold32(addresses), PSEUDO)?;
    }
    ctx.l4_csum_replace(checksum, 0, fold32(difference16(old, new)), 0)?;
    ctx.store((transport + ICMP_ID) as usize, &new, 0)
}

/// Translates an error back: what it quotes becomes the packet as its sender knows it, and the error goes to that sender.
/// Every checksum is mended, those in the quoted packet as far as they are quoted.
#[inline(always)]
pub fn error(ctx: &TcContext, work: &Work, onward: bool) -> Result<(), i64> {
    let (key, to, packet) = (&work.packet.key, &work.to, &work.packet);
    let v4 = key.source.is_v4();
    let source = if packet.error_source == key.source { &to.source } else { &packet.error_source };
    // The key is the quoted packet turned round.
    let addresses =
        address_difference(&key.destination, &to.destination) + address_difference(&key.source, &to.source);
    let mut changed = addresses;

    let quoted = packet.transport + ICMP_LENGTH;
    let at = packet.quoted_transport;
    if v4 {
        let place = quoted + V4_CHECKSUM;
        let old: u16 = Tc(ctx).load(place).ok_or(-1)?;
        let new = mended(old, addresses);
        ctx.store(place as usize, &new, 0)?;
        ctx.store((quoted + V4_ADDRESSES) as usize, &[to.destination.v4(), to.source.v4()], 0)?;
        changed += difference16(old, new);
    } else {
        let place = (quoted + V6_ADDRESSES) as usize;
        ctx.store(place, &to.destination.words, 0)?;
        ctx.store(place + size_of::<Address>(), &to.source.words, 0)?;
    }

    let ports;
    let checksum;
    match key.protocol {
        PROTOCOL_ICMP | PROTOCOL_ICMPV6 => {
            let new = to.source_port | to.destination_port;
            ports = difference16(key.source_port | key.destination_port, new);
            ctx.store((at + ICMP_ID) as usize, &new, 0)?;
            checksum = Some(at + ICMP_CHECKSUM);
        }
        protocol => {
            ports = difference16(key.destination_port, to.destination_port)
                + difference16(key.source_port, to.source_port);
            ctx.store(at as usize, &[to.destination_port, to.source_port], 0)?;
            checksum = match protocol {
                PROTOCOL_TCP => Some(at + TCP_CHECKSUM),
                PROTOCOL_UDP => Some(at + UDP_CHECKSUM),
                // Of SCTP only ports and tag are sure to be quoted, and nobody reads more (RFC 9260, 10).
                _ => None,
            };
        }
    }
    changed += ports;
    if let Some(place) = checksum
        && let Some(old) = Tc(ctx).load::<u16>(place)
        && !(key.protocol == PROTOCOL_UDP && old == 0)
    {
        let summed = if key.protocol == PROTOCOL_ICMP { 0 } else { addresses };
        let mut new = mended(old, summed + ports);
        if key.protocol == PROTOCOL_UDP && new == 0 {
            new = 0xffff;
        }
        ctx.store(place as usize, &new, 0)?;
        changed += difference16(old, new);
    }

    let outside = address_difference(&packet.error_source, source)
        + address_difference(&packet.error_destination, &to.destination);
    let checksum = (packet.transport + ICMP_CHECKSUM) as usize;
    if v4 {
        ctx.l4_csum_replace(checksum, 0, fold32(changed), 0)?;
    } else {
        ctx.l4_csum_replace(checksum, 0, fold32(changed), 0)?;
        ctx.l4_csum_replace(checksum, 0, fold32(outside), PSEUDO)?;
    }
    network(ctx, work, source, &to.destination, outside, onward)
}
