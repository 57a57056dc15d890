//! Taints of nodes.

use std::collections::BTreeSet;

use serde_json::Value;

use super::pod_spec::tolerations::EFFECTS;
use crate::error::FieldError;
use crate::registry::field_rules::{self, Check, Rule, at};
use crate::registry::meta::names;
use crate::registry::object::str_at;

const TAINT: &[Rule] = &[
    at("key", Check::Text(names::qualified_name)),
    at("value", Check::Name(names::label_value)),
    at("effect", Check::Required("")),
    at("effect", Check::OneOf(EFFECTS)),
];

pub(crate) fn validate(taints: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let mut seen = BTreeSet::new();
    for (i, taint) in taints.as_array().into_iter().flatten().enumerate() {
        let at = format!("{path}[{i}]");
        field_rules::judge(TAINT, taint, &at, errors);
        if !seen.insert((str_at(taint, "/effect"), str_at(taint, "/key"))) {
            let mut error = FieldError::duplicate(at, taint.clone());
            error.detail = "taints must be unique by key and effect pair".into();
            errors.push(error);
        }
    }
}
