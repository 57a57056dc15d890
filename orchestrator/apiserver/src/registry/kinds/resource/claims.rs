//! What a claim for devices asks for, as a claim has it and as a template keeps it.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::error::FieldError;
use crate::registry::field_rules::{self, Check, Rule, at, when, within};
use crate::registry::meta::names;
use crate::registry::object::{items_at, str_at};

/// Upstream's bounds (pkg/apis/resource/types.go).
const REQUESTS_MAX: usize = 32;
const CONSTRAINTS_MAX: usize = 32;
const CONFIGS_MAX: usize = 32;
const SELECTORS_MAX: usize = 32;
const ALTERNATIVES_MAX: usize = 8;
const EXPRESSION_BYTES_MAX: usize = 10 * 1024;
const PARAMETERS_BYTES_MAX: usize = 10 * 1024;
pub(super) const ID_BYTES_MAX: usize = 32;
const POOL_BYTES_MAX: usize = 253;

/// The list of selectors of a class or a request.
pub(super) const SELECTORS: &[Rule] = &[
    at("selectors", Check::ItemsMax(SELECTORS_MAX)),
    at("selectors[].cel", Check::Given("")),
    at("selectors[].cel.expression", Check::BytesMax(EXPRESSION_BYTES_MAX)),
];

/// Configuration for a driver.
pub(super) const CONFIG: &[Rule] = &[
    at("opaque", Check::Given("")),
    within(
        "opaque",
        &[
            at("driver", Check::Required("")),
            at("driver", Check::Name(names::csi_driver)),
            at("parameters", Check::Judge(parameters)),
        ],
    ),
];

pub(super) const CONFIGS: &[Rule] = &[at("config", Check::ItemsMax(CONFIGS_MAX)), within("config[]", CONFIG)];

const CLAIM: &[Rule] = &[
    at("requests", Check::ItemsMax(REQUESTS_MAX)),
    at("requests", Check::Judge(unique_names)),
    within(
        "requests[]",
        &[
            at("name", Check::Required("")),
            at("name", Check::Name(names::label)),
            at("", Check::Judge(one_way)),
            within("exactly", REQUEST),
            at("firstAvailable", Check::ItemsMax(ALTERNATIVES_MAX)),
            at("firstAvailable", Check::Judge(unique_names)),
            within(
                "firstAvailable[]",
                &[at("name", Check::Required("")), at("name", Check::Name(names::label))],
            ),
            within("firstAvailable[]", REQUEST),
        ],
    ),
    at("constraints", Check::ItemsMax(CONSTRAINTS_MAX)),
    at("constraints[].matchAttribute", Check::Judge(full_name)),
    at("constraints[].distinctAttribute", Check::Judge(full_name)),
    at("constraints[]", Check::Judge(one_attribute)),
    at("", Check::Judge(references)),
];

const REQUEST: &[Rule] = &[
    at("deviceClassName", Check::Required("")),
    at("deviceClassName", Check::Name(names::subdomain)),
    within("", SELECTORS),
    at("", Check::Judge(amount)),
    within("tolerations[]", TOLERATION),
];

const EFFECTS: &[&str] = &["NoExecute", "NoSchedule", "None"];

const TOLERATION: &[Rule] = &[
    at("key", Check::Name(names::qualified_name)),
    at("operator", Check::OneOf(&["Equal", "Exists"])),
    when(
        "operator",
        &["Exists"],
        &[at("value", Check::Name(|_| Some("must be empty for operator `Exists`".into())))],
    ),
    when("operator", &["Equal"], &[at("value", Check::Text(names::label_value))]),
    at("effect", Check::OneOf(EFFECTS)),
];

/// A taint of a device.
pub(super) const TAINT: &[Rule] = &[
    at("key", Check::Required("")),
    at("key", Check::Name(names::qualified_name)),
    at("value", Check::Name(names::label_value)),
    at("effect", Check::Required("")),
    at("effect", Check::OneOf(EFFECTS)),
];

