//! The patch types of the API but apply: JSON patch, JSON merge patch, strategic merge patch.
//!
//! Patches work on plain values and leave conformance to [`crate::check`], which the registry runs on the result.

mod strategic;

use serde_json::Map;

use crate::json::DEPTH_MAX;
use crate::{PatchError, TypeRef, Value};

/// Operations a JSON patch may have.
pub const OPERATIONS_MAX: usize = 10_000;

/// RFC 6902, with upstream's limit on operations.
///
/// # Errors
/// A malformed patch, too many operations, or an operation (such as `test`) that fails on `v`.
pub fn json(v: &Value, patch: &Value) -> Result<Value, PatchError> {
    let operations = patch.as_array().ok_or_else(|| PatchError::Malformed {
        reason: "error decoding patch: a JSON patch is a list of operations".into(),
    })?;
    if operations.len() > OPERATIONS_MAX {
        return Err(PatchError::TooMany { operations: operations.len(), operations_max: OPERATIONS_MAX });
    }
    let mut out = v.clone();
    let (mut budget, mut moved) = (COPIED_MAX, MOVED_MAX);
    for operation in operations {
        let operation: json_patch::PatchOperation = serde_json::from_value(operation.clone())
            .map_err(|e| PatchError::Malformed { reason: format!("error decoding patch: {e}") })?;
        if let json_patch::PatchOperation::Copy(copy) = &operation {
            // Copies of copies double the object with every operation; upstream bounds what they may add.
            let size = out.pointer(copy.from.as_str()).map_or(0, weight);
            budget = budget.checked_sub(size).ok_or_else(|| PatchError::Malformed {
                reason: "the copy operations of the patch add too much to the object".into(),
            })?;
        }
        let nested = match &operation {
            json_patch::PatchOperation::Add(add) => {
                levels(add.path.as_str()) + depth(&add.value, &mut moved)?
            }
            json_patch::PatchOperation::Replace(replace) => {
                levels(replace.path.as_str()) + depth(&replace.value, &mut moved)?
            }
            json_patch::PatchOperation::Copy(copy) => {
                levels(copy.path.as_str()) + depth_at(&out, copy.from.as_str(), &mut moved)?
            }
            json_patch::PatchOperation::Move(move_) => {
                levels(move_.path.as_str()) + depth_at(&out, move_.from.as_str(), &mut moved)?
            }
            json_patch::PatchOperation::Remove(_) | json_patch::PatchOperation::Test(_) => 0,
        };
        if nested > DEPTH_MAX {
            let reason = format!("the patch nests values deeper than {DEPTH_MAX}");
            return Err(PatchError::Malformed { reason });
        }
        json_patch::patch_unsafe(&mut out, &[operation]).map_err(|e| {
            let reason = format!("the server rejected our request: {}", e.kind);
            match e.kind {
                json_patch::PatchErrorKind::TestFailed => PatchError::TestFailed { reason },
                _ => PatchError::Conflict { reason },
            }
        })?;
    }
    Ok(out)
}

/// Values that all copies of one patch may add.
const COPIED_MAX: usize = 200_000;
/// Values that one patch may put somewhere, each counted as often as it is: their depth is looked at each time.
const MOVED_MAX: usize = 4_000_000;

/// How deep a pointer leads.
fn levels(pointer: &str) -> usize {
    pointer.matches('/').count()
}

fn depth_at(v: &Value, pointer: &str, left: &mut usize) -> Result<usize, PatchError> {
    v.pointer(pointer).map_or(Ok(0), |v| depth(v, left))
}

/// How deep a value is. Operations that nest what is there in itself would else make objects so deep that dropping one
/// needs more stack than a thread has; as it is checked before each of them, this does not go deeper either.
fn depth(v: &Value, left: &mut usize) -> Result<usize, PatchError> {
    *left = left.checked_sub(1).ok_or_else(|| PatchError::Malformed {
        reason: "the operations of the patch move too much of the object".into(),
    })?;
    let mut deepest = 0;
    match v {
        Value::Array(items) => {
            for item in items {
                deepest = deepest.max(1 + depth(item, left)?);
            }
        }
        Value::Object(fields) => {
            for field in fields.values() {
                deepest = deepest.max(1 + depth(field, left)?);
            }
        }
        _ => {}
    }
    Ok(deepest)
}

