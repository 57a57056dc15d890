//! One container of a pod spec.

use std::collections::BTreeSet;

use penstock_schema::Quantity;
use serde_json::Value;

use super::port_number;
use crate::error::FieldError;
use crate::registry::meta::names;
use crate::registry::object::{items_at, str_at};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Main,
    Init,
    Ephemeral,
}

pub(super) fn validate(
    c: &Value,
    at: &str,
    kind: Kind,
    volumes: &BTreeSet<String>,
    host_network: bool,
    host_ports: &mut BTreeSet<(String, String, i64)>,
    errors: &mut Vec<FieldError>,
) {
    let image = str_at(c, "/image");
    if image.is_empty() {
        errors.push(FieldError::required(format!("{at}.image"), ""));
    } else if image != image.trim() {
        errors.push(FieldError::invalid(
            format!("{at}.image"),
            image,
            "must not have leading or trailing whitespace",
        ));
    }
    one_of(c, at, "imagePullPolicy", &["Always", "IfNotPresent", "Never"], errors);
    one_of(c, at, "terminationMessagePolicy", &["File", "FallbackToLogsOnError"], errors);
    let is_sidecar = str_at(c, "/restartPolicy") == "Always";
    // Why nobody watches over the container, so that probes and hooks would never run.
    let unattended = match kind {
        Kind::Ephemeral => Some("cannot be set for an Ephemeral Container"),
        Kind::Init if !is_sidecar => Some("may not be set for init containers without restartPolicy=Always"),
        Kind::Init | Kind::Main => None,
    };
    ports(c, at, host_network, host_ports, errors);
    environment(c, at, errors);
    mounts(c, at, volumes, errors);
    resources(c, at, errors);
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let Some(value) = c.get(probe) else { continue };
        let path = format!("{at}.{probe}");
        if let Some(why) = unattended {
            errors.push(FieldError::forbidden(path, why));
        } else {
            validate_probe(value, &path, probe, errors);
        }
    }
    if let Some(hooks) = c.get("lifecycle") {
        let path = format!("{at}.lifecycle");
        if let Some(why) = unattended {
            errors.push(FieldError::forbidden(path, why));
        } else {
            for hook in ["postStart", "preStop"] {
                if let Some(h) = hooks.get(hook) {
                    handler(h, &format!("{path}.{hook}"), &["exec", "httpGet", "tcpSocket", "sleep"], errors);
                }
            }
        }
    }
    if c.pointer("/securityContext/privileged") == Some(&Value::Bool(true))
        && c.pointer("/securityContext/allowPrivilegeEscalation") == Some(&Value::Bool(false))
    {
        errors.push(FieldError::invalid(
            format!("{at}.securityContext"),
            c["securityContext"].clone(),
            "cannot set `allowPrivilegeEscalation` to false and `privileged` to true",
        ));
    }
}

fn one_of(c: &Value, at: &str, field: &str, allowed: &[&str], errors: &mut Vec<FieldError>) {
    let said = c[field].as_str().unwrap_or_default();
    if !said.is_empty() && !allowed.contains(&said) {
        errors.push(FieldError::not_supported(format!("{at}.{field}"), said, allowed));
    }
}

fn ports(
    c: &Value,
    at: &str,
    host_network: bool,
    host_ports: &mut BTreeSet<(String, String, i64)>,
    errors: &mut Vec<FieldError>,
) {
    let mut seen = BTreeSet::new();
    for (i, p) in items_at(c, "/ports").iter().enumerate() {
        let path = format!("{at}.ports[{i}]");
        let name = str_at(p, "/name");
        if !name.is_empty() {
            for why in names::port_name(name) {
                errors.push(FieldError::invalid(format!("{path}.name"), name, why));
            }
            if !seen.insert(name) {
                errors.push(FieldError::duplicate(format!("{path}.name"), name));
            }
        }
        let port = p["containerPort"].as_i64().unwrap_or(0);
        if port == 0 {
            errors.push(FieldError::required(format!("{path}.containerPort"), ""));
        } else if let Some(why) = port_number(port) {
            errors.push(FieldError::invalid(format!("{path}.containerPort"), port, why));
        }
        let protocol = p["protocol"].as_str().unwrap_or("TCP");
        if !["TCP", "UDP", "SCTP"].contains(&protocol) {
            errors.push(FieldError::not_supported(
                format!("{path}.protocol"),
                protocol,
                &["TCP", "UDP", "SCTP"],
            ));
        }
        if let Some(host_port) = p["hostPort"].as_i64().filter(|n| *n != 0) {
            if let Some(why) = port_number(host_port) {
                errors.push(FieldError::invalid(format!("{path}.hostPort"), host_port, why));
            }
            if host_network && host_port != port {
                errors.push(FieldError::invalid(
                    format!("{path}.containerPort"),
                    port,
                    "must match `hostPort` when `hostNetwork` is true",
                ));
            }
            let taken = (str_at(p, "/hostIP").to_string(), protocol.to_string(), host_port);
            if !host_ports.insert(taken) {
                errors.push(FieldError::duplicate(
                    format!("{path}.hostPort"),
                    format!("{protocol}/{host_port}"),
                ));
            }
        }
    }
}

