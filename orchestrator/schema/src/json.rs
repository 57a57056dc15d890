//! JSON into an object of a type, in one pass over the bytes.

use crate::{DecodeError, Decoded, TypeRef, walk};

/// Nesting beyond this is refused.
pub const DEPTH_MAX: usize = 120;
/// Documents beyond this are refused.
pub const BYTES_MAX: usize = 3 * 1024 * 1024;
/// Documents with more values than this are refused; it bounds what YAML aliases may unfold to.
pub const VALUES_MAX: usize = 2_000_000;

/// Decodes a JSON document as `ty`, dropping and reporting unknown and duplicate fields.
///
/// Names are case-sensitive. `null` and an absent field are the same.
///
/// # Errors
/// Broken syntax, a value of the wrong type or form (with its path), or a limit exceeded.
pub fn decode(ty: &TypeRef, bytes: &[u8]) -> Result<Decoded, DecodeError> {
    if bytes.len() > BYTES_MAX {
        return Err(DecodeError::TooLarge { bytes: bytes.len(), bytes_max: BYTES_MAX });
    }
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let decoded = walk::decode(ty, &mut deserializer, false, syntax)?;
    deserializer.end().map_err(syntax)?;
    Ok(decoded)
}

fn syntax(error: serde_json::Error) -> DecodeError {
    let text = error.to_string();
    let reason = text.split(" at line ").next().unwrap_or_default().to_owned();
    DecodeError::Syntax { line: error.line(), column: error.column(), reason }
}
