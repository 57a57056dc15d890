//! Drops by pod: of which pod of this node the packet in work is that is dropped. It costs what is not dropped nothing.
//!
//! A pod is its link, which no later pod has the number of. What comes in by the link is the pod's; else its address says whose
//! a packet is, of those pods that packets are led straight to.

use penstock_ebpf_common::{PodDropKey, Reason};

use crate::decide::Side;
use crate::maps::POD_DROPS;
use crate::pods;
use crate::tell;
use crate::work::{self, Work};

/// Counts the packet in work as dropped for the pod it is of, if it is of one.
#[inline(always)]
pub fn count(side: Side, reason: Reason) {
    penstock_count_pod_drop(side as u32, reason as u32);
}

/// Verified once for all that call it: see `tell`.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn penstock_count_pod_drop(side: u32, reason: u32) -> u32 {
    let Some(work) = work::get() else {
        return 0;
    };
    let Some(ifindex) = link(side, reason, work) else {
        return 0;
    };
    let key = PodDropKey { ifindex, reason };
    match POD_DROPS.get_ptr_mut(&key) {
        // SAFETY: this CPU's value. Should the entry be evicted and reused under us, one drop is another pod's.
        Some(count) => unsafe { *count += 1 },
        // Another CPU that makes it at the same time sets its own value alone. Full, the map evicts what was silent longest.
        None => {
            let _ = POD_DROPS.insert(&key, 1, 0);
        }
    }
    0
}

/// The link of the pod that a packet is of.
#[inline(always)]
fn link(side: u32, reason: u32, work: &Work) -> Option<u32> {
    // Of a packet from one pod of this node to another it may be either that does not allow it.
    if reason == Reason::Policy as u32 || reason == Reason::NoPolicyTable as u32 {
        return Some(work.judged);
    }
    if side == Side::Pod as u32 || side == Side::Entering as u32 {
        return Some(work.ifindex);
    }
    let key = &work.packet.key;
    let address = if side == Side::Leaving as u32 {
        &key.source
    } else if tell::is_dropped_decided(reason) {
        &work.to.destination
    } else {
        &key.destination
    };
    pods::find(address).map(|pod| pod.ifindex)
}
