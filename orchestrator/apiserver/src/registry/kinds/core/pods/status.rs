//! What a pod's status may say. Its node writes it: what upstream does not refuse is not refused here.

use serde_json::Value;

use crate::error::FieldError;
use crate::registry::field_rules::{self, Check, Rule, at};
use crate::registry::kinds::rules::IMMUTABLE;
use crate::registry::kinds::rules::addresses::ip;
use crate::registry::meta::names;
use crate::registry::object::{items_at, str_at};

const RULES: &[Rule] = &[
    at("status.conditions[].type", Check::Name(names::qualified_name)),
    at("status.podIPs[].ip", Check::Name(ip)),
    at("status.hostIPs[].ip", Check::Name(ip)),
];

pub(super) fn validate(new: &Value, old: &Value) -> Vec<FieldError> {
    let state = |pod: &Value| {
        let mut errors = Vec::new();
        field_rules::judge(RULES, pod, "", &mut errors);
        for list in ["podIPs", "hostIPs"] {
            families(items_at(pod, &format!("/status/{list}")), &format!("status.{list}"), &mut errors);
        }
        errors
    };
    let (before, mut errors) = (state(old), state(new));
    errors.retain(|error| !before.contains(error));
    let nominated = str_at(new, "/status/nominatedNodeName");
    if nominated != str_at(old, "/status/nominatedNodeName")
        && !nominated.is_empty()
        && let Some(why) = names::subdomain(nominated)
    {
        errors.push(FieldError::invalid("status.nominatedNodeName", nominated, why));
    }
    if let Some(n) = new.pointer("/status/observedGeneration").and_then(Value::as_i64).filter(|n| *n < 0) {
        errors.push(FieldError::invalid("status.observedGeneration", n, "must be a non-negative integer"));
    }
    let class = |pod: &Value| pod["status"]["qosClass"].clone();
    if !field_rules::is_empty(&class(old)) && class(new) != class(old) {
        errors.push(FieldError::invalid("status.qosClass", class(new), IMMUTABLE));
    }
    for list in ["containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"] {
        transitions(new, old, list, &mut errors);
    }
    errors
}

/// Of each family one address.
fn families(ips: &[Value], at: &str, errors: &mut Vec<FieldError>) {
    let known: Vec<bool> = ips
        .iter()
        .filter_map(|it| str_at(it, "/ip").parse::<std::net::IpAddr>().ok())
        .map(|it| it.is_ipv4())
        .collect();
    if ips.len() > 2 || matches!(known[..], [first, second] if first == second) {
        let why = "may specify no more than one IP for each IP family";
        errors.push(FieldError::invalid(at, ips.to_vec(), why));
    }
}

/// A container that ended and is not restarted stays so.
fn transitions(new: &Value, old: &Value, list: &str, errors: &mut Vec<FieldError>) {
    let pointer = format!("/status/{list}");
    for (i, was) in items_at(old, &pointer).iter().enumerate() {
        let Some(code) = was.pointer("/state/terminated").map(|it| it["exitCode"].as_i64().unwrap_or(0))
        else {
            continue;
        };
        let is = items_at(new, &pointer).iter().find(|it| it["name"] == was["name"]);
        if is.is_none_or(|it| it.pointer("/state/terminated").is_some()) || restarts(old, list, was, code) {
            continue;
        }
        errors.push(FieldError::forbidden(
            format!("status.{list}[{i}].state"),
            "may not be transitioned to non-terminated state",
        ));
    }
}

/// Whether a container that ended with `code` may run again. Where rules of its own say so is the node's matter.
fn restarts(pod: &Value, list: &str, status: &Value, code: i64) -> bool {
    let specs = match list {
        "containerStatuses" => "/spec/containers",
        "initContainerStatuses" => "/spec/initContainers",
        _ => return false,
    };
    let all = ["/spec/containers", "/spec/initContainers"];
    if all.iter().any(|it| items_at(pod, it).iter().any(|c| !items_at(c, "/restartPolicyRules").is_empty())) {
        return true;
    }
    let container = items_at(pod, specs).iter().find(|it| it["name"] == status["name"]);
    let own = container.and_then(|it| it["restartPolicy"].as_str());
    match own.unwrap_or_else(|| str_at(pod, "/spec/restartPolicy")) {
        "Never" => false,
        // With a new sandbox they run once more.
        _ if list == "initContainerStatuses" => true,
        "OnFailure" => code != 0,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(policy: &str, state: Value) -> Value {
        json!({"spec": {"restartPolicy": policy, "containers": [{"name": "a"}]},
            "status": {"containerStatuses": [{"name": "a", "state": state}]}})
    }

    #[test]
    fn a_container_that_is_not_restarted_stays_ended() {
        let ended = |code: i64| json!({"terminated": {"exitCode": code}});
        let running = json!({"running": {}});
        for (policy, code, refused) in
            [("Never", 1, 1), ("OnFailure", 0, 1), ("OnFailure", 1, 0), ("Always", 0, 0)]
        {
            let found = validate(&pod(policy, running.clone()), &pod(policy, ended(code)));
            assert_eq!(found.len(), refused, "{policy} {code}: {found:?}");
        }
    }

    #[test]
    fn addresses_are_one_of_a_family() {
        let of = |ips: Value| json!({"status": {"podIPs": ips}});
        let good = of(json!([{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]));
        assert_eq!(validate(&good, &json!({})), vec![]);
        let bad = of(json!([{"ip": "10.0.0.1"}, {"ip": "10.0.0.2"}]));
        assert_eq!(validate(&bad, &json!({})).len(), 1);
        assert_eq!(validate(&bad, &bad), vec![], "what was there before is let be");
    }
}
