//! What the network half knows of the cluster: Services, EndpointSlices, Nodes, Ingresses and their
//! classes, cut down to what it uses.
//!
//! It exists to keep the agent small: an object is turned into a few fields as it arrives, and the rest (managed
//! fields, labels, status) is dropped at once. It must not know what is done with them.

mod ingress;
mod seen;
mod view;
mod watch;

pub use ingress::{class_view, ingress_view};
pub use seen::Seen;
pub use view::{
    EndpointView, NodeView, ObjectName, OwnNodeView, Place, PodView, PortView, ServiceView, SliceView,
    StationView, TrafficDistribution,
};
pub use watch::{Event, watch, watch_some};