/// `spec` of a claim at `path`.
pub(super) fn validate_spec(spec: &Value, path: &str, errors: &mut Vec<FieldError>) {
    field_rules::judge(CLAIM, &spec["devices"], &format!("{path}.devices"), errors);
    for (i, config) in items_at(spec, "/devices/config").iter().enumerate() {
        field_rules::judge(CONFIG, config, &format!("{path}.devices.config[{i}]"), errors);
    }
    let configs = items_at(spec, "/devices/config").len();
    if configs > CONFIGS_MAX {
        errors.push(FieldError::too_many(format!("{path}.devices.config"), configs, CONFIGS_MAX));
    }
}

fn unique_names(list: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let mut seen = BTreeSet::new();
    for (i, item) in list.as_array().into_iter().flatten().enumerate() {
        if !seen.insert(str_at(item, "/name")) {
            errors.push(FieldError::duplicate(format!("{path}[{i}]"), str_at(item, "/name")));
        }
    }
}

fn one_way(request: &Value, path: &str, errors: &mut Vec<FieldError>) {
    match (request["exactly"].is_null(), items_at(request, "/firstAvailable").is_empty()) {
        (true, true) => {
            let why = "exactly one of `exactly` or `firstAvailable` is required";
            errors.push(FieldError::required(path, why));
        }
        (false, false) => {
            let why = "exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set";
            errors.push(FieldError::invalid(path, Value::Null, why));
        }
        _ => {}
    }
}

fn amount(request: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let count = request["count"].as_i64();
    match request["allocationMode"].as_str().unwrap_or_default() {
        "All" => {
            if let Some(count) = count.filter(|n| *n != 0) {
                let why = "must not be specified when allocationMode is 'All'";
                errors.push(FieldError::invalid(format!("{path}.count"), count, why));
            }
        }
        "" | "ExactCount" => {
            if let Some(count) = count.filter(|n| *n <= 0) {
                errors.push(FieldError::invalid(format!("{path}.count"), count, "must be greater than zero"));
            }
        }
        other => {
            let allowed = ["All", "ExactCount"];
            errors.push(FieldError::not_supported(format!("{path}.allocationMode"), other, &allowed));
        }
    }
}

fn one_attribute(constraint: &Value, path: &str, errors: &mut Vec<FieldError>) {
    if constraint["matchAttribute"].is_null() && constraint["distinctAttribute"].is_null() {
        let why = "exactly one of \"matchAttribute\" or \"distinctAttribute\" is required, but multiple fields are set";
        errors.push(FieldError::required(path, why));
    }
}

/// What constraints and configuration are for are requests of the claim, or parts of one.
fn references(claim: &Value, path: &str, errors: &mut Vec<FieldError>) {
    const WHY: &str = "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";
    for list in ["constraints", "config"] {
        for (i, item) in items_at(claim, &format!("/{list}")).iter().enumerate() {
            let mut seen = BTreeSet::new();
            for (j, name) in items_at(item, "/requests").iter().enumerate() {
                let (at, name) =
                    (format!("{path}.{list}[{i}].requests[{j}]"), name.as_str().unwrap_or_default());
                if !is_request(claim, name) {
                    errors.push(FieldError::invalid(at.as_str(), name, WHY));
                }
                if !seen.insert(name) {
                    errors.push(FieldError::duplicate(at, name));
                }
            }
        }
    }
}

/// Whether the claim has a request, or a part of one (`request/part`), of that name.
pub(super) fn is_request(claim: &Value, name: &str) -> bool {
    let (request, part) = name.split_once('/').map_or((name, None), |(request, part)| (request, Some(part)));
    let found = items_at(claim, "/requests").iter().find(|it| it["name"] == request);
    found.is_some_and(|found| {
        part.is_none_or(|part| items_at(found, "/firstAvailable").iter().any(|it| it["name"] == part))
    })
}

