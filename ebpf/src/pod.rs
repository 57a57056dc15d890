//! The host's side of a pod's veth: what the pod sends. Answers to clients outside, and requests of clients whose
//! sockets the hooks of the cgroup do not see. And what the node's routing sends to the pod, past no other program of ours.

use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;

use crate::decide::Side;
use crate::policy;
use crate::sent;
use crate::translate;

#[classifier]
pub fn pod_ingress(ctx: TcContext) -> i32 {
    translate::packet(&ctx, Side::Pod)
}

/// What a program has sent here was judged by it.
#[classifier]
pub fn pod_egress(ctx: TcContext) -> i32 {
    if sent::is_marked(&ctx) { translate::NEXT } else { policy::entering(&ctx) }
}
