//! ConfigMap: configuration as text or bytes; may be made immutable.

use serde_json::{Map, Value};

use crate::error::FieldError;
use crate::registry::definition::Declaration;
use crate::registry::meta::names;
use crate::registry::strategy::Strategy;
use crate::tables::core::CONFIG_MAPS;

pub(crate) fn declaration() -> Declaration {
    Declaration::new("", "v1", "ConfigMap", "configmaps")
        .short(&["cm"])
        .columns(CONFIG_MAPS)
        .strategy(ConfigMap)
}

/// All data of a ConfigMap or Secret together, in bytes.
pub(super) const DATA_BYTES_MAX: usize = 1024 * 1024;

struct ConfigMap;

impl Strategy for ConfigMap {
    fn validate(&self, new: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let mut bytes = 0;
        let binary = new["binaryData"].as_object();
        for (key, text) in entries(new, "data") {
            check_key("data", key, &mut errors);
            if binary.is_some_and(|b| b.contains_key(key)) {
                errors.push(FieldError::invalid(
                    format!("data[{key}]"),
                    key.as_str(),
                    "duplicate of key present in binaryData",
                ));
            }
            bytes += text.as_str().map_or(0, str::len);
        }
        for (key, encoded) in entries(new, "binaryData") {
            check_key("binaryData", key, &mut errors);
            bytes += decoded_bytes(encoded);
        }
        if bytes > DATA_BYTES_MAX {
            errors.push(FieldError::too_long("", DATA_BYTES_MAX));
        }
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        immutable_data(new, old, &["data", "binaryData"], &mut errors);
        errors
    }
}

pub(super) fn entries<'a>(object: &'a Value, field: &str) -> impl Iterator<Item = (&'a String, &'a Value)> {
    object.get(field).and_then(Value::as_object).into_iter().flat_map(Map::iter)
}

pub(super) fn check_key(field: &str, key: &str, errors: &mut Vec<FieldError>) {
    if let Some(why) = names::config_key(key) {
        errors.push(FieldError::invalid(format!("{field}[{key}]"), key, why));
    }
}

/// Length of what a base64 text stands for.
pub(super) fn decoded_bytes(encoded: &Value) -> usize {
    encoded.as_str().map_or(0, |t| t.trim_end_matches('=').len() * 3 / 4)
}

/// Once `immutable`, neither it nor the data may change.
pub(super) fn immutable_data(new: &Value, old: &Value, fields: &[&str], errors: &mut Vec<FieldError>) {
    if old["immutable"] != Value::Bool(true) {
        return;
    }
    if new["immutable"] != Value::Bool(true) {
        errors.push(FieldError::forbidden("immutable", "field is immutable when `immutable` is set"));
    }
    for field in fields {
        let empty = |v: Option<&Value>| v.is_none_or(|v| v.as_object().is_some_and(Map::is_empty));
        let (n, o) = (new.get(field), old.get(field));
        if n != o && !(empty(n) && empty(o)) {
            errors.push(FieldError::forbidden(*field, "field is immutable when `immutable` is set"));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_immutable_config_map_stays_as_it_is() {
        let old = json!({"immutable": true, "data": {"a": "1"}});
        assert!(ConfigMap.validate_update(&old, &old).is_empty());
        let new = json!({"immutable": true, "data": {"a": "2"}});
        assert_eq!(
            ConfigMap.validate_update(&new, &old)[0].to_string(),
            "data: Forbidden: field is immutable when `immutable` is set"
        );
    }

    #[test]
    fn keys_are_checked() {
        assert_eq!(ConfigMap.validate(&json!({"data": {"a b": "x"}})).len(), 1);
        assert!(ConfigMap.validate(&json!({"data": {"a.b_c-D": "x"}})).is_empty());
    }
}
