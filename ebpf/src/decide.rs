//! What is to become of a packet, whatever hook it is met at and wherever it comes in.
//!
//! Decides and records flows; `work.to` is what the packet is to become. It changes no packet and counts no outcome, for
//! a hook may leave what was decided to the next one, which then decides the same.

use core::ffi::c_void;

use penstock_ebpf_common::{
    Address, Config, Event, FLOW_DIRECT, FLOW_MASQUERADE, FLOW_TELLS, FlowKey, FlowValue, HALF_FORWARD,
    HALF_REPLY, INSIDE_SERVICES, Reason, VIP_DIRECT, VIP_HOST_ONLY, VIP_NODE_PORT, Verdict, VipValue,
};
use penstock_ebpf_packet::{Kind, hash};

use crate::count;
use crate::direct;
use crate::flow;
use crate::fragment;
use crate::maps::CONFIG;
use crate::masquerade;
use crate::service::{self, Choice};
use crate::settled;
use crate::source_ranges;
use crate::tell;
use crate::work::Work;

/// From where a packet comes, which decides what it may reach and how it is counted.
#[repr(u32)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// From outside the node.
    Uplink,
    /// From a pod of this node.
    Pod,
    /// Out of the node, by the uplink.
    Leaving,
    /// Into a pod, by the node's routing.
    Entering,
}

/// What is to become of a packet.
#[repr(u32)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Nothing of ours: the next program and then the kernel have it.
    Leave,
    /// A client's that another node sent on, translated already: to its backend on this node.
    Direct,
    /// The same as `Leave`, so that the node's own stack refuses it as it should be: by RST or port unreachable.
    Refuse,
    /// A client's, to be changed and then routed by the kernel.
    Ask,
    /// A client's, to be changed and sent on from here: the kernel would call its new source a martian.
    AskOnward,
    /// An answer, to be changed and then routed by the kernel.
    Deliver,
    /// An answer, to be changed and sent on from here by the interface the flow names.
    Send,
    /// A pod's that leaves the cluster, to be changed.
    Masquerade,
    /// An error, to be changed and then routed by the kernel.
    Error,
    /// An error, to be changed and sent on from here.
    ErrorOnward,
}

/// The kind of program that decides. Each step is a function of its own, with a stack of its own, and verified
/// once instead of once for each way that leads to them.
pub trait Hook {
    /// [`open`].
    fn open(&self, side: Side, set: u32) -> Result<(), Reason>;
    /// [`flow::make`].
    fn make(&self) -> Result<(), Reason>;
    /// [`flow::is_taken`].
    fn is_taken(&self) -> bool;
}

// === What a step of a hook answers ===

/// Zero for done, else a reason and one.
#[inline(always)]
pub fn answer(outcome: Result<(), Reason>) -> u32 {
    match outcome {
        Ok(()) => 0,
        Err(reason) => 1 + reason as u32,
    }
}

/// The outcome that [`answer`] wrote as a number.
#[inline(always)]
pub fn outcome(answer: u32) -> Result<(), Reason> {
    match answer {
        0 => Ok(()),
        number => Err(Reason::from_number(number - 1)),
    }
}

// === Decisions ===

/// What is known before anything is looked up.
#[inline(always)]
pub fn begin(work: &mut Work, mark: u16) {
    work.service = 0;
    work.first = false;
    work.hash = hash::flow_wide(&work.packet.key);
    work.moment.begin(mark);
}

/// A packet that arrives.
#[inline(always)]
pub fn arriving(hook: &impl Hook, side: Side, work: &mut Work) -> Result<Decision, Reason> {
    begin(work, settled::mark(side));
    if side == Side::Uplink
        && let Some(decision) = settled::find(work)
    {
        return Ok(decision);
    }
    match work.packet.kind {
        Kind::Error => return about_error(work),
        Kind::Echo => return replying(side, work),
        Kind::LaterFragment => {
            if !fragment::follow(work) {
                return match masquerade::range(&work.packet.key.destination) {
                    Some(INSIDE_SERVICES) => Err(Reason::Fragment),
                    _ => Ok(Decision::Leave),
                };
            }
        }
        Kind::Whole | Kind::FirstFragment => {}
    }
    let key = &work.packet.key;
    let Some(vip) = service::find(key.destination, key.destination_port, key.protocol) else {
        return replying(side, work);
    };
    let set = if side == Side::Uplink { vip.outside } else { vip.inside };
    if set == 0 || vip.flags & VIP_HOST_ONLY != 0 {
        return Ok(Decision::Leave);
    }
    work.service = vip.service;
    work.may_direct = vip.flags & VIP_DIRECT != 0;
    asking(hook, side, &vip, set, work)
}

