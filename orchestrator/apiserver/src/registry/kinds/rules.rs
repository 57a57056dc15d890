//! Rules that several kinds share.

pub(crate) mod addresses;
pub(crate) mod client_config;
pub(crate) mod labels;
pub(crate) mod paths;
pub(crate) mod pod_spec;
pub(crate) mod shapes;
pub(crate) mod taints;
pub(crate) mod volume_modes;
pub(crate) mod workload;

use serde_json::Value;

use crate::error::FieldError;

/// The words for a number below zero.
pub(crate) const NOT_NEGATIVE: &str = "must be greater than or equal to 0";
pub(crate) const IMMUTABLE: &str = "field is immutable";

/// Refuses a change of what is at `pointer`.
pub(crate) fn immutable(new: &Value, old: &Value, pointer: &str, errors: &mut Vec<FieldError>) {
    if new.pointer(pointer) != old.pointer(pointer) {
        let value = new.pointer(pointer).cloned().unwrap_or_default();
        errors.push(FieldError::invalid(dotted(pointer), value, IMMUTABLE));
    }
}

/// `/spec/replicas` as `spec.replicas`.
pub(crate) fn dotted(pointer: &str) -> String {
    pointer.trim_start_matches('/').replace('/', ".")
}

/// A port number in 1..=65535, or why not.
pub(crate) fn port_number(n: i64) -> Option<&'static str> {
    (!(1..=65535).contains(&n)).then_some("must be between 1 and 65535, inclusive")
}