fn environment(c: &Value, at: &str, errors: &mut Vec<FieldError>) {
    for (i, e) in items_at(c, "/env").iter().enumerate() {
        let path = format!("{at}.env[{i}]");
        let name = str_at(e, "/name");
        if name.is_empty() {
            errors.push(FieldError::required(format!("{path}.name"), ""));
        } else if let Some(why) = names::env_name(name) {
            errors.push(FieldError::invalid(format!("{path}.name"), name, why));
        }
        let Some(source) = e.get("valueFrom") else {
            continue;
        };
        let path = format!("{path}.valueFrom");
        let sources = source.as_object().map_or(0, serde_json::Map::len);
        if sources == 0 {
            errors.push(FieldError::invalid(
                path.as_str(),
                "",
                "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
            ));
        } else if sources > 1 {
            errors.push(FieldError::invalid(
                path.as_str(),
                "",
                "may not have more than one field specified at a time",
            ));
        }
        if !str_at(e, "/value").is_empty() && sources > 0 {
            errors.push(FieldError::invalid(
                path.as_str(),
                "",
                "may not be specified when `value` is not empty",
            ));
        }
        if let Some(field) = source.get("fieldRef") {
            let said = str_at(field, "/fieldPath");
            if said.is_empty() {
                errors.push(FieldError::required(format!("{path}.fieldRef.fieldPath"), ""));
            } else if !is_env_field(said) {
                errors.push(FieldError::not_supported(
                    format!("{path}.fieldRef.fieldPath"),
                    said,
                    &[
                        "metadata.name",
                        "metadata.namespace",
                        "metadata.uid",
                        "spec.nodeName",
                        "spec.serviceAccountName",
                        "status.hostIP",
                        "status.hostIPs",
                        "status.podIP",
                        "status.podIPs",
                    ],
                ));
            }
        }
        for (field, key) in [("configMapKeyRef", "key"), ("secretKeyRef", "key")] {
            if let Some(reference) = source.get(field)
                && str_at(reference, &format!("/{key}")).is_empty()
            {
                errors.push(FieldError::required(format!("{path}.{field}.{key}"), ""));
            }
        }
    }
}

fn is_env_field(path: &str) -> bool {
    matches!(
        path,
        "metadata.name"
            | "metadata.namespace"
            | "metadata.uid"
            | "spec.nodeName"
            | "spec.serviceAccountName"
            | "status.hostIP"
            | "status.hostIPs"
            | "status.podIP"
            | "status.podIPs"
    ) || ((path.starts_with("metadata.labels['") || path.starts_with("metadata.annotations['"))
        && path.ends_with("']"))
}

fn mounts(c: &Value, at: &str, volumes: &BTreeSet<String>, errors: &mut Vec<FieldError>) {
    let mut paths = BTreeSet::new();
    for (i, m) in items_at(c, "/volumeMounts").iter().enumerate() {
        let path = format!("{at}.volumeMounts[{i}]");
        let name = str_at(m, "/name");
        if name.is_empty() {
            errors.push(FieldError::required(format!("{path}.name"), ""));
        } else if !volumes.contains(name) {
            errors.push(FieldError::not_found(format!("{path}.name"), name));
        }
        let mount = str_at(m, "/mountPath");
        if mount.is_empty() {
            errors.push(FieldError::required(format!("{path}.mountPath"), ""));
        } else if !paths.insert(mount) {
            errors.push(FieldError::invalid(format!("{path}.mountPath"), mount, "must be unique"));
        }
        for field in ["subPath", "subPathExpr"] {
            let sub = m[field].as_str().unwrap_or_default();
            if sub.starts_with('/') {
                errors.push(FieldError::invalid(format!("{path}.{field}"), sub, "must be a relative path"));
            }
            if sub.split('/').any(|part| part == "..") {
                errors.push(FieldError::invalid(format!("{path}.{field}"), sub, "must not contain '..'"));
            }
        }
        if m.get("subPath").is_some() && m.get("subPathExpr").is_some() {
            errors.push(FieldError::invalid(
                format!("{path}.subPathExpr"),
                m["subPathExpr"].clone(),
                "subPathExpr and subPath are mutually exclusive",
            ));
        }
    }
}

