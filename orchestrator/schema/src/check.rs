//! Conformance of an already parsed value, such as the result of a patch, to a type.

use crate::{DecodeError, Issue, TypeRef, Value, walk};

/// Prunes and normalises `v` in place as the decoders do, and reports what was dropped.
///
/// # Errors
/// A value of the wrong type or form, with its path; `v` is null then.
pub fn conform(ty: &TypeRef, v: &mut Value) -> Result<Vec<Issue>, DecodeError> {
    let broken =
        |error: serde_json::Error| DecodeError::Syntax { line: 0, column: 0, reason: error.to_string() };
    let decoded = walk::decode(ty, v.take(), false, broken)?;
    *v = decoded.object;
    Ok(decoded.issues)
}