/// A client's packet to a service.
#[inline(always)]
fn asking(
    hook: &impl Hook,
    side: Side,
    vip: &VipValue,
    set: u32,
    work: &mut Work,
) -> Result<Decision, Reason> {
    if !work.packet.whole {
        return Err(Reason::Malformed);
    }
    if !source_ranges::allow(vip, work.packet.key.source) {
        return Err(Reason::SourceNotAllowed);
    }
    work.packet.key.half = HALF_FORWARD;
    if !flow::find(&work.packet, &work.packet.key, work.hash, &mut work.to, &mut work.moment) {
        if work.packet.kind == Kind::LaterFragment {
            return Err(Reason::Fragment);
        }
        match hook.open(side, set) {
            Err(Reason::NoBackend) if vip.flags & VIP_NODE_PORT != 0 => return Ok(Decision::Refuse),
            other => other?,
        }
        flow::record(hook, work)?;
    }
    fragment::remember(work);
    Ok(asked(&work.packet.key, &work.to))
}

/// What becomes of a client's packet whose flow is known.
#[inline(always)]
pub fn asked(key: &FlowKey, to: &FlowValue) -> Decision {
    if to.source == key.source && to.flags & FLOW_DIRECT == 0 { Decision::Ask } else { Decision::AskOnward }
}

/// A client's first packet gets a backend: `work.to` is what it becomes, but for its source port.
#[inline(always)]
pub fn open(ctx: *mut c_void, side: Side, set: u32, work: &mut Work) -> Result<(), Reason> {
    let config = CONFIG.get(0).ok_or(Reason::NoSet)?;
    let source = work.packet.key.source;
    if side == Side::Uplink && is_martian(config, &source) {
        return Err(Reason::MartianSource);
    }
    let backend = match service::choose(set, work.hash as u32, || source) {
        Choice::Backend(backend) => backend,
        Choice::Nobody => return Err(Reason::NoBackend),
        Choice::NobodyHere => return Err(Reason::NoLocalBackend),
        Choice::NoSet => return Err(Reason::NoSet),
    };
    // Addresses of two families in one service would be a mistake of user space; no packet can be made of them.
    if backend.address.is_v4() != source.is_v4() {
        return Err(Reason::NotRewritten);
    }
    // A remote backend would answer the client directly, from an address the client never asked, unless its node is told
    // that; a pod that reaches itself would answer itself. Both answer the node instead.
    let remote = side == Side::Uplink && backend.local == 0;
    work.to = FlowValue {
        source,
        destination: backend.address,
        source_port: work.packet.key.source_port,
        destination_port: backend.port,
        client_ifindex: work.ifindex,
        service: work.service,
        flags: 0,
        settled: 0,
        seen_ns: 0,
    };
    work.only_port = false;
    work.keep_port = true;
    if backend.address == source || (remote && !direct::can(ctx, work)) {
        work.keep_port = false;
        work.to.source = node_address(config, &source).ok_or(Reason::NoNodeAddress)?;
    } else if remote {
        work.to.flags = FLOW_DIRECT | FLOW_TELLS;
    }
    Ok(())
}

/// A packet to no service: perhaps an answer.
#[inline(always)]
fn replying(side: Side, work: &mut Work) -> Result<Decision, Reason> {
    work.packet.key.half = HALF_REPLY;
    if !flow::find(&work.packet, &work.packet.key, work.hash, &mut work.to, &mut work.moment) {
        if side == Side::Uplink {
            masquerade::note_asker(work);
        }
        return Ok(Decision::Leave);
    }
    if masquerade::is_asker(work) {
        return Ok(Decision::Leave);
    }
    work.service = work.to.service;
    if !work.packet.whole {
        return Err(Reason::Malformed);
    }
    fragment::remember(work);
    if work.to.flags & FLOW_MASQUERADE != 0 { Ok(masquerade::replying(work)) } else { Ok(Decision::Send) }
}

