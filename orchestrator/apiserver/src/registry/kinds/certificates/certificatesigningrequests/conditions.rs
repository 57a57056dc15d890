//! Conditions of a request: what became of it, and what nobody takes back.

use serde_json::Value;

use crate::error::FieldError;
use crate::registry::generic::now_text;
use crate::registry::object::{items_at, str_at};

const POINTER: &str = "/status/conditions";
const PATH: &str = "status.conditions";
/// Said through `/approval` only.
const DECISIONS: [&str; 2] = ["Approved", "Denied"];
/// Said for good: they are true, or not there.
const FINAL: [&str; 3] = ["Approved", "Denied", "Failed"];

pub(super) fn has(object: &Value, kind: &str) -> bool {
    count(object, kind) > 0
}

fn count(object: &Value, kind: &str) -> usize {
    items_at(object, POINTER).iter().filter(|it| it["type"] == kind).count()
}

/// Decisions that a writer of the status repeats are as they were; what it adds or leaves out is refused later.
pub(super) fn keep_decisions(new: &mut Value, old: &Value) {
    for kind in DECISIONS {
        if count(new, kind) != count(old, kind) {
            continue;
        }
        let mut before = items_at(old, POINTER).iter().filter(|it| it["type"] == kind);
        let conditions = new.pointer_mut(POINTER).and_then(Value::as_array_mut);
        for condition in conditions.into_iter().flatten().filter(|it| it["type"] == kind) {
            if let Some(before) = before.next() {
                *condition = before.clone();
            }
        }
    }
}

/// A condition is dated where it says nothing itself: now if it is new or says something else, else as before.
pub(super) fn date(new: &mut Value, old: &Value) {
    let now = now_text();
    let conditions = new.pointer_mut(POINTER).and_then(Value::as_array_mut);
    for condition in conditions.into_iter().flatten().filter(|it| it.is_object()) {
        let known = items_at(old, POINTER).iter().find(|it| it["type"] == condition["type"]);
        if condition.get("lastUpdateTime").is_none() {
            condition["lastUpdateTime"] = now.as_str().into();
        }
        if condition.get("lastTransitionTime").is_none() {
            let same = known.filter(|known| known["status"] == condition["status"]);
            let since = same.and_then(|known| known.get("lastTransitionTime").cloned());
            condition["lastTransitionTime"] = since.unwrap_or_else(|| now.as_str().into());
        }
    }
}

/// What is wrong with the new conditions that was not wrong before, and what was taken back.
pub(super) fn judge_change(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = judge(new);
    if !errors.is_empty() {
        let before = judge(old);
        errors.retain(|error| !before.contains(error));
    }
    for kind in FINAL.into_iter().filter(|kind| count(new, kind) < count(old, kind)) {
        let why = format!("updates may not remove a condition of type {kind:?}");
        errors.push(FieldError::forbidden(PATH, why));
    }
    errors
}

/// Nobody decides by a write of the status.
pub(super) fn judge_decisions_stay(new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
    for kind in DECISIONS.into_iter().filter(|kind| count(new, kind) > count(old, kind)) {
        errors.push(FieldError::forbidden(PATH, format!("updates may not add a condition of type {kind:?}")));
    }
}

fn judge(object: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let conditions = items_at(object, POINTER);
    for (i, condition) in conditions.iter().enumerate() {
        let (kind, status) = (str_at(condition, "/type"), str_at(condition, "/status"));
        if kind.is_empty() {
            errors.push(FieldError::required(format!("{PATH}[{i}].type"), ""));
        }
        let allowed: &[&str] = if FINAL.contains(&kind) { &["True"] } else { &["False", "True", "Unknown"] };
        if status.is_empty() {
            errors.push(FieldError::required(format!("{PATH}[{i}].status"), ""));
        } else if !allowed.contains(&status) {
            errors.push(FieldError::not_supported(format!("{PATH}[{i}].status"), status, allowed));
        }
        if conditions[..i].iter().any(|it| str_at(it, "/type") == kind) {
            errors.push(FieldError::duplicate(format!("{PATH}[{i}].type"), kind));
        }
    }
    if DECISIONS.iter().all(|kind| has(object, kind)) {
        let last = conditions.iter().rfind(|it| DECISIONS.contains(&str_at(it, "/type")));
        let value = last.map(|it| it["type"].clone()).unwrap_or_default();
        let both = "Approved and Denied conditions are mutually exclusive";
        errors.push(FieldError::invalid(PATH, value, both));
    }
    errors
}
