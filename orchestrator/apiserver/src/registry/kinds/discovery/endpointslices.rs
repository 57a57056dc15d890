//! EndpointSlice: some of the addresses behind a Service, of one family and with one list of ports.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::error::FieldError;
use crate::registry::definition::Declaration;
use crate::registry::kinds::rules::addresses::special_address;
use crate::registry::kinds::rules::{immutable, port_number};
use crate::registry::meta::names;
use crate::registry::object::{items_at, str_at};
use crate::registry::strategy::Strategy;
use crate::tables::network::ENDPOINT_SLICES;

/// Upstream's bounds (pkg/apis/discovery/validation).
const ENDPOINTS_MAX: usize = 1_000;
const ADDRESSES_MAX: usize = 100;
const PORTS_MAX: usize = 20_000;

pub(crate) fn declaration() -> Declaration {
    Declaration::new("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices")
        .columns(ENDPOINT_SLICES)
        .generation()
        .strategy(EndpointSlice)
}

struct EndpointSlice;

impl Strategy for EndpointSlice {
    fn validate(&self, new: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let family = str_at(new, "/addressType");
        let families = ["FQDN", "IPv4", "IPv6"];
        if family.is_empty() {
            errors.push(FieldError::required("addressType", ""));
        } else if !families.contains(&family) {
            errors.push(FieldError::not_supported("addressType", family, &families));
        }
        let endpoints = items_at(new, "/endpoints");
        if endpoints.len() > ENDPOINTS_MAX {
            errors.push(FieldError::too_many("endpoints", endpoints.len(), ENDPOINTS_MAX));
            return errors;
        }
        for (i, endpoint) in endpoints.iter().enumerate() {
            endpoint_errors(endpoint, family, &format!("endpoints[{i}]"), &mut errors);
        }
        let ports = items_at(new, "/ports");
        if ports.len() > PORTS_MAX {
            errors.push(FieldError::too_many("ports", ports.len(), PORTS_MAX));
            return errors;
        }
        port_errors(ports, "ports", &mut errors);
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        immutable(new, old, "/addressType", &mut errors);
        errors
    }
}

fn endpoint_errors(endpoint: &Value, family: &str, at: &str, errors: &mut Vec<FieldError>) {
    let addresses = items_at(endpoint, "/addresses");
    if addresses.is_empty() {
        errors.push(FieldError::required(format!("{at}.addresses"), "must contain at least 1 address"));
    } else if addresses.len() > ADDRESSES_MAX {
        errors.push(FieldError::too_many(format!("{at}.addresses"), addresses.len(), ADDRESSES_MAX));
    }
    for (i, address) in addresses.iter().take(ADDRESSES_MAX).enumerate() {
        let text = address.as_str().unwrap_or_default();
        let parsed = text.parse::<std::net::IpAddr>().ok();
        let why = match (family, parsed) {
            ("IPv4", Some(ip)) if ip.is_ipv4() => special_address(ip).map(str::to_owned),
            ("IPv4", _) => Some("must be an IPv4 address".to_owned()),
            ("IPv6", Some(ip)) if ip.is_ipv6() => special_address(ip).map(str::to_owned),
            ("IPv6", _) => Some("must be an IPv6 address".to_owned()),
            ("FQDN", _) => names::subdomain(text.trim_end_matches('.')),
            _ => None,
        };
        if let Some(why) = why {
            errors.push(FieldError::invalid(format!("{at}.addresses[{i}]"), text, why));
        }
    }
    let names = [("nodeName", names::subdomain as fn(&str) -> Option<String>), ("hostname", names::label)];
    for (field, check) in names {
        if let Some(text) = endpoint[field].as_str()
            && let Some(why) = check(text)
        {
            errors.push(FieldError::invalid(format!("{at}.{field}"), text, why));
        }
    }
}

/// Ports of a slice: each name once, and numbers that are ones. Also those of Endpoints have these rules.
pub(crate) fn port_errors(ports: &[Value], at: &str, errors: &mut Vec<FieldError>) {
    let mut seen = BTreeSet::new();
    for (i, port) in ports.iter().enumerate() {
        let name = str_at(port, "/name");
        if !seen.insert(name) {
            errors.push(FieldError::duplicate(format!("{at}[{i}].name"), name));
        }
        if let Some(why) = (!name.is_empty()).then(|| names::label(name)).flatten() {
            errors.push(FieldError::invalid(format!("{at}[{i}].name"), name, why));
        }
        if let Some(number) = port["port"].as_i64()
            && let Some(why) = port_number(number)
        {
            errors.push(FieldError::invalid(format!("{at}[{i}].port"), number, why));
        }
        let protocol = port["protocol"].as_str().unwrap_or("TCP");
        let protocols = ["SCTP", "TCP", "UDP"];
        if !protocols.contains(&protocol) {
            errors.push(FieldError::not_supported(format!("{at}[{i}].protocol"), protocol, &protocols));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn messages(slice: Value) -> Vec<String> {
        EndpointSlice.validate(&slice).iter().map(ToString::to_string).collect()
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
        assert_eq!(found.len(), 4, "{found:?}");
        let many = vec![json!({"addresses": ["10.0.0.1"]}); ENDPOINTS_MAX + 1];
        assert_eq!(messages(json!({"addressType": "IPv4", "endpoints": many})).len(), 1);
    }

    #[test]
    fn the_family_of_a_slice_stays() {
        let of = |family: &str| json!({"addressType": family});
        assert_eq!(EndpointSlice.validate_update(&of("IPv6"), &of("IPv4")).len(), 1);
    }
}
