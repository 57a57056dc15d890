//! EndpointSlice: some of the addresses behind a Service, of one family and with one list of ports.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::error::FieldError;
use crate::registry::definition::Declaration;
use crate::registry::field_rules::{self, Check, Fixed, Rule, at};
use crate::registry::kinds::rules::addresses::{canonical_ip, ip, special_address};
use crate::registry::kinds::rules::shapes::PROTOCOLS;
use crate::registry::meta::names;
use crate::registry::object::{items_at, str_at};
use crate::tables::network::ENDPOINT_SLICES;

/// Upstream's bounds (pkg/apis/discovery/validation).
const ENDPOINTS_MAX: usize = 1_000;
const ADDRESSES_MAX: usize = 100;
const PORTS_MAX: usize = 20_000;
const HINTS_MAX: usize = 8;

pub(crate) fn declaration() -> Declaration {
    Declaration::new("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices")
        .columns(ENDPOINT_SLICES)
        .generation()
        .rules(RULES)
        .fixed(&[Fixed::Field("addressType")])
}

const RULES: &[Rule] = &[
    at("addressType", Check::Required("")),
    at("addressType", Check::OneOf(&["FQDN", "IPv4", "IPv6"])),
    at("", Check::Judge(endpoints)),
    at("ports", Check::Judge(ports)),
];

const ENDPOINT: &[Rule] = &[
    at("addresses", Check::Required("must contain at least 1 address")),
    at("addresses", Check::ItemsMax(ADDRESSES_MAX)),
    at("nodeName", Check::Text(names::subdomain)),
    at("deprecatedTopology", Check::ItemsMax(16)),
    at("deprecatedTopology", Check::Labels),
    at("hostname", Check::Text(names::label)),
    at("hints.forZones", Check::ItemsMax(HINTS_MAX)),
    at("hints.forZones", Check::Unique(&["name"])),
    at("hints.forZones[].name", Check::Text(names::label_value)),
    at("hints.forNodes", Check::ItemsMax(HINTS_MAX)),
    at("hints.forNodes", Check::Unique(&["name"])),
    at("hints.forNodes[].name", Check::Text(names::subdomain)),
];

const PORT: &[Rule] = &[
    at("name", Check::Name(names::label)),
    at("protocol", Check::OneOf(PROTOCOLS)),
    at("appProtocol", Check::Text(names::qualified_name)),
];

fn endpoints(slice: &Value, _path: &str, errors: &mut Vec<FieldError>) {
    let (family, list) = (str_at(slice, "/addressType"), items_at(slice, "/endpoints"));
    if list.len() > ENDPOINTS_MAX {
        errors.push(FieldError::too_many("endpoints", list.len(), ENDPOINTS_MAX));
        return;
    }
    for (i, endpoint) in list.iter().enumerate() {
        let at = format!("endpoints[{i}]");
        field_rules::judge(ENDPOINT, endpoint, &at, errors);
        for (j, address) in items_at(endpoint, "/addresses").iter().take(ADDRESSES_MAX).enumerate() {
            address_error(family, address, &format!("{at}.addresses"), j, errors);
        }
    }
}

fn address_error(family: &str, address: &Value, at: &str, i: usize, errors: &mut Vec<FieldError>) {
    let text = address.as_str().unwrap_or_default();
    let in_form = match family {
        "IPv4" => ip(text),
        "IPv6" => canonical_ip(text),
        "FQDN" => fqdn(text),
        _ => return,
    };
    if let Some(why) = in_form {
        errors.push(FieldError::invalid(format!("{at}[{i}]"), text, why));
        return;
    }
    let Ok(parsed) = text.parse::<std::net::IpAddr>() else { return };
    match (family, parsed.is_ipv4()) {
        ("IPv4", false) => errors.push(FieldError::invalid(at, text, "must be an IPv4 address")),
        ("IPv6", true) => errors.push(FieldError::invalid(at, text, "must be an IPv6 address")),
        _ => {}
    }
    if let Some(why) = special_address(parsed) {
        errors.push(FieldError::invalid(format!("{at}[{i}]"), text, why));
    }
}

/// A name with a domain, with a dot at its end or without.
fn fqdn(name: &str) -> Option<String> {
    let plain = name.strip_suffix('.').unwrap_or(name);
    names::subdomain(plain).or_else(|| {
        (!plain.contains('.'))
            .then(|| "should be a domain with at least two segments separated by dots".into())
    })
}

/// Each name once; also the empty one.
fn ports(list: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let list = list.as_array().map(Vec::as_slice).unwrap_or_default();
    if list.len() > PORTS_MAX {
        errors.push(FieldError::too_many(path, list.len(), PORTS_MAX));
        return;
    }
    let mut seen = BTreeSet::new();
    for (i, port) in list.iter().enumerate() {
        let at = format!("{path}[{i}]");
        field_rules::judge(PORT, port, &at, errors);
        let name = str_at(port, "/name");
        if !seen.insert(name) {
            errors.push(FieldError::duplicate(format!("{at}.name"), name));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn messages(slice: Value) -> Vec<String> {
        let mut found = Vec::new();
        field_rules::judge(RULES, &slice, "", &mut found);
        found.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_is_no_other_host_s_address_is_refused_by_field() {
        let of = |family: &str, address: &str| {
            messages(json!({"addressType": family, "endpoints": [{"addresses": [address]}]}))
        };
        for (family, address) in [("IPv4", "10.244.0.2"), ("IPv6", "fd00::2"), ("FQDN", "a.example.com")] {
            assert_eq!(of(family, address), Vec::<String>::new());
        }
        for (family, address) in [
            ("IPv4", "127.0.0.1"),
            ("IPv4", "169.254.169.254"),
            ("IPv4", "0.0.0.0"),
            ("IPv4", "224.0.0.1"),
            ("IPv4", "fd00::2"),
            ("IPv4", "ten"),
            ("IPv6", "::1"),
            ("IPv6", "10.0.0.1"),
            ("IPv6", "fe80::1"),
            ("FQDN", "no name"),
            ("DNS", "a.example.com"),
        ] {
            let found = of(family, address);
            assert_eq!(found.len(), 1, "{family} {address}: {found:?}");
        }
    }

    #[test]
    fn ports_have_each_name_once_and_numbers_that_are_ports() {
        let ports = json!([{"name": "a", "port": 1}, {"name": "a", "port": 70000}, {"name": "A_", "protocol": "QUIC"}]);
        let found = messages(json!({"addressType": "IPv4", "ports": ports}));
        // No range of numbers is asked of a slice's ports.
        assert_eq!(found.len(), 3, "{found:?}");
        let many = vec![json!({"addresses": ["10.0.0.1"]}); ENDPOINTS_MAX + 1];
        assert_eq!(messages(json!({"addressType": "IPv4", "endpoints": many})).len(), 1);
    }
}
