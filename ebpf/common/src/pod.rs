//! Pods of this node, as packets to them find them.

use crate::shared;

/// What an address of a pod of this node leads to.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct LocalPod {
    /// The node's end of the pod's link.
    pub ifindex: u32,
    /// The link address of the pod's end; zeros when it is not known, and then none is written.
    pub pod_mac: [u8; 6],
    /// The link address of the node's end.
    pub node_mac: [u8; 6],
}

shared!(LocalPod, 16, [u32, [u8; 6], [u8; 6]]);
