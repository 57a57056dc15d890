//! How evenly pods are spread over topologies.

use std::collections::BTreeSet;

use serde_json::Value;

use super::affinity::label_keys;
use crate::error::FieldError;
use crate::registry::field_rules::{self, Check, Rule, at};
use crate::registry::kinds::rules::labels::validate_selector;
use crate::registry::object::str_at;

const ACTIONS: &[&str] = &["DoNotSchedule", "ScheduleAnyway"];
const POSITIVE: &str = "must be greater than zero";

const CONSTRAINT: &[Rule] = &[
    at("topologyKey", Check::Required("can not be empty")),
    at("nodeAffinityPolicy", Check::OneOf(&["Honor", "Ignore"])),
    at("nodeTaintsPolicy", Check::OneOf(&["Honor", "Ignore"])),
    at("labelSelector", Check::Judge(validate_selector)),
    at("", Check::Judge(label_keys)),
];

pub(super) fn validate(constraints: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let mut seen = BTreeSet::new();
    let list = constraints.as_array().map(Vec::as_slice).unwrap_or_default();
    for (i, constraint) in list.iter().enumerate() {
        let at = format!("{path}[{i}]");
        let skew = constraint["maxSkew"].as_i64().unwrap_or(0);
        if skew <= 0 {
            errors.push(FieldError::invalid(format!("{at}.maxSkew"), skew, POSITIVE));
        }
        let (key, action) = (str_at(constraint, "/topologyKey"), str_at(constraint, "/whenUnsatisfiable"));
        if !ACTIONS.contains(&action) {
            errors.push(FieldError::not_supported(format!("{at}.whenUnsatisfiable"), action, ACTIONS));
        }
        if !seen.insert((key, action)) {
            let path = format!("{at}.{{topologyKey, whenUnsatisfiable}}");
            errors.push(FieldError::duplicate(path, format!("{{{key}, {action}}}")));
        }
        if let Some(domains) = constraint["minDomains"].as_i64() {
            let at = format!("{at}.minDomains");
            if domains <= 0 {
                errors.push(FieldError::invalid(at.as_str(), domains, POSITIVE));
            }
            if action != "DoNotSchedule" {
                let why = format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}");
                errors.push(FieldError::invalid(at, domains, why));
            }
        }
        field_rules::judge(CONSTRAINT, constraint, &at, errors);
    }
}
