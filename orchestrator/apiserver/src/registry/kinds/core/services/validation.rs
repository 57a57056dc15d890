//! What a Service must be like.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{is_headless, kind};
use crate::error::FieldError;
use crate::registry::kinds::rules::{IMMUTABLE, port_number};
use crate::registry::meta::{self, names};
use crate::registry::object::{items_at, str_at};

pub(super) fn validate(s: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let ports = items_at(s, "/spec/ports");
    let kind = kind(s);
    let types = ["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"];
    if !types.contains(&kind) {
        errors.push(FieldError::not_supported("spec.type", kind, &types));
    }
    if ports.is_empty() && !is_headless(s) && kind != "ExternalName" {
        errors.push(FieldError::required("spec.ports", ""));
    }
    match kind {
        "LoadBalancer" | "NodePort" if is_headless(s) => {
            errors.push(FieldError::invalid(
                "spec.clusterIPs[0]",
                "None",
                format!("may not be set to 'None' for {kind} services"),
            ));
        }
        "ExternalName" => {
            if !str_at(s, "/spec/clusterIP").is_empty() {
                errors.push(FieldError::forbidden(
                    "spec.clusterIPs[0]",
                    "may not be set for ExternalName services",
                ));
            }
            let name = str_at(s, "/spec/externalName");
            if name.is_empty() {
                errors.push(FieldError::required("spec.externalName", ""));
            } else if let Some(why) = names::subdomain(name.trim_end_matches('.')) {
                errors.push(FieldError::invalid("spec.externalName", name, why));
            }
        }
        _ => {}
    }
    addresses(s, &mut errors);
    let mut seen_names = BTreeSet::new();
    let mut seen_ports = BTreeSet::new();
    let mut seen_node_ports = BTreeSet::new();
    for (i, p) in ports.iter().enumerate() {
        let at = format!("spec.ports[{i}]");
        let name = str_at(p, "/name");
        if name.is_empty() {
            if ports.len() > 1 {
                errors.push(FieldError::required(format!("{at}.name"), ""));
            }
        } else {
            if let Some(why) = names::label(name) {
                errors.push(FieldError::invalid(format!("{at}.name"), name, why));
            }
            if !seen_names.insert(name) {
                errors.push(FieldError::duplicate(format!("{at}.name"), name));
            }
        }
        let port = p["port"].as_i64().unwrap_or(0);
        if let Some(why) = port_number(port) {
            errors.push(FieldError::invalid(format!("{at}.port"), port, why));
        }
        let protocol = p["protocol"].as_str().unwrap_or("TCP");
        if !["TCP", "UDP", "SCTP"].contains(&protocol) {
            errors.push(FieldError::not_supported(
                format!("{at}.protocol"),
                protocol,
                &["SCTP", "TCP", "UDP"],
            ));
        }
        match p.get("targetPort") {
            Some(Value::Number(n)) => {
                let n = n.as_i64().unwrap_or(0);
                if let Some(why) = port_number(n) {
                    errors.push(FieldError::invalid(format!("{at}.targetPort"), n, why));
                }
            }
            Some(Value::String(name)) => {
                for why in names::port_name(name) {
                    errors.push(FieldError::invalid(format!("{at}.targetPort"), name.as_str(), why));
                }
            }
            _ => {}
        }
        if !seen_ports.insert((protocol, port)) {
            errors.push(FieldError::duplicate(at.as_str(), p.clone()));
        }
        if let Some(node_port) = p["nodePort"].as_i64().filter(|n| *n != 0) {
            if !matches!(kind, "NodePort" | "LoadBalancer") {
                errors.push(FieldError::forbidden(
                    format!("{at}.nodePort"),
                    format!("may not be used when `type` is '{kind}'"),
                ));
            } else if !seen_node_ports.insert((protocol, node_port)) {
                errors.push(FieldError::duplicate(format!("{at}.nodePort"), node_port));
            }
        }
    }
    if let Some(selector) = s.pointer("/spec/selector").and_then(Value::as_object) {
        meta::validate_labels(selector, "spec.selector", &mut errors);
    }
    one_of(s, "sessionAffinity", &["ClientIP", "None"], &mut errors);
    one_of(s, "internalTrafficPolicy", &["Cluster", "Local"], &mut errors);
    one_of(s, "externalTrafficPolicy", &["Cluster", "Local"], &mut errors);
    one_of(s, "ipFamilyPolicy", &["SingleStack", "PreferDualStack", "RequireDualStack"], &mut errors);
    if let Some(n) = s.pointer("/spec/sessionAffinityConfig/clientIP/timeoutSeconds").and_then(Value::as_i64)
        && !(1..=86_400).contains(&n)
    {
        errors.push(FieldError::invalid(
            "spec.sessionAffinityConfig.clientIP.timeoutSeconds",
            n,
            "must be greater than 0 and less than 86400",
        ));
    }
    let external =
        matches!(kind, "NodePort" | "LoadBalancer") || !items_at(s, "/spec/externalIPs").is_empty();
    if !str_at(s, "/spec/externalTrafficPolicy").is_empty() && !external {
        errors.push(FieldError::invalid(
            "spec.externalTrafficPolicy",
            str_at(s, "/spec/externalTrafficPolicy"),
            "may only be set for externally-accessible services",
        ));
    }
    errors
}

