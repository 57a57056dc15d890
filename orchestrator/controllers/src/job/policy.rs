//! What a Job's policies say: of a pod that failed, and of the indexes that succeeded. Pure.

use k8s_openapi::api::batch::v1::{
    JobSpec, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyOnPodConditionsPattern,
};
use k8s_openapi::api::core::v1::Pod;

use super::indexes::Indexes;

/// What a failed pod means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// One failure more.
    Count,
    /// As if it had never been.
    Ignore,
    /// The index is not tried again.
    FailIndex,
    /// The Job has failed; why.
    FailJob(String),
}

/// Exit codes of ended containers, with their names.
fn exits(pod: &Pod) -> Vec<(&str, i32)> {
    let Some(status) = &pod.status else {
        return Vec::new();
    };
    let all = status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
    all.filter_map(|c| {
        let ended = c.state.as_ref()?.terminated.as_ref()?;
        (ended.exit_code != 0).then_some((c.name.as_str(), ended.exit_code))
    })
    .collect()
}

fn exit_matches<'a>(rule: &PodFailurePolicyOnExitCodesRequirement, pod: &'a Pod) -> Option<(&'a str, i32)> {
    exits(pod).into_iter().find(|(name, code)| {
        let named = rule.container_name.as_deref().is_none_or(|n| n == *name);
        let listed = rule.values.contains(code);
        named && if rule.operator == "NotIn" { !listed } else { listed }
    })
}

fn condition_matches(pattern: &PodFailurePolicyOnPodConditionsPattern, pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|s| s.conditions.as_ref());
    let wanted = pattern.status.as_deref().unwrap_or("True");
    conditions.into_iter().flatten().any(|c| c.type_ == pattern.type_ && c.status == wanted)
}

/// What the first rule that matches says.
pub(crate) fn meaning_of(spec: &JobSpec, pod: &Pod) -> Meaning {
    let rules = spec.pod_failure_policy.iter().flat_map(|p| &p.rules);
    let name = format!(
        "{}/{}",
        pod.metadata.namespace.as_deref().unwrap_or_default(),
        pod.metadata.name.as_deref().unwrap_or_default()
    );
    for (at, rule) in rules.enumerate() {
        let by_exit = rule.on_exit_codes.as_ref().and_then(|r| exit_matches(r, pod));
        let by_condition =
            rule.on_pod_conditions.iter().flatten().find(|pattern| condition_matches(pattern, pod));
        let why = match (by_exit, by_condition) {
            (Some((container, code)), _) => {
                format!("Container {container} for pod {name} failed with exit code {code}")
            }
            (None, Some(pattern)) => format!("Pod {name} has condition {}", pattern.type_),
            (None, None) => continue,
        };
        return match rule.action.as_str() {
            "Ignore" => Meaning::Ignore,
            "FailIndex" => Meaning::FailIndex,
            "FailJob" => Meaning::FailJob(format!("{why} matching {} rule at index {at}", rule.action)),
            _ => Meaning::Count,
        };
    }
    Meaning::Count
}

/// Whether a success rule is met; says which.
pub(crate) fn success(spec: &JobSpec, completed: &Indexes) -> Option<String> {
    let rules = &spec.success_policy.as_ref()?.rules;
    let completions = spec.completions.unwrap_or(0);
    let met = rules.iter().position(|rule| {
        let wanted = rule.succeeded_indexes.as_ref().map(|t| Indexes::parse(t, completions));
        match (wanted, rule.succeeded_count) {
            (Some(wanted), count) => completed.count_in(&wanted) >= count.unwrap_or(wanted.len()),
            (None, Some(count)) => completed.len() >= count,
            (None, None) => false,
        }
    })?;
    Some(format!("Matched rules at index {met}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn spec(extra: serde_json::Value) -> JobSpec {
        let mut spec = json!({"template": {}, "completions": 5});
        spec.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        serde_json::from_value(spec).unwrap()
    }

    fn failed(code: i32) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "ns"}, "status": {
            "phase": "Failed", "conditions": [{"type": "DisruptionTarget", "status": "True"}],
            "containerStatuses": [{"name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0,
                "state": {"terminated": {"exitCode": code}}}]}}))
        .unwrap()
    }

    #[test]
    fn the_first_matching_rule_says_what_a_failure_means() {
        let rules = json!({"podFailurePolicy": {"rules": [
            {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [42]}},
            {"action": "FailIndex", "onExitCodes": {"containerName": "other", "operator": "NotIn", "values": [1]}},
            {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]},
        ]}});
        assert_eq!(
            meaning_of(&spec(rules.clone()), &failed(42)),
            Meaning::FailJob(
                "Container c for pod ns/p failed with exit code 42 matching FailJob rule at index 0".into()
            )
        );
        assert_eq!(meaning_of(&spec(rules), &failed(1)), Meaning::Ignore);
        assert_eq!(meaning_of(&spec(json!({})), &failed(1)), Meaning::Count);
    }

    #[test]
    fn success_needs_the_named_indexes_or_so_many() {
        let done = Indexes::parse("0,2", 5);
        let met = |rule| success(&spec(json!({"successPolicy": {"rules": [rule]}})), &done).is_some();
        assert!(met(json!({"succeededIndexes": "0,2"})) && !met(json!({"succeededIndexes": "0-2"})));
        assert!(met(json!({"succeededIndexes": "0-2", "succeededCount": 2})));
        assert!(met(json!({"succeededCount": 2})) && !met(json!({"succeededCount": 3})));
    }
}
