//! What a Service must be like.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{families, is_external, is_headless, kind, wants_health_port};
use crate::error::FieldError;
use crate::registry::kinds::rules::{IMMUTABLE, addresses::special_address, port_number};
use crate::registry::meta::{self, names};
use crate::registry::object::{items_at, str_at};

const IP: &str = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
const KUBELET_PORT: i64 = 10_250;

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
    errors.extend(families::validate(s));
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
        // A load balancer that opens all of a node's port 10250 would open the kubelet.
        if kind == "LoadBalancer" && port == KUBELET_PORT {
            let why = "may not expose port 10250 externally since it is used by kubelet";
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
        if let Some(said) = p["appProtocol"].as_str()
            && let Some(why) = names::qualified_name(said)
        {
            errors.push(FieldError::invalid(format!("{at}.appProtocol"), said, why));
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
    if str_at(s, "/spec/sessionAffinity") != "ClientIP" && s.pointer("/spec/sessionAffinityConfig").is_some()
    {
        errors.push(FieldError::forbidden(
            "spec.sessionAffinityConfig",
            "must not be set when session affinity is None",
        ));
    }
    one_of(s, "trafficDistribution", &["PreferClose", "PreferSameZone", "PreferSameNode"], &mut errors);
    load_balancer(s, kind, &mut errors);
    if !str_at(s, "/spec/externalTrafficPolicy").is_empty() && !is_external(s) {
        errors.push(FieldError::invalid(
            "spec.externalTrafficPolicy",
            str_at(s, "/spec/externalTrafficPolicy"),
            "may only be set for externally-accessible services",
        ));
    }
    errors
}

/// What only a LoadBalancer may have.
fn load_balancer(s: &Value, kind: &str, errors: &mut Vec<FieldError>) {
    const ONLY: &str = "may only be used when `type` is 'LoadBalancer'";
    let ranges = items_at(s, "/spec/loadBalancerSourceRanges");
    if kind != "LoadBalancer" {
        if !ranges.is_empty() {
            errors.push(FieldError::forbidden("spec.LoadBalancerSourceRanges", ONLY));
        }
        for field in ["allocateLoadBalancerNodePorts", "loadBalancerClass"] {
            if s.pointer(&format!("/spec/{field}")).is_some_and(|value| !value.is_null()) {
                errors.push(FieldError::forbidden(format!("spec.{field}"), ONLY));
            }
        }
    }
    for (i, range) in ranges.iter().enumerate() {
        // Spaces around are allowed: the annotation this field replaced allowed them.
        let text = range.as_str().unwrap_or_default().trim();
        if !text.contains('/') || text.parse::<ipnetwork::IpNetwork>().is_err() {
            let why = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
            errors.push(FieldError::invalid(format!("spec.LoadBalancerSourceRanges[{i}]"), text, why));
        }
    }
    if let Some(class) = s.pointer("/spec/loadBalancerClass").and_then(Value::as_str)
        && let Some(why) = names::qualified_name(class)
    {
        errors.push(FieldError::invalid("spec.loadBalancerClass", class, why));
    }
    let health = s.pointer("/spec/healthCheckNodePort").and_then(Value::as_i64).unwrap_or(0);
    if health != 0 && !wants_health_port(s) {
        errors.push(FieldError::invalid(
            "spec.healthCheckNodePort",
            health,
            "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'",
        ));
    }
}

pub(super) fn validate_status(s: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (i, ingress) in items_at(s, "/status/loadBalancer/ingress").iter().enumerate() {
        let at = format!("status.loadBalancer.ingress[{i}]");
        let (ip, host, mode) =
            (str_at(ingress, "/ip"), str_at(ingress, "/hostname"), str_at(ingress, "/ipMode"));
        if !ip.is_empty() && ip.parse::<std::net::IpAddr>().is_err() {
            errors.push(FieldError::invalid(format!("{at}.ip"), ip, IP));
        }
        if ip.is_empty() && !mode.is_empty() {
            errors.push(FieldError::forbidden(format!("{at}.ipMode"), "may not be set when `ip` is not set"));
        }
        if !mode.is_empty() && !["Proxy", "VIP"].contains(&mode) {
            errors.push(FieldError::not_supported(format!("{at}.ipMode"), mode, &["Proxy", "VIP"]));
        }
        if !host.is_empty() && host.parse::<std::net::IpAddr>().is_ok() {
            errors.push(FieldError::invalid(
                format!("{at}.hostname"),
                host,
                "must be a DNS name, not an IP address",
            ));
        } else if let Some(why) = (!host.is_empty()).then(|| names::subdomain(host)).flatten() {
            errors.push(FieldError::invalid(format!("{at}.hostname"), host, why));
        }
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
        match text.parse() {
            Err(_) => errors.push(FieldError::invalid(format!("spec.externalIPs[{i}]"), text, IP)),
            Ok(ip) => {
                if let Some(why) = special_address(ip) {
                    errors.push(FieldError::invalid(format!("spec.externalIPs[{i}]"), text, why));
                }
            }
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
    errors.extend(families::validate_update(new, old));
    let both = |wants: fn(&Value) -> bool| wants(old) && wants(new);
    if both(wants_health_port) {
        let port = |s: &Value| s.pointer("/spec/healthCheckNodePort").and_then(Value::as_i64);
        if port(new) != port(old) {
            errors.push(FieldError::forbidden("spec.healthCheckNodePort", IMMUTABLE));
        }
    }
    if both(|s| kind(s) == "LoadBalancer") {
        let class = |s: &'_ Value| s.pointer("/spec/loadBalancerClass").cloned().unwrap_or_default();
        if class(new) != class(old) {
            let why = "may not change once set";
            errors.push(FieldError::invalid("spec.loadBalancerClass", class(new), why));
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
    fn what_only_a_load_balancer_may_have_is_refused_elsewhere() {
        let ports = json!([{"port": 80}]);
        let found = messages(json!({"ports": ports, "loadBalancerSourceRanges": ["10.0.0.0/8"],
            "allocateLoadBalancerNodePorts": true, "loadBalancerClass": "a.test/b", "healthCheckNodePort": 30001}));
        assert_eq!(found.len(), 4, "{found:?}");
        let balancer = json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local", "ports": ports,
            "loadBalancerSourceRanges": [" 10.0.0.0/8 "], "loadBalancerClass": "a.test/b", "healthCheckNodePort": 30001});
        assert_eq!(messages(balancer), Vec::<String>::new());
        let found = messages(json!({"type": "LoadBalancer", "ports": [{"port": 10250}],
            "loadBalancerSourceRanges": ["10.0.0.1", "ten"]}));
        assert_eq!(found.len(), 3, "{found:?}");
    }

    #[test]
    fn external_addresses_that_are_no_host_s_and_unknown_words_are_refused() {
        for ip in ["127.0.0.1", "0.0.0.0", "169.254.1.1", "224.0.0.1", "::1", "fe80::1", "ff02::1", "nobody"]
        {
            let found = messages(json!({"ports": [{"port": 80}], "externalIPs": [ip]}));
            assert_eq!(found.len(), 1, "{ip}: {found:?}");
        }
        for (field, value) in [
            ("trafficDistribution", "PreferFar"),
            ("internalTrafficPolicy", "Far"),
            ("sessionAffinity", "Cookie"),
        ] {
            let mut spec = json!({"ports": [{"port": 80}]});
            spec[field] = value.into();
            let found = messages(spec);
            assert!(found.len() == 1 && found[0].contains("Unsupported value"), "{found:?}");
        }
    }

    #[test]
    fn a_status_has_addresses_of_known_modes() {
        let of = |ingress: Value| {
            validate_status(&json!({"status": {"loadBalancer": {"ingress": [ingress]}}})).len()
        };
        assert_eq!(of(json!({"ip": "192.0.2.1", "ipMode": "Proxy"})), 0);
        assert_eq!(of(json!({"hostname": "lb.example.com"})), 0);
        for wrong in [
            json!({"ip": "one"}),
            json!({"ip": "192.0.2.1", "ipMode": "Tunnel"}),
            json!({"ipMode": "VIP"}),
            json!({"hostname": "192.0.2.1"}),
            json!({"hostname": "no host"}),
        ] {
            assert_eq!(of(wrong.clone()), 1, "{wrong}");
        }
    }

    #[test]
    fn a_health_port_and_a_class_stay_while_the_type_does() {
        let with = |port: i64, class: &str, kind: &str| {
            json!({"spec": {"type": kind, "externalTrafficPolicy": "Local",
            "healthCheckNodePort": port, "loadBalancerClass": class}})
        };
        let old = with(30001, "a.test/b", "LoadBalancer");
        assert_eq!(validate_update(&with(30002, "a.test/c", "LoadBalancer"), &old).len(), 2);
        assert_eq!(validate_update(&with(30002, "a.test/c", "NodePort"), &old).len(), 0);
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
