//! YAML into an object of a type, and objects into YAML.

use crate::json::BYTES_MAX;
use crate::{DecodeError, Decoded, EncodeError, TypeRef, Value, walk};

/// Decodes one YAML document (JSON is YAML) as `ty`, as [`crate::json::decode`] does JSON.
///
/// Scalars are read by the type of their field, so that what YAML 1.1 allows without quotes (`yes`, `0644`)
/// means there what kubectl's users expect. Aliases may unfold to [`crate::json::VALUES_MAX`] values.
///
/// # Errors
/// As for JSON; more than one document is an error.
pub fn decode(ty: &TypeRef, bytes: &[u8]) -> Result<Decoded, DecodeError> {
    if bytes.len() > BYTES_MAX {
        return Err(DecodeError::TooLarge { bytes: bytes.len(), bytes_max: BYTES_MAX });
    }
    let broken = |error: serde_yaml::Error| DecodeError::Yaml { reason: error.to_string() };
    walk::decode(ty, serde_yaml::Deserializer::from_slice(bytes), true, broken)
}

/// Writes an object as YAML.
///
/// # Errors
/// None for objects that came from a decoder of this crate.
pub fn encode(v: &Value) -> Result<String, EncodeError> {
    serde_yaml::to_string(v).map_err(|e| EncodeError::Yaml { reason: e.to_string() })
}
