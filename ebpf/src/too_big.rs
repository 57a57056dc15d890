//! What is too big for the way to its backend is answered here: the client asked an address of this node's keeping, and no
//! router behind it can tell the client.
//!
//! The answer is an ICMP error (RFC 1191, RFC 8201) from the address the client asked, with the beginning of the packet as
//! the client knows it: it is answered before anything is translated. It goes back to the neighbour that the packet came
//! from. IPv4 packets that may be fragmented are answered too, for what is sent on from here nobody fragments.

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::generated::{
    bpf_csum_diff, bpf_redirect, bpf_skb_adjust_room, bpf_skb_change_tail, bpf_skb_load_bytes,
};
use aya_ebpf::programs::TcContext;
use penstock_ebpf_common::{Event, PROTOCOL_ICMP, PROTOCOL_ICMPV6, PROTOCOL_TCP, PROTOCOL_UDP, Reason};
use penstock_ebpf_packet::Kind;
use penstock_ebpf_packet::checksum::{fold16, pseudo_header};
use penstock_ebpf_packet::header::{
    Frame, ICMP_LENGTH, IP_OFFSET, IPV4_LENGTH, IPV6_LENGTH, Icmp, Ipv4, Ipv6, TCP_CHECKSUM, UDP_CHECKSUM,
};

use crate::clock::{self, SECOND_NS};
use crate::count;
use crate::maps::ANSWERS;
use crate::tc::Tc;
use crate::work::{self, Work};

/// How much of a packet is quoted: its headers, and never less than eight bytes behind them.
const QUOTE: u32 = size_of::<[u32; QUOTE_WORDS]>() as u32;
/// The same in words.
pub const QUOTE_WORDS: usize = 30;
/// As many answers each CPU gives in a second; Linux gives a thousand in all (`icmp_msgs_per_sec`).
const ANSWERS_MAX: u32 = 250;
const HOPS: u8 = 64;
const BPF_ADJ_ROOM_MAC: u32 = 1;

/// How many answers a CPU has given lately. Of one program at a time, as the work is.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Answers {
    /// When the second began.
    since_ns: u64,
    given: u32,
    zero: u32,
}

/// Makes the packet in work the answer to itself; it is then to leave by the interface it came by.
#[inline(always)]
pub fn answer(skb: *mut __sk_buff, work: &mut Work) -> Option<i32> {
    let ctx = TcContext::new(skb);
    let packet = &work.packet;
    if !matches!(packet.kind, Kind::Whole | Kind::FirstFragment) || packet.length < QUOTE || !may_answer() {
        return None;
    }
    let v4 = packet.key.source.is_v4();
    let quote = work.quote.as_mut_ptr();
    // SAFETY: the work has room for as many bytes.
    if unsafe { bpf_skb_load_bytes(skb.cast(), IP_OFFSET, quote.cast(), QUOTE) } != 0 {
        return None;
    }
    let mut quoted = sum(quote, QUOTE);
    // A checksum that is left to a card will be finished over what is quoted. With it, everything from the transport
    // header on sums up to the complement of what the field holds now; and an IPv4 header sums up to nothing.
    let transport_length = (IP_OFFSET + packet.length).saturating_sub(packet.transport);
    let place = if packet.key.protocol == PROTOCOL_UDP { UDP_CHECKSUM } else { TCP_CHECKSUM };
    if matches!(packet.key.protocol, PROTOCOL_TCP | PROTOCOL_UDP)
        && let Some(field) = Tc(&ctx).load::<u16>(packet.transport + place)
        && field == pseudo_header(&packet.key, transport_length)
    {
        if !v4 && packet.transport != IP_OFFSET + IPV6_LENGTH {
            return None;
        }
        let header = if v4 { 0 } else { sum(quote, IPV6_LENGTH) };
        quoted = header + u64::from(!field);
    }

    let [to, from]: [[u16; 3]; 2] = [Tc(&ctx).load(0)?, Tc(&ctx).load(6)?];
    let room = if v4 { IPV4_LENGTH } else { IPV6_LENGTH } + ICMP_LENGTH;
    // SAFETY: the context is valid; the rest are numbers.
    unsafe {
        if bpf_skb_change_tail(skb, IP_OFFSET + QUOTE, 0) != 0
            || bpf_skb_adjust_room(skb, room as i32, BPF_ADJ_ROOM_MAC, 0) != 0
        {
            return None;
        }
    }
    // SAFETY: the routing table wrote this field with its answer.
    let mtu = unsafe { work.fib.__bindgen_anon_1.mtu_result }.saturating_sub(work.told_length as u16);
    ctx.store(0, &[from, to], 0).ok()?;
    if v4 { headers_v4(&ctx, work, mtu, quoted) } else { headers_v6(&ctx, work, mtu, quoted) }?;
    // SAFETY: takes numbers only.
    Some(unsafe { bpf_redirect(work.ifindex, 0) as i32 })
}

