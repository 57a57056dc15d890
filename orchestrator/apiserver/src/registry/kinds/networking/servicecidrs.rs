//! ServiceCIDR: a range, or one of each family, that Services get addresses from.

use serde_json::Value;

use crate::error::FieldError;
use crate::registry::definition::{Declaration, STATUS};
use crate::registry::field_rules::{Check, Rule, at};
use crate::registry::kinds::rules::IMMUTABLE;
use crate::registry::kinds::rules::addresses::{canonical_cidr, range};
use crate::registry::object::items_at;
use crate::registry::strategy::Strategy;
use crate::tables::network::SERVICE_CIDRS;

pub(crate) fn declaration() -> Declaration {
    Declaration::new("networking.k8s.io", "v1", "ServiceCIDR", "servicecidrs")
        .columns(SERVICE_CIDRS)
        .cluster_scoped()
        .subresources(&[STATUS])
        .rules(RULES)
        .strategy(ServiceCidr)
}

const RULES: &[Rule] = &[
    at("spec.cidrs", Check::Required("at least one CIDR required")),
    at("spec.cidrs[]", Check::Text(canonical_cidr)),
    at("spec.cidrs", Check::Judge(families)),
];

fn families(cidrs: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let list = cidrs.as_array().map(Vec::as_slice).unwrap_or_default();
    if list.len() > 2 {
        errors.push(FieldError::invalid(path, cidrs.clone(), "may only hold up to 2 values"));
        return;
    }
    let known: Vec<bool> =
        list.iter().filter_map(|it| range(it.as_str()?)).map(|(address, _)| address.is_ipv4()).collect();
    if let [first, second] = known.as_slice()
        && first == second
    {
        let why = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64";
        errors.push(FieldError::invalid(path, cidrs.clone(), why));
    }
}

struct ServiceCidr;

impl Strategy for ServiceCidr {
    /// A range of the other family may be added; nothing else changes.
    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let (is, was) = (items_at(new, "/spec/cidrs"), items_at(old, "/spec/cidrs"));
        if is.len() != was.len() && (is.len(), was.len()) != (2, 1) {
            return vec![FieldError::invalid("spec.cidrs", new["spec"]["cidrs"].clone(), IMMUTABLE)];
        }
        let changed = is.iter().zip(was).enumerate().filter(|(_, (is, was))| is != was);
        changed
            .map(|(i, (is, _))| FieldError::invalid(format!("spec.cidrs[{i}]"), is.clone(), IMMUTABLE))
            .collect()
    }
}
