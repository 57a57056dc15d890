//! The interface to the outside: what arrives for services and for pods, and what leaves: answers from the node itself,
//! and what pods send out of the cluster.

use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;

use crate::decide::Side;
use crate::translate;

#[classifier]
pub fn uplink_ingress(ctx: TcContext) -> i32 {
    translate::packet(&ctx, Side::Uplink)
}

#[classifier]
pub fn uplink_egress(ctx: TcContext) -> i32 {
    translate::packet(&ctx, Side::Leaving)
}
