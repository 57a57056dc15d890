//! Network policy, at the links of pods that some policy selects: what such a pod sends and what it is sent is dropped
//! unless a policy allows it, or it belongs to a flow that one allowed.
//!
//! What a pod sends is judged once it is known what becomes of it: a request to a Service by the backend. What a pod is sent is
//! judged by whichever program hands it over, and what the node's routing hands over by one at the link. The answer is noted
//! for the flow, of which packets of both directions then pass, until a policy changes: then it is judged anew, by its
//! next packet. Pods without policies pay for the look at one number.
//!
//! The node itself, and what stays on the link between the two, is always allowed, and so is a pod's talking to itself.

use aya_ebpf::bindings::BPF_ANY;
use aya_ebpf::btf_maps::lpm_trie::Key;
use aya_ebpf::programs::TcContext;
use penstock_ebpf_common::{
    ANY_PEER, Address, POLICY_EGRESS, POLICY_HINTS_MAX, POLICY_INGRESS, POLICY_RANGES_MAX, PolicyHeader,
    PolicyRange, Reason, policy_key,
};
use penstock_ebpf_packet::Kind;
use penstock_ebpf_packet::header::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, Frame, IP_OFFSET, Ipv4, Ipv6};

use crate::clock::SECOND_NS;
use crate::count;
use crate::decide::{self, Decision, Side, answer, outcome};
use crate::flow;
use crate::fragment;
use crate::maps::{
    CONFIG, POLICY_BLOCKS, POLICY_EPOCH, POLICY_FLOWS, POLICY_HINTS, POLICY_LINKS, POLICY_PEERS,
    POLICY_TABLES,
};
use crate::pods;
use crate::tc::Tc;
use crate::translate::{DROP, NEXT};
use crate::work::{self, Work};

/// How long a silent flow of datagrams may be continued, as in `flow`.
const DATAGRAM_IDLE_NS: u64 = 120 * SECOND_NS;
/// How long a silent connection may be, likewise.
const CONNECTION_IDLE_NS: u64 = 7_440 * SECOND_NS;
/// How long after a pod's first policy a connection that nobody noted passes as what it may be: an older one's answer.
const GRACE_NS: u64 = 60 * SECOND_NS;
/// The half of the longest search among ranges.
const STEP_MAX: u32 = POLICY_RANGES_MAX / 2 + 1;

/// Whether a link may be of a pod with policies.
#[inline(always)]
fn may_have_policies(ifindex: u32) -> bool {
    let hint = POLICY_HINTS.get_ptr(ifindex % POLICY_HINTS_MAX);
    // SAFETY: an entry of an array, valid while the program runs; user space changes it meanwhile, hence volatile.
    hint.is_some_and(|hint| unsafe { hint.read_volatile() } != 0)
}

// === Where packets are judged ===

/// What a pod sends, when it is known what becomes of it.
#[inline(always)]
pub fn leave(side: Side, decision: Decision, work: &mut Work) -> Result<(), Reason> {
    if side != Side::Pod || !may_have_policies(work.ifindex) {
        return Ok(());
    }
    let (key, to, seen) = (&work.packet.key, &work.to, &mut work.policy_key);
    work::copy(&mut seen.local, &key.source);
    seen.local_port = key.source_port;
    if matches!(decision, Decision::Ask | Decision::AskOnward) {
        work::copy(&mut seen.remote, &to.destination);
        seen.remote_port = to.destination_port;
    } else {
        work::copy(&mut seen.remote, &key.destination);
        seen.remote_port = key.destination_port;
    }
    seen.protocol = key.protocol;
    outcome(penstock_policy(work.ifindex, POLICY_EGRESS))
}

