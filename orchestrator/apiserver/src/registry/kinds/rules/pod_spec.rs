//! PodSpec and PodTemplateSpec, as pods and every workload validate them.

use std::collections::BTreeSet;

use serde_json::Value;

use super::port_number;
use crate::error::FieldError;
use crate::registry::meta::{self, names};
use crate::registry::object::{items_at, str_at};

mod container;
mod volume;

/// A template: its metadata and its spec. `path` is usually `spec.template`.
pub(crate) fn validate_pod_template(template: &Value, path: &str, errors: &mut Vec<FieldError>) {
    meta::validate_template(template, &format!("{path}.metadata"), errors);
    validate_pod_spec(template.get("spec").unwrap_or(&Value::Null), &format!("{path}.spec"), errors);
}

pub(crate) fn validate_pod_spec(spec: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let volumes = volume::validate(items_at(spec, "/volumes"), &format!("{path}.volumes"), errors);
    let host_network = spec["hostNetwork"].as_bool().unwrap_or(false);
    let containers = items_at(spec, "/containers");
    if containers.is_empty() {
        errors.push(FieldError::required(format!("{path}.containers"), ""));
    }
    let mut seen = BTreeSet::new();
    let mut host_ports = BTreeSet::new();
    for (list, kind) in [
        ("containers", container::Kind::Main),
        ("initContainers", container::Kind::Init),
        ("ephemeralContainers", container::Kind::Ephemeral),
    ] {
        for (i, c) in items_at(spec, &format!("/{list}")).iter().enumerate() {
            let at = format!("{path}.{list}[{i}]");
            let name = c["name"].as_str().unwrap_or_default();
            if name.is_empty() {
                errors.push(FieldError::required(format!("{at}.name"), ""));
            } else {
                if let Some(why) = names::label(name) {
                    errors.push(FieldError::invalid(format!("{at}.name"), name, why));
                }
                if !seen.insert(name.to_string()) {
                    errors.push(FieldError::duplicate(format!("{at}.name"), name));
                }
            }
            container::validate(c, &at, kind, &volumes, host_network, &mut host_ports, errors);
        }
    }
    let restart = str_at(spec, "/restartPolicy");
    let allowed = ["Always", "OnFailure", "Never"];
    match restart {
        "" => errors.push(FieldError::required(format!("{path}.restartPolicy"), "")),
        known if allowed.contains(&known) => {}
        other => errors.push(FieldError::not_supported(format!("{path}.restartPolicy"), other, &allowed)),
    }
    let dns = str_at(spec, "/dnsPolicy");
    let allowed = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
    match dns {
        "" => errors.push(FieldError::required(format!("{path}.dnsPolicy"), "")),
        "None" if items_at(spec, "/dnsConfig/nameservers").is_empty() => errors.push(FieldError::required(
            format!("{path}.dnsConfig.nameservers"),
            "must provide at least one DNS nameserver when `dnsPolicy` is None",
        )),
        known if allowed.contains(&known) => {}
        other => errors.push(FieldError::not_supported(format!("{path}.dnsPolicy"), other, &allowed)),
    }
    for (field, rule) in [
        ("nodeName", names::subdomain as fn(&str) -> Option<String>),
        ("serviceAccountName", names::subdomain),
        ("hostname", names::label),
        ("subdomain", names::label),
        ("priorityClassName", names::subdomain),
        ("runtimeClassName", names::subdomain),
    ] {
        let text = spec[field].as_str().unwrap_or_default();
        if !text.is_empty()
            && let Some(why) = rule(text)
        {
            errors.push(FieldError::invalid(format!("{path}.{field}"), text, why));
        }
    }
    if let Some(n) = spec["activeDeadlineSeconds"].as_i64()
        && !(1..=i64::from(i32::MAX)).contains(&n)
    {
        errors.push(FieldError::invalid(
            format!("{path}.activeDeadlineSeconds"),
            n,
            "must be between 1 and 2147483647, inclusive",
        ));
    }
    if let Some(n) = spec["terminationGracePeriodSeconds"].as_i64()
        && n < 0
    {
        errors.push(FieldError::invalid(
            format!("{path}.terminationGracePeriodSeconds"),
            n,
            super::NOT_NEGATIVE,
        ));
    }
    if let Some(labels) = spec["nodeSelector"].as_object() {
        meta::validate_labels(labels, &format!("{path}.nodeSelector"), errors);
    }
    for (i, t) in items_at(spec, "/tolerations").iter().enumerate() {
        validate_toleration(t, &format!("{path}.tolerations[{i}]"), errors);
    }
    for (i, t) in items_at(spec, "/topologySpreadConstraints").iter().enumerate() {
        let at = format!("{path}.topologySpreadConstraints[{i}]");
        if t["maxSkew"].as_i64().unwrap_or(0) <= 0 {
            errors.push(FieldError::invalid(
                format!("{at}.maxSkew"),
                t["maxSkew"].clone(),
                "must be greater than zero",
            ));
        }
        if str_at(t, "/topologyKey").is_empty() {
            errors.push(FieldError::required(format!("{at}.topologyKey"), "can not be empty"));
        }
        let when = str_at(t, "/whenUnsatisfiable");
        if !["DoNotSchedule", "ScheduleAnyway"].contains(&when) {
            errors.push(FieldError::not_supported(
                format!("{at}.whenUnsatisfiable"),
                when,
                &["DoNotSchedule", "ScheduleAnyway"],
            ));
        }
    }
    for (i, alias) in items_at(spec, "/hostAliases").iter().enumerate() {
        let ip = str_at(alias, "/ip");
        if ip.parse::<std::net::IpAddr>().is_err() {
            errors.push(FieldError::invalid(
                format!("{path}.hostAliases[{i}].ip"),
                ip,
                "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
            ));
        }
    }
    let sysctls = items_at(spec, "/securityContext/sysctls");
    let mut sysctl_names = BTreeSet::new();
    for (i, s) in sysctls.iter().enumerate() {
        let at = format!("{path}.securityContext.sysctls[{i}].name");
        let name = str_at(s, "/name");
        if name.is_empty() {
            errors.push(FieldError::required(at, ""));
        } else if !is_sysctl_name(name) {
            errors.push(FieldError::invalid(
                at,
                name,
                "must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$",
            ));
        } else if !sysctl_names.insert(name) {
            errors.push(FieldError::duplicate(at, name));
        }
    }
}

