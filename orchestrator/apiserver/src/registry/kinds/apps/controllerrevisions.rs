//! ControllerRevision: a snapshot of a workload template, kept for undo.

use serde_json::Value;

use crate::error::FieldError;
use crate::registry::definition::Declaration;
use crate::registry::field_rules::{Fixed, Rule, at};
use crate::registry::kinds::rules::shapes::NOT_BELOW_ZERO;
use crate::registry::strategy::Strategy;
use crate::tables::core::CONTROLLER_REVISIONS;

pub(crate) fn declaration() -> Declaration {
    Declaration::new("apps", "v1", "ControllerRevision", "controllerrevisions")
        .columns(CONTROLLER_REVISIONS)
        .rules(RULES)
        .fixed(&[Fixed::Field("data")])
        .strategy(ControllerRevision)
}

const RULES: &[Rule] = &[at("revision", NOT_BELOW_ZERO)];

struct ControllerRevision;

impl Strategy for ControllerRevision {
    fn validate_create(&self, new: &Value) -> Vec<FieldError> {
        let why = match &new["data"] {
            Value::Object(_) => return Vec::new(),
            Value::Null => "data is mandatory",
            _ => "data must be a valid JSON object",
        };
        vec![FieldError::required("data", why)]
    }
}
