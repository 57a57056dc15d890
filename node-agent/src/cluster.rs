//! What the network half knows of the cluster: Services, EndpointSlices, Nodes, NetworkPolicies and pods, Ingresses and their
//! classes, cut down to what it uses.
//!
//! It exists to keep the agent small: an object is turned into a few fields as it arrives, and the rest (managed
//! fields, labels, status) is dropped at once. It must not know what is done with them.

mod endpoints;
mod ingress;
mod policy;
mod seen;
mod slice;
mod view;
mod watch;

pub use endpoints::{EndpointView, Endpoints, Place};
pub use ingress::{class_view, ingress_view};
pub use policy::{PeerView, policy_view};
pub use seen::Seen;
pub use slice::{PodView, PortView, SliceView};
pub use view::{
    NodeView, ObjectName, OwnNodeView, ServicePortView, ServiceView, StationView, TrafficDistribution,
};
pub use watch::{Event, watch, watch_some};
