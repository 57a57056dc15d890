//! FlowSchema: which requests go to which priority level.

use serde_json::Value;

use crate::error::FieldError;
use crate::registry::bootstrap::flow_control::{EXEMPT, mandatory};
use crate::registry::definition::{Declaration, STATUS};
use crate::registry::field_rules::{Check, Rule, at, when, within};
use crate::registry::meta::names;
use crate::registry::object::{items_at, meta_str};
use crate::registry::strategy::Strategy;
use crate::tables::flow_control::FLOW_SCHEMAS;

pub(crate) fn declaration() -> Declaration {
    Declaration::new("flowcontrol.apiserver.k8s.io", "v1", "FlowSchema", "flowschemas")
        .cluster_scoped()
        .generation()
        .subresources(&[STATUS])
        .columns(FLOW_SCHEMAS)
        .rules(RULES)
        .status_rules(super::CONDITIONS)
        .strategy(FlowSchema)
}

const PRECEDENCE_MAX: i64 = 10_000;
const VERBS: &[&str] =
    &["create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"];

const RULES: &[Rule] = &[
    at("spec.matchingPrecedence", Check::Judge(precedence)),
    within(
        "spec.distinguisherMethod",
        &[at("type", Check::Required("")), at("type", Check::OneOf(&["ByNamespace", "ByUser"]))],
    ),
    at("spec.priorityLevelConfiguration.name", Check::Required("must reference a priority level")),
    at("spec.priorityLevelConfiguration.name", Check::Name(names::subdomain)),
    within(
        "spec.rules[]",
        &[
            at("subjects", Check::Required("subjects must contain at least one value")),
            within("subjects[]", SUBJECT),
            at("", Check::Judge(some_rule)),
            within(
                "resourceRules[]",
                &[
                    at("verbs", Check::Judge(verbs)),
                    at("apiGroups", Check::Required("resource rules must supply at least one api group")),
                    at("apiGroups", Check::Judge(|it, at, errors| alone(it, "api groups", at, errors))),
                    at("resources", Check::Required("resource rules must supply at least one resource")),
                    at("resources", Check::Judge(|it, at, errors| alone(it, "resources", at, errors))),
                    at("", Check::Judge(namespaces)),
                ],
            ),
            within(
                "nonResourceRules[]",
                &[
                    at("verbs", Check::Judge(verbs)),
                    at("nonResourceURLs", Check::Required("nonResourceURLs must contain at least one value")),
                    at("nonResourceURLs", Check::Judge(urls)),
                ],
            ),
        ],
    ),
];

const NOT_USER: Rule = at("user", Check::Forbidden("user is forbidden when subject kind is not 'User'"));
const NOT_GROUP: Rule = at("group", Check::Forbidden("group is forbidden when subject kind is not 'Group'"));
const NOT_ACCOUNT: Rule = at(
    "serviceAccount",
    Check::Forbidden("serviceAccount is forbidden when subject kind is not 'ServiceAccount'"),
);

const SUBJECT: &[Rule] = &[
    at("kind", Check::Required("")),
    at("kind", Check::OneOf(&["Group", "ServiceAccount", "User"])),
    when(
        "kind",
        &["ServiceAccount"],
        &[
            at(
                "serviceAccount",
                Check::Given("serviceAccount is required when subject kind is 'ServiceAccount'"),
            ),
            within(
                "serviceAccount",
                &[
                    at("name", Check::Required("")),
                    at("name", Check::Name(account_name)),
                    at("namespace", Check::Required("must specify namespace for service account")),
                    at("namespace", Check::Name(names::label)),
                ],
            ),
            NOT_USER,
            NOT_GROUP,
        ],
    ),
    when(
        "kind",
        &["User"],
        &[
            at("user", Check::Given("user is required when subject kind is 'User'")),
            within("user", &[at("name", Check::Required(""))]),
            NOT_ACCOUNT,
            NOT_GROUP,
        ],
    ),
    when(
        "kind",
        &["Group"],
        &[
            at("group", Check::Given("group is required when subject kind is 'Group'")),
            within("group", &[at("name", Check::Required(""))]),
            NOT_ACCOUNT,
            NOT_USER,
        ],
    ),
];

