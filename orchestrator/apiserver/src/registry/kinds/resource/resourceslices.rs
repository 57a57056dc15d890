//! ResourceSlice: devices a driver has, on one node or for several.

use serde_json::Value;

use super::claims::{self, TAINT, pool};
use crate::error::FieldError;
use crate::registry::definition::Declaration;
use crate::registry::field_rules::{self, Check, Fixed, Rule, at, within};
use crate::registry::kinds::rules::pod_spec::affinity::node_selector;
use crate::registry::meta::names;
use crate::registry::object::{items_at, str_at};

pub(crate) fn declaration() -> Declaration {
    Declaration::new("resource.k8s.io", "v1", "ResourceSlice", "resourceslices")
        .cluster_scoped()
        .generation()
        .fields(&["spec.driver", "spec.nodeName"], |o| {
            vec![
                ("spec.driver", str_at(o, "/spec/driver").to_string()),
                ("spec.nodeName", str_at(o, "/spec/nodeName").to_string()),
            ]
        })
        .rules(RULES)
        .fixed(&[Fixed::Field("spec.pool.name"), Fixed::Field("spec.driver"), Fixed::Field("spec.nodeName")])
}

/// Upstream's bounds (pkg/apis/resource/types.go).
const DEVICES_MAX: usize = 128;
const COUNTER_SETS_MAX: usize = 8;
const ATTRIBUTES_MAX: usize = 32;
const TEXT_BYTES_MAX: usize = 64;

const RULES: &[Rule] = &[
    at("spec.driver", Check::Required("")),
    at("spec.driver", Check::Name(names::csi_driver)),
    at("spec.pool.name", Check::Required("")),
    at("spec.pool.name", Check::Name(pool)),
    at("spec.pool.resourceSliceCount", Check::Judge(some_slices)),
    at("spec.pool.generation", Check::AtLeast(0)),
    at("spec", Check::Judge(one_place)),
    within(
        "spec.nodeSelector",
        &[at("", Check::Judge(node_selector)), at("nodeSelectorTerms", Check::Judge(one_term))],
    ),
    at("spec.devices", Check::ItemsMax(DEVICES_MAX)),
    at("spec.devices", Check::Unique(&["name"])),
    at("spec.devices[].name", Check::Text(names::label)),
    at("spec.devices[]", Check::Judge(device)),
    within("spec.devices[].taints[]", TAINT),
    at("spec.sharedCounters", Check::ItemsMax(COUNTER_SETS_MAX)),
    at("spec.sharedCounters", Check::Unique(&["name"])),
    within(
        "spec.sharedCounters[]",
        &[
            at("name", Check::Required("")),
            at("name", Check::Name(names::label)),
            at("counters", Check::Required("")),
            at("counters", Check::ItemsMax(32)),
        ],
    ),
];

fn some_slices(count: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let said = count.as_i64().unwrap_or(0);
    if said <= 0 {
        errors.push(FieldError::invalid(path, said, "must be greater than zero"));
    }
}

fn one_term(terms: &Value, path: &str, errors: &mut Vec<FieldError>) {
    if terms.as_array().is_none_or(|it| it.len() != 1) {
        errors.push(FieldError::invalid(path, terms.clone(), "must have exactly one node selector term"));
    }
}

/// Which of the ways to say where something is are used; what is used to say nothing is told.
fn places(value: &Value, ways: &[&str], path: &str, errors: &mut Vec<FieldError>) -> Vec<String> {
    let mut found = Vec::new();
    for way in ways {
        let at = format!("{path}.{way}");
        match &value[*way] {
            Value::Null => continue,
            Value::Bool(false) => {
                errors.push(FieldError::invalid(at, false, "must be either unset or set to true"));
                continue;
            }
            Value::String(name) if name.is_empty() => {
                errors.push(FieldError::invalid(at, "", "must be either unset or set to a non-empty string"));
                continue;
            }
            Value::String(name) => {
                if let Some(why) = names::subdomain(name) {
                    errors.push(FieldError::invalid(at, name.as_str(), why));
                }
            }
            _ => {}
        }
        found.push(format!("`{way}`"));
    }
    found
}

fn one_place(spec: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let ways = ["nodeName", "nodeSelector", "allNodes", "perDeviceNodeSelection"];
    let found = places(spec, &ways, path, errors);
    let one = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";
    match found.len() {
        0 => errors.push(FieldError::required(path, one)),
        1 => {}
        _ => {
            let why = format!("{one}, but multiple fields are set");
            errors.push(FieldError::invalid(path, format!("{{{}}}", found.join(", ")), why));
        }
    }
    if !items_at(spec, "/sharedCounters").is_empty() && !items_at(spec, "/devices").is_empty() {
        let why = "only one of `sharedCounters` or `devices` is allowed";
        errors.push(FieldError::invalid(path, "", why));
    }
    let each = spec["perDeviceNodeSelection"] == true;
    for (i, device) in items_at(spec, "/devices").iter().enumerate() {
        let at = format!("{path}.devices[{i}]");
        let ways = ["nodeName", "nodeSelector", "allNodes"];
        if !each {
            if ways.iter().any(|way| !device[*way].is_null()) {
                let why = "`nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to true in the ResourceSlice spec";
                errors.push(FieldError::invalid(at, Value::Null, why));
            }
            continue;
        }
        let found = places(device, &ways, &at, errors);
        if found.is_empty() {
            let why = "exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when `perDeviceNodeSelection` is set to true in the ResourceSlice spec";
            errors.push(FieldError::required(at, why));
        } else if found.len() > 1 {
            let why = "exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when `perDeviceNodeSelection` is set to true in the ResourceSlice spec, but multiple fields are set";
            errors.push(FieldError::invalid(at, format!("{{{}}}", found.join(", ")), why));
        }
    }
}

fn device(device: &Value, path: &str, errors: &mut Vec<FieldError>) {
    const SELECTOR: &[Rule] = &[within("nodeSelector", &[at("", Check::Judge(node_selector))])];
    field_rules::judge(SELECTOR, device, path, errors);
    let map = |field: &str| device[field].as_object().into_iter().flatten();
    let count = map("attributes").count() + map("capacity").count();
    if count > ATTRIBUTES_MAX {
        let why = format!("the total number of attributes and capacities must not exceed {ATTRIBUTES_MAX}");
        errors.push(FieldError::invalid(path, count as u64, why));
    }
    for field in ["attributes", "capacity"] {
        for (name, _) in map(field) {
            claims::name_errors(name, &format!("{path}.{field}"), errors);
        }
    }
    for (name, attribute) in map("attributes") {
        let at = format!("{path}.attributes[{name}]");
        if attribute.as_object().is_none_or(|it| it.len() != 1) {
            errors.push(FieldError::invalid(
                at.as_str(),
                attribute.clone(),
                "exactly one value must be specified",
            ));
        }
        for field in ["string", "version"] {
            if attribute[field].as_str().is_some_and(|text| text.len() > TEXT_BYTES_MAX) {
                errors.push(FieldError::too_long(format!("{at}.{field}"), TEXT_BYTES_MAX));
            }
        }
    }
    if device["allowMultipleAllocations"] != true {
        for (name, capacity) in map("capacity") {
            if !capacity["requestPolicy"].is_null() {
                let at = format!("{path}.capacity[{name}].requestPolicy");
                errors.push(FieldError::forbidden(at, "allowMultipleAllocations must be true"));
            }
        }
    }
}
