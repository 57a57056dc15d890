//! The interface to the outside: what arrives for services, and what answers leave from the node itself.

use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;

use crate::translate::{self, Side};

#[classifier]
pub fn uplink_ingress(ctx: TcContext) -> i32 {
    translate::arriving(&ctx, Side::Uplink)
}

#[classifier]
pub fn uplink_egress(ctx: TcContext) -> i32 {
    translate::leaving(&ctx)
}
