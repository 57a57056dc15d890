//! What an update may not change.

use serde_json::Value;

use super::{at_path, is_empty};
use crate::error::FieldError;

/// A field, at a path of plain fields, that stays as it is.
pub(crate) enum Fixed {
    /// Refused as invalid, in the usual words.
    Field(&'static str),
    /// Refused as forbidden, in these words.
    Sealed(&'static str, &'static str),
}

impl Fixed {
    /// Compares `new` with `old`.
    pub(crate) fn judge(&self, new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
        let (Self::Field(path) | Self::Sealed(path, _)) = self;
        let (is, was) = (at_path(new, path), at_path(old, path));
        if is_same(is, was) {
            return;
        }
        match self {
            Self::Field(_) => {
                errors.push(FieldError::invalid(*path, is.clone(), "field is immutable"));
            }
            Self::Sealed(_, words) => errors.push(FieldError::forbidden(*path, *words)),
        }
    }
}

/// Whether two values mean the same: what is empty is as good as absent, wherever it stands.
pub(crate) fn is_same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            a.iter().all(|(key, value)| is_same(value, b.get(key).unwrap_or(&Value::Null)))
                && b.iter().all(|(key, value)| a.contains_key(key) || is_empty(value))
        }
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| is_same(a, b))
        }
        (Value::Object(map), Value::Null) | (Value::Null, Value::Object(map)) => {
            map.values().all(|value| is_same(value, &Value::Null))
        }
        _ => a == b || (is_empty(a) && is_empty(b)),
    }
}
