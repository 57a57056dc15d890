//! What an update may change of a pod: images, its deadline downwards, more tolerations, fewer gates; and where it
//! may run while a gate holds it. Pure.

use serde_json::Value;

use crate::error::FieldError;
use crate::registry::field_rules::is_same;
use crate::registry::object::{items_at, str_at};

const MAY_NOT: &str = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";
const TERMS: &str = "/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms";
const TERMS_AT: &str =
    "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms";

pub(super) fn validate(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for list in ["containers", "initContainers"] {
        let count = |pod: &Value| items_at(pod, &format!("/spec/{list}")).len();
        if count(new) != count(old) {
            let why = "pod updates may not add or remove containers";
            errors.push(FieldError::forbidden(format!("spec.{list}"), why));
            return errors;
        }
    }
    deadline(new, old, &mut errors);
    tolerations(new, old, &mut errors);
    gates(new, old, &mut errors);
    if !items_at(old, "/spec/schedulingGates").is_empty() {
        where_it_may_run(new, old, &mut errors);
    }
    let mut allowed = new.clone();
    restore_mutable(&mut allowed, old);
    if !is_same(&allowed["spec"], &old["spec"]) {
        errors.push(FieldError::forbidden("spec", MAY_NOT));
    }
    errors
}

/// Undoes every change an update may make, so that what is left is what it may not.
fn restore_mutable(new: &mut Value, old: &Value) {
    for list in ["containers", "initContainers"] {
        let before = items_at(old, &format!("/spec/{list}"));
        if let Some(containers) = new.pointer_mut(&format!("/spec/{list}")).and_then(Value::as_array_mut) {
            for (container, was) in containers.iter_mut().zip(before) {
                if let Some(image) = was.get("image") {
                    container["image"] = image.clone();
                }
            }
        }
    }
    let gated = !items_at(old, "/spec/schedulingGates").is_empty();
    let mut fields = vec!["activeDeadlineSeconds", "tolerations", "schedulingGates"];
    if gated {
        // Not scheduled yet: where it may run can still be narrowed.
        fields.push("nodeSelector");
    }
    let grace = |pod: &Value| pod.pointer("/spec/terminationGracePeriodSeconds").and_then(Value::as_i64);
    if grace(old).is_some_and(|n| n < 0) && grace(new) == Some(1) {
        fields.push("terminationGracePeriodSeconds");
    }
    let Some(spec) = new.get_mut("spec").and_then(Value::as_object_mut) else { return };
    for field in fields {
        match old.get("spec").and_then(|s| s.get(field)) {
            Some(v) => spec.insert(field.into(), v.clone()),
            None => spec.remove(field),
        };
    }
    if gated {
        let was = &old["spec"]["affinity"]["nodeAffinity"];
        let affinity = spec.entry("affinity").or_insert(Value::Null);
        if !was.is_null() || affinity.is_object() {
            affinity["nodeAffinity"] = was.clone();
        }
    }
}

fn deadline(new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
    let read = |v: &Value| v.pointer("/spec/activeDeadlineSeconds").and_then(Value::as_i64);
    let path = "spec.activeDeadlineSeconds";
    match (read(new), read(old)) {
        (Some(n), Some(o)) if n > o => {
            errors.push(FieldError::invalid(path, n, "must be less than or equal to previous value"));
        }
        (None, Some(_)) => {
            errors.push(FieldError::invalid(
                path,
                Value::Null,
                "must not update from a positive integer to nil value",
            ));
        }
        _ => {}
    }
}

fn tolerations(new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
    let strip = |t: &Value| {
        let mut t = t.clone();
        if let Some(map) = t.as_object_mut() {
            map.remove("tolerationSeconds");
        }
        t
    };
    let has: Vec<Value> = items_at(new, "/spec/tolerations").iter().map(strip).collect();
    let stays = |toleration: &Value| has.iter().any(|it| is_same(it, &strip(toleration)));
    if !items_at(old, "/spec/tolerations").iter().all(stays) {
        errors.push(FieldError::forbidden(
            "spec.tolerations",
            "existing toleration can not be modified except its tolerationSeconds",
        ));
    }
}

