//! Ingress: which Service answers for a host and path.

use serde_json::Value;

use crate::error::FieldError;
use crate::registry::definition::{Declaration, STATUS};
use crate::registry::field_rules::{self, Check, Rule, at, when, within};
use crate::registry::kinds::rules::addresses;
use crate::registry::kinds::rules::shapes::TYPED_REFERENCE;
use crate::registry::meta::names;
use crate::registry::object::{items_at, str_at};
use crate::registry::strategy::Strategy;
use crate::tables::network::INGRESSES;

pub(crate) fn declaration() -> Declaration {
    Declaration::new("networking.k8s.io", "v1", "Ingress", "ingresses")
        .columns(INGRESSES)
        .short(&["ing"])
        .generation()
        .subresources(&[STATUS])
        .rules(RULES)
        .status_rules(STATUS_RULES)
        .strategy(Ingress)
}

const STATUS_RULES: &[Rule] = &[
    at("status.loadBalancer.ingress[].ip", Check::Name(addresses::ip)),
    at("status.loadBalancer.ingress[].hostname", Check::Judge(plain_host)),
];

const CLASS: &str = "kubernetes.io/ingress.class";
const ABSOLUTE: &str = "must be an absolute path";

const RULES: &[Rule] = &[
    within("spec.defaultBackend", BACKEND),
    at("spec.rules[].host", Check::Judge(host)),
    within(
        "spec.rules[].http",
        &[
            at("paths", Check::Required("")),
            at("paths[].pathType", Check::Given("pathType must be specified")),
            at("paths[].pathType", Check::OneOf(&["Exact", "ImplementationSpecific", "Prefix"])),
            within(
                "paths[]",
                &[
                    when("pathType", &["Exact", "Prefix"], &[at("", Check::Judge(exact_path))]),
                    when("pathType", &["ImplementationSpecific"], &[at("path", Check::Name(absolute))]),
                    at("", Check::Judge(backend_of_path)),
                ],
            ),
        ],
    ),
    at("spec.tls[].hosts[]", Check::Judge(tls_host)),
    at("spec.tls[].secretName", Check::Name(names::subdomain)),
    at("spec.ingressClassName", Check::Text(names::subdomain)),
];

const BACKEND: &[Rule] = &[at("", Check::Judge(backend))];

struct Ingress;

impl Strategy for Ingress {
    fn validate(&self, new: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        if items_at(new, "/spec/rules").is_empty() && new.pointer("/spec/defaultBackend").is_none() {
            let why = "either `defaultBackend` or `rules` must be specified";
            errors.push(FieldError::invalid("spec", Value::Array(Vec::new()), why));
        }
        errors
    }

    fn validate_create(&self, new: &Value) -> Vec<FieldError> {
        let class = new.pointer("/spec/ingressClassName").and_then(Value::as_str);
        let annotated = new["metadata"]["annotations"][CLASS].as_str();
        match (class, annotated) {
            (Some(class), Some(annotated)) if class != annotated => {
                let why = "must match `ingressClassName` when both are specified";
                vec![FieldError::invalid(format!("annotations.{CLASS}"), annotated, why)]
            }
            _ => Vec::new(),
        }
    }
}

fn is_address(text: &str) -> bool {
    text.parse::<std::net::IpAddr>().is_ok()
}

fn host(value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let text = value.as_str().unwrap_or_default();
    if text.is_empty() {
        return;
    }
    if is_address(text) {
        errors.push(FieldError::invalid(path, text, "must be a DNS name, not an IP address"));
    }
    tls_host(value, path, errors);
}

fn tls_host(value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let text = value.as_str().unwrap_or_default();
    let rule = if text.contains('*') { names::wildcard_subdomain } else { names::subdomain };
    if let Some(why) = rule(text) {
        errors.push(FieldError::invalid(path, text, why));
    }
}

fn plain_host(value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let text = value.as_str().unwrap_or_default();
    if text.is_empty() {
        return;
    }
    if let Some(why) = names::subdomain(text) {
        errors.push(FieldError::invalid(path, text, why));
    }
    if is_address(text) {
        errors.push(FieldError::invalid(path, text, "must be a DNS name, not an IP address"));
    }
}

fn absolute(text: &str) -> Option<String> {
    (!text.starts_with('/')).then(|| ABSOLUTE.into())
}

fn exact_path(value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let text = str_at(value, "/path");
    let at = format!("{path}.path");
    if !text.starts_with('/') {
        errors.push(FieldError::invalid(at.as_str(), text, ABSOLUTE));
    }
    for part in ["//", "/./", "/../", "%2f", "%2F"].into_iter().filter(|part| text.contains(part)) {
        errors.push(FieldError::invalid(at.as_str(), text, format!("must not contain '{part}'")));
    }
    for end in ["/..", "/."].into_iter().filter(|end| text.ends_with(end)) {
        errors.push(FieldError::invalid(at.as_str(), text, format!("cannot end with '{end}'")));
    }
}

/// A path without a type has that one error.
fn backend_of_path(value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    if !value["pathType"].is_null() {
        backend(&value["backend"], &format!("{path}.backend"), errors);
    }
}

fn backend(value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    match (value.get("resource"), value.get("service")) {
        (Some(_), Some(_)) => {
            errors.push(FieldError::invalid(path, "", "cannot set both resource and service backends"));
        }
        (Some(resource), None) => {
            field_rules::judge(TYPED_REFERENCE, resource, &format!("{path}.resource"), errors);
        }
        (None, Some(service)) => backend_service(service, path, errors),
        (None, None) => errors.push(FieldError::invalid(path, "", "resource or service backend is required")),
    }
}

fn backend_service(service: &Value, path: &str, errors: &mut Vec<FieldError>) {
    const NAME: &[Rule] = &[at("name", Check::Required("")), at("name", Check::Name(names::label))];
    let at_service = format!("{path}.service");
    field_rules::judge(NAME, service, &at_service, errors);
    let (name, number) = (str_at(service, "/port/name"), service["port"]["number"].as_i64().unwrap_or(0));
    match (name.is_empty(), number == 0) {
        (false, false) => {
            errors.push(FieldError::invalid(path, "", "cannot set both port name & port number"));
        }
        (true, true) => errors.push(FieldError::required(path, "port name or number is required")),
        _ => {
            const PORT: &[Rule] = &[at("port.name", Check::Port), at("port.number", Check::Port)];
            let mut wrong = Vec::new();
            field_rules::judge(PORT, service, &at_service, &mut wrong);
            // The one of the two that is not given counts as absent.
            wrong.retain(|error| {
                !matches!(&error.value, Value::String(it) if it.is_empty()) && error.value != 0
            });
            errors.extend(wrong);
        }
    }
}
