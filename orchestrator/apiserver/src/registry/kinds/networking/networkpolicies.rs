//! NetworkPolicy: who may talk to chosen pods, and whom they may talk to.

use serde_json::Value;

use crate::error::FieldError;
use crate::registry::definition::Declaration;
use crate::registry::field_rules::{Check, Rule, at, within};
use crate::registry::kinds::rules::addresses::{cidr, contains, range};
use crate::registry::kinds::rules::labels::validate_selector;
use crate::registry::kinds::rules::shapes::PROTOCOLS;
use crate::registry::object::items_at;
use crate::tables::network::NETWORK_POLICIES;

pub(crate) fn declaration() -> Declaration {
    Declaration::new("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies")
        .columns(NETWORK_POLICIES)
        .short(&["netpol"])
        .generation()
        .rules(RULES)
}

const RULES: &[Rule] = &[
    at("spec.podSelector", Check::Judge(validate_selector)),
    within("spec.ingress[].ports[]", PORT),
    within("spec.ingress[].from[]", PEER),
    within("spec.egress[].ports[]", PORT),
    within("spec.egress[].to[]", PEER),
    at("spec.policyTypes", Check::Judge(policy_types)),
];

const PORT: &[Rule] =
    &[at("protocol", Check::OneOf(PROTOCOLS)), at("port", Check::Port), at("", Check::Judge(end_port))];

const PEER: &[Rule] = &[
    within("podSelector", &[at("", Check::Judge(validate_selector))]),
    within("namespaceSelector", &[at("", Check::Judge(validate_selector))]),
    within(
        "ipBlock",
        &[at("cidr", Check::Required("")), at("cidr", Check::Name(cidr)), at("", Check::Judge(exceptions))],
    ),
    at("", Check::Judge(peer)),
];

fn end_port(port: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let Some(end) = port["endPort"].as_i64() else { return };
    let at = format!("{path}.endPort");
    match &port["port"] {
        Value::Number(first) => {
            let first = first.as_i64().unwrap_or(0);
            if end < first {
                errors.push(FieldError::invalid(
                    at.as_str(),
                    first,
                    "must be greater than or equal to `port`",
                ));
            }
            if let Some(why) = crate::registry::kinds::rules::port_number(end) {
                errors.push(FieldError::invalid(at, end, why));
            }
        }
        Value::Null => {
            errors.push(FieldError::invalid(at, end, "may not be specified when `port` is not specified"));
        }
        _ => errors.push(FieldError::invalid(at, end, "may not be specified when `port` is non-numeric")),
    }
}

fn peer(peer: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let has = |field: &str| !peer[field].is_null();
    let selects = has("podSelector") || has("namespaceSelector");
    if !selects && !has("ipBlock") {
        errors.push(FieldError::required(path, "must specify a peer"));
    } else if selects && has("ipBlock") {
        errors.push(FieldError::forbidden(path, "may not specify both ipBlock and another peer"));
    }
}

fn exceptions(block: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let Some(whole) = block["cidr"].as_str().and_then(range) else { return };
    for (i, except) in items_at(block, "/except").iter().enumerate() {
        let (at, text) = (format!("{path}.except[{i}]"), except.as_str().unwrap_or_default());
        if let Some(why) = cidr(text) {
            errors.push(FieldError::invalid(at.as_str(), text, why));
        }
        if let Some((address, length)) = range(text)
            && (!contains(whole, address) || length <= whole.1)
        {
            errors.push(FieldError::invalid(at, text, "must be a strict subset of `cidr`"));
        }
    }
}

fn policy_types(types: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let allowed = ["Egress", "Ingress"];
    let list = types.as_array().map(Vec::as_slice).unwrap_or_default();
    if list.len() > allowed.len() {
        errors.push(FieldError::invalid(path, types.clone(), "may not specify more than two policyTypes"));
        return;
    }
    for (i, kind) in list.iter().enumerate() {
        if !allowed.iter().any(|it| kind == it) {
            errors.push(FieldError::not_supported(format!("{path}[{i}]"), kind.clone(), &allowed));
        }
    }
}
