//! What a node's conditions mean for its taints and its pods. Pure.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, NodeCondition, Pod, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use penstock_informers::placement::{taints, tolerates, tolerations};

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const NO_SCHEDULE: &str = "NoSchedule";
const NO_EXECUTE: &str = "NoExecute";
/// Conditions that keep new pods off while they are true.
const PRESSURES: &[(&str, &str)] = &[
    ("MemoryPressure", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "node.kubernetes.io/pid-pressure"),
    ("NetworkUnavailable", "node.kubernetes.io/network-unavailable"),
];
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
/// Conditions only the node itself can vouch for.
const FROM_THE_NODE: &[&str] = &["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];

/// The Ready condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Readiness {
    True,
    False,
    Unknown,
    Absent,
}

pub(crate) fn condition<'a>(node: &'a Node, kind: &str) -> Option<&'a NodeCondition> {
    node.status.as_ref()?.conditions.as_ref()?.iter().find(|c| c.type_ == kind)
}

pub(crate) fn ready(node: &Node) -> Readiness {
    match condition(node, "Ready").map(|c| c.status.as_str()) {
        Some("True") => Readiness::True,
        Some("False") => Readiness::False,
        Some(_) => Readiness::Unknown,
        None => Readiness::Absent,
    }
}

/// The node with its conditions unknown; `None` when they are already.
pub(crate) fn plan_silent(node: &Node, now: Timestamp) -> Option<Node> {
    let mut changed = node.clone();
    let conditions = changed.status.get_or_insert_default().conditions.get_or_insert_default();
    let mut any = false;
    for kind in FROM_THE_NODE {
        match conditions.iter_mut().find(|c| c.type_ == *kind) {
            Some(condition) if condition.status == "Unknown" => {}
            Some(condition) => {
                condition.status = "Unknown".into();
                condition.reason = Some("NodeStatusUnknown".into());
                condition.message = Some("Kubelet stopped posting node status.".into());
                condition.last_transition_time = Some(Time(now));
                any = true;
            }
            None => {
                conditions.push(NodeCondition {
                    type_: (*kind).into(),
                    status: "Unknown".into(),
                    reason: Some("NodeStatusNeverUpdated".into()),
                    message: Some("Kubelet never posted node status.".into()),
                    last_transition_time: Some(Time(now)),
                    last_heartbeat_time: node.metadata.creation_timestamp.clone(),
                });
                any = true;
            }
        }
    }
    any.then_some(changed)
}

/// The node's taints as they should be; `None` when they are. `may_evict`: NoExecute taints may be added.
pub(crate) fn plan_taints(node: &Node, may_evict: bool, now: Timestamp) -> Option<Vec<Taint>> {
    let mut wanted: Vec<(&str, &str)> = Vec::new();
    let readiness = ready(node);
    let trouble = match readiness {
        Readiness::False => Some(NOT_READY),
        Readiness::Unknown => Some(UNREACHABLE),
        // A node that has never reported keeps the taint it registered with.
        Readiness::Absent => has(node, NOT_READY, NO_SCHEDULE).then_some(NOT_READY),
        Readiness::True => None,
    };
    if let Some(key) = trouble {
        wanted.push((key, NO_SCHEDULE));
        let executes = [NOT_READY, UNREACHABLE].iter().any(|k| has(node, k, NO_EXECUTE));
        if readiness != Readiness::Absent && (may_evict || executes) {
            wanted.push((key, NO_EXECUTE));
        }
    }
    let true_condition = |kind: &str| condition(node, kind).is_some_and(|c| c.status == "True");
    wanted.extend(
        PRESSURES.iter().filter(|(kind, _)| true_condition(kind)).map(|(_, key)| (*key, NO_SCHEDULE)),
    );
    if node.spec.as_ref().is_some_and(|s| s.unschedulable == Some(true)) {
        wanted.push((UNSCHEDULABLE, NO_SCHEDULE));
    }
    let ours = |taint: &Taint| match taint.effect.as_str() {
        NO_SCHEDULE => {
            [NOT_READY, UNREACHABLE, UNSCHEDULABLE].contains(&taint.key.as_str())
                || PRESSURES.iter().any(|(_, key)| *key == taint.key)
        }
        NO_EXECUTE => [NOT_READY, UNREACHABLE].contains(&taint.key.as_str()),
        _ => false,
    };
    let is_wanted = |t: &Taint| wanted.iter().any(|(key, effect)| t.key == *key && t.effect == *effect);
    let mut result: Vec<Taint> = taints(node).iter().filter(|t| !ours(t) || is_wanted(t)).cloned().collect();
    let mut changed = result.len() != taints(node).len();
    for (key, effect) in wanted {
        if !has(node, key, effect) {
            let time_added = Some(Time(now));
            result.push(Taint { key: key.into(), effect: effect.into(), value: None, time_added });
            changed = true;
        }
    }
    changed.then_some(result)
}