fn one_of(s: &Value, field: &str, allowed: &[&str], errors: &mut Vec<FieldError>) {
    let said = str_at(s, &format!("/spec/{field}"));
    if !said.is_empty() && !allowed.contains(&said) {
        errors.push(FieldError::not_supported(format!("spec.{field}"), said, allowed));
    }
}

fn addresses(s: &Value, errors: &mut Vec<FieldError>) {
    const IP: &str = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
    let ip = str_at(s, "/spec/clusterIP");
    let list = items_at(s, "/spec/clusterIPs");
    if !list.is_empty() && list[0].as_str() != Some(ip) {
        errors.push(FieldError::invalid(
            "spec.clusterIPs",
            Value::Array(list.to_vec()),
            "first value must match `clusterIP`",
        ));
    }
    for (i, ip) in list.iter().enumerate() {
        let text = ip.as_str().unwrap_or_default();
        if text != "None" && !text.is_empty() && text.parse::<std::net::IpAddr>().is_err() {
            errors.push(FieldError::invalid(format!("spec.clusterIPs[{i}]"), text, IP));
        }
    }
    for (i, ip) in items_at(s, "/spec/externalIPs").iter().enumerate() {
        let text = ip.as_str().unwrap_or_default();
        if text.parse::<std::net::IpAddr>().is_err() {
            errors.push(FieldError::invalid(format!("spec.externalIPs[{i}]"), text, IP));
        }
    }
}

pub(super) fn validate_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    // A type change may take the address away; nothing may exchange it.
    let moves = kind(old) == "ExternalName" || kind(new) == "ExternalName";
    if !moves && str_at(new, "/spec/clusterIP") != str_at(old, "/spec/clusterIP") {
        let list = new.pointer("/spec/clusterIPs").cloned().unwrap_or_default();
        let had = str_at(old, "/spec/clusterIP");
        if had == "None" || !had.is_empty() {
            errors.push(FieldError::invalid("spec.clusterIPs[0]", list, IMMUTABLE));
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn messages(spec: Value) -> Vec<String> {
        validate(&json!({"metadata": {"name": "s"}, "spec": spec})).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn ports_are_checked_together() {
        assert_eq!(messages(json!({"ports": [{"port": 80}]})), Vec::<String>::new());
        assert_eq!(messages(json!({})), vec!["spec.ports: Required value"]);
        let two = messages(json!({"ports": [{"port": 80}, {"port": 80}]}));
        assert_eq!(two.len(), 3, "{two:?}");
        assert_eq!(messages(json!({"clusterIP": "None"})), Vec::<String>::new());
    }

    #[test]
    fn node_ports_need_a_type_that_has_them() {
        let found = messages(json!({"ports": [{"port": 80, "nodePort": 30080}]}));
        assert_eq!(
            found,
            vec!["spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'"]
        );
    }
}
