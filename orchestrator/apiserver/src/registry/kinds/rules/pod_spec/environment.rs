//! Environment variables of a container: named, and from one source each.

use serde_json::Value;

use super::downward;
use crate::error::FieldError;
use crate::registry::field_rules::{self, Check, Rule, at, within};
use crate::registry::kinds::rules::paths::no_backsteps;
use crate::registry::meta::names;
use crate::registry::object::items_at;

const SOURCES: &[&str] = &["fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef"];

const VARIABLE: &[Rule] = &[
    at("name", Check::Required("")),
    at("name", Check::Name(names::env_name)),
    within(
        "valueFrom",
        &[
            within(
                "fieldRef",
                &[at(
                    "",
                    Check::Judge(|it, path, errors| {
                        downward::field(it, downward::OF_ENVIRONMENT, path, errors)
                    }),
                )],
            ),
            within(
                "resourceFieldRef",
                &[at("", Check::Judge(|it, path, errors| downward::resource(it, false, path, errors)))],
            ),
            within("configMapKeyRef", KEY),
            within("secretKeyRef", KEY),
            within(
                "fileKeyRef",
                &[
                    at("key", Check::Required("")),
                    at("key", Check::Name(names::env_name)),
                    at("volumeName", Check::Required("")),
                    at("volumeName", Check::Name(names::label)),
                    at("path", Check::Required("")),
                    at("path", Check::Judge(no_backsteps)),
                ],
            ),
        ],
    ),
    at("", Check::Judge(one_source)),
];

const KEY: &[Rule] = &[
    at("name", Check::Name(names::subdomain)),
    at("key", Check::Required("")),
    at("key", Check::Name(names::config_key)),
];

const NAMED: &[Rule] = &[at("name", Check::Required("")), at("name", Check::Name(names::subdomain))];

const IMPORT: &[Rule] =
    &[at("prefix", Check::Name(names::env_name)), within("configMapRef", NAMED), within("secretRef", NAMED)];

pub(super) fn validate(container: &Value, path: &str, errors: &mut Vec<FieldError>) {
    for (i, variable) in items_at(container, "/env").iter().enumerate() {
        field_rules::judge(VARIABLE, variable, &format!("{path}.env[{i}]"), errors);
    }
    for (i, import) in items_at(container, "/envFrom").iter().enumerate() {
        field_rules::judge(IMPORT, import, &format!("{path}.envFrom[{i}]"), errors);
        let given = ["configMapRef", "secretRef"].iter().filter(|field| !import[**field].is_null()).count();
        let why = match given {
            0 => "must specify one of: `configMapRef` or `secretRef`",
            1 => continue,
            _ => "may not have more than one field specified at a time",
        };
        errors.push(FieldError::invalid(format!("{path}.envFrom"), "", why));
    }
}

fn one_source(variable: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let source = &variable["valueFrom"];
    if source.is_null() {
        return;
    }
    let given = SOURCES.iter().filter(|field| !source[**field].is_null()).count();
    let why = if given == 0 {
        "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`"
    } else if variable["value"].as_str().is_some_and(|text| !text.is_empty()) {
        "may not be specified when `value` is not empty"
    } else if given > 1 {
        "may not have more than one field specified at a time"
    } else {
        return;
    };
    errors.push(FieldError::invalid(format!("{path}.valueFrom"), "", why));
}
