//! Resizing a pod in place: what a request to `resize` may change, and what it may not. Pure.

use serde_json::{Value, json};

use crate::error::FieldError;
use crate::registry::kinds::core::pods::qos;
use crate::registry::object::items_at;

const LISTS: [&str; 2] = ["containers", "initContainers"];
/// What the annotation of a mirror of a static pod is called.
const MIRROR: &str = "kubernetes.io/config.mirror";

/// Takes over what a resize is about. A list whose containers are not those of the pod is taken whole, so that
/// [`validate`] can refuse it.
pub(super) fn adopt(kept: &mut Value, new: &Value) {
    for list in LISTS {
        let path = format!("/spec/{list}");
        if names(kept, list) != names(new, list) {
            kept["spec"][list] = new.pointer(&path).cloned().unwrap_or_else(|| json!([]));
            continue;
        }
        let Some(containers) = kept.pointer_mut(&path).and_then(Value::as_array_mut) else {
            continue;
        };
        for (container, wanted) in containers.iter_mut().zip(items_at(new, &path)) {
            let Some(map) = container.as_object_mut() else {
                continue;
            };
            for field in ["resources", "resizePolicy"] {
                match wanted.get(field) {
                    Some(v) => map.insert(field.into(), v.clone()),
                    None => map.remove(field),
                };
            }
        }
    }
    if let Some(map) = kept.get_mut("spec").and_then(Value::as_object_mut) {
        match new.pointer("/spec/resources") {
            Some(v) => map.insert("resources".into(), v.clone()),
            None => map.remove("resources"),
        };
    }
}

fn names(pod: &Value, list: &str) -> Vec<Value> {
    items_at(pod, &format!("/spec/{list}")).iter().map(|c| c["name"].clone()).collect()
}

/// Every way in which the change is more than another amount of CPU and memory.
pub(super) fn validate(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if old["metadata"]["annotations"].get(MIRROR).is_some() {
        errors.push(FieldError::forbidden("spec", "static pods cannot be resized"));
        return errors;
    }
    for list in LISTS {
        if names(new, list) != names(old, list) {
            let path = format!("spec.{list}");
            errors.push(FieldError::forbidden(
                path,
                "containers may not be added, removed or moved by a resize",
            ));
            return errors;
        }
        let path = format!("/spec/{list}");
        for (i, (is, was)) in items_at(new, &path).iter().zip(items_at(old, &path)).enumerate() {
            let sidecar = was["restartPolicy"] == "Always";
            container(is, was, list == "containers" || sidecar, &format!("spec.{list}[{i}]"), &mut errors);
        }
    }
    if new.pointer("/spec/resources") != old.pointer("/spec/resources") {
        errors.push(FieldError::forbidden("spec.resources", "resources of the whole pod cannot be resized"));
    }
    let (is, was) = (qos::class(new), qos::class(old));
    if errors.is_empty() && is != was {
        let why = format!("Pod QOS Class may not change as a result of resizing: it is {was}");
        errors.push(FieldError::invalid("spec", is, why));
    }
    errors
}

fn container(is: &Value, was: &Value, resizable: bool, at: &str, errors: &mut Vec<FieldError>) {
    if is.get("resizePolicy") != was.get("resizePolicy") {
        errors.push(FieldError::forbidden(format!("{at}.resizePolicy"), "field is immutable"));
    }
    if is.get("resources") == was.get("resources") {
        return;
    }
    if !resizable {
        let why = "resources for non-sidecar init containers are immutable";
        errors.push(FieldError::forbidden(format!("{at}.resources"), why));
        return;
    }
    for list in ["limits", "requests"] {
        let path = format!("{at}.resources.{list}");
        let amounts =
            |c: &Value| c.pointer(&format!("/resources/{list}")).cloned().unwrap_or_else(|| json!({}));
        let (is, was) = (amounts(is), amounts(was));
        for resource in ["cpu", "memory"] {
            if was.get(resource).is_some() && is.get(resource).is_none() {
                errors
                    .push(FieldError::forbidden(path.as_str(), format!("resource {list} cannot be removed")));
            }
        }
        if others(&is) != others(&was) {
            errors.push(FieldError::forbidden(path, "only cpu and memory resources are mutable"));
        }
    }
    if is.pointer("/resources/claims") != was.pointer("/resources/claims") {
        let why = "only cpu and memory resources are mutable";
        errors.push(FieldError::forbidden(format!("{at}.resources.claims"), why));
    }
}

