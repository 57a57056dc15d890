//! The host's side of a pod's veth: what the pod sends. Answers to clients outside, and requests of clients whose
//! sockets the hooks of the cgroup do not see.

use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;

use crate::decide::Side;
use crate::translate;

#[classifier]
pub fn pod_ingress(ctx: TcContext) -> i32 {
    translate::packet(&ctx, Side::Pod)
}
