//! YAML into an object of a type, and objects into YAML.

use crate::{DecodeError, Decoded, EncodeError, TypeRef, Value};

/// Decodes one YAML document (JSON is YAML) as `ty`.
pub fn decode(_ty: &TypeRef, bytes: &[u8]) -> Result<Decoded, DecodeError> {
    let object = serde_yaml::from_slice(bytes).map_err(|e| DecodeError::Yaml { reason: e.to_string() })?;
    Ok(Decoded { object, issues: Vec::new() })
}

/// Writes an object as YAML.
pub fn encode(v: &Value) -> Result<String, EncodeError> {
    serde_yaml::to_string(v).map_err(|e| EncodeError::Yaml { reason: e.to_string() })
}
