//! Answers for addresses that are on no interface: ARP requests, neighbour solicitations and echo requests for a load
//! balancer's address that this node was elected to announce.
//!
//! Who is elected user space decides, and says so in one map. What is not about an announced address passes on, and so
//! does what arrives with a VLAN's tag, which is another link's. An answer is made of the question, and leaves by the
//! interface it came by.

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::generated::{bpf_redirect, bpf_skb_change_tail};
use aya_ebpf::programs::TcContext;
use penstock_ebpf_common::{ANNOUNCED_LEASE, Address, Announced, Event, Reason};
use penstock_ebpf_packet::header::{
    Arp, ETHERTYPE_ARP, ETHERTYPE_IPV6, Frame, ICMP_CHECKSUM, IP_OFFSET, IPV6_LENGTH, Ipv6, Neighbour,
};
use penstock_ebpf_packet::neighbour::{self, About, Mac, Message};

use crate::clock;
use crate::count;
use crate::decide;
use crate::maps::{ANNOUNCED, CONFIG};
use crate::tc::Tc;
use crate::translate::{DROP, NEXT};
use crate::work::{self, Asker};

const ARP_REPLY: u16 = 2_u16.to_be();

const ADVERTISEMENT: u8 = 136;
const SOLICITED: u32 = 0x4000_0000_u32.to_be();
const OVERRIDE: u32 = 0x2000_0000_u32.to_be();
/// ff02::1, and its link address.
const ALL_NODES: Address = Address { words: [0xff02_0000_u32.to_be(), 0, 0, 1_u32.to_be()] };
const ALL_NODES_MAC: Mac = [0x33, 0x33, 0, 0, 0, 1];
const HOPS: u8 = 255;
/// Request and reply, of ICMP and of ICMPv6.
const ECHO: (u8, u8) = (8, 0);
const ECHO_V6: (u8, u8) = (128, 129);
/// What an answer starts with, however few the question has left.
const HOPS_OF_REPLY: u8 = 64;
const SOURCE_MAC: u32 = 6;
const V4_HOPS: usize = IP_OFFSET as usize + 8;
const V4_CHECKSUM: usize = IP_OFFSET as usize + 10;
const V4_ADDRESSES: usize = IP_OFFSET as usize + 12;
const V6_HOPS: usize = IP_OFFSET as usize + 7;
const V6_ADDRESSES: usize = IP_OFFSET as usize + 8;
/// The advertisement and its one option, of one unit.
const ADVERTISEMENT_LENGTH: u32 = size_of::<Neighbour>() as u32 + 8;
const ADVERTISEMENT_END: u32 = IP_OFFSET + IPV6_LENGTH + ADVERTISEMENT_LENGTH;

/// The head of an Ethernet frame.
type Ethernet = [u8; IP_OFFSET as usize];

/// What becomes of a packet that can belong to no flow.
#[inline(always)]
pub fn answer(ctx: &TcContext) -> i32 {
    let skb = ctx.skb.skb;
    let step = match Tc(ctx).ethertype() {
        ETHERTYPE_ARP => penstock_announce_arp(skb),
        ETHERTYPE_IPV6 => match penstock_announce_discovery(skb) {
            ANSWERABLE => penstock_announce_advertise(skb),
            step => step,
        },
        _ => return NEXT,
    };
    let reason = match step {
        MALFORMED => Reason::NeighbourMalformed,
        FAILED => Reason::NotRewritten,
        verdict => return verdict,
    };
    count::lost(0, reason);
    DROP
}

