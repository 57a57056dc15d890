//! Pod: what runs. Most of its spec is fixed once it is made; it goes gracefully, when its node says so.

use serde_json::{Value, json};

use crate::error::FieldError;
use crate::registry::context::Context;
use crate::registry::definition::{Declaration, STATUS, Subresource, VERBS_STATUS};
use crate::registry::kinds::rules::pod_spec;
use crate::registry::object::{items_at, str_at};
use crate::registry::strategy::{Grace, Strategy};
use crate::tables::pods::PODS;

mod alone;
pub(crate) mod qos;
mod status;
mod update;

const fn plain(name: &'static str, kind: &'static str, verbs: &'static [&'static str]) -> Subresource {
    Subresource { name, group: "", version: "v1", kind, verbs }
}

const CONNECT: &[&str] = &["create", "get"];
const PROXY_VERBS: &[&str] = &["create", "delete", "get", "patch", "update"];
const SUBRESOURCES: &[Subresource] = &[
    plain("attach", "PodAttachOptions", CONNECT),
    plain("binding", "Binding", &["create"]),
    Subresource { name: "ephemeralcontainers", group: "", version: "", kind: "", verbs: VERBS_STATUS },
    Subresource { name: "eviction", group: "policy", version: "v1", kind: "Eviction", verbs: &["create"] },
    plain("exec", "PodExecOptions", CONNECT),
    plain("log", "Pod", &["get"]),
    plain("portforward", "PodPortForwardOptions", CONNECT),
    plain("proxy", "PodProxyOptions", PROXY_VERBS),
    Subresource { name: "resize", group: "", version: "", kind: "", verbs: VERBS_STATUS },
    STATUS,
];

pub(crate) fn declaration() -> Declaration {
    Declaration::new("", "v1", "Pod", "pods")
        .short(&["po"])
        .categories(&["all"])
        .generation()
        .returns_deleted()
        .columns(PODS)
        .subresources(SUBRESOURCES)
        .fields(
            &[
                "spec.nodeName",
                "spec.restartPolicy",
                "spec.schedulerName",
                "spec.serviceAccountName",
                "spec.hostNetwork",
                "status.phase",
                "status.podIP",
                "status.podIPs",
                "status.nominatedNodeName",
            ],
            fields,
        )
        .strategy(Pod)
}

fn fields(o: &Value) -> Vec<(&'static str, String)> {
    let text = |pointer: &str| str_at(o, pointer).to_string();
    let host_network = o.pointer("/spec/hostNetwork") == Some(&Value::Bool(true));
    vec![
        ("spec.nodeName", text("/spec/nodeName")),
        ("spec.restartPolicy", text("/spec/restartPolicy")),
        ("spec.schedulerName", text("/spec/schedulerName")),
        ("spec.serviceAccountName", text("/spec/serviceAccountName")),
        ("spec.hostNetwork", host_network.to_string()),
        ("status.phase", text("/status/phase")),
        ("status.podIP", text("/status/podIP")),
        ("status.podIPs", text("/status/podIP")),
        ("status.nominatedNodeName", text("/status/nominatedNodeName")),
    ]
}

struct Pod;

impl Strategy for Pod {
    fn prepare_create(&self, _context: &Context, new: &mut Value) {
        new["status"] = json!({"phase": "Pending"});
        if !items_at(new, "/spec/schedulingGates").is_empty() {
            new["status"]["conditions"] = json!([{
                "type": "PodScheduled",
                "status": "False",
                "reason": "SchedulingGated",
                "message": "Scheduling is blocked due to non-empty scheduling gates",
                "lastTransitionTime": crate::registry::generic::now_text(),
            }]);
        }
    }

    fn complete_create(&self, new: &mut Value) {
        new["status"]["qosClass"] = qos::class(new).into();
    }

    fn prepare_status(&self, _context: &Context, new: &mut Value, old: &Value) {
        if !new["status"].is_object() {
            new["status"] = json!({});
        }
        if str_at(new, "/status/qosClass").is_empty() {
            new["status"]["qosClass"] = old.pointer("/status/qosClass").cloned().unwrap_or_default();
        }
        let generation = new.pointer("/status/observedGeneration").and_then(Value::as_i64);
        if generation.is_none()
            && let Some(had) = old.pointer("/status/observedGeneration")
        {
            new["status"]["observedGeneration"] = had.clone();
        }
    }

