//! Volumes and claims: which belongs to which, what may go, and claims that live as long as a pod.

pub mod binder;
pub mod ephemeral;
pub mod protection;

mod claims;
mod reclaim;
