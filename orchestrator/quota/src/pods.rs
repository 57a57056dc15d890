//! What a pod uses: what it asks for and is held to while it can run, and a place among the pods.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use crate::amounts::{self, Amounts, Kind, ONE, items_at};
use crate::names::is_huge_page;

/// Whoever sets a bound for one of these wants it said by each container.
const SAID_BY_ALL: &[&str] =
    &["cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory"];

pub(crate) fn usage(pod: &Value, now: Timestamp) -> Amounts {
    if !is_charged(pod, now) {
        return Amounts::new();
    }
    let mut requests =
        amounts::total(pod, Kind::Requests, |container| in_force(pod, container, Kind::Requests));
    let mut limits = amounts::total(pod, Kind::Limits, |container| in_force(pod, container, Kind::Limits));
    let overhead = amounts::read(pod.pointer("/spec/overhead"));
    amounts::add(&mut requests, &overhead);
    // What is not limited is not limited by its overhead either.
    let limited = amounts::named(&overhead, limits.keys());
    amounts::add(&mut limits, &limited);
    let mut used = by_name(&requests, &limits);
    used.insert("pods".into(), ONE);
    used
}

/// Whether it still counts: it has not ended, nor should it have been gone.
fn is_charged(pod: &Value, now: Timestamp) -> bool {
    if matches!(pod["status"]["phase"].as_str(), Some("Failed" | "Succeeded")) {
        return false;
    }
    let meta = &pod["metadata"];
    let deleted = meta["deletionTimestamp"].as_str().and_then(|at| at.parse::<Timestamp>().ok());
    match (deleted, meta["deletionGracePeriodSeconds"].as_i64()) {
        (Some(at), Some(grace)) => {
            let grace = SignedDuration::from_secs(grace.clamp(0, i64::from(i32::MAX)));
            now.duration_since(at) <= grace
        }
        _ => true,
    }
}

/// What a container is given and what it shall be given, whichever is more: a resize takes time.
fn in_force(pod: &Value, container: &Value, kind: Kind) -> Amounts {
    let statuses = ["/status/containerStatuses", "/status/initContainerStatuses"];
    let mut statuses = statuses.iter().flat_map(|list| items_at(pod, list));
    let wanted = amounts::of(container, kind);
    let status = statuses.find(|status| status["name"] == container["name"]);
    let Some(status) = status.filter(|status| status["resources"].is_object()) else { return wanted };
    let mut most = amounts::of(status, kind);
    if kind == Kind::Requests {
        amounts::raise(&mut most, &amounts::read(status.get("allocatedResources")));
    }
    let pending = items_at(pod, "/status/conditions").iter().find(|c| c["type"] == "PodResizePending");
    if pending.is_none_or(|condition| condition["reason"] != "Infeasible") {
        amounts::raise(&mut most, &wanted);
    }
    most
}

/// Under the names that quotas have for them.
fn by_name(requests: &Amounts, limits: &Amounts) -> Amounts {
    let mut named = Amounts::new();
    for (resource, amount) in requests {
        let native = matches!(&**resource, "cpu" | "memory" | "ephemeral-storage") || is_huge_page(resource);
        if native {
            named.insert(resource.clone(), *amount);
        }
        if native || resource.contains('/') {
            named.insert(format!("requests.{resource}"), *amount);
        }
    }
    for resource in ["cpu", "memory", "ephemeral-storage"] {
        if let Some(amount) = limits.get(resource) {
            named.insert(format!("limits.{resource}"), *amount);
        }
    }
    named
}

