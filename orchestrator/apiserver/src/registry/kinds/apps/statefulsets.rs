//! StatefulSet: pods with a number, each with its own storage.

use serde_json::{Value, json};

use crate::error::FieldError;
use crate::registry::context::Context;
use crate::registry::definition::{Declaration, SCALE, STATUS};
use crate::registry::field_rules::{Check, Rule, at, is_same, when, within};
use crate::registry::kinds::core::persistentvolumeclaims;
use crate::registry::kinds::rules::shapes::{NOT_BELOW_ZERO, at_most_all, is_zero, number_or_percent};
use crate::registry::kinds::rules::workload::{self, Workload};
use crate::registry::meta::{NameRule, names};
use crate::registry::object::{items_at, meta_str};
use crate::registry::strategy::Strategy;
use crate::tables::workloads::STATEFUL_SETS;

pub(crate) fn declaration() -> Declaration {
    Declaration::new("apps", "v1", "StatefulSet", "statefulsets")
        .short(&["sts"])
        .categories(&["all"])
        .generation()
        .columns(STATEFUL_SETS)
        .subresources(&[SCALE, STATUS])
        .rules(RULES)
        .name_rule(NameRule::Label)
        .strategy(StatefulSet)
}

const WORKLOAD: Workload = Workload { selects: "statefulset", named: "StatefulSet" };

const RULES: &[Rule] = &[
    at("spec.podManagementPolicy", Check::Name(management)),
    at("spec.updateStrategy", Check::Judge(update_strategy)),
    when(
        "spec.updateStrategy.type",
        &["RollingUpdate"],
        &[within(
            "spec.updateStrategy.rollingUpdate",
            &[
                at("partition", NOT_BELOW_ZERO),
                at("maxUnavailable", Check::Judge(number_or_percent)),
                at("maxUnavailable", Check::Judge(not_nothing)),
                at("maxUnavailable", Check::Judge(at_most_all)),
            ],
        )],
    ),
    within(
        "spec.persistentVolumeClaimRetentionPolicy",
        &[
            at("whenDeleted", Check::OneOf(&["Delete", "Retain"])),
            at("whenScaled", Check::OneOf(&["Delete", "Retain"])),
        ],
    ),
    at("spec.volumeClaimTemplates[].spec", Check::Judge(persistentvolumeclaims::validate_spec)),
    at("spec.replicas", NOT_BELOW_ZERO),
    at("spec.minReadySeconds", NOT_BELOW_ZERO),
    at("spec.ordinals.start", NOT_BELOW_ZERO),
    at("spec.serviceName", Check::Name(names::label)),
];

fn management(policy: &str) -> Option<String> {
    (!["OrderedReady", "Parallel"].contains(&policy)).then(|| "must be 'OrderedReady' or 'Parallel'".into())
}

fn not_nothing(value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    if is_zero(value) {
        errors.push(FieldError::invalid(path, value.clone(), "cannot be 0"));
    }
}

fn update_strategy(strategy: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let rolling = &strategy["rollingUpdate"];
    match strategy["type"].as_str().unwrap_or_default() {
        "" | "RollingUpdate" => {}
        "OnDelete" => {
            if !rolling.is_null() {
                let why = "only allowed for updateStrategy 'RollingUpdate'";
                errors.push(FieldError::invalid(format!("{path}.rollingUpdate"), rolling.clone(), why));
            }
        }
        _ => {
            errors.push(FieldError::invalid(path, strategy.clone(), "must be 'RollingUpdate' or 'OnDelete'"))
        }
    }
}

struct StatefulSet;

const MUTABLE: [&str; 7] = [
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
];

impl Strategy for StatefulSet {
    fn prepare_create(&self, _context: &Context, new: &mut Value) {
        new["status"] = json!({"replicas": 0});
    }

    fn validate(&self, new: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        workload::validate(&new["spec"], &with_claims(&new["spec"]), &WORKLOAD, &mut errors);
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let fixed = |v: &Value| {
            let mut spec = v.get("spec").and_then(Value::as_object).cloned().unwrap_or_default();
            spec.retain(|k, _| !MUTABLE.contains(&k.as_str()));
            Value::Object(spec)
        };
        if is_same(&fixed(new), &fixed(old)) {
            return Vec::new();
        }
        vec![FieldError::forbidden(
            "spec",
            "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden",
        )]
    }

    fn validate_status(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let parts = ["readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas"];
        workload::counts(&new["status"], &parts, "status.readyReplicas", &mut errors);
        workload::collisions(new, old, &mut errors);
        errors
    }
}

/// The template as its pods will be: the set names them, and each claim template is a volume that goes before the
/// template's own of that name.
fn with_claims(spec: &Value) -> Value {
    let mut template = spec["template"].clone();
    let Some(pod) = template.get_mut("spec").and_then(Value::as_object_mut) else { return template };
    pod.remove("hostname");
    pod.remove("subdomain");
    let names: Vec<&str> =
        items_at(spec, "/volumeClaimTemplates").iter().map(|claim| meta_str(claim, "name")).collect();
    if names.is_empty() {
        return template;
    }
    let of_claim = |name: &&str| json!({"name": name, "persistentVolumeClaim": {"claimName": name}});
    let mut volumes: Vec<Value> = names.iter().map(of_claim).collect();
    let own = pod.get("volumes").and_then(Value::as_array).cloned().unwrap_or_default();
    volumes.extend(own.into_iter().filter(|it| !names.iter().any(|name| it["name"] == *name)));
    pod.insert("volumes".into(), volumes.into());
    template
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claim_templates_are_volumes_of_the_pods() {
        let spec = json!({"volumeClaimTemplates": [{"metadata": {"name": "data"}}], "template": {"spec": {
            "hostname": "H_", "volumes": [{"name": "data", "emptyDir": {}}, {"name": "other", "emptyDir": {}}]}}});
        let found = with_claims(&spec);
        assert_eq!(found["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"], "data");
        assert_eq!(found["spec"]["volumes"].as_array().unwrap().len(), 2);
        assert!(found["spec"].get("hostname").is_none());
    }
}
