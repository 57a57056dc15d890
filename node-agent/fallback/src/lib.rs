//! The service proxy in user space, for nodes on which the eBPF programs cannot be loaded.
//!
//! It exists so that such a node is slower, not broken: every address of every Service gets a listener, TCP is copied to
//! a backend, UDP is passed on with a session a client, and answers come from the address that was asked. Addresses that
//! no interface has become the node's by routes of type `local`, marked with a protocol number of their own; there is no
//! packet filter rule. What is served, by whom, and who may ask is planned by the same code as for the kernel's maps:
//! here the image is read by listeners instead of programs.
//!
//! Must not know the Kubernetes API, pods' links, or anything of eBPF but the shape of the image and the hash of a
//! connection.

mod affinity;
mod connections;
mod limits;
mod listen;
mod proxy;
mod routes;
mod shared;
mod table;
mod tcp;
mod trouble;
mod udp;

pub use limits::Limits;
pub use proxy::Fallback;
pub use routes::{LOCAL_ROUTE_PROTOCOL, RouteError, remove_routes};
pub use trouble::{Trouble, Why};
