//! PodTemplate: a pod template stored by itself.

use crate::registry::definition::Declaration;
use crate::registry::field_rules::{Check, Rule, at};
use crate::registry::kinds::rules::pod_spec::validate_pod_template;
use crate::tables::core::POD_TEMPLATES;

pub(crate) fn declaration() -> Declaration {
    Declaration::new("", "v1", "PodTemplate", "podtemplates")
        .columns(POD_TEMPLATES)
        .generation()
        .returns_deleted()
        .rules(RULES)
}

const RULES: &[Rule] = &[at("template", Check::Judge(validate_pod_template))];