fn resources(c: &Value, at: &str, errors: &mut Vec<FieldError>) {
    let amount = |list: &str, name: &str| {
        let text = c.pointer("/resources")?.get(list)?.get(name)?.as_str()?;
        Quantity::parse(text)
    };
    for list in ["limits", "requests"] {
        let Some(map) = c.pointer("/resources").and_then(|r| r.get(list)).and_then(Value::as_object) else {
            continue;
        };
        for (name, quantity) in map {
            let path = format!("{at}.resources.{list}");
            let standard = matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage")
                || name.starts_with("hugepages-");
            if let Some(why) = names::qualified_name(name) {
                errors.push(FieldError::invalid(path.as_str(), name.as_str(), why));
            } else if !standard && !name.contains('/') {
                errors.push(FieldError::invalid(
                    path.as_str(),
                    name.as_str(),
                    "must be a standard resource type or fully qualified",
                ));
            }
            // Decoded, it has one text, in which only what is less than nothing has a sign.
            if quantity.as_str().is_none_or(|text| text.starts_with('-')) {
                errors.push(FieldError::invalid(
                    format!("{path}[{name}]"),
                    quantity.clone(),
                    super::super::NOT_NEGATIVE,
                ));
            }
            if list == "requests"
                && let (Some(request), Some(limit)) = (amount("requests", name), amount("limits", name))
                && request > limit
            {
                errors.push(FieldError::invalid(
                    path,
                    quantity.clone(),
                    format!(
                        "must be less than or equal to {name} limit of {}",
                        str_at(
                            c,
                            &format!("/resources/limits/{}", name.replace('~', "~0").replace('/', "~1"))
                        )
                    ),
                ));
            }
        }
    }
}

fn validate_probe(p: &Value, path: &str, which: &str, errors: &mut Vec<FieldError>) {
    handler(p, path, &["exec", "httpGet", "tcpSocket", "grpc"], errors);
    for field in
        ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"]
    {
        if let Some(n) = p[field].as_i64()
            && n < 0
        {
            errors.push(FieldError::invalid(format!("{path}.{field}"), n, super::super::NOT_NEGATIVE));
        }
    }
    if which != "readinessProbe"
        && let Some(n) = p["successThreshold"].as_i64()
        && n != 1
    {
        errors.push(FieldError::invalid(format!("{path}.successThreshold"), n, "must be 1"));
    }
    if which == "readinessProbe" && p.get("terminationGracePeriodSeconds").is_some() {
        errors.push(FieldError::invalid(
            format!("{path}.terminationGracePeriodSeconds"),
            p["terminationGracePeriodSeconds"].clone(),
            "must not be set for readinessProbes",
        ));
    }
}

fn handler(h: &Value, path: &str, kinds: &[&str], errors: &mut Vec<FieldError>) {
    let given: Vec<&&str> = kinds.iter().filter(|k| h.get(**k).is_some()).collect();
    match given.as_slice() {
        [] => errors.push(FieldError::required(path, "must specify a handler type")),
        [_] => {}
        [_, more @ ..] => {
            for kind in more {
                errors.push(FieldError::forbidden(
                    format!("{path}.{kind}"),
                    "may not specify more than 1 handler type",
                ));
            }
        }
    }
    if let Some(exec) = h.get("exec")
        && items_at(exec, "/command").is_empty()
    {
        errors.push(FieldError::required(format!("{path}.exec.command"), ""));
    }
    for kind in ["httpGet", "tcpSocket", "grpc"] {
        let Some(target) = h.get(kind) else { continue };
        match &target["port"] {
            Value::Number(n) => {
                if let Some(why) = port_number(n.as_i64().unwrap_or(0)) {
                    errors.push(FieldError::invalid(
                        format!("{path}.{kind}.port"),
                        n.as_i64().unwrap_or(0),
                        why,
                    ));
                }
            }
            Value::String(name) => {
                for why in names::port_name(name) {
                    errors.push(FieldError::invalid(format!("{path}.{kind}.port"), name.as_str(), why));
                }
            }
            _ => errors.push(FieldError::required(format!("{path}.{kind}.port"), "")),
        }
        if kind == "httpGet" {
            let scheme = target["scheme"].as_str().unwrap_or("HTTP");
            if !["HTTP", "HTTPS"].contains(&scheme) {
                errors.push(FieldError::not_supported(
                    format!("{path}.{kind}.scheme"),
                    scheme,
                    &["HTTP", "HTTPS"],
                ));
            }
        }
    }
}
