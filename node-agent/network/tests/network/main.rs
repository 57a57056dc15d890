//! The pod network in namespaces: the real plugin, a real agent, real packets; only the eBPF programs are left out.
//!
//! It needs root and says `SKIPPED:` without. It must not send a packet outside the namespaces it makes.

mod attachments;
mod kills;
mod lab;
mod routes;