fn account_name(name: &str) -> Option<String> {
    if name == "*" { None } else { names::subdomain(name) }
}

fn precedence(value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let said = value.as_i64().unwrap_or(0);
    if said <= 0 {
        errors.push(FieldError::invalid(path, said, "must be a positive value"));
    }
    if said > PRECEDENCE_MAX {
        errors.push(FieldError::invalid(path, said, format!("must not be greater than {PRECEDENCE_MAX}")));
    }
}

fn some_rule(rule: &Value, path: &str, errors: &mut Vec<FieldError>) {
    if ["/resourceRules", "/nonResourceRules"].iter().all(|list| items_at(rule, list).is_empty()) {
        let why = "at least one of resourceRules and nonResourceRules has to be non-empty";
        errors.push(FieldError::required(path, why));
    }
}

fn has_all(list: &Value) -> bool {
    list.as_array().is_some_and(|items| items.iter().any(|it| it == "*"))
}

/// `*` says everything there is to say.
fn alone(list: &Value, others: &str, path: &str, errors: &mut Vec<FieldError>) {
    if has_all(list) && list.as_array().is_some_and(|items| items.len() > 1) {
        let why = format!("if '*' is present, must not specify other {others}");
        errors.push(FieldError::invalid(path, list.clone(), why));
    }
}

fn verbs(list: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let said = list.as_array().map(Vec::as_slice).unwrap_or_default();
    if said.is_empty() {
        errors.push(FieldError::required(path, "verbs must contain at least one value"));
    } else if has_all(list) {
        alone(list, "verbs", path, errors);
    } else if !said.iter().all(|verb| VERBS.iter().any(|it| verb == it)) {
        errors.push(FieldError::not_supported(path, list.clone(), VERBS));
    }
}

fn namespaces(rule: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let list = &rule["namespaces"];
    let said = items_at(rule, "/namespaces");
    let at = format!("{path}.namespaces");
    if said.is_empty() && rule["clusterScope"] != true {
        let why = "resource rules that are not cluster scoped must supply at least one namespace";
        errors.push(FieldError::required(at, why));
    } else if has_all(list) {
        alone(list, "namespaces", &at, errors);
    } else {
        for (i, name) in said.iter().map(|it| it.as_str().unwrap_or_default()).enumerate() {
            if let Some(why) = names::label(name) {
                let why = format!("each member of this list must be '*' or a DNS-1123 label; {why}");
                errors.push(FieldError::invalid(format!("{at}[{i}]"), name, why));
            }
        }
    }
}

fn urls(list: &Value, path: &str, errors: &mut Vec<FieldError>) {
    if has_all(list) {
        alone(list, "non-resource URLs", path, errors);
        return;
    }
    let said = list.as_array().map(Vec::as_slice).unwrap_or_default();
    for (i, url) in said.iter().map(|it| it.as_str().unwrap_or_default()).enumerate() {
        let stars = url.matches('*').count();
        let why = if url.is_empty() {
            "must not be empty"
        } else if url == "/" {
            continue;
        } else if !url.starts_with('/') {
            "must start with slash"
        } else if url.contains(' ') {
            "must not contain white-space"
        } else if url.contains("//") {
            "must not contain double slash"
        } else if stars > 1 || stars == 1 && !url.ends_with("/*") {
            "wildcard can only do suffix matching"
        } else {
            continue;
        };
        errors.push(FieldError::invalid(format!("{path}[{i}]"), url, why));
    }
}

struct FlowSchema;

impl Strategy for FlowSchema {
    fn validate(&self, new: &Value) -> Vec<FieldError> {
        let (name, spec) = (meta_str(new, "name"), &new["spec"]);
        let mut errors = Vec::new();
        if spec["matchingPrecedence"] == 1 && name != EXEMPT {
            let why = "only the schema named 'exempt' may have matchingPrecedence 1";
            errors.push(FieldError::invalid("spec.matchingPrecedence", 1, why));
        }
        if mandatory("FlowSchema", name).is_some_and(|want| want["spec"] != *spec) {
            let why = format!("spec of '{name}' must equal the fixed value");
            errors.push(FieldError::invalid("spec", spec.clone(), why));
        }
        errors
    }
}
