//! PersistentVolume: storage the cluster has. What it is made of does not change.

use serde_json::{Value, json};

use crate::error::FieldError;
use crate::registry::context::Context;
use crate::registry::definition::{Declaration, STATUS};
use crate::registry::field_rules::{Check, Fixed, Rule, at, is_same, within};
use crate::registry::generic::now_text;
use crate::registry::kinds::rules::pod_spec::affinity::node_selector;
use crate::registry::kinds::rules::pod_spec::volume::{one_source, sources};
use crate::registry::kinds::rules::volume_modes::{ACCESS_MODES, VOLUME_MODES};
use crate::registry::meta::names;
use crate::registry::object::str_at;
use crate::registry::strategy::Strategy;
use crate::tables::core::VOLUMES;

pub(crate) fn declaration() -> Declaration {
    Declaration::new("", "v1", "PersistentVolume", "persistentvolumes")
        .columns(VOLUMES)
        .short(&["pv"])
        .cluster_scoped()
        .returns_deleted()
        .subresources(&[STATUS])
        .rules(RULES)
        .fixed(&[Fixed::Field("spec.volumeMode")])
        .strategy(Volume)
}

const RULES: &[Rule] = &[
    within("spec", ANY_SPEC),
    at("spec.capacity", Check::Required("")),
    at("spec.capacity", Check::Judge(storage_alone)),
    at("spec.capacity{}", Check::Positive),
    at("spec.persistentVolumeReclaimPolicy", Check::OneOf(&["Delete", "Recycle", "Retain"])),
    within(
        "spec.nodeAffinity",
        &[
            at("required", Check::Given("must specify required node constraints")),
            within("required", &[at("", Check::Judge(node_selector))]),
        ],
    ),
    at("spec.storageClassName", Check::Name(names::subdomain)),
    at("spec.volumeMode", Check::OneOf(VOLUME_MODES)),
    at("spec.volumeAttributesClassName", Check::Judge(attributes_class)),
    at("spec", Check::Judge(consequences)),
];

/// What any volume keeps, also one that is described where it is used.
const ANY_SPEC: &[Rule] = &[
    at("accessModes", Check::Required("")),
    at("accessModes", Check::Judge(ACCESS_MODES)),
    at("", Check::Judge(source)),
];

const INLINE: &str = "may not be specified in the context of inline volumes";

/// A volume that is described where it is used (VolumeAttachment).
pub(crate) const INLINE_SPEC: &[Rule] = &[
    at("claimRef", Check::Forbidden(INLINE)),
    at("capacity", Check::Forbidden(INLINE)),
    at("csi", Check::Given("has to be specified in the context of inline volumes")),
    at("accessModes", Check::Required("")),
    at("accessModes", Check::Judge(ACCESS_MODES)),
    at("nodeAffinity", Check::Forbidden(INLINE)),
    at("storageClassName", Check::Forbidden(INLINE)),
    at("", Check::Judge(source)),
];

fn source(spec: &Value, path: &str, errors: &mut Vec<FieldError>) {
    one_source(spec, sources::OF_CLUSTER, path, errors);
}

fn storage_alone(capacity: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let only = capacity.as_object().is_some_and(|map| map.len() == 1 && map.contains_key("storage"));
    if !only {
        errors.push(FieldError::not_supported(path, capacity.clone(), &["storage"]));
    }
}

fn attributes_class(class: &Value, path: &str, errors: &mut Vec<FieldError>) {
    match class.as_str() {
        None => {}
        Some("") => errors.push(FieldError::required(path, "an empty string is disallowed")),
        Some(text) => {
            if let Some(why) = names::subdomain(text) {
                errors.push(FieldError::invalid(path, text, why));
            }
        }
    }
}

/// What one field asks of another.
fn consequences(spec: &Value, path: &str, errors: &mut Vec<FieldError>) {
    if !spec["local"].is_null() && spec["nodeAffinity"].is_null() {
        errors.push(FieldError::required(
            format!("{path}.nodeAffinity"),
            "Local volume requires node affinity",
        ));
    }
    let host_path = str_at(spec, "/hostPath/path");
    let is_root = host_path.starts_with('/') && host_path.split('/').all(|part| matches!(part, "" | "."));
    if is_root && spec["persistentVolumeReclaimPolicy"] == "Recycle" {
        let why = "may not be 'recycle' for a hostPath mount of '/'";
        errors.push(FieldError::forbidden(format!("{path}.persistentVolumeReclaimPolicy"), why));
    }
    if !spec["volumeAttributesClassName"].is_null() && spec["csi"].is_null() {
        let why = "has to be specified when using volumeAttributesClassName";
        errors.push(FieldError::required(format!("{path}.csi"), why));
    }
}

struct Volume;

impl Strategy for Volume {
    fn prepare_create(&self, _context: &Context, new: &mut Value) {
        new["status"] = json!({"phase": "Pending", "lastPhaseTransitionTime": now_text()});
    }

    fn prepare_status(&self, _context: &Context, new: &mut Value, old: &Value) {
        let is_said = new["status"]["lastPhaseTransitionTime"] != old["status"]["lastPhaseTransitionTime"];
        if new["status"]["phase"] != old["status"]["phase"] && !is_said {
            new["status"]["lastPhaseTransitionTime"] = now_text().into();
        }
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let changed = sources::OF_CLUSTER.iter().any(|(kind, _)| {
            let (mut is, was) = (new["spec"][*kind].clone(), &old["spec"][*kind]);
            // The one part of a source that may still be added.
            let secret = "controllerExpandSecretRef";
            if *kind == "csi" && was.is_object() && was[secret].is_null() {
                is.as_object_mut().map(|map| map.remove(secret));
            }
            !is_same(&is, was)
        });
        if changed {
            let why = "spec.persistentvolumesource is immutable after creation";
            errors.push(FieldError::forbidden("spec.persistentvolumesource", why));
        }
        let class = |volume: &Value| volume["spec"]["volumeAttributesClassName"].is_null();
        if class(new) && !class(old) {
            let why = "update from non-nil value to nil is forbidden";
            errors.push(FieldError::forbidden("spec.volumeAttributesClassName", why));
        }
        let (is, was) = (&new["spec"]["nodeAffinity"], &old["spec"]["nodeAffinity"]);
        if !was.is_null() && !is_same(is, &with_stable_labels(was)) && !is_same(is, was) {
            let why = "field is immutable, except for updating from beta label to GA";
            errors.push(FieldError::invalid("nodeAffinity", is.clone(), why));
        }
        errors
    }
}

/// Labels of nodes that have another name since they are stable.
const RENAMED: &[(&str, &str)] = &[
    ("beta.kubernetes.io/arch", "kubernetes.io/arch"),
    ("beta.kubernetes.io/instance-type", "node.kubernetes.io/instance-type"),
    ("beta.kubernetes.io/os", "kubernetes.io/os"),
    ("failure-domain.beta.kubernetes.io/region", "topology.kubernetes.io/region"),
    ("failure-domain.beta.kubernetes.io/zone", "topology.kubernetes.io/zone"),
];

/// The affinity with every label under its stable name.
fn with_stable_labels(affinity: &Value) -> Value {
    match affinity {
        Value::Object(map) => {
            map.iter().map(|(key, value)| (key.clone(), with_stable_labels(value))).collect()
        }
        Value::Array(items) => items.iter().map(with_stable_labels).collect(),
        Value::String(text) => {
            let stable =
                RENAMED.iter().find(|(beta, _)| beta == text).map_or(text.as_str(), |(_, stable)| stable);
            stable.into()
        }
        other => other.clone(),
    }
}
