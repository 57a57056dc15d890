//! What objects use of their namespace's quotas: pure rules over JSON objects.
//!
//! Admission charges by them before a write is stored, and the controller counts by them afterwards, so that both
//! come to the same sums. Nothing here reads the cluster or knows who asks.
//!
//! Rules: <https://kubernetes.io/docs/concepts/policy/resource-quotas/>.

pub mod amounts;
mod claims;
mod names;
mod pods;
mod scopes;
mod services;

use jiff::Timestamp;
use serde_json::Value;

pub use amounts::Amounts;
pub use penstock_schema::Quantity;

pub use names::{Measured, is_integer, is_name};
pub use pods::{has_time_limit, unsaid};
pub use scopes::{Requirement, is_scope, may_scope, scopes_of};

/// What an object of a resource uses, by name in a quota. `now` tells which dying pods should be gone.
pub fn usage(measured: &Measured, object: &Value, now: Timestamp) -> Amounts {
    let mut used = match (&*measured.group, &*measured.plural) {
        ("", "pods") => pods::usage(object, now),
        ("", "services") => services::usage(object),
        ("", "persistentvolumeclaims") => claims::usage(object),
        _ => Amounts::new(),
    };
    for name in measured.counters() {
        used.insert(name, amounts::ONE);
    }
    used
}

/// Whether a quota's scopes take in an object. A quota with scopes takes in nothing that has none.
pub fn takes_in(quota: &Value, measured: &Measured, object: &Value) -> bool {
    scopes_of(quota).iter().all(|scope| scope.takes_in(measured, object))
}

/// What a quota says under `/spec/hard`, `/status/hard` or `/status/used`.
pub fn said(quota: &Value, pointer: &str) -> Amounts {
    amounts::read(quota.pointer(pointer))
}
