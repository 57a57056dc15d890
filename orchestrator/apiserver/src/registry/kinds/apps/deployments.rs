//! Deployment: replicas of a template, replaced by rolling.

use serde_json::Value;

use crate::error::FieldError;
use crate::registry::definition::{Declaration, SCALE, STATUS};
use crate::registry::field_rules::{Check, Fixed, Rule, at, when, within};
use crate::registry::kinds::rules::shapes::{NOT_BELOW_ZERO, at_most_all, is_zero, number_or_percent};
use crate::registry::kinds::rules::workload::{self, Workload};
use crate::registry::strategy::Strategy;
use crate::tables::workloads::DEPLOYMENTS;

pub(crate) fn declaration() -> Declaration {
    Declaration::new("apps", "v1", "Deployment", "deployments")
        .short(&["deploy"])
        .categories(&["all"])
        .generation()
        .columns(DEPLOYMENTS)
        .subresources(&[SCALE, STATUS])
        .rules(RULES)
        .fixed(&[Fixed::Field("spec.selector")])
        .strategy(Deployment)
}

const WORKLOAD: Workload = Workload { selects: "deployment", named: "ReplicaSet" };

const RULES: &[Rule] = &[
    at("spec.replicas", NOT_BELOW_ZERO),
    at("spec.minReadySeconds", NOT_BELOW_ZERO),
    at("spec.revisionHistoryLimit", NOT_BELOW_ZERO),
    at("spec.progressDeadlineSeconds", NOT_BELOW_ZERO),
    at("spec.strategy", Check::Required("")),
    at("spec.strategy.type", Check::OneOf(&["Recreate", "RollingUpdate"])),
    when(
        "spec.strategy.type",
        &["Recreate"],
        &[at(
            "spec.strategy.rollingUpdate",
            Check::Forbidden("may not be specified when strategy `type` is 'Recreate'"),
        )],
    ),
    when(
        "spec.strategy.type",
        &["RollingUpdate"],
        &[within(
            "spec.strategy.rollingUpdate",
            &[
                at("maxUnavailable", Check::Judge(number_or_percent)),
                at("maxSurge", Check::Judge(number_or_percent)),
                at("", Check::Judge(some_step)),
                at("maxUnavailable", Check::Judge(at_most_all)),
            ],
        )],
    ),
    at("spec", Check::Judge(deadline)),
];

fn some_step(rolling: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let nothing = |field: &str| is_zero(&rolling[field]);
    if nothing("maxSurge") && nothing("maxUnavailable") {
        errors.push(FieldError::invalid(
            format!("{path}.maxUnavailable"),
            rolling["maxUnavailable"].clone(),
            "may not be 0 when `maxSurge` is 0",
        ));
    }
}

fn deadline(spec: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let ready = spec["minReadySeconds"].as_i64().unwrap_or(0);
    if let Some(deadline) = spec["progressDeadlineSeconds"].as_i64()
        && deadline <= ready
    {
        let why = "must be greater than minReadySeconds";
        errors.push(FieldError::invalid(format!("{path}.progressDeadlineSeconds"), deadline, why));
    }
}

struct Deployment;

impl Strategy for Deployment {
    fn validate(&self, new: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        workload::validate(&new["spec"], &new["spec"]["template"], &WORKLOAD, &mut errors);
        errors
    }

    fn validate_status(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let parts = ["updatedReplicas", "readyReplicas", "availableReplicas"];
        workload::counts(&new["status"], &parts, "readyReplicas", &mut errors);
        workload::collisions(new, old, &mut errors);
        errors
    }
}
