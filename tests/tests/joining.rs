//! A control plane of its own process on loopback, machines that join it with tokens, and certificates that are renewed while
//! everything goes on. Needs no root: nodes are identities here, and nothing runs on them.

#[path = "joining/control_plane.rs"]
mod control_plane;
#[path = "joining/refusals.rs"]
mod refusals;
#[path = "joining/renewals.rs"]
mod renewals;
#[path = "joining/tokens.rs"]
mod tokens;