fn parameters(value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    match value {
        Value::Null => errors.push(FieldError::required(path, "")),
        Value::Object(_) if value.to_string().len() > PARAMETERS_BYTES_MAX => {
            errors.push(FieldError::too_long(path, PARAMETERS_BYTES_MAX));
        }
        Value::Object(_) => {}
        _ => errors.push(FieldError::invalid(path, "<value omitted>", "must be a valid JSON object")),
    }
}

/// A name a driver gave something, with its domain or without.
pub(super) fn name_errors(name: &str, path: &str, errors: &mut Vec<FieldError>) {
    let (domain, id) = name.split_once('/').map_or((None, name), |(domain, id)| (Some(domain), id));
    match domain {
        Some("") => errors.push(FieldError::invalid(path, "", "the domain must not be empty")),
        Some(domain) => {
            if let Some(why) = names::csi_driver(domain) {
                errors.push(FieldError::invalid(path, domain, why));
            }
        }
        None => {}
    }
    if id.is_empty() && domain.is_some() {
        errors.push(FieldError::invalid(path, "", "the name must not be empty"));
        return;
    }
    if id.len() > ID_BYTES_MAX {
        errors.push(FieldError::too_long(path, ID_BYTES_MAX));
    }
    let starts = id.bytes().next().is_some_and(|c| c.is_ascii_alphabetic() || c == b'_');
    if !starts || !id.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_') {
        let why = "a valid C identifier must start with alphabetic character or '_', followed by a string of alphanumeric characters or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName', regex used for validation is '[A-Za-z_][A-Za-z0-9_]*')";
        errors.push(FieldError::invalid(path, id, why));
    }
}

fn full_name(value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let Some(name) = value.as_str() else { return };
    name_errors(name, path, errors);
    if !name.contains('/') {
        let why = "a fully qualified name must be a domain and a name separated by a slash";
        errors.push(FieldError::invalid(path, name, why));
    }
}

/// The name of a pool: subdomains with slashes between.
pub(super) fn pool(name: &str) -> Option<String> {
    if name.len() > POOL_BYTES_MAX {
        return Some(format!("must be no more than {POOL_BYTES_MAX} bytes"));
    }
    name.split('/').find_map(names::subdomain)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(devices: Value) -> Vec<String> {
        let mut errors = Vec::new();
        validate_spec(&json!({"devices": devices}), "spec", &mut errors);
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_claim_says_of_what_class_and_how_many() {
        let good = json!({
            "requests": [
                {"name": "a", "exactly": {"deviceClassName": "gpu.example.com", "allocationMode": "ExactCount", "count": 2}},
                {"name": "b", "firstAvailable": [{"name": "big", "deviceClassName": "x", "allocationMode": "All"}]}],
            "constraints": [{"requests": ["a", "b/big"], "matchAttribute": "example.com/numa"}],
            "config": [{"requests": ["a"], "opaque": {"driver": "example.com", "parameters": {}}}]});
        assert_eq!(told(good), Vec::<String>::new());
        let bad = json!({
            "requests": [{"name": "a"}, {"name": "a", "exactly": {"count": 0}}],
            "constraints": [{"requests": ["c"], "matchAttribute": "numa"}],
            "config": [{"opaque": {"driver": "example.com"}}]});
        let found = told(bad);
        for start in [
            "spec.devices.requests[1]: Duplicate value: \"a\"",
            "spec.devices.requests[0]: Required value: exactly one of",
            "spec.devices.requests[1].exactly.deviceClassName: Required value",
            "spec.devices.requests[1].exactly.count: Invalid value: 0: must be greater than zero",
            "spec.devices.constraints[0].matchAttribute: Invalid value: \"numa\": a fully qualified name",
            "spec.devices.constraints[0].requests[0]: Invalid value: \"c\": must be the name of a request",
            "spec.devices.config[0].opaque.parameters: Required value",
        ] {
            assert!(found.iter().any(|it| it.starts_with(start)), "{start}: {found:?}");
        }
        assert_eq!(found.len(), 7, "{found:?}");
    }
}