fn weight(v: &Value) -> usize {
    match v {
        Value::Array(items) => 1 + items.iter().map(weight).sum::<usize>(),
        Value::Object(fields) => 1 + fields.values().map(weight).sum::<usize>(),
        Value::String(text) => 1 + text.len() / 16,
        _ => 1,
    }
}

/// RFC 7386.
pub fn merge(v: &Value, patch: &Value) -> Value {
    let Value::Object(changes) = patch else {
        return patch.clone();
    };
    let mut out = v.as_object().cloned().unwrap_or_default();
    merge_into(&mut out, changes);
    Value::Object(out)
}

fn merge_into(out: &mut Map<String, Value>, changes: &Map<String, Value>) {
    for (key, change) in changes {
        match change {
            Value::Null => {
                out.remove(key);
            }
            Value::Object(inner) => {
                let slot = out.entry(key.clone()).or_insert(Value::Null);
                if !slot.is_object() {
                    *slot = Value::Object(Map::new());
                }
                if let Value::Object(object) = slot {
                    merge_into(object, inner);
                }
            }
            other => {
                out.insert(key.clone(), other.clone());
            }
        }
    }
}

/// Kubernetes' strategic merge patch: lists merge by the keys the schema names, and the directives `$patch`,
/// `$retainKeys`, `$setElementOrder/…` and `$deleteFromPrimitiveList/…` are obeyed.
///
/// # Errors
/// A patch that is not an object, unknown directives, list items without their merge key.
pub fn strategic(ty: &TypeRef, v: &Value, patch: &Value) -> Result<Value, PatchError> {
    strategic::apply(ty, v, patch)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_merge_patch_removes_with_null_and_replaces_lists() {
        let object = json!({"a": {"b": 1, "c": 2}, "l": [1, 2]});
        assert_eq!(merge(&object, &json!({"a": {"b": null}, "l": [3]})), json!({"a": {"c": 2}, "l": [3]}));
        assert_eq!(merge(&object, &json!({"a": {"d": {"e": null}}}))["a"]["d"], json!({}));
    }

    #[test]
    fn a_json_patch_tests_before_it_changes() {
        let object = json!({"spec": {"replicas": 1}});
        let patch = json!([{"op": "test", "path": "/spec/replicas", "value": 2}]);
        assert!(matches!(json(&object, &patch), Err(PatchError::TestFailed { .. })));
        let patch = json!([{"op": "replace", "path": "/spec/replicas", "value": 5}]);
        assert_eq!(json(&object, &patch).unwrap(), json!({"spec": {"replicas": 5}}));
        assert!(matches!(json(&object, &json!({})), Err(PatchError::Malformed { .. })));
    }

    #[test]
    fn a_json_patch_has_a_limit() {
        let operation = json!({"op": "test", "path": "", "value": {}});
        let patch = Value::Array(vec![operation; OPERATIONS_MAX + 1]);
        assert!(matches!(json(&json!({}), &patch), Err(PatchError::TooMany { .. })));
    }

    #[test]
    fn moves_do_not_nest_an_object_for_ever() {
        let mut patch = vec![json!({"op": "add", "path": "/a", "value": {}})];
        for _ in 0..1000 {
            patch.push(json!({"op": "add", "path": "/b", "value": {}}));
            patch.push(json!({"op": "move", "from": "/a", "path": "/b/x"}));
            patch.push(json!({"op": "move", "from": "/b", "path": "/a"}));
        }
        let deep = json(&json!({}), &Value::Array(patch)).unwrap_err();
        assert!(deep.to_string().contains("deeper than 120"), "{deep}");
        let wide: Vec<u32> = (0..10_000).collect();
        let mut patch = Vec::new();
        for _ in 0..500 {
            patch.push(json!({"op": "move", "from": "/a", "path": "/b"}));
            patch.push(json!({"op": "move", "from": "/b", "path": "/a"}));
        }
        let moved = json(&json!({ "a": wide }), &Value::Array(patch)).unwrap_err();
        assert!(moved.to_string().contains("move too much"), "{moved}");
    }

    #[test]
    fn copies_of_copies_are_bounded() {
        let mut patch = Vec::new();
        for n in 0..100 {
            patch.push(json!({"op": "copy", "from": "/a", "path": format!("/a/k{n}")}));
        }
        assert!(json(&json!({"a": {"x": [1, 2, 3]}}), &Value::Array(patch)).is_err());
    }
}
