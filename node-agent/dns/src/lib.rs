//! DNS on the node: every name of the Kubernetes DNS specification (schema 1.1.0), and the way out for all others.
//!
//! It exists so that a pod's lookup never leaves its node and never depends on a pod. [`answer`] is pure, over a
//! [`Zone`] that is replaced as a whole whenever the cluster changes; [`serve`] moves packets. It must not know the
//! Kubernetes API: the binary turns Services and EndpointSlices into [`ServiceRecord`]s.

mod answer;
mod forward;
mod resolv_conf;
mod respond;
mod server;
mod zone;

pub use answer::{Answer, Question, TTL_SECONDS, answer};
pub use forward::{Forwarder, QUERIES_MAX};
pub use server::{Listening, TCP_CONNECTIONS_MAX, serve};
pub use zone::{Endpoint, Exposure, Port, ServiceName, ServiceRecord, Zone, ZoneConfig};
