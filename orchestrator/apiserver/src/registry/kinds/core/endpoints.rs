//! Endpoints: the addresses behind a Service, in the old single-object form.

use serde_json::Value;

use crate::error::FieldError;
use crate::registry::definition::Declaration;
use crate::registry::field_rules::{Check, Rule, at, is_empty, within};
use crate::registry::kinds::rules::addresses::{ip, special_address};
use crate::registry::kinds::rules::shapes::PROTOCOLS;
use crate::registry::meta::names;
use crate::registry::object::items_at;
use crate::tables::network::ENDPOINTS;

pub(crate) fn declaration() -> Declaration {
    Declaration::new("", "v1", "Endpoints", "endpoints")
        .columns(ENDPOINTS)
        .short(&["ep"])
        .create_on_update()
        .rules(RULES)
}

const RULES: &[Rule] = &[within(
    "subsets[]",
    &[
        at("", Check::Judge(some_address)),
        within("addresses[]", ADDRESS),
        within("notReadyAddresses[]", ADDRESS),
        at("ports", Check::Judge(named)),
        within(
            "ports[]",
            &[
                at("name", Check::Name(names::label)),
                at("port", Check::Given("")),
                at("port", Check::Port),
                at("protocol", Check::OneOf(PROTOCOLS)),
                at("appProtocol", Check::Text(names::qualified_name)),
            ],
        ),
    ],
)];

const ADDRESS: &[Rule] = &[
    at("ip", Check::Judge(address)),
    at("hostname", Check::Name(names::label)),
    at("nodeName", Check::Text(names::subdomain)),
];

fn some_address(subset: &Value, path: &str, errors: &mut Vec<FieldError>) {
    if ["/addresses", "/notReadyAddresses"].iter().all(|list| items_at(subset, list).is_empty()) {
        errors.push(FieldError::required(path, "must specify `addresses` or `notReadyAddresses`"));
    }
}

fn address(value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let text = value.as_str().unwrap_or_default();
    let special = || text.parse().ok().and_then(special_address).map(str::to_owned);
    if let Some(why) = ip(text).or_else(special) {
        errors.push(FieldError::invalid(path, text, why));
    }
}

/// Of several ports each has a name.
fn named(ports: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let ports = ports.as_array().map(Vec::as_slice).unwrap_or_default();
    for (i, _) in ports.iter().enumerate().filter(|(_, port)| ports.len() > 1 && is_empty(&port["name"])) {
        errors.push(FieldError::required(format!("{path}[{i}].name"), ""));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn addresses_that_are_no_other_host_s_and_bad_ports_are_refused_by_field() {
        let of = |subset: Value| {
            let mut found = Vec::new();
            crate::registry::field_rules::judge(RULES, &json!({"subsets": [subset]}), "", &mut found);
            found.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let good = json!({"addresses": [{"ip": "10.0.0.1"}], "ports": [{"port": 80}]});
        assert_eq!(of(good), Vec::<String>::new());
        assert_eq!(of(json!({"notReadyAddresses": [{"ip": "fd00::1"}]})), Vec::<String>::new());
        let found = of(json!({"addresses": [{"ip": "127.0.0.1"}, {"ip": "x"}], "ports": [{"port": 0}]}));
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(found[0].starts_with("subsets[0].addresses[0].ip"), "{found:?}");
        assert_eq!(of(json!({"ports": [{"port": 80}]})).len(), 1, "an empty subset says nothing");
    }
}
