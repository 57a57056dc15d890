//! PodDisruptionBudget: how many pods of a set may be evicted at a time.

use serde_json::Value;

use crate::error::FieldError;
use crate::registry::definition::{Declaration, STATUS};
use crate::registry::field_rules::{Check, Rule, at, within};
use crate::registry::kinds::rules::labels::validate_selector;
use crate::registry::kinds::rules::shapes::{CONDITIONS, NOT_BELOW_ZERO, at_most_all, number_or_percent};
use crate::tables::workloads::DISRUPTION_BUDGETS;

pub(crate) fn declaration() -> Declaration {
    Declaration::new("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets")
        .columns(DISRUPTION_BUDGETS)
        .short(&["pdb"])
        .generation()
        .subresources(&[STATUS])
        .rules(RULES)
        .status_rules(STATUS_RULES)
}

const STATUS_RULES: &[Rule] = &[
    within("status.conditions", CONDITIONS),
    at("status.disruptionsAllowed", NOT_BELOW_ZERO),
    at("status.currentHealthy", NOT_BELOW_ZERO),
    at("status.desiredHealthy", NOT_BELOW_ZERO),
    at("status.expectedPods", NOT_BELOW_ZERO),
];

const RULES: &[Rule] = &[
    at("spec", Check::Judge(one_bound)),
    at("spec.minAvailable", Check::Judge(number_or_percent)),
    at("spec.minAvailable", Check::Judge(at_most_all)),
    at("spec.maxUnavailable", Check::Judge(number_or_percent)),
    at("spec.maxUnavailable", Check::Judge(at_most_all)),
    at("spec.selector", Check::Judge(validate_selector)),
    at("spec.unhealthyPodEvictionPolicy", Check::OneOf(&["AlwaysAllow", "IfHealthyBudget"])),
];

fn one_bound(spec: &Value, path: &str, errors: &mut Vec<FieldError>) {
    if !spec["minAvailable"].is_null() && !spec["maxUnavailable"].is_null() {
        let why = "minAvailable and maxUnavailable cannot be both set";
        errors.push(FieldError::invalid(path, spec.clone(), why));
    }
}
