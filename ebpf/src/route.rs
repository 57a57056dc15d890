//! By which interface a packet leaves, asked of the kernel's routing table.

use core::ffi::c_void;

use aya_ebpf::bindings::{
    self, BPF_FIB_LKUP_RET_FRAG_NEEDED, BPF_FIB_LKUP_RET_NO_NEIGH, BPF_FIB_LKUP_RET_SUCCESS,
    bpf_fib_lookup as FibLookup,
};
use aya_ebpf::helpers::generated::{bpf_fib_lookup, bpf_redirect_neigh};
use aya_ebpf::programs::TcContext;
use penstock_ebpf_common::Reason;

use crate::sent;
use crate::way;
use crate::work::{self, Work};

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
/// -EINVAL.
const UNKNOWN_FLAG: i64 = -22;

/// Finds the way of a packet that came by `work.ifindex` and becomes what `work.to` says. The answer is in `work.fib`: the
/// interface, and the next hop's link address unless `flags` skip it. A packet too big for the way is `TooBig`.
#[inline(always)]
pub fn find(ctx: *mut c_void, work: &mut Work, flags: u32) -> Result<(), Reason> {
    let needs_neighbour = flags & WITHOUT_NEIGHBOUR == 0;
    if way::recall(work, needs_neighbour) {
        return Ok(());
    }
    ask(ctx, work, flags)?;
    way::remember(work, needs_neighbour);
    Ok(())
}

/// Asks the routing table.
#[inline(always)]
fn ask(ctx: *mut c_void, work: &mut Work, flags: u32) -> Result<(), Reason> {
    // SAFETY: the kernel's structure is plain integers, for which zero is a value.
    unsafe { work::clear(&mut work.fib) };
    let (fib, source, destination) = (&mut work.fib, &work.to.source, &work.to.destination);
    fib.ifindex = work.ifindex;
    fib.__bindgen_anon_1.tot_len =
        if work.wire_length > u16::MAX as u32 { u16::MAX } else { work.wire_length as u16 };
    if source.is_v4() {
        fib.family = AF_INET;
        fib.__bindgen_anon_3.ipv4_src = source.v4();
        fib.__bindgen_anon_4.ipv4_dst = destination.v4();
    } else {
        fib.family = AF_INET6;
        fib.__bindgen_anon_3.ipv6_src = source.words;
        fib.__bindgen_anon_4.ipv6_dst = destination.words;
    }
    // SAFETY: the context is of this program's type and the structure lives through the call.
    let mut answer = unsafe { bpf_fib_lookup(ctx, &mut work.fib, size_of::<FibLookup>() as i32, flags) };
    if answer == UNKNOWN_FLAG && flags == WITHOUT_NEIGHBOUR {
        // Before Linux 6.3 the neighbour is looked for in any case. Where it is not known the answer has all but the longest
        // packet for the way: in that place is still the length that was asked for, and that fits.
        // SAFETY: as above.
        answer = unsafe { bpf_fib_lookup(ctx, &mut work.fib, size_of::<FibLookup>() as i32, 0) };
        if answer == BPF_FIB_LKUP_RET_NO_NEIGH as i64 {
            return Ok(());
        }
    }
    if answer == BPF_FIB_LKUP_RET_SUCCESS as i64 {
        return Ok(());
    }
    if answer == BPF_FIB_LKUP_RET_FRAG_NEEDED as i64 {
        return Err(Reason::TooBig);
    }
    Err(Reason::NoRoute)
}

/// [`find`]'s flag at tc, where the kernel finds the neighbour when the packet is sent.
pub const WITHOUT_NEIGHBOUR: u32 = bindings::BPF_FIB_LOOKUP_SKIP_NEIGH;

/// Sends the packet out by an interface; the kernel finds the neighbour.
#[inline(always)]
pub fn send(ctx: &TcContext, ifindex: u32) -> i32 {
    sent::mark(ctx);
    // SAFETY: without parameters the helper takes numbers only.
    unsafe { bpf_redirect_neigh(ifindex, core::ptr::null_mut(), 0, 0) as i32 }
}
