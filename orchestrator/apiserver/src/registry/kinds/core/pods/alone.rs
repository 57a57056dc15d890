//! What is asked of a pod and not of a template for pods.

use serde_json::Value;

use crate::error::FieldError;
use crate::registry::meta::names;
use crate::registry::object::{items_at, meta_str, str_at};

pub(super) const MIRROR: &str = "kubernetes.io/config.mirror";
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

pub(super) fn validate_annotations(pod: &Value, errors: &mut Vec<FieldError>) {
    let annotations = &pod["metadata"]["annotations"];
    if let Some(value) = annotations[MIRROR].as_str()
        && str_at(pod, "/spec/nodeName").is_empty()
    {
        let why = "must set spec.nodeName if mirror pod annotation is set";
        errors.push(FieldError::invalid(format!("metadata.annotations[{MIRROR}]"), value, why));
    }
    if let Some(cost) = annotations[DELETION_COST].as_str()
        && !is_cost(cost)
    {
        let at = format!("metadata.annotations[{DELETION_COST}]");
        errors.push(FieldError::invalid(at, cost, "must be a 32bit integer"));
    }
}

/// A whole number in the one way of writing it.
fn is_cost(text: &str) -> bool {
    let is_plain = !text.starts_with('+') && (text == "0" || !text.trim_start_matches('-').starts_with('0'));
    is_plain && text.parse::<i32>().is_ok()
}

pub(super) fn validate(pod: &Value, errors: &mut Vec<FieldError>) {
    let spec = &pod["spec"];
    for list in ["containers", "initContainers"] {
        for (i, container) in items_at(spec, &format!("/{list}")).iter().enumerate() {
            let image = str_at(container, "/image");
            if image != image.trim() {
                let why = "must not have leading or trailing whitespace";
                errors.push(FieldError::invalid(format!("spec.{list}[{i}].image"), image, why));
            }
        }
    }
    if pod["metadata"]["annotations"].get(MIRROR).is_some() && !items_at(spec, "/resourceClaims").is_empty() {
        errors
            .push(FieldError::forbidden("spec.resourceClaims", "static pods do not support resource claims"));
    }
    volumes(pod, errors);
}

fn volumes(pod: &Value, errors: &mut Vec<FieldError>) {
    let (name, volumes) = (meta_str(pod, "name"), items_at(pod, "/spec/volumes"));
    let made: Vec<String> = volumes
        .iter()
        .filter(|it| !it["ephemeral"].is_null())
        .map(|it| format!("{name}-{}", str_at(it, "/name")))
        .collect();
    for (i, volume) in volumes.iter().enumerate() {
        let at = format!("spec.volumes[{i}]");
        let claim = str_at(volume, "/persistentVolumeClaim/claimName");
        if made.iter().any(|it| it == claim) {
            let why = "must not reference a PVC that gets created for an ephemeral volume";
            errors.push(FieldError::invalid(format!("{at}.persistentVolumeClaim.claimName"), claim, why));
        }
        let own = str_at(volume, "/name");
        if !volume["ephemeral"].is_null()
            && !own.is_empty()
            && let Some(why) = names::subdomain(&format!("{name}-{own}"))
        {
            let why = format!("PVC name \"{name}-{own}\": {why}");
            errors.push(FieldError::invalid(format!("{at}.name"), own, why));
        }
        if !volume["image"].is_null() && str_at(volume, "/image/reference").is_empty() {
            errors.push(FieldError::required(format!("{at}.image.reference"), ""));
        }
        if !str_at(pod, "/spec/serviceAccountName").is_empty() {
            continue;
        }
        for (j, source) in items_at(volume, "/projected/sources").iter().enumerate() {
            if !source["serviceAccountToken"].is_null() {
                let at = format!("{at}.projected.sources[{j}].serviceAccountToken");
                let why = "must not be specified when serviceAccountName is not set";
                errors.push(FieldError::forbidden(at, why));
            }
        }
    }
}
