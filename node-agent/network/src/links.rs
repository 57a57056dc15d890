//! The kernel's devices: a veth pair a pod, and what is needed to look at them.
//!
//! It exists so that netlink stays in one room. It must not know the ledger: it is told what to make.

mod address;
mod carrier;
mod check;
mod kernel;
mod pod;
mod shape;
mod veth;

pub(crate) use address::Mac;
pub(crate) use carrier::await_carrier;
pub(crate) use check::observe_link_difference;
pub(crate) use kernel::{Kernel, Uplink, ensure_address, link_mac, link_mtu};
pub(crate) use pod::{GATEWAY, GATEWAY_V6, apply_pod_side};
pub(crate) use veth::{apply_host_side, apply_pair, delete_link};

use crate::netns::NetnsError;
use crate::sysctl::SysctlError;

/// Every node's end of a pod's link is named with this; links so named and unknown to the ledger are removed.
pub const HOST_LINK_PREFIX: &str = "pst";

/// Routing protocol number of the routes to this node's own pods, so that `ip route` says whose they are.
/// Unassigned in iproute2's rt_protos.
pub(crate) const POD_ROUTE_PROTOCOL: u8 = 81;

/// Why the kernel's devices are not as they should be.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// A netlink request failed.
    #[error("the kernel refused to {doing}")]
    Netlink {
        /// What was asked.
        doing: String,
        /// The answer.
        #[source]
        source: rtnetlink::Error,
    },
    /// No such device.
    #[error("there is no device {name}")]
    Missing {
        /// Its name, or the address it should have.
        name: String,
    },
    /// The namespace cannot be used.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// A setting cannot be changed.
    #[error(transparent)]
    Sysctl(#[from] SysctlError),
}

/// Adds what was being done to a netlink error.
pub(crate) fn refused(doing: impl Into<String>) -> impl FnOnce(rtnetlink::Error) -> LinkError {
    move |source| LinkError::Netlink { doing: doing.into(), source }
}

/// The errno of a netlink error, positive; 0 when it has none.
pub(crate) fn errno(error: &rtnetlink::Error) -> i32 {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.raw_code().abs(),
        _ => 0,
    }
}
