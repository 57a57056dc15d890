//! ResourceClaimTemplate: the claim each pod that names it gets.

use serde_json::Value;

use super::claims;
use crate::error::FieldError;
use crate::registry::definition::Declaration;
use crate::registry::field_rules::{Check, Fixed, Rule, at};
use crate::registry::meta;

pub(crate) fn declaration() -> Declaration {
    Declaration::new("resource.k8s.io", "v1", "ResourceClaimTemplate", "resourceclaimtemplates")
        .rules(RULES)
        .fixed(&[Fixed::Field("spec")])
}

const RULES: &[Rule] = &[at("spec", Check::Judge(template))];

fn template(template: &Value, path: &str, errors: &mut Vec<FieldError>) {
    meta::validate_template(template, &format!("{path}.metadata"), errors);
    claims::validate_spec(&template["spec"], &format!("{path}.spec"), errors);
}