fn gates(new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
    let had = items_at(old, "/spec/schedulingGates");
    for (i, gate) in items_at(new, "/spec/schedulingGates").iter().enumerate() {
        if !had.iter().any(|it| it["name"] == gate["name"]) {
            let name = str_at(gate, "/name");
            errors.push(FieldError::forbidden(
                format!("spec.schedulingGates[{i}].name"),
                format!("only deletion is allowed, but found new scheduling gate '{name}'"),
            ));
        }
    }
}

/// Of a gated pod what nodes it needs may be narrowed, and not otherwise changed.
fn where_it_may_run(new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
    let (is, was) = (&new["spec"]["nodeSelector"], &old["spec"]["nodeSelector"]);
    if was.as_object().into_iter().flatten().any(|(key, value)| is.get(key) != Some(value)) {
        let why = "only additions to spec.nodeSelector are allowed (no mutations or deletions)";
        errors.push(FieldError::invalid("spec.nodeSelector", is.clone(), why));
    }
    let (is, was) = (items_at(&new["spec"], TERMS), items_at(&old["spec"], TERMS));
    if !was.is_empty() && is.len() != was.len() {
        let why = "no additions/deletions to non-empty NodeSelectorTerms list are allowed";
        errors.push(FieldError::invalid(TERMS_AT, is.to_vec(), why));
        return;
    }
    for (i, (is, _)) in is.iter().zip(was).enumerate().filter(|(_, (is, was))| !is_narrower(is, was)) {
        let why = "only additions are allowed (no mutations or deletions)";
        errors.push(FieldError::invalid(format!("{TERMS_AT}[{i}]"), is.clone(), why));
    }
}

/// Whether a term only says more than before. An empty one selects nothing, and is not to select something.
fn is_narrower(is: &Value, was: &Value) -> bool {
    let lists = ["/matchExpressions", "/matchFields"];
    let empty = |term: &Value| lists.iter().all(|list| items_at(term, list).is_empty());
    let goes_on = |list: &&str| {
        let (is, was) = (items_at(is, list), items_at(was, list));
        is.len() >= was.len() && is.iter().zip(was).all(|(is, was)| is_same(is, was))
    };
    if empty(was) { empty(is) } else { lists.iter().all(goes_on) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(new: &Value, old: &Value) -> Vec<String> {
        validate(new, old).iter().map(ToString::to_string).collect()
    }

    fn gated(terms: Value) -> Value {
        json!({"spec": {"schedulingGates": [{"name": "a"}], "nodeSelector": {"x": "1"}, "affinity": {"nodeAffinity":
            {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}}})
    }

    #[test]
    fn a_gated_pod_is_told_more_of_where_to_run_and_nothing_else() {
        let key = |name: &str| json!({"key": name, "operator": "Exists"});
        let old = gated(json!([{"matchExpressions": [key("a")]}]));
        let mut new = gated(json!([{"matchExpressions": [key("a"), key("b")]}]));
        new["spec"]["nodeSelector"]["y"] = "2".into();
        new["spec"]["schedulingGates"] = json!([]);
        assert_eq!(told(&new, &old), Vec::<String>::new());
        new["spec"]["nodeSelector"] = json!({"y": "2"});
        assert!(told(&new, &old)[0].starts_with("spec.nodeSelector: Invalid value"));
        let wider = gated(json!([{"matchExpressions": [key("a")]}, {"matchExpressions": [key("b")]}]));
        assert!(told(&wider, &old)[0].contains("no additions/deletions"));
        let other = gated(json!([{"matchExpressions": [key("b")]}]));
        assert!(told(&other, &old)[0].contains("nodeSelectorTerms[0]: Invalid value"));
        let mut more = old.clone();
        more["spec"]["schedulingGates"] = json!([{"name": "a"}, {"name": "b"}]);
        assert!(told(&more, &old)[0].starts_with("spec.schedulingGates[1].name: Forbidden"));
    }

    #[test]
    fn a_gated_pod_without_affinity_gets_one() {
        let old = json!({"spec": {"schedulingGates": [{"name": "a"}]}});
        let mut new = gated(json!([{"matchExpressions": [{"key": "a", "operator": "Exists"}]}]));
        new["spec"].as_object_mut().unwrap().remove("nodeSelector");
        assert_eq!(told(&new, &old), Vec::<String>::new());
        assert_eq!(
            told(&new, &json!({"spec": {}})).len(),
            2,
            "neither the gate nor the affinity is new to it"
        );
    }
}
