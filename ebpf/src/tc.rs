//! Frames as programs at tc see them: socket buffers, read in place where they lie in one piece, and else through helpers,
//! because headers may lie in pages that a program cannot reach.

use core::mem::MaybeUninit;

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::generated::bpf_skb_load_bytes;
use aya_ebpf::programs::TcContext;
use penstock_ebpf_common::Reason;
use penstock_ebpf_packet::header::{Frame, Plain};
use penstock_ebpf_packet::parse;

use crate::decide::{self, Decision, Hook, Side, answer, outcome};
use crate::flow;
use crate::rewrite;
use crate::work::{self, Work};

/// How far into a packet the verifier lets a program reach by an offset that it reads there.
const REACH_MAX: u32 = 0x3fff;

/// A frame at tc.
pub struct Tc<'a>(pub &'a TcContext);

impl Frame for Tc<'_> {
    const FIXED: bool = false;

    #[inline(always)]
    fn ethertype(&self) -> u16 {
        self.0.skb.protocol() as u16
    }

    #[inline(always)]
    fn length(&self) -> u32 {
        self.0.len()
    }

    #[inline(always)]
    fn load<T: Plain>(&self, offset: u32) -> Option<T> {
        // SAFETY: the place is within the packet, and every pattern of bits is a `T`; as for its alignment see `xdp`.
        if let Some(place) = self.within_reach::<T>(offset) {
            return Some(unsafe { *place });
        }
        let mut value = MaybeUninit::<T>::uninit();
        // SAFETY: the helper writes as many bytes as `T` has, or answers that it did not; every pattern of bits is a `T`.
        unsafe {
            let answer = bpf_skb_load_bytes(
                self.0.skb.skb.cast(),
                offset,
                value.as_mut_ptr().cast(),
                size_of::<T>() as u32,
            );
            (answer == 0).then(|| value.assume_init())
        }
    }
}

impl Hook for Tc<'_> {
    #[inline(always)]
    fn open(&self, side: Side, set: u32) -> Result<(), Reason> {
        outcome(penstock_tc_open(self.0.skb.skb, side as u32, set))
    }

    #[inline(always)]
    fn make(&self) -> Result<(), Reason> {
        outcome(penstock_tc_make(self.0.skb.skb))
    }

    #[inline(always)]
    fn is_taken(&self) -> bool {
        penstock_tc_is_taken(self.0.skb.skb) != 0
    }
}

impl Tc<'_> {
    /// A place in the part of the packet that lies in one piece, which nearly all headers do.
    #[inline(always)]
    fn within_reach<T: Plain>(&self, offset: u32) -> Option<*const T> {
        if offset > REACH_MAX {
            return None;
        }
        let place = self.0.data() + offset as usize;
        (place + size_of::<T>() <= self.0.data_end()).then_some(place as *const T)
    }

    /// Reads the headers into the work; false when the packet can belong to no flow.
    #[inline(always)]
    pub fn parse(&self) -> bool {
        penstock_tc_parse(self.0.skb.skb) != 0
    }

    /// Makes the packet what the work says; `onward` takes a hop off.
    #[inline(always)]
    pub fn rewrite(&self, decision: Decision, onward: bool) -> Result<(), Reason> {
        let skb = self.0.skb.skb;
        let answer = if matches!(decision, Decision::Error | Decision::ErrorOnward) {
            penstock_tc_error(skb, onward as u32)
        } else {
            penstock_tc_rewrite(skb, onward as u32)
        };
        if answer == 0 { Ok(()) } else { Err(Reason::NotRewritten) }
    }

    /// Takes a hop off a packet that keeps its addresses.
    #[inline(always)]
    pub fn take_hop(&self, work: &Work) -> Result<(), i64> {
        rewrite::take_hop(self.0, work)
    }

    /// The interface the packet came by, or leaves by.
    #[inline(always)]
    pub fn ifindex(&self) -> u32 {
        // SAFETY: the context is valid; one load of one field.
        unsafe { (&raw const (*self.0.skb.skb).ifindex).read_volatile() }
    }

    /// Whether it is addressed to another station of the link: a switch that does not know where that one is sends it to all.
    #[inline(always)]
    pub fn is_for_another(&self) -> bool {
        const PACKET_OTHERHOST: u32 = 3;
        // SAFETY: as above.
        unsafe { (&raw const (*self.0.skb.skb).pkt_type).read_volatile() == PACKET_OTHERHOST }
    }

    /// How much data each packet carries that the card will cut this one into; zero when it stays whole.
    #[inline(always)]
    pub fn segment_size(&self) -> u32 {
        // SAFETY: as above.
        unsafe { (&raw const (*self.0.skb.skb).gso_size).read_volatile() }
    }
}

// === Steps ===
//
// The verifier walks through a function that only its object can call once for each state its callers come in; one that
// others could call, with nothing but a context and numbers, it proves once for all (Linux 5.6, "global functions").

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn penstock_tc_parse(skb: *mut __sk_buff) -> u32 {
    let ctx = TcContext::new(skb);
    work::get().is_some_and(|work| parse(&Tc(&ctx), &mut work.packet)) as u32
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn penstock_tc_open(skb: *mut __sk_buff, side: u32, set: u32) -> u32 {
    let side = if side == Side::Uplink as u32 { Side::Uplink } else { Side::Pod };
    answer(work::get().ok_or(Reason::NoSet).and_then(|work| decide::open(skb.cast(), side, set, work)))
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn penstock_tc_make(skb: *mut __sk_buff) -> u32 {
    let ctx = TcContext::new(skb);
    answer(work::get().ok_or(Reason::NoSet).and_then(|work| flow::make(&Tc(&ctx), work)))
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn penstock_tc_is_taken(skb: *mut __sk_buff) -> u32 {
    work::get().is_some_and(|work| flow::is_taken(skb.cast(), work)) as u32
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn penstock_tc_rewrite(skb: *mut __sk_buff, onward: u32) -> u32 {
    let ctx = TcContext::new(skb);
    work::get().is_none_or(|work| rewrite::apply(&ctx, work, onward != 0).is_err()) as u32
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn penstock_tc_error(skb: *mut __sk_buff, onward: u32) -> u32 {
    let ctx = TcContext::new(skb);
    work::get().is_none_or(|work| rewrite::error(&ctx, work, onward != 0).is_err()) as u32
}
