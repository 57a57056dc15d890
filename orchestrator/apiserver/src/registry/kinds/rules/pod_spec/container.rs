//! One container of a pod spec.

use std::collections::BTreeSet;

use serde_json::Value;

use super::mounts::{self, Volumes};
use super::{environment, probes, resources, security};
use crate::error::FieldError;
use crate::registry::field_rules::{self, Check, Rule, at};
use crate::registry::kinds::rules::shapes::PROTOCOLS;
use crate::registry::meta::names;
use crate::registry::object::{items_at, str_at};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Main,
    Init,
    Ephemeral,
}

/// What a container's rules ask of its pod.
pub(super) struct Pod<'a> {
    pub volumes: Volumes<'a>,
    /// Names of the pod's resource claims.
    pub claims: BTreeSet<&'a str>,
    pub grace_seconds: Option<i64>,
    pub os: Option<&'a str>,
    pub host_users: bool,
    pub restart_policy: &'a str,
}

const COMMON: &[Rule] = &[
    at("name", Check::Required("")),
    at("name", Check::Name(names::label)),
    at("image", Check::Required("")),
    at("imagePullPolicy", Check::OneOf(&["Always", "IfNotPresent", "Never"])),
    at("terminationMessagePolicy", Check::OneOf(&["FallbackToLogsOnError", "File"])),
    at("ports[].name", Check::PortName),
    at("ports", Check::Unique(&["name"])),
    at("ports[].containerPort", Check::Judge(container_port)),
    at("ports[].hostPort", Check::Judge(host_port)),
    at("ports[].protocol", Check::OneOf(PROTOCOLS)),
];

/// What has no sense in a container that is put into a running pod.
const NOT_EPHEMERAL: &[&str] = &[
    "ports",
    "resources",
    "livenessProbe",
    "readinessProbe",
    "startupProbe",
    "lifecycle",
    "resizePolicy",
    "restartPolicy",
    "restartPolicyRules",
];

pub(super) fn validate(c: &Value, at: &str, kind: Kind, pod: &Pod<'_>, errors: &mut Vec<FieldError>) {
    field_rules::judge(COMMON, c, at, errors);
    environment::validate(c, at, errors);
    mounts::validate(c, at, &pod.volumes, errors);
    resources::validate(&c["resources"], &format!("{at}.resources"), &pod.claims, errors);
    resize_policy(c, at, pod.restart_policy, errors);
    security::of_container(&c["securityContext"], pod.host_users, &format!("{at}.securityContext"), errors);
    match kind {
        Kind::Ephemeral => ephemeral(c, at, errors),
        Kind::Init if c["restartPolicy"] != "Always" => {
            restart_policy(c, at, errors);
            for field in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
                if !c[field].is_null() {
                    let why = "may not be set for init containers without restartPolicy=Always";
                    errors.push(FieldError::forbidden(format!("{at}.{field}"), why));
                }
            }
            for (i, policy) in items_at(c, "/resizePolicy").iter().enumerate() {
                if policy["restartPolicy"] == "RestartContainer" {
                    let why = "must not be set to 'RestartContainer' for non-sidecar initContainers";
                    let at = format!("{at}.resizePolicy[{i}].restartPolicy");
                    errors.push(FieldError::invalid(at, "RestartContainer", why));
                }
            }
        }
        Kind::Init | Kind::Main => {
            restart_policy(c, at, errors);
            probes::lifecycle(&c["lifecycle"], pod.grace_seconds, pod.os, &format!("{at}.lifecycle"), errors);
            probes::validate(c, at, errors);
        }
    }
}

fn container_port(value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    match value.as_i64().unwrap_or(0) {
        0 => errors.push(FieldError::required(path, "")),
        _ => host_port(value, path, errors),
    }
}

/// A port, or none by 0.
fn host_port(value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let number = value.as_i64().unwrap_or(0);
    if number != 0
        && let Some(why) = crate::registry::kinds::rules::port_number(number)
    {
        errors.push(FieldError::invalid(path, number, why));
    }
}

fn ephemeral(c: &Value, at: &str, errors: &mut Vec<FieldError>) {
    const WHY: &str = "cannot be set for an Ephemeral Container";
    for field in NOT_EPHEMERAL {
        if !field_rules::is_empty(&c[*field]) {
            errors.push(FieldError::forbidden(format!("{at}.{field}"), WHY));
        }
    }
    for (i, mount) in items_at(c, "/volumeMounts").iter().enumerate() {
        for field in ["subPath", "subPathExpr"] {
            if !field_rules::is_empty(&mount[field]) {
                errors.push(FieldError::forbidden(format!("{at}.volumeMounts[{i}].{field}"), WHY));
            }
        }
    }
}

fn restart_policy(c: &Value, at: &str, errors: &mut Vec<FieldError>) {
    const RULE: &[Rule] = &[
        Rule::At("action", Check::Judge(action)),
        Rule::At("exitCodes", Check::Given("must be specified")),
        Rule::Within(
            "exitCodes",
            &[
                Rule::At("operator", Check::Required("")),
                Rule::At("operator", Check::OneOf(&["In", "NotIn"])),
                Rule::At("values", Check::ItemsMax(255)),
            ],
        ),
    ];
    const POLICIES: &[&str] = &["Always", "Never", "OnFailure"];
    let rules = items_at(c, "/restartPolicyRules");
    match c["restartPolicy"].as_str() {
        None if rules.is_empty() => return,
        None => {
            let why = "must specify restartPolicy when restart rules are used";
            errors.push(FieldError::required(format!("{at}.restartPolicy"), why));
        }
        Some(policy) if !POLICIES.contains(&policy) => {
            errors.push(FieldError::not_supported(format!("{at}.restartPolicy"), policy, POLICIES));
        }
        Some(_) => {}
    }
    if rules.len() > 20 {
        errors.push(FieldError::too_many(format!("{at}.restartPolicyRules"), rules.len(), 20));
    }
    for (i, rule) in rules.iter().enumerate() {
        field_rules::judge(RULE, rule, &format!("{at}.restartPolicyRules[{i}]"), errors);
    }
}

fn action(value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let allowed = ["Restart", "RestartAllContainers"];
    let said = value.as_str().unwrap_or_default();
    if !allowed.contains(&said) {
        errors.push(FieldError::not_supported(path, said, &allowed));
    }
}

fn resize_policy(c: &Value, at: &str, restart_policy: &str, errors: &mut Vec<FieldError>) {
    let path = format!("{at}.resizePolicy");
    let mut seen = BTreeSet::new();
    for (i, policy) in items_at(c, "/resizePolicy").iter().enumerate() {
        let (resource, restart) = (str_at(policy, "/resourceName"), str_at(policy, "/restartPolicy"));
        if !seen.insert(resource) {
            errors.push(FieldError::duplicate(format!("{path}[{i}]"), resource));
        }
        for (said, allowed) in
            [(resource, &["cpu", "memory"]), (restart, &["NotRequired", "RestartContainer"])]
        {
            if said.is_empty() {
                errors.push(FieldError::required(path.as_str(), ""));
            } else if !allowed.contains(&said) {
                errors.push(FieldError::not_supported(path.as_str(), said, allowed));
            }
        }
        if restart_policy == "Never" && restart != "NotRequired" {
            let why = "must be 'NotRequired' when pod `restartPolicy` is 'Never'";
            errors.push(FieldError::invalid(path.as_str(), restart, why));
        }
    }
}