/// What becomes of an echo that belongs to no flow: who asks whether an announced address is there is told so.
#[inline(always)]
pub fn echo(ctx: &TcContext) -> i32 {
    match penstock_announce_echo(ctx.skb.skb) {
        FAILED => {
            count::lost(0, Reason::NotRewritten);
            DROP
        }
        verdict => verdict,
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn penstock_announce_echo(skb: *mut __sk_buff) -> i32 {
    let ctx = TcContext::new(skb);
    let (Some(work), Some(config)) = (work::get(), CONFIG.get(0)) else {
        return NEXT;
    };
    let packet = &work.packet;
    let at = packet.transport;
    let (request, reply) = if packet.key.source.is_v4() { ECHO } else { ECHO_V6 };
    let about =
        About { message: Message::Question, address: packet.key.destination, sender: packet.key.source };
    let asks = Tc(&ctx).load::<[u8; 2]>(at) == Some([request, 0]);
    if !asks || !packet.whole || decide::is_martian(config, &about.sender) {
        return NEXT;
    }
    let hops = packet.hops;
    let Some(announced) = announced(skb, &about) else {
        return NEXT;
    };
    let answered = answer_echo(&ctx, &announced, &about, (at, hops), (request, reply));
    if answered.is_err() {
        return FAILED;
    }
    count::event(Event::EchoAnswered);
    // SAFETY: the helper takes numbers only. The frame goes back to who sent it.
    unsafe { bpf_redirect(announced.ifindex, 0) as i32 }
}

/// Makes an echo request its answer. Addresses that change places leave sums as they are.
#[inline(always)]
fn answer_echo(
    ctx: &TcContext,
    announced: &Announced,
    about: &About,
    (at, hops): (u32, u8),
    (request, reply): (u8, u8),
) -> Result<(), i64> {
    let asker: Mac = Tc(ctx).load(SOURCE_MAC).ok_or(-1)?;
    let half_word = |first: u8| u64::from(u16::from_ne_bytes([first, 0]));
    let two = size_of::<u16>() as u64;
    ctx.l4_csum_replace((at + ICMP_CHECKSUM) as usize, half_word(request), half_word(reply), two)?;
    ctx.store(at as usize, &reply, 0)?;
    if about.address.is_v4() {
        // Time to live is the first byte of its half word.
        ctx.l3_csum_replace(V4_CHECKSUM, half_word(hops), half_word(HOPS_OF_REPLY), two)?;
        ctx.store(V4_HOPS, &HOPS_OF_REPLY, 0)?;
        ctx.store(V4_ADDRESSES, &[about.address.v4(), about.sender.v4()], 0)?;
    } else {
        ctx.store(V6_HOPS, &HOPS_OF_REPLY, 0)?;
        ctx.store(V6_ADDRESSES, &about.address.words, 0)?;
        ctx.store(V6_ADDRESSES + size_of::<Address>(), &about.sender.words, 0)?;
    }
    ctx.store(0, &asker, 0)?;
    ctx.store(SOURCE_MAC as usize, &announced.mac, 0)
}

/// What a step says when it has no verdict; none is like these.
const ANSWERABLE: i32 = 0x100;
const MALFORMED: i32 = 0x101;
const FAILED: i32 = 0x102;

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn penstock_announce_arp(skb: *mut __sk_buff) -> i32 {
    let ctx = TcContext::new(skb);
    let Some((about, arp)) = neighbour::arp(&Tc(&ctx)) else {
        return NEXT;
    };
    let Some(announced) = announced(skb, &about) else {
        return NEXT;
    };
    match neighbour::arp_asker(&arp) {
        Ok(asker) => sent(&announced, reply(&ctx, &announced, &arp, &asker)),
        Err(_) => MALFORMED,
    }
}

/// Whether a solicitation is to be answered; who asks is then in the work.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn penstock_announce_discovery(skb: *mut __sk_buff) -> i32 {
    let ctx = TcContext::new(skb);
    let Some((about, ip)) = neighbour::discovery(&Tc(&ctx)) else {
        return NEXT;
    };
    if announced(skb, &about).is_none() {
        return NEXT;
    }
    match (neighbour::discovery_asker(&Tc(&ctx), &about, &ip), work::get()) {
        (Ok(asker), Some(work)) => {
            work.asker = Asker { mac: asker.unwrap_or([0; 6]), is_known: asker.is_some() as u16 };
            ANSWERABLE
        }
        _ => MALFORMED,
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn penstock_announce_advertise(skb: *mut __sk_buff) -> i32 {
    let ctx = TcContext::new(skb);
    let Some(work) = work::get() else {
        return FAILED;
    };
    // As the step before has found and noted it: to read the message once more would take more stack than there is.
    let key = &work.packet.key;
    let about = About { message: Message::Question, address: key.destination, sender: key.source };
    match announced(skb, &about) {
        Some(announced) => sent(&announced, advertise(&ctx, &announced, &about, &work.asker)),
        // It ran out this very moment.
        None => NEXT,
    }
}

/// How a question is to be answered, if it is to be now and at this interface. What is dropped because of it is told with
/// its addresses.
#[inline(always)]
fn announced(skb: *mut __sk_buff, about: &About) -> Option<Announced> {
    if about.address == ANNOUNCED_LEASE {
        return None;
    }
    // SAFETY: copied at once; whoever changes an entry puts another in its place.
    let found = unsafe { ANNOUNCED.get(&about.address) }.copied()?;
    // SAFETY: as above.
    let until_ns = unsafe { ANNOUNCED.get(&ANNOUNCED_LEASE) }.map_or(0, |lease| lease.until_ns);
    // SAFETY: the context is valid; a load of a field each.
    let (ifindex, tagged) = unsafe {
        ((&raw const (*skb).ifindex).read_volatile(), (&raw const (*skb).vlan_present).read_volatile())
    };
    if until_ns <= clock::now_ns() || found.ifindex != ifindex || tagged != 0 {
        return None;
    }
    if about.message == Message::Claim {
        count::event(Event::AddressContested);
        return None;
    }
    let work = work::get()?;
    work::copy(&mut work.packet.key.source, &about.sender);
    work::copy(&mut work.packet.key.destination, &about.address);
    work.packet.key.source_port = 0;
    work.packet.key.destination_port = 0;
    work.packet.key.protocol = 0;
    work.service = 0;
    Some(found)
}

/// The verdict on an answer.
#[inline(always)]
fn sent(announced: &Announced, written: Result<(), i64>) -> i32 {
    if written.is_err() {
        return FAILED;
    }
    count::event(Event::NeighbourAnswered);
    // SAFETY: the helper takes numbers only. The frame is whole, so no neighbour is asked for.
    unsafe { bpf_redirect(announced.ifindex, 0) as i32 }
}

/// Makes an ARP request its answer.
#[inline(always)]
fn reply(ctx: &TcContext, announced: &Announced, arp: &Arp, asker: &Mac) -> Result<(), i64> {
    let answer = Arp {
        hardware: arp.hardware,
        protocol: arp.protocol,
        lengths: arp.lengths,
        operation: ARP_REPLY,
        sender_mac: announced.mac,
        sender: arp.target,
        target_mac: *asker,
        target: arp.sender,
    };
    ctx.store(0, &ethernet(asker, &announced.mac, ETHERTYPE_ARP), 0)?;
    ctx.store(IP_OFFSET as usize, &answer, 0)
}

/// Makes a solicitation its answer. Who has no address yet is answered before everybody.
#[inline(always)]
fn advertise(ctx: &TcContext, announced: &Announced, about: &About, asker: &Asker) -> Result<(), i64> {
    let (destination, mac, flags) = match asker.is_known {
        0 => (ALL_NODES, ALL_NODES_MAC, OVERRIDE),
        _ => (about.sender, asker.mac, SOLICITED | OVERRIDE),
    };
    let ip = Ipv6 {
        version_and_flow: 0x6000_0000_u32.to_be(),
        payload_length: (ADVERTISEMENT_LENGTH as u16).to_be(),
        next: penstock_ebpf_common::PROTOCOL_ICMPV6,
        hops: HOPS,
        source: about.address.words,
        destination: destination.words,
    };
    let mut advertisement =
        Neighbour { kind: ADVERTISEMENT, code: 0, checksum: 0, flags, target: about.address.words };
    // The target's link address, of one unit.
    let [first, second, third, fourth, fifth, sixth] = announced.mac;
    let option =
        [u32::from_ne_bytes([2, 1, first, second]), u32::from_ne_bytes([third, fourth, fifth, sixth])];
    advertisement.checksum = neighbour::advertisement_sum(&ip, &advertisement, option);
    // SAFETY: the helper checks the length itself; the context is valid.
    let answer = unsafe { bpf_skb_change_tail(ctx.skb.skb, ADVERTISEMENT_END, 0) };
    if answer != 0 {
        return Err(answer);
    }
    ctx.store(0, &ethernet(&mac, &announced.mac, ETHERTYPE_IPV6), 0)?;
    ctx.store(IP_OFFSET as usize, &ip, 0)?;
    ctx.store((IP_OFFSET + IPV6_LENGTH) as usize, &advertisement, 0)?;
    ctx.store((ADVERTISEMENT_END - 8) as usize, &option, 0)
}

#[inline(always)]
fn ethernet(to: &Mac, from: &Mac, ethertype: u16) -> Ethernet {
    let [high, low] = ethertype.to_ne_bytes();
    [
        to[0], to[1], to[2], to[3], to[4], to[5], from[0], from[1], from[2], from[3], from[4], from[5], high,
        low,
    ]
}