/// What a program is about to send into a link, perhaps a pod's.
#[inline(always)]
pub fn enter(side: Side, decision: Decision, work: &mut Work, ifindex: u32) -> Result<(), Reason> {
    if !may_have_policies(ifindex) {
        return Ok(());
    }
    if side == Side::Pod && is_forged(work) {
        return Err(Reason::MartianSource);
    }
    let (key, to, seen) = (&work.packet.key, &work.to, &mut work.policy_key);
    let asks = matches!(decision, Decision::Ask | Decision::AskOnward | Decision::Direct);
    if asks {
        work::copy(&mut seen.remote, &to.source);
        seen.remote_port = to.source_port;
    } else {
        work::copy(&mut seen.remote, &key.source);
        seen.remote_port = key.source_port;
    }
    if asks || matches!(decision, Decision::Send | Decision::Deliver) {
        work::copy(&mut seen.local, &to.destination);
        seen.local_port = to.destination_port;
    } else {
        work::copy(&mut seen.local, &key.destination);
        seen.local_port = key.destination_port;
    }
    seen.protocol = key.protocol;
    outcome(penstock_policy(ifindex, POLICY_INGRESS))
}

/// Whether a pod's packet has the address of another pod of this node, or the node's. The kernel sees no packet that goes
/// straight from one pod to another.
#[inline(always)]
fn is_forged(work: &Work) -> bool {
    let source =
        if work.packet.kind == Kind::Error { &work.packet.error_source } else { &work.packet.key.source };
    match pods::find(source) {
        Some(pod) => pod.ifindex != work.ifindex,
        None => CONFIG.get(0).is_some_and(|config| decide::is_own(config, source)),
    }
}

/// What the node's routing sends into a pod's link.
#[inline(always)]
pub fn entering(ctx: &TcContext) -> i32 {
    let frame = Tc(ctx);
    let ifindex = frame.ifindex();
    if !may_have_policies(ifindex) {
        return NEXT;
    }
    let Some(work) = work::get() else {
        return NEXT;
    };
    if !frame.parse() {
        return unread(ctx, Side::Entering);
    }
    work.ifindex = ifindex;
    decide::begin(work, 0);
    if work.packet.kind == Kind::LaterFragment {
        fragment::follow(work);
    }
    let judged = enter(Side::Entering, Decision::Leave, work, ifindex);
    verdict(Side::Entering, judged)
}

/// A packet of a pod's link that can belong to no flow: of another protocol, or broken. What is no packet of IP at all is
/// not judged.
#[inline(always)]
pub fn unread(ctx: &TcContext, side: Side) -> i32 {
    let frame = Tc(ctx);
    let ifindex = frame.ifindex();
    if !may_have_policies(ifindex) || !matches!(frame.ethertype(), ETHERTYPE_IPV4 | ETHERTYPE_IPV6) {
        return NEXT;
    }
    let Some(work) = work::get() else {
        return NEXT;
    };
    work.ifindex = ifindex;
    decide::begin(work, 0);
    let direction = if side == Side::Pod { POLICY_EGRESS } else { POLICY_INGRESS };
    let judged = if read_addresses(&frame, work, direction) {
        outcome(penstock_policy(ifindex, direction))
    } else {
        Err(Reason::Malformed)
    };
    verdict(side, judged)
}

#[inline(always)]
fn verdict(side: Side, judged: Result<(), Reason>) -> i32 {
    match judged {
        Ok(()) => NEXT,
        Err(reason) => {
            count::dropped(side, 0, reason);
            DROP
        }
    }
}

/// Reads addresses and protocol alone.
#[inline(always)]
fn read_addresses(frame: &Tc<'_>, work: &mut Work, direction: u32) -> bool {
    let (packet, seen) = (&mut work.packet, &mut work.policy_key);
    let key = &mut packet.key;
    if frame.ethertype() == ETHERTYPE_IPV4 {
        let Some(ip) = frame.load::<Ipv4>(IP_OFFSET) else { return false };
        key.source = Address::from_v4(ip.source);
        key.destination = Address::from_v4(ip.destination);
        key.protocol = ip.protocol;
    } else {
        let Some(ip) = frame.load::<Ipv6>(IP_OFFSET) else { return false };
        key.source = Address { words: ip.source };
        key.destination = Address { words: ip.destination };
        key.protocol = ip.next;
    }
    (key.source_port, key.destination_port) = (0, 0);
    packet.kind = Kind::Whole;
    packet.flags = 0;
    packet.length = frame.length().saturating_sub(IP_OFFSET);
    let (local, remote) = if direction == POLICY_EGRESS {
        (&key.source, &key.destination)
    } else {
        (&key.destination, &key.source)
    };
    work::copy(&mut seen.local, local);
    work::copy(&mut seen.remote, remote);
    (seen.local_port, seen.remote_port) = (0, 0);
    seen.protocol = key.protocol;
    true
}