/// What containers of a new pod must say and do not, where a quota bounds `names`: `cpu for: c1,c2; memory for: c1`.
pub fn unsaid<'a>(pod: &Value, names: impl Iterator<Item = &'a String>) -> Option<String> {
    let of_whole = ["requests", "limits"].iter().any(|field| {
        let said = amounts::read(pod.pointer(&format!("/spec/resources/{field}")));
        said.keys().any(|name| matches!(&**name, "cpu" | "memory") || is_huge_page(name))
    });
    if of_whole {
        return None;
    }
    let required: Vec<&String> = names.filter(|name| SAID_BY_ALL.contains(&name.as_str())).collect();
    let mut missing: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for container in ["/spec/containers", "/spec/initContainers"].iter().flat_map(|list| items_at(pod, list))
    {
        let said = by_name(&amounts::of(container, Kind::Requests), &amounts::of(container, Kind::Limits));
        for name in required.iter().filter(|name| !said.contains_key(**name)) {
            missing.entry(name).or_default().push(container["name"].as_str().unwrap_or_default());
        }
    }
    let each = missing.into_iter().map(|(name, mut containers)| {
        containers.sort_unstable();
        format!("{name} for: {}", containers.join(","))
    });
    let each: Vec<String> = each.collect();
    (!each.is_empty()).then(|| each.join("; "))
}

/// Whether a pod has a time to end by: the scope `Terminating`.
pub fn has_time_limit(pod: &Value) -> bool {
    pod.pointer("/spec/activeDeadlineSeconds").and_then(Value::as_i64).is_some_and(|seconds| seconds >= 0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod() -> Value {
        json!({
            "metadata": {"name": "p"},
            "spec": {
                "containers": [{"name": "c", "resources": {
                    "requests": {"cpu": "100m", "example.com/gpu": "2"},
                    "limits": {"cpu": "1", "example.com/gpu": "2"},
                }}],
                "overhead": {"cpu": "10m", "memory": "1Mi"},
            },
        })
    }

    #[test]
    fn a_pod_uses_what_it_asks_for_and_a_place() {
        let used = usage(&pod(), Timestamp::UNIX_EPOCH);
        assert_eq!(
            amounts::told(&used),
            "cpu=110m,limits.cpu=1010m,memory=1Mi,pods=1,requests.cpu=110m,requests.example.com/gpu=2,\
             requests.memory=1Mi"
        );
    }

    #[test]
    fn a_pod_that_ended_or_should_be_gone_uses_nothing() {
        let mut ended = pod();
        ended["status"]["phase"] = "Succeeded".into();
        assert!(usage(&ended, Timestamp::UNIX_EPOCH).is_empty());
        let mut dying = pod();
        dying["metadata"]["deletionTimestamp"] = "1970-01-01T00:01:00Z".into();
        dying["metadata"]["deletionGracePeriodSeconds"] = 30.into();
        let at = |seconds| Timestamp::from_second(seconds).unwrap();
        assert!(!usage(&dying, at(90)).is_empty());
        assert!(usage(&dying, at(91)).is_empty());
    }

    #[test]
    fn a_container_counts_with_what_it_has_until_a_resize_is_done() {
        let mut resized = pod();
        resized["status"]["containerStatuses"] = json!([{"name": "c", "resources": {"requests": {"cpu": "500m"}}, "allocatedResources": {"cpu": "300m"}}]);
        let cpu = |pod: &Value| usage(pod, Timestamp::UNIX_EPOCH)["requests.cpu"].to_string();
        assert_eq!(cpu(&resized), "510m");
        resized["spec"]["containers"][0]["resources"]["requests"]["cpu"] = "2".into();
        assert_eq!(cpu(&resized), "2010m");
        resized["status"]["conditions"] = json!([{"type": "PodResizePending", "reason": "Infeasible"}]);
        assert_eq!(cpu(&resized), "510m");
    }

    #[test]
    fn containers_say_what_is_bounded() {
        let names = ["limits.memory", "requests.cpu", "pods", "requests.storage"].map(String::from);
        let mut pod = pod();
        pod["spec"]["initContainers"] = json!([{"name": "a"}]);
        let told = unsaid(&pod, names.iter());
        assert_eq!(told.as_deref(), Some("limits.memory for: a,c; requests.cpu for: a"));
        pod["spec"]["resources"] = json!({"limits": {"memory": "1Gi"}});
        assert_eq!(unsaid(&pod, names.iter()), None);
    }
}