/// Amounts of everything but CPU and memory.
fn others(amounts: &Value) -> Vec<(&String, &Value)> {
    let all = amounts.as_object().into_iter().flatten();
    all.filter(|(name, _)| !matches!(name.as_str(), "cpu" | "memory")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod() -> Value {
        json!({"metadata": {"name": "p"}, "spec": {
            "initContainers": [
                {"name": "init", "resources": {"requests": {"cpu": "1"}}},
                {"name": "side", "restartPolicy": "Always", "resources": {"requests": {"cpu": "1"}}}],
            "containers": [{"name": "a", "image": "i", "resources":
                {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "2", "example.com/x": "1"}}}]}})
    }

    /// What a request that sets one value by pointer is told.
    fn refused(pointer: &str, value: Value) -> String {
        let mut wanted = pod();
        let (parent, field) = pointer.rsplit_once('/').unwrap();
        let parent = wanted.pointer_mut(parent).unwrap();
        match value {
            Value::Null => drop(parent.as_object_mut().unwrap().remove(field)),
            value => parent[field] = value,
        }
        let mut new = pod();
        adopt(&mut new, &wanted);
        validate(&new, &pod()).iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn cpu_and_memory_of_apps_and_sidecars_change_and_of_init_containers_do_not() {
        assert_eq!(refused("/spec/containers/0/resources/requests/cpu", "3".into()), "");
        assert_eq!(refused("/spec/containers/0/resources/limits/memory", "2Gi".into()), "");
        assert_eq!(refused("/spec/initContainers/1/resources/requests/cpu", "3".into()), "");
        let init = refused("/spec/initContainers/0/resources/requests/cpu", "3".into());
        assert!(
            init.starts_with("spec.initContainers[0].resources: Forbidden: resources for non-sidecar"),
            "{init}"
        );
    }

    #[test]
    fn what_is_no_amount_of_cpu_or_memory_is_refused_or_left_alone() {
        let other = refused("/spec/containers/0/resources/limits/example.com~1x", "2".into());
        assert!(other.contains("only cpu and memory"), "{other}");
        let policy = json!([{"resourceName": "cpu", "restartPolicy": "RestartContainer"}]);
        assert!(refused("/spec/containers/0/resizePolicy", policy).contains("immutable"));
        assert!(refused("/spec/containers/0/name", "b".into()).contains("added, removed or moved"));
        assert!(refused("/spec/resources", json!({"limits": {"cpu": "1"}})).contains("spec.resources"));
        // Not a matter of this subresource: kept as it was.
        assert_eq!(refused("/spec/containers/0/image", "j".into()), "");
    }

    #[test]
    fn limits_and_requests_stay_once_they_are_set() {
        let limit = refused("/spec/containers/0/resources/limits/cpu", Value::Null);
        assert_eq!(
            limit,
            "spec.containers[0].resources.limits: Forbidden: resource limits cannot be removed"
        );
        let request = refused("/spec/containers/0/resources/requests/memory", Value::Null);
        assert!(request.contains("resource requests cannot be removed"), "{request}");
    }

    #[test]
    fn the_class_of_the_pod_stays() {
        let pod = |limit: &str| {
            let amounts = json!({"cpu": limit, "memory": "1Gi"});
            json!({"spec": {"containers": [{"name": "a", "resources":
                {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": amounts}}]}})
        };
        let errors = validate(&pod("2"), &pod("1"));
        assert!(errors[0].to_string().contains("QOS Class may not change"), "{errors:?}");
        assert_eq!(validate(&pod("3"), &pod("2")), vec![]);
    }

    #[test]
    fn a_static_pod_stays_as_its_manifest_says() {
        let mut old = pod();
        old["metadata"]["annotations"] = json!({MIRROR: "x"});
        assert!(validate(&pod(), &old)[0].to_string().contains("static pods"));
    }
}
