//! Rules that several kinds share.

pub(crate) mod addresses;
pub(crate) mod client_config;
pub(crate) mod labels;
pub(crate) mod pod_spec;

use serde_json::Value;

use crate::error::FieldError;

/// The words for a number below zero.
pub(crate) const NOT_NEGATIVE: &str = "must be greater than or equal to 0";
pub(crate) const IMMUTABLE: &str = "field is immutable";

/// Refuses a negative number at `pointer` (`/spec/replicas`).
pub(crate) fn not_negative(object: &Value, pointer: &str, errors: &mut Vec<FieldError>) {
    if let Some(n) = object.pointer(pointer).and_then(Value::as_i64)
        && n < 0
    {
        errors.push(FieldError::invalid(dotted(pointer), n, NOT_NEGATIVE));
    }
}

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