/// A packet about to leave by the uplink: an answer of a backend on the node itself, or a pod's that leaves the cluster.
#[inline(always)]
pub fn leaving(hook: &impl Hook, work: &mut Work) -> Result<Decision, Reason> {
    begin(work, 0);
    let config = CONFIG.get(0).ok_or(Reason::NoSet)?;
    if work.packet.kind == Kind::Error {
        return about_error(work);
    }
    let followed = work.packet.kind != Kind::LaterFragment || fragment::follow(work);
    if !is_own(config, &work.packet.key.source) {
        return masquerade::leaving(hook, work, config, followed);
    }
    work.packet.key.half = HALF_REPLY;
    if !followed || !flow::find(&work.packet, &work.packet.key, work.hash, &mut work.to, &mut work.moment) {
        return Ok(Decision::Leave);
    }
    work.service = work.to.service;
    if !work.packet.whole {
        return Err(Reason::Malformed);
    }
    fragment::remember(work);
    Ok(Decision::Deliver)
}

/// An error about a packet: if that was translated, the error is translated back. Its key is the answer to the packet it
/// quotes, so either half of a flow is found as it is.
#[inline(always)]
fn about_error(work: &mut Work) -> Result<Decision, Reason> {
    work.packet.key.half = HALF_REPLY;
    if !flow::peek(&work.packet.key, &mut work.to) {
        work.packet.key.half = HALF_FORWARD;
        if !flow::peek(&work.packet.key, &mut work.to) {
            return Ok(Decision::Leave);
        }
    }
    work.service = work.to.service;
    if !work.packet.whole {
        return Err(Reason::Malformed);
    }
    // From the end the packet was sent to it comes from where it was sent to; a router on the way stays who it is.
    Ok(if work.packet.error_source == work.packet.key.source && work.to.source != work.packet.key.source {
        Decision::ErrorOnward
    } else {
        Decision::Error
    })
}

/// Counts what was done with a packet, and tells it.
#[inline(always)]
pub fn count_done(side: Side, decision: Decision, service: u32) {
    let uplink = side == Side::Uplink;
    tell::packet(side, verdict(decision), 0);
    match decision {
        Decision::Leave => {}
        Decision::Refuse => {
            count::event(Event::UplinkRefused);
            count::service_count(service, |count| count.refused += 1);
        }
        Decision::Direct => {
            count::event(Event::DirectReceived);
            count::service_count(service, |count| count.packets += 1);
        }
        Decision::Ask | Decision::AskOnward => {
            count::event(match (uplink, decision) {
                (true, Decision::Ask) => Event::UplinkToLocal,
                (true, _) => Event::UplinkToRemote,
                (false, _) => Event::PodToBackend,
            });
            count::service_count(service, |count| count.packets += 1);
        }
        Decision::Deliver if uplink => count::event(Event::MasqueradeReplied),
        Decision::Deliver | Decision::Send => {
            count::event(if side == Side::Pod { Event::PodReplied } else { Event::UplinkReplied });
            count::service_count(service, |count| count.replies += 1);
        }
        Decision::Masquerade => count::event(Event::Masqueraded),
        Decision::Error | Decision::ErrorOnward => count::event(Event::ErrorTranslated),
    }
}

/// Tells what another program is to make of the packet in work, the first of its flow.
#[inline(always)]
pub fn tell_early(side: Side, decision: Decision) {
    tell::early(side, verdict(decision));
}

/// What observers call it.
#[inline(always)]
const fn verdict(decision: Decision) -> Verdict {
    match decision {
        Decision::Leave => Verdict::Passed,
        Decision::Refuse => Verdict::Refused,
        Decision::Ask | Decision::AskOnward | Decision::Direct => Verdict::Translated,
        Decision::Deliver | Decision::Send | Decision::Error | Decision::ErrorOnward => Verdict::Replied,
        Decision::Masquerade => Verdict::Masqueraded,
    }
}

// === Addresses ===

/// The node's address of the family of another address.
#[inline(always)]
pub fn node_address(config: &Config, like: &Address) -> Option<Address> {
    let own = if like.is_v4() { config.node_address } else { config.node_address_v6 };
    (own != Address::default()).then_some(own)
}

#[inline(always)]
pub fn is_own(config: &Config, address: &Address) -> bool {
    if address.is_v4() { *address == config.node_address } else { *address == config.node_address_v6 }
}

/// Whether no packet from outside may come from an address: the kernel would drop it, but what is sent on from here the
/// kernel does not see. 0/8, 127/8, 224/4 and above (RFC 1122, 3.2.1.3); ::, ::1 and ff00::/8 (RFC 4291, 2).
#[inline(always)]
pub fn is_martian(config: &Config, address: &Address) -> bool {
    if is_own(config, address) {
        return true;
    }
    let [first, second, third, last] = address.words;
    if address.is_v4() {
        let net = last as u8;
        return net == 0 || net == 127 || net >= 224;
    }
    first as u8 == 0xff || (first | second | third == 0 && last & !1_u32.to_be() == 0)
}
