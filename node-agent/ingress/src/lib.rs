//! Ingress on the node: HTTP requests go by host and path to the endpoints of Services, without a hop through a
//! ClusterIP and without a pod to run.
//!
//! It exists in three parts that meet in [`Routing`]: [`compile`] turns Ingresses and classes into a [`Table`]
//! (pure), [`Table::route`] decides about one request (pure), and [`serve`] moves bytes. Endpoints are looked up when
//! a request arrives, so that a rollout needs no new table. It must not know the Kubernetes API: the binary turns
//! objects into [`Ingress`] and [`Class`], and endpoints of slices into [`ServicePort`]s.
//!
//! TLS will be a stage between accepting and serving in `proxy`; nothing after it depends on what carries the bytes.

mod compile;
mod proxy;
mod spec;
mod table;
mod upstream;

use arc_swap::ArcSwap;

pub use compile::{CONTROLLER, Compiled, compile};
pub use proxy::{Limits, serve};
pub use spec::{Backend, Class, Ingress, Name, Path, PathKind, Port, Rule};
pub use table::{Decision, Route, Table, Target};
pub use upstream::{Candidates, Endpoint, ServicePort, Unavailable, Upstreams};

/// What requests are routed by: replaced and updated while they are served.
#[derive(Debug, Default)]
pub struct Routing {
    /// Hosts and paths; a request under way keeps the table it began with.
    pub table: ArcSwap<Table>,
    /// Where Services' endpoints are.
    pub upstreams: Upstreams,
}
