//! DaemonSet: one pod a node.

use serde_json::{Value, json};

use crate::error::FieldError;
use crate::registry::context::Context;
use crate::registry::definition::{Declaration, STATUS};
use crate::registry::field_rules::{Check, Fixed, Rule, at, when, within};
use crate::registry::kinds::rules::shapes::{NOT_BELOW_ZERO, at_most_all, is_zero, number_or_percent};
use crate::registry::kinds::rules::workload::{self, Workload};
use crate::registry::strategy::Strategy;
use crate::tables::workloads::DAEMON_SETS;

pub(crate) fn declaration() -> Declaration {
    Declaration::new("apps", "v1", "DaemonSet", "daemonsets")
        .short(&["ds"])
        .categories(&["all"])
        .generation()
        .columns(DAEMON_SETS)
        .subresources(&[STATUS])
        .rules(RULES)
        .fixed(&[Fixed::Field("spec.selector")])
        .strategy(DaemonSet)
}

const WORKLOAD: Workload = Workload { selects: "daemonset", named: "DaemonSet" };

const RULES: &[Rule] = &[
    at("spec.minReadySeconds", NOT_BELOW_ZERO),
    at("spec.revisionHistoryLimit", NOT_BELOW_ZERO),
    at("spec.updateStrategy.type", Check::OneOf(&["OnDelete", "RollingUpdate"])),
    when(
        "spec.updateStrategy.type",
        &["RollingUpdate"],
        &[
            at("spec.updateStrategy.rollingUpdate", Check::Given("")),
            within(
                "spec.updateStrategy.rollingUpdate",
                &[
                    at("maxUnavailable", Check::Judge(number_or_percent)),
                    at("maxSurge", Check::Judge(number_or_percent)),
                    at("maxUnavailable", Check::Judge(at_most_all)),
                    at("maxSurge", Check::Judge(at_most_all)),
                    at("", Check::Judge(one_step)),
                ],
            ),
        ],
    ),
];

/// A node's pod is replaced after it is gone, or before, but one of both.
fn one_step(rolling: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let some = |field: &str| !rolling[field].is_null() && !is_zero(&rolling[field]);
    match (some("maxUnavailable"), some("maxSurge")) {
        (true, true) => errors.push(FieldError::invalid(
            format!("{path}.maxSurge"),
            rolling["maxSurge"].clone(),
            "may not be set when maxUnavailable is non-zero",
        )),
        (false, false) => {
            let why = "cannot be 0 when maxSurge is 0";
            errors.push(FieldError::required(format!("{path}.maxUnavailable"), why));
        }
        _ => {}
    }
}

struct DaemonSet;

impl Strategy for DaemonSet {
    fn prepare_create(&self, _context: &Context, new: &mut Value) {
        new["status"] = json!({
            "currentNumberScheduled": 0, "numberMisscheduled": 0, "desiredNumberScheduled": 0, "numberReady": 0
        });
    }

    fn validate(&self, new: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        workload::validate(&new["spec"], &new["spec"]["template"], &WORKLOAD, &mut errors);
        errors
    }

    fn validate_status(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        workload::counts(&new["status"], &[], "readyReplicas", &mut errors);
        workload::collisions(new, old, &mut errors);
        errors
    }
}
