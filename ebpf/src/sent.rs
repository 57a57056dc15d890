//! Packets that a program of this node has sent on: of what leaves by the uplink they need no second look.
//!
//! They are known by a field of the socket buffer that the kernel keeps for classifiers (`tc_index`) and that nothing of it
//! reads any more. It stays with a packet on its way through a veth, so whatever arrives loses it first.

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::programs::TcContext;

/// Nobody else's by chance.
const SENT: u32 = 0x7073;

/// Marks a packet.
#[inline(always)]
pub fn mark(ctx: &TcContext) {
    set(ctx, SENT);
}

/// Whether a packet is marked.
#[inline(always)]
pub fn is_marked(ctx: &TcContext) -> bool {
    value(ctx) == SENT
}

/// Takes a mark away that is not of this node, or not of its programs.
#[inline(always)]
pub fn forget(ctx: &TcContext) {
    if value(ctx) != 0 {
        set(ctx, 0);
    }
}

#[inline(always)]
fn value(ctx: &TcContext) -> u32 {
    let skb: *const __sk_buff = ctx.skb.skb;
    // SAFETY: the context is valid; volatile keeps it one load of one field.
    unsafe { (&raw const (*skb).tc_index).read_volatile() }
}

#[inline(always)]
fn set(ctx: &TcContext, value: u32) {
    let skb: *mut __sk_buff = ctx.skb.skb;
    // SAFETY: the context is valid, and the field writable at tc; volatile as above.
    unsafe { (&raw mut (*skb).tc_index).write_volatile(value) }
}
