//! How a pod is called in the network, and how it finds others' names.

use serde_json::Value;

use crate::error::FieldError;
use crate::registry::field_rules::{self, Check, Rule, at};
use crate::registry::kinds::rules::addresses::ip;
use crate::registry::meta::names;
use crate::registry::object::{items_at, str_at};

const SERVERS_MAX: usize = 3;
const SEARCHES_MAX: usize = 32;
const SEARCHES_BYTES_MAX: usize = 2048;

const ALIASES: &[Rule] = &[
    at("hostAliases[].ip", Check::Text(ip)),
    at("hostAliases[].hostnames[]", Check::Text(names::subdomain)),
];

pub(super) fn validate(spec: &Value, path: &str, errors: &mut Vec<FieldError>) {
    field_rules::judge(ALIASES, spec, path, errors);
    let policies = ["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"];
    match str_at(spec, "/dnsPolicy") {
        "" => errors.push(FieldError::required(format!("{path}.dnsPolicy"), "")),
        known if policies.contains(&known) => {}
        other => errors.push(FieldError::not_supported(format!("{path}.dnsPolicy"), other, &policies)),
    }
    dns(spec, &format!("{path}.dnsConfig"), errors);
    let Some(name) = spec["hostnameOverride"].as_str() else { return };
    let at = format!("{path}.hostnameOverride");
    for (field, why) in [
        ("setHostnameAsFQDN", "may not be specified when setHostnameAsFQDN is true"),
        ("hostNetwork", "may not be specified when hostNetwork is true"),
    ] {
        if spec[field] == true {
            errors.push(FieldError::forbidden(at.as_str(), why));
        }
    }
    if name.len() > 64 {
        errors.push(FieldError::too_long(at.as_str(), 64));
    }
    if let Some(why) = names::subdomain(name) {
        errors.push(FieldError::invalid(at, name, why));
    }
}

fn dns(spec: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let config = &spec["dnsConfig"];
    let servers = items_at(config, "/nameservers");
    if spec["dnsPolicy"] == "None" {
        if config.is_null() {
            let why = "must provide `dnsConfig` when `dnsPolicy` is None";
            errors.push(FieldError::required(path, why));
            return;
        }
        if servers.is_empty() {
            let why = "must provide at least one DNS nameserver when `dnsPolicy` is None";
            errors.push(FieldError::required(format!("{path}.nameservers"), why));
            return;
        }
    }
    let at = format!("{path}.nameservers");
    if servers.len() > SERVERS_MAX {
        let why = format!("must not have more than {SERVERS_MAX} nameservers");
        errors.push(FieldError::invalid(at.as_str(), servers.to_vec(), why));
    }
    for (i, server) in servers.iter().enumerate() {
        let text = server.as_str().unwrap_or_default();
        if let Some(why) = ip(text) {
            errors.push(FieldError::invalid(format!("{at}[{i}]"), text, why));
        }
    }
    let searches: Vec<&str> = items_at(config, "/searches").iter().filter_map(Value::as_str).collect();
    let at = format!("{path}.searches");
    let mut refuse = |why: String| errors.push(FieldError::invalid(at.as_str(), searches.clone(), why));
    if searches.len() > SEARCHES_MAX {
        refuse(format!("must not have more than {SEARCHES_MAX} search paths"));
    }
    if searches.join(" ").len() > SEARCHES_BYTES_MAX {
        refuse(format!(
            "must not have more than {SEARCHES_BYTES_MAX} characters (including spaces) in the search list"
        ));
    }
    for (i, search) in searches.iter().enumerate().filter(|(_, search)| **search != ".") {
        let search = search.strip_suffix('.').unwrap_or(search);
        // Underscores are let through, as resolvers do.
        if let Some(why) = names::subdomain(&underscores_as_letters(search)) {
            errors.push(FieldError::invalid(format!("{at}[{i}]"), search, why));
        }
    }
    for (i, option) in items_at(config, "/options").iter().enumerate() {
        if str_at(option, "/name").is_empty() {
            errors.push(FieldError::required(format!("{path}.options[{i}]"), "must not be empty"));
        }
    }
}

fn underscores_as_letters(text: &str) -> String {
    text.replace('_', "x")
}
