//! Secret: as a ConfigMap, with a type that never changes and keys some types require.

use base64::Engine as _;
use serde_json::{Value, json};

use super::configmaps::{DATA_BYTES_MAX, check_key, decoded_bytes, entries, immutable_data};
use crate::error::FieldError;
use crate::registry::context::Context;
use crate::registry::definition::Declaration;
use crate::registry::kinds::rules::immutable;
use crate::registry::object::str_at;
use crate::registry::strategy::Strategy;
use crate::tables::core::SECRETS;

pub(crate) fn declaration() -> Declaration {
    Declaration::new("", "v1", "Secret", "secrets")
        .columns(SECRETS)
        .fields(&["type"], |o| vec![("type", str_at(o, "/type").to_string())])
        .strategy(Secret)
}

struct Secret;

/// Keys that a type cannot do without.
fn required_keys(kind: &str) -> &'static [&'static str] {
    match kind {
        "kubernetes.io/dockercfg" => &[".dockercfg"],
        "kubernetes.io/dockerconfigjson" => &[".dockerconfigjson"],
        "kubernetes.io/ssh-auth" => &["ssh-privatekey"],
        "kubernetes.io/tls" => &["tls.crt", "tls.key"],
        _ => &[],
    }
}

impl Strategy for Secret {
    fn prepare_create(&self, _context: &Context, new: &mut Value) {
        encode_string_data(new);
    }

    fn prepare_update(&self, _context: &Context, new: &mut Value, old: &Value) {
        encode_string_data(new);
        if str_at(new, "/type").is_empty() {
            new["type"] = old["type"].clone();
        }
    }

    fn validate(&self, new: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let mut bytes = 0;
        for (key, encoded) in entries(new, "data") {
            check_key("data", key, &mut errors);
            bytes += decoded_bytes(encoded);
        }
        if bytes > DATA_BYTES_MAX {
            errors.push(FieldError::too_long("data", DATA_BYTES_MAX));
        }
        let kind = str_at(new, "/type");
        for key in required_keys(kind) {
            if new["data"].get(key).is_none() {
                errors.push(FieldError::required(format!("data[{key}]"), ""));
            }
        }
        if kind == "kubernetes.io/service-account-token"
            && new.pointer("/metadata/annotations/kubernetes.io~1service-account.name").is_none()
        {
            errors.push(FieldError::required("metadata.annotations[kubernetes.io/service-account.name]", ""));
        }
        if kind == "kubernetes.io/basic-auth"
            && new["data"].get("username").is_none()
            && new["data"].get("password").is_none()
        {
            errors.push(FieldError::required("data[username]", ""));
            errors.push(FieldError::required("data[password]", ""));
        }
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        immutable(new, old, "/type", &mut errors);
        immutable_data(new, old, &["data"], &mut errors);
        errors
    }
}

/// `stringData` is for writing only: it lands in `data`.
fn encode_string_data(secret: &mut Value) {
    let Some(Value::Object(plain)) = secret.as_object_mut().and_then(|m| m.remove("stringData")) else {
        return;
    };
    if !secret["data"].is_object() {
        secret["data"] = json!({});
    }
    for (key, text) in plain {
        let encoded = base64::engine::general_purpose::STANDARD.encode(text.as_str().unwrap_or_default());
        secret["data"][key] = encoded.into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn string_data_lands_in_data() {
        let mut s = json!({"stringData": {"a": "x"}, "data": {"b": "eQ=="}});
        encode_string_data(&mut s);
        assert_eq!(s, json!({"data": {"a": "eA==", "b": "eQ=="}}));
    }

    #[test]
    fn a_tls_secret_needs_both_halves() {
        assert_eq!(Secret.validate(&json!({"type": "kubernetes.io/tls", "data": {"tls.crt": ""}})).len(), 1);
    }
}
