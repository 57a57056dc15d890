//! What both kinds of webhook configurations must keep to.

use async_trait::async_trait;
use serde_json::Value;

use crate::admission::webhooks::conditions;
use crate::error::FieldError;
use crate::registry::kinds::rules::client_config;
use crate::registry::kinds::rules::labels::validate_selector;
use crate::registry::meta::names;
use crate::registry::object::{items_at, str_at};
use crate::registry::strategy::Strategy;

/// Versions of AdmissionReview this server speaks.
const REVIEW_VERSIONS: [&str; 2] = ["v1", "v1beta1"];
const NO_SIDE_EFFECTS: [&str; 2] = ["None", "NoneOnDryRun"];
const OPERATIONS: [&str; 5] = ["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];

/// The strategy of a webhook configuration.
pub(super) struct WebhookConfiguration;

#[async_trait]
impl Strategy for WebhookConfiguration {
    fn validate(&self, new: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let mut seen = Vec::new();
        for (i, webhook) in items_at(new, "/webhooks").iter().enumerate() {
            let path = format!("webhooks[{i}]");
            validate_webhook(webhook, &path, &mut errors);
            validate_versions(webhook, &format!("{path}.admissionReviewVersions"), &mut errors);
            let name = str_at(webhook, "/name");
            if !name.is_empty() && seen.contains(&name) {
                errors.push(FieldError::duplicate(format!("{path}.name"), name));
            }
            seen.push(name);
        }
        errors
    }
}

fn validate_webhook(webhook: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let name = str_at(webhook, "/name");
    if name.is_empty() {
        errors.push(FieldError::required(format!("{path}.name"), ""));
    } else if let Some(why) = names::subdomain(name) {
        errors.push(FieldError::invalid(format!("{path}.name"), name, why));
    } else if name.split('.').count() < 3 {
        let why = "should be a domain with at least three segments separated by dots";
        errors.push(FieldError::invalid(format!("{path}.name"), name, why));
    }
    for (i, rule) in items_at(webhook, "/rules").iter().enumerate() {
        validate_rule(rule, &format!("{path}.rules[{i}]"), errors);
    }
    one_of(webhook, path, "failurePolicy", &["Fail", "Ignore"], errors);
    one_of(webhook, path, "matchPolicy", &["Equivalent", "Exact"], errors);
    if webhook.get("sideEffects").is_none_or(Value::is_null) {
        let why = format!("must specify one of {}", NO_SIDE_EFFECTS.join(", "));
        errors.push(FieldError::required(format!("{path}.sideEffects"), why));
    }
    one_of(webhook, path, "sideEffects", &NO_SIDE_EFFECTS, errors);
    if let Some(seconds) = webhook["timeoutSeconds"].as_i64()
        && !(1..=30).contains(&seconds)
    {
        let why = "the timeout value must be between 1 and 30 seconds";
        errors.push(FieldError::invalid(format!("{path}.timeoutSeconds"), seconds, why));
    }
    for field in ["namespaceSelector", "objectSelector"] {
        if let Some(selector) = webhook.get(field).filter(|selector| selector.is_object()) {
            validate_selector(selector, &format!("{path}.{field}"), errors);
        }
    }
    one_of(webhook, path, "reinvocationPolicy", &["IfNeeded", "Never"], errors);
    client_config::validate(&webhook["clientConfig"], &format!("{path}.clientConfig"), errors);
    conditions::validate(webhook, &format!("{path}.matchConditions"), errors);
}

fn one_of(object: &Value, path: &str, field: &str, allowed: &[&str], errors: &mut Vec<FieldError>) {
    if let Some(said) = object[field].as_str()
        && !allowed.contains(&said)
    {
        errors.push(FieldError::not_supported(format!("{path}.{field}"), said, allowed));
    }
}

fn validate_versions(webhook: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let versions = items_at(webhook, "/admissionReviewVersions");
    if versions.is_empty() {
        let why = format!("must specify one of {}", REVIEW_VERSIONS.join(", "));
        errors.push(FieldError::required(path, why));
        return;
    }
    for (i, version) in versions.iter().enumerate() {
        if versions[..i].contains(version) {
            errors.push(FieldError::invalid(format!("{path}[{i}]"), version.clone(), "duplicate version"));
        } else if let Some(why) = names::label_1035(version.as_str().unwrap_or_default()) {
            errors.push(FieldError::invalid(format!("{path}[{i}]"), version.clone(), why));
        }
    }
    if !versions.iter().any(|version| REVIEW_VERSIONS.iter().any(|known| version == known)) {
        let why = format!("must include at least one of {}", REVIEW_VERSIONS.join(", "));
        errors.push(FieldError::invalid(path, versions.to_vec(), why));
    }
}

fn validate_rule(rule: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let list = |field: &str, what: &str, errors: &mut Vec<FieldError>| {
        let at = format!("{path}.{field}");
        let items = items_at(rule, &format!("/{field}"));
        if items.is_empty() {
            errors.push(FieldError::required(at.as_str(), ""));
        }
        if items.len() > 1 && items.iter().any(|item| item == "*") {
            let why = format!("if '*' is present, must not specify other {what}");
            errors.push(FieldError::invalid(at, items.to_vec(), why));
        }
    };
    list("operations", "operations", errors);
    for (i, operation) in items_at(rule, "/operations").iter().enumerate() {
        let said = operation.as_str().unwrap_or_default();
        if !OPERATIONS.contains(&said) {
            errors.push(FieldError::not_supported(format!("{path}.operations[{i}]"), said, &OPERATIONS));
        }
    }
    list("apiGroups", "API groups", errors);
    list("apiVersions", "API versions", errors);
    for (i, version) in items_at(rule, "/apiVersions").iter().enumerate() {
        if version == "" {
            errors.push(FieldError::required(format!("{path}.apiVersions[{i}]"), ""));
        }
    }
    validate_resources(items_at(rule, "/resources"), &format!("{path}.resources"), errors);
    one_of(rule, path, "scope", &["*", "Cluster", "Namespaced"], errors);
}

fn validate_resources(resources: &[Value], path: &str, errors: &mut Vec<FieldError>) {
    if resources.is_empty() {
        errors.push(FieldError::required(path, ""));
    }
    let (mut whole, mut everywhere) = (Vec::new(), Vec::new());
    for (i, resource) in resources.iter().enumerate() {
        let text = resource.as_str().unwrap_or_default();
        let at = format!("{path}[{i}]");
        if text.is_empty() {
            errors.push(FieldError::required(at, ""));
            continue;
        }
        let Some((name, subresource)) = text.split_once('/') else { continue };
        if whole.contains(&name) {
            let why = format!("if '{name}/*' is present, must not specify {text}");
            errors.push(FieldError::invalid(at.as_str(), text, why));
        }
        if everywhere.contains(&subresource) {
            let why = format!("if '*/{subresource}' is present, must not specify {text}");
            errors.push(FieldError::invalid(at, text, why));
        }
        if subresource == "*" {
            whole.push(name);
        }
        if name == "*" {
            everywhere.push(subresource);
        }
    }
    if resources.len() > 1 && resources.iter().any(|r| r == "*/*") {
        let why = "if '*/*' is present, must not specify other resources";
        errors.push(FieldError::invalid(path, resources.to_vec(), why));
    }
    let is_plain = |r: &Value| r.as_str().is_some_and(|r| r != "*" && !r.contains('/'));
    if resources.iter().any(|r| r == "*") && resources.iter().any(is_plain) {
        let why = "if '*' is present, must not specify other resources without subresources";
        errors.push(FieldError::invalid(path, resources.to_vec(), why));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(change: Value) -> Vec<String> {
        let sound = json!({"name": "w.example.com", "sideEffects": "None", "admissionReviewVersions": ["v1"],
            "clientConfig": {"url": "https://example.com/x"},
            "rules": [{"operations": ["*"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}]});
        let webhook = penstock_schema::patch::merge(&sound, &change);
        let configuration = json!({"webhooks": [webhook]});
        WebhookConfiguration.validate(&configuration).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_is_wrong_reads_like_upstreams() {
        assert!(told(json!({})).is_empty());
        let cases = [
            (
                json!({"name": "short"}),
                "webhooks[0].name: Invalid value: \"short\": should be a domain with at least three segments separated by dots",
            ),
            (
                json!({"sideEffects": null}),
                "webhooks[0].sideEffects: Required value: must specify one of None, NoneOnDryRun",
            ),
            (
                json!({"timeoutSeconds": 31}),
                "webhooks[0].timeoutSeconds: Invalid value: 31: the timeout value must be between 1 and 30 seconds",
            ),
            (
                json!({"admissionReviewVersions": ["v7"]}),
                "webhooks[0].admissionReviewVersions: Invalid value: [\"v7\"]: must include at least one of v1, v1beta1",
            ),
            (
                json!({"clientConfig": {"url": null}}),
                "webhooks[0].clientConfig: Required value: exactly one of url or service is required",
            ),
            (
                json!({"clientConfig": {"url": "http://example.com"}}),
                "webhooks[0].clientConfig.url: Invalid value: \"http\": 'https' is the only allowed URL scheme; desired format: https://host[/path]",
            ),
            (
                json!({"matchConditions": [{"name": "n", "expression": "object2 == 1"}]}),
                "webhooks[0].matchConditions[0].expression: Invalid value: \"object2 == 1\": compilation failed: ERROR: <input>:1:1: undeclared reference to 'object2' (in container '')\n | object2 == 1\n | ^",
            ),
            (
                json!({"matchConditions": [{"name": "n", "expression": "1 + 1"}]}),
                "webhooks[0].matchConditions[0].expression: Invalid value: \"1 + 1\": must evaluate to bool but got int",
            ),
            (
                json!({"rules": [{"operations": ["PATCH"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*"]}]}),
                "webhooks[0].rules[0].operations[0]: Unsupported value: \"PATCH\": supported values: \"*\", \"CONNECT\", \"CREATE\", \"DELETE\", \"UPDATE\"",
            ),
            (
                json!({"rules": [{"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["pods/*", "pods/exec"]}]}),
                "webhooks[0].rules[0].resources[1]: Invalid value: \"pods/exec\": if 'pods/*' is present, must not specify pods/exec",
            ),
        ];
        for (change, want) in cases {
            assert_eq!(told(change), [want]);
        }
    }
}
