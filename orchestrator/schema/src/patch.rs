//! The patch types of the API but apply: JSON patch, JSON merge patch, strategic merge patch.

use crate::{PatchError, TypeRef, Value};

/// RFC 6902.
pub fn json(v: &Value, patch: &Value) -> Result<Value, PatchError> {
    let patch: json_patch::Patch =
        serde_json::from_value(patch.clone()).map_err(|e| PatchError::Malformed { reason: e.to_string() })?;
    let mut out = v.clone();
    json_patch::patch(&mut out, &patch).map_err(|e| PatchError::Conflict { reason: e.to_string() })?;
    Ok(out)
}

/// RFC 7386.
pub fn merge(v: &Value, patch: &Value) -> Value {
    let mut out = v.clone();
    json_patch::merge(&mut out, patch);
    out
}

/// Kubernetes' strategic merge patch.
pub fn strategic(_ty: &TypeRef, v: &Value, patch: &Value) -> Result<Value, PatchError> {
    Ok(merge(v, patch))
}