    fn validate(&self, new: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        match new.get("spec") {
            None | Some(Value::Null) => errors.push(FieldError::required("spec", "")),
            Some(spec) => {
                alone::validate_annotations(new, &mut errors);
                pod_spec::validate_pod_spec(spec, "spec", &mut errors);
                alone::validate(new, &mut errors);
            }
        }
        errors
    }

    fn validate_create(&self, new: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        if !items_at(new, "/spec/ephemeralContainers").is_empty() {
            errors.push(FieldError::forbidden("spec.ephemeralContainers", "cannot be set on create"));
        }
        if !str_at(new, "/spec/nodeName").is_empty() && !items_at(new, "/spec/schedulingGates").is_empty() {
            let why = "cannot be set until all schedulingGates have been cleared";
            errors.push(FieldError::forbidden("spec.nodeName", why));
        }
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        update::validate(new, old)
    }

    fn validate_status(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        status::validate(new, old)
    }

    /// Pods of no node go at once, and so do those that have ended.
    fn grace(&self, object: &Value, asked: Option<i64>) -> Grace {
        let phase = str_at(object, "/status/phase");
        if str_at(object, "/spec/nodeName").is_empty() || matches!(phase, "Succeeded" | "Failed") {
            return Grace::None;
        }
        let wanted = asked
            .or_else(|| object.pointer("/spec/terminationGracePeriodSeconds").and_then(Value::as_i64))
            .unwrap_or(30);
        Grace::Seconds(if wanted < 0 { 1 } else { wanted })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod() -> Value {
        json!({"spec": {"containers": [{"name": "a", "image": "i:1"}], "restartPolicy": "Always", "dnsPolicy": "ClusterFirst"}})
    }

    #[test]
    fn an_image_may_change_and_a_command_may_not() {
        let old = pod();
        let mut new = pod();
        new["spec"]["containers"][0]["image"] = "i:2".into();
        assert_eq!(Pod.validate_update(&new, &old), vec![]);
        new["spec"]["containers"][0]["command"] = json!(["sh"]);
        assert!(
            Pod.validate_update(&new, &old)[0]
                .to_string()
                .starts_with("spec: Forbidden: pod updates may not change")
        );
    }

    #[test]
    fn tolerations_may_only_be_added() {
        let mut old = pod();
        old["spec"]["tolerations"] = json!([{"key": "a", "operator": "Exists"}]);
        let mut new = old.clone();
        new["spec"]["tolerations"] =
            json!([{"key": "a", "operator": "Exists"}, {"key": "b", "operator": "Exists"}]);
        assert_eq!(Pod.validate_update(&new, &old), vec![]);
        assert_eq!(Pod.validate_update(&old, &new).len(), 1);
    }

    #[test]
    fn an_unscheduled_pod_goes_at_once() {
        let mut p = pod();
        assert_eq!(Pod.grace(&p, None), Grace::None);
        p["spec"]["nodeName"] = "n".into();
        assert_eq!(Pod.grace(&p, None), Grace::Seconds(30));
        assert_eq!(Pod.grace(&p, Some(0)), Grace::Seconds(0));
        p["status"] = json!({"phase": "Failed"});
        assert_eq!(Pod.grace(&p, Some(9)), Grace::None);
    }

    #[test]
    fn every_broken_rule_of_a_pod_is_named() {
        let p = json!({"spec": {"containers": [{"name": "A", "volumeMounts": [{"name": "v", "mountPath": "/x"}]}, {"image": "i"}],
            "restartPolicy": "Sometimes", "dnsPolicy": "ClusterFirst"}});
        let found: Vec<String> = Pod.validate(&p).iter().map(ToString::to_string).collect();
        assert!(found[0].starts_with("spec.containers[0].name: Invalid value: \"A\""), "{found:?}");
        assert!(found.contains(&"spec.containers[0].image: Required value".to_string()));
        assert!(found.contains(&"spec.containers[0].volumeMounts[0].name: Not found: \"v\"".to_string()));
        assert!(found.contains(&"spec.containers[1].name: Required value".to_string()));
        assert!(found.contains(
            &"spec.restartPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"Never\", \"OnFailure\"".to_string()
        ));
    }
}
