//! The interface to the outside: what arrives for services and for pods, and what leaves: answers from the node itself,
//! and what pods send out of the cluster. And the overlay's, behind it.

use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;

use crate::decide::Side;
use crate::sent;
use crate::translate;

#[classifier]
pub fn uplink_ingress(ctx: TcContext) -> i32 {
    translate::packet(&ctx, Side::Uplink)
}

#[classifier]
pub fn uplink_egress(ctx: TcContext) -> i32 {
    if sent::is_marked(&ctx) { translate::NEXT } else { translate::packet(&ctx, Side::Leaving) }
}

#[classifier]
pub fn tunnel_ingress(ctx: TcContext) -> i32 {
    translate::told(&ctx)
}

/// The interface's number, which user space gives when it loads the programs; zero when there is none.
#[unsafe(no_mangle)]
static PENSTOCK_UPLINK: u32 = 0;

/// Whether an interface is the uplink.
#[inline(always)]
pub fn is_uplink(ifindex: u32) -> bool {
    ifindex == number()
}

/// The uplink's number.
#[inline(always)]
pub fn number() -> u32 {
    // SAFETY: a valid place; volatile, for the loader changes the value behind the compiler's back.
    unsafe { (&raw const PENSTOCK_UPLINK).read_volatile() }
}
