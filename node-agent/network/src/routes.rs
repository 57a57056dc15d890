//! Ways to the pods of other nodes: a route where the node is on the same L2, a VXLAN tunnel where it is not.
//!
//! `compile_routes` says what should be, `observe` reads what is, `plan_routes` says what to change, `apply` changes
//! it. It must not know where the list of nodes comes from, and touches no route but those of its own protocol
//! number.

mod apply;
mod observe;
mod plan;
mod tunnel;

pub(crate) use apply::{Ground, apply_change};
pub(crate) use observe::observe_routes;
pub use plan::{Change, Hop, Local, Overlay, Peer, RouteTable, TunnelPeer, compile_routes, plan_routes};
pub(crate) use tunnel::{ensure_no_tunnel, ensure_tunnel, tunnel_overhead_bytes};

use crate::links::LinkError;

/// Routing protocol number of every route this room writes: how they are told from anyone else's. Unassigned in
/// iproute2's rt_protos.
pub(crate) const NODE_ROUTE_PROTOCOL: u8 = 80;

/// Metric of those routes. Replacing a route matches prefix and metric, so a foreign route to the same prefix,
/// usually at metric 0, is neither replaced nor beaten.
pub(crate) const NODE_ROUTE_METRIC: u32 = 80;

/// Why the routes are not as they should be.
#[derive(Debug, thiserror::Error)]
pub enum RouteError {
    /// A netlink request failed.
    #[error("the kernel refused to {doing}")]
    Netlink {
        /// What was asked.
        doing: String,
        /// The answer.
        #[source]
        source: rtnetlink::Error,
    },
    /// The tunnel device or the uplink.
    #[error(transparent)]
    Link(#[from] LinkError),
}