// === The judgement ===

/// Judges the packet in work, as `policy_key` has it, by the policies of a link's pod. Verified once for all that call it: see `tell`.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn penstock_policy(ifindex: u32, direction: u32) -> u32 {
    answer(work::get().ok_or(Reason::NoPolicyTable).and_then(|work| judge(work, ifindex, direction)))
}

#[inline(always)]
fn judge(work: &mut Work, ifindex: u32, direction: u32) -> Result<(), Reason> {
    // SAFETY: copied at once.
    let Some(slot) = unsafe { POLICY_LINKS.get(&ifindex) }.copied() else {
        return Ok(());
    };
    work.judged = ifindex;
    let since_ns = match POLICY_TABLES.get(slot).and_then(|table| table.get_ptr(0)) {
        // SAFETY: entry 0 of a table is a header by construction; both types have one size and alignment.
        Some(header) => unsafe { (*header.cast::<PolicyHeader>()).since_ns },
        None => return Err(Reason::NoPolicyTable),
    };
    let config = CONFIG.get(0).ok_or(Reason::NoPolicyTable)?;
    let (local, remote) = (&work.policy_key.local, &work.policy_key.remote);
    if decide::is_own(config, remote) || stays_on_link(remote) || local == remote {
        return Ok(());
    }
    if work.packet.kind == Kind::Error && direction == POLICY_INGRESS {
        // Whoever gets it looks whether it is about something of its own.
        return Ok(());
    }
    let now = work.moment.now_ns;
    // SAFETY: an entry of an array, valid while the program runs; user space changes it meanwhile, hence volatile.
    let epoch = POLICY_EPOCH.get_ptr(0).map_or(0, |epoch| unsafe { epoch.read_volatile() });
    if let Some(noted) = POLICY_FLOWS.get_ptr_mut(&work.policy_key) {
        // SAFETY: valid while the program runs. Should the entry be evicted and reused under us, another flow's is a little
        // younger than it is, or judged once more.
        let noted = unsafe { &mut *noted };
        let idle = now.saturating_sub(noted.seen_ns);
        let rest =
            if flow::connects(work.policy_key.protocol) { CONNECTION_IDLE_NS } else { DATAGRAM_IDLE_NS };
        if idle <= rest && !work.packet.opens() {
            if noted.epoch != epoch {
                if penstock_policy_allows(slot, noted.opened) == 0 {
                    let _ = POLICY_FLOWS.remove(&work.policy_key);
                    return Err(Reason::Policy);
                }
                noted.epoch = epoch;
            }
            if idle > SECOND_NS {
                noted.seen_ns = now;
            }
            if work.packet.kind == Kind::FirstFragment {
                fragment::remember(work);
            }
            return Ok(());
        }
    }
    let opened = if penstock_policy_allows(slot, direction) != 0 {
        direction
    } else if is_under_way(work) && now.saturating_sub(since_ns) < GRACE_NS {
        let other = direction ^ (POLICY_INGRESS | POLICY_EGRESS);
        if penstock_policy_allows(slot, other) == 0 {
            return Err(Reason::Policy);
        }
        other
    } else if work.packet.kind == Kind::LaterFragment {
        return Err(Reason::Fragment);
    } else {
        return Err(Reason::Policy);
    };
    note(work, epoch, opened)
}