fn has(node: &Node, key: &str, effect: &str) -> bool {
    taints(node).iter().any(|t| t.key == key && t.effect == effect)
}

/// Whether the node has taints that drive pods away.
pub(crate) fn evicts(node: &Node) -> bool {
    taints(node).iter().any(|t| t.effect == NO_EXECUTE)
}

/// How long a pod may stay, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stay {
    ForEver,
    For(u64),
}

/// A pod goes when one taint is not tolerated, or when the shortest toleration has run out.
pub(crate) fn plan_eviction(node: &Node, pod: &Pod, now: Timestamp) -> Stay {
    let mut stay = Stay::ForEver;
    for taint in taints(node).iter().filter(|t| t.effect == NO_EXECUTE) {
        let used: Vec<_> = tolerations(pod).iter().filter(|t| tolerates(t, taint)).collect();
        if used.is_empty() {
            return Stay::For(0);
        }
        let shortest = used.iter().filter_map(|t| t.toleration_seconds).min();
        let Some(shortest) = shortest else { continue };
        let since = taint.time_added.as_ref().map_or(now, |t| t.0).as_second();
        let left = u64::try_from(since + shortest.max(0) - now.as_second()).unwrap_or(0);
        stay = match stay {
            Stay::ForEver => Stay::For(left),
            Stay::For(other) => Stay::For(other.min(left)),
        };
    }
    stay
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(ready: Option<&str>, taints: serde_json::Value) -> Node {
        let conditions: Vec<_> =
            ready.iter().map(|s| serde_json::json!({"type": "Ready", "status": s})).collect();
        serde_json::from_value(serde_json::json!({
            "metadata": {"name": "n"}, "spec": {"taints": taints}, "status": {"conditions": conditions},
        }))
        .unwrap()
    }

    fn keys(taints: &[Taint]) -> Vec<String> {
        taints.iter().map(|t| format!("{}:{}", t.key.rsplit('/').next().unwrap(), t.effect)).collect()
    }

    #[test]
    fn taints_follow_readiness_and_foreign_taints_stay() {
        let now = Timestamp::from_second(100).unwrap();
        let foreign = serde_json::json!([{"key": "mine", "effect": "NoSchedule"}]);
        let plan = |n: &Node| plan_taints(n, true, now).map(|t| keys(&t));
        assert_eq!(plan(&node(Some("True"), foreign.clone())), None);
        assert_eq!(
            plan(&node(Some("Unknown"), foreign)).unwrap(),
            ["mine:NoSchedule", "unreachable:NoSchedule", "unreachable:NoExecute"]
        );
        let registered = serde_json::json!([{"key": NOT_READY, "effect": "NoSchedule"}]);
        assert_eq!(plan(&node(None, registered.clone())), None, "until it reports");
        assert_eq!(plan(&node(Some("True"), registered.clone())).unwrap(), Vec::<String>::new());
        assert_eq!(
            plan_taints(&node(Some("False"), registered), false, now),
            None,
            "nobody is evicted in the dark"
        );
    }

    #[test]
    fn tolerations_buy_the_time_they_say() {
        let now = Timestamp::from_second(100).unwrap();
        let node = node(
            Some("Unknown"),
            serde_json::json!([
                {"key": UNREACHABLE, "effect": "NoExecute", "timeAdded": "1970-01-01T00:01:30Z"},
            ]),
        );
        let pod = |tolerations: serde_json::Value| -> Pod {
            serde_json::from_value(
                serde_json::json!({"spec": {"containers": [], "tolerations": tolerations}}),
            )
            .unwrap()
        };
        assert_eq!(plan_eviction(&node, &pod(serde_json::json!([])), now), Stay::For(0));
        let limited =
            serde_json::json!([{"key": UNREACHABLE, "operator": "Exists", "tolerationSeconds": 30}]);
        assert_eq!(plan_eviction(&node, &pod(limited), now), Stay::For(20));
        assert_eq!(
            plan_eviction(&node, &pod(serde_json::json!([{"operator": "Exists"}])), now),
            Stay::ForEver
        );
    }

    #[test]
    fn a_silent_node_knows_nothing_and_is_marked_once() {
        let now = Timestamp::from_second(100).unwrap();
        let silent = plan_silent(&node(Some("True"), serde_json::json!([])), now).unwrap();
        assert_eq!(ready(&silent), Readiness::Unknown);
        assert!(plan_silent(&silent, now).is_none());
    }
}