fn is_sysctl_name(name: &str) -> bool {
    name.len() <= 253
        && name.split(['.', '/']).all(|part| {
            let b = part.as_bytes();
            let edge = |c: &u8| c.is_ascii_lowercase() || c.is_ascii_digit();
            b.first().is_some_and(edge)
                && b.last().is_some_and(edge)
                && b.iter().all(|c| edge(c) || matches!(c, b'-' | b'_'))
        })
}

fn validate_toleration(t: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let (key, operator) = (str_at(t, "/key"), str_at(t, "/operator"));
    if !key.is_empty()
        && let Some(why) = names::qualified_name(key)
    {
        errors.push(FieldError::invalid(format!("{path}.key"), key, why));
    }
    if key.is_empty() && operator != "Exists" {
        errors.push(FieldError::invalid(
            format!("{path}.operator"),
            operator,
            "operator must be Exists when `key` is empty, which means \"match all values and all keys\"",
        ));
    }
    match operator {
        "" | "Equal" => {
            if let Some(why) = names::label_value(str_at(t, "/value")) {
                errors.push(FieldError::invalid(format!("{path}.operator"), str_at(t, "/value"), why));
            }
        }
        "Exists" => {
            if !str_at(t, "/value").is_empty() {
                errors.push(FieldError::invalid(
                    format!("{path}.operator"),
                    operator,
                    "value must be empty when `operator` is 'Exists'",
                ));
            }
        }
        "Lt" | "Gt" => {}
        other => {
            errors.push(FieldError::not_supported(format!("{path}.operator"), other, &["Equal", "Exists"]))
        }
    }
    let effect = str_at(t, "/effect");
    if t.get("tolerationSeconds").is_some() && effect != "NoExecute" {
        errors.push(FieldError::invalid(
            format!("{path}.effect"),
            effect,
            "effect must be 'NoExecute' when `tolerationSeconds` is set",
        ));
    }
    let allowed = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
    if !effect.is_empty() && !allowed.contains(&effect) {
        errors.push(FieldError::not_supported(format!("{path}.effect"), effect, &allowed));
    }
}