/// Notes that the packet's flow is allowed.
#[inline(always)]
fn note(work: &mut Work, epoch: u32, opened: u32) -> Result<(), Reason> {
    match work.packet.kind {
        Kind::FirstFragment => fragment::remember(work),
        Kind::LaterFragment | Kind::Error => return Ok(()),
        Kind::Whole | Kind::Echo => {}
    }
    work.policy_value.seen_ns = work.moment.now_ns;
    work.policy_value.epoch = epoch;
    work.policy_value.opened = opened;
    // Before Linux 6.15 an update may find what it wants to evict in use.
    for _ in 0..2 {
        if POLICY_FLOWS.insert(&work.policy_key, &work.policy_value, BPF_ANY as u64).is_ok() {
            return Ok(());
        }
    }
    Err(Reason::FlowNotRecorded)
}

/// Whether a packet is of a connection that was opened before.
#[inline(always)]
fn is_under_way(work: &Work) -> bool {
    work.packet.kind == Kind::Whole && flow::connects(work.policy_key.protocol) && !work.packet.opens()
}

/// Whether an address is only for the two ends of a link: of IPv6 fe80::/10 and ff02::/16 (RFC 4291, 2.5.6 and 2.7), of IPv4
/// 224.0.0.0/24 (RFC 5771, 4). Not 169.254.0.0/16, by which clouds have servers for all their nodes.
#[inline(always)]
fn stays_on_link(address: &Address) -> bool {
    if address.is_v4() {
        return address.v4().to_be() >> 8 == 0xe0_0000;
    }
    let first = address.words[0].to_be();
    first >> 22 == 0xfe80 >> 6 || first >> 16 == 0xff02
}

/// Whether a table allows the packet in work as one that opens a flow in a direction. The table is read before the numbers of peers: user space
/// writes the one last.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn penstock_policy_allows(slot: u32, direction: u32) -> u32 {
    let Some(work) = work::get() else {
        return 0;
    };
    allows(work, slot, direction) as u32
}

#[inline(always)]
fn allows(work: &Work, slot: u32, direction: u32) -> bool {
    let Some(table) = POLICY_TABLES.get(slot) else {
        return false;
    };
    let Some(header) = table.get_ptr(0) else {
        return false;
    };
    // SAFETY: as in `judge`.
    let PolicyHeader { count, flags, .. } = unsafe { *header.cast::<PolicyHeader>() };
    if flags & direction == 0 {
        return true;
    }
    let seen = &work.policy_key;
    // SAFETY: copied at once.
    let pod = unsafe { POLICY_PEERS.get(&seen.remote) }.copied().unwrap_or(ANY_PEER);
    let block = POLICY_BLOCKS.get(&Key::new(128, seen.remote)).copied().unwrap_or(ANY_PEER);
    let port = u16::from_be(if direction == POLICY_EGRESS { seen.remote_port } else { seen.local_port });
    let mut which = 0;
    while which < 3 {
        let peer = match which {
            0 => ANY_PEER,
            1 => pod,
            _ => block,
        };
        which += 1;
        if which > 1 && peer == ANY_PEER {
            continue;
        }
        let wanted = policy_key(direction, peer, seen.protocol, port);
        // From a number that the verifier does not know: it would follow each way through the search by itself.
        // SAFETY: a field of memory that is this program's.
        let mut found = unsafe { (&raw const work.zero).read_volatile() };
        let mut step = STEP_MAX;
        while step > 0 {
            let probe = found + step;
            if probe <= count
                && let Some(range) = table.get_ptr(probe)
                // SAFETY: behind a table's header lie ranges by construction, of the map's size and alignment.
                && unsafe { (*range.cast::<PolicyRange>()).first } <= wanted
            {
                found = probe;
            }
            step >>= 1;
        }
        if found != 0
            && let Some(range) = table.get_ptr(found)
            // SAFETY: as above.
            && unsafe { (*range.cast::<PolicyRange>()).last } >= wanted
        {
            return true;
        }
    }
    false
}