/// Whether this second has an answer left on this CPU.
#[inline(always)]
fn may_answer() -> bool {
    let Some(answers) = ANSWERS.get_ptr_mut(0) else {
        return false;
    };
    // SAFETY: this CPU's entry, which nothing else refers to while the program runs.
    let answers = unsafe { &mut *answers };
    let now = clock::now_ns();
    if now.saturating_sub(answers.since_ns) >= SECOND_NS {
        answers.since_ns = now;
        answers.given = 0;
    }
    answers.given += 1;
    answers.given <= ANSWERS_MAX
}

#[inline(always)]
fn sum(words: *mut u32, bytes: u32) -> u64 {
    // SAFETY: the callers' memory has as many bytes; without a former text its part is empty.
    (unsafe { bpf_csum_diff(core::ptr::null_mut(), 0, words, bytes, 0) }) as u32 as u64
}

/// Destination unreachable, fragmentation needed.
#[inline(always)]
fn headers_v4(ctx: &TcContext, work: &Work, mtu: u16, quoted: u64) -> Option<()> {
    let key = &work.packet.key;
    let length = (IPV4_LENGTH + ICMP_LENGTH + QUOTE) as u16;
    let mut ip = Ipv4 {
        version_and_length: 0x45,
        service_type: 0,
        total_length: length.to_be(),
        id: 0,
        fragment: 0x4000_u16.to_be(),
        hops: HOPS,
        protocol: PROTOCOL_ICMP,
        checksum: 0,
        source: key.destination.v4(),
        destination: key.source.v4(),
    };
    let header = u64::from(u16::from_ne_bytes([0x45, 0]))
        + u64::from(ip.total_length)
        + u64::from(ip.fragment)
        + u64::from(u16::from_ne_bytes([HOPS, PROTOCOL_ICMP]))
        + u64::from(ip.source)
        + u64::from(ip.destination);
    ip.checksum = !fold16(header);
    let mut icmp = Icmp { kind: 3, code: 4, checksum: 0, id: 0, sequence: mtu.to_be() };
    let message = u64::from(u16::from_ne_bytes([3, 4])) + u64::from(icmp.sequence);
    icmp.checksum = !fold16(message + quoted);
    ctx.store(IP_OFFSET as usize, &ip, 0).ok()?;
    ctx.store((IP_OFFSET + IPV4_LENGTH) as usize, &icmp, 0).ok()
}

/// Packet too big.
#[inline(always)]
fn headers_v6(ctx: &TcContext, work: &Work, mtu: u16, quoted: u64) -> Option<()> {
    let key = &work.packet.key;
    let length = (ICMP_LENGTH + QUOTE) as u16;
    let ip = Ipv6 {
        version_and_flow: u32::from_ne_bytes([0x60, 0, 0, 0]),
        payload_length: length.to_be(),
        next: PROTOCOL_ICMPV6,
        hops: HOPS,
        source: key.destination.words,
        destination: key.source.words,
    };
    let mut icmp = Icmp { kind: 2, code: 0, checksum: 0, id: 0, sequence: mtu.to_be() };
    let mut message = u64::from(u16::from_ne_bytes([2, 0])) + u64::from(icmp.sequence);
    message += u64::from(length.to_be()) + u64::from(u16::from(PROTOCOL_ICMPV6).to_be());
    for word in [ip.source, ip.destination].as_flattened() {
        message += u64::from(*word);
    }
    icmp.checksum = !fold16(message + quoted);
    ctx.store(IP_OFFSET as usize, &ip, 0).ok()?;
    ctx.store((IP_OFFSET + IPV6_LENGTH) as usize, &icmp, 0).ok()
}

/// Proven once for both programs that call it. -1 when there is no answer to give.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn penstock_tc_too_big(skb: *mut __sk_buff) -> i32 {
    work::get().and_then(|work| answer(skb, work)).unwrap_or(-1)
}

/// [`answer`], counted as a drop for what it is where there is none.
#[inline(always)]
pub fn tell(ctx: &TcContext) -> Result<i32, Reason> {
    match penstock_tc_too_big(ctx.skb.skb) {
        -1 => Err(Reason::TooBig),
        verdict => {
            count::event(Event::TooBigAnswered);
            Ok(verdict)
        }
    }
}
