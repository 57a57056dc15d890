//! Pods of this node: their packets go straight to the pod's end of the link, past the node's routing, neighbours and queue.
//!
//! Only from a program where packets come in; and never without a hop left, which is the kernel's to answer.

use aya_ebpf::helpers::generated::bpf_redirect_peer;
use aya_ebpf::programs::TcContext;
use penstock_ebpf_common::{Address, Event, LocalPod};

use crate::count;
use crate::maps::PODS;

const ETHERNET_RECEIVER: usize = 0;

/// The pod of this node that has an address.
#[inline(always)]
pub fn find(address: &Address) -> Option<LocalPod> {
    // SAFETY: copied at once; user space replaces values as a whole.
    unsafe { PODS.get(address) }.copied()
}

/// Sends a packet, which has lost its hop, into a pod. A pod whose link went a moment ago gets nothing any more: the
/// kernel drops the packet, as it would drop one that it had routed.
#[inline(always)]
pub fn reach(ctx: &TcContext, pod: &LocalPod) -> i32 {
    if pod.pod_mac != [0; 6] {
        let [a, b, c, d, e, f] = pod.pod_mac;
        let [g, h, i, j, k, l] = pod.node_mac;
        // A frame with another receiver than the pod would arrive all the same, but not beyond a bridge in the pod.
        let _ = ctx.store(ETHERNET_RECEIVER, &[a, b, c, d, e, f, g, h, i, j, k, l], 0);
    }
    count::event(Event::PodReached);
    // SAFETY: the helper takes numbers only.
    unsafe { bpf_redirect_peer(pod.ifindex, 0) as i32 }
}
