//! What containers get that do not say it themselves.

use serde_json::{Map, Value};

use penstock_quota::amounts::Kind;

/// Where it is noted for whoever wonders.
const ANNOTATION: &str = "kubernetes.io/limit-ranger";

/// Gives a pod's containers the defaults of one LimitRange.
pub fn give(pod: &mut Value, items: &[Value]) {
    let of = |field: &str| -> Map<String, Value> {
        let items = items.iter().filter(|item| item["type"] == "Container");
        items.filter_map(|item| item[field].as_object().cloned()).flatten().collect()
    };
    let defaults = [(Kind::Requests, of("defaultRequest")), (Kind::Limits, of("default"))];
    let mut notes = Vec::new();
    for (list, of_kind) in [("containers", "container"), ("initContainers", "init container")] {
        let containers = pod.pointer_mut(&format!("/spec/{list}")).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            for (kind, defaults) in &defaults {
                let set = fill(container, *kind, defaults);
                if !set.is_empty() {
                    let name = container["name"].as_str().unwrap_or_default();
                    let what = kind.field().trim_end_matches('s');
                    notes.push(format!("{} {what} for {of_kind} {name}", set.join(", ")));
                }
            }
        }
    }
    if !notes.is_empty() {
        let note = format!("LimitRanger plugin set: {}", notes.join("; "));
        pod["metadata"]["annotations"][ANNOTATION] = note.into();
    }
}

/// Fills what is missing; returns which resources that were.
fn fill(container: &mut Value, kind: Kind, defaults: &Map<String, Value>) -> Vec<String> {
    let given = container["resources"][kind.field()].as_object();
    let missing: Vec<_> = defaults
        .iter()
        .filter(|(name, _)| given.is_none_or(|given| !given.contains_key(*name)))
        .map(|(name, amount)| (name.clone(), amount.clone()))
        .collect();
    let mut set = Vec::new();
    for (name, amount) in missing {
        // What is not there yet is made.
        container["resources"][kind.field()][&name] = amount;
        set.push(name);
    }
    set.sort();
    set
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_is_not_said_is_given_and_noted() {
        let items = [
            json!({"type": "Pod", "max": {"cpu": "9"}}),
            json!({
                "type": "Container",
                "default": {"cpu": "500m", "memory": "512Mi"},
                "defaultRequest": {"cpu": "100m", "memory": "200Mi"},
            }),
        ];
        let mut pod = json!({"metadata": {"name": "a"}, "spec": {
            "containers": [{"name": "one"}, {"name": "two", "resources": {"limits": {"cpu": "1"}, "requests": {"cpu": "1"}}}],
            "initContainers": [{"name": "first", "resources": {"requests": {"memory": "1Mi", "cpu": "1m"}}}],
        }});
        give(&mut pod, &items);
        assert_eq!(
            pod["spec"]["containers"][0]["resources"],
            json!({"requests": {"cpu": "100m", "memory": "200Mi"}, "limits": {"cpu": "500m", "memory": "512Mi"}})
        );
        assert_eq!(
            pod["spec"]["containers"][1]["resources"],
            json!({"requests": {"cpu": "1", "memory": "200Mi"}, "limits": {"cpu": "1", "memory": "512Mi"}})
        );
        assert_eq!(
            pod["metadata"]["annotations"][ANNOTATION],
            "LimitRanger plugin set: cpu, memory request for container one; cpu, memory limit for container one; \
             memory request for container two; memory limit for container two; cpu, memory limit for init container first"
        );
        let before = pod.clone();
        give(&mut pod, &items);
        assert_eq!(pod, before);
    }

    #[test]
    fn a_pod_to_which_nothing_is_given_is_left_as_it_is() {
        let mut pod = json!({"spec": {"containers": [{"name": "one"}]}});
        let before = pod.clone();
        give(&mut pod, &[json!({"type": "Container", "min": {"cpu": "1m"}})]);
        assert_eq!(pod, before);
    }
}
