//! CSIDriver: what a driver of volumes can do and wants to be told.

use serde_json::Value;

use crate::error::FieldError;
use crate::registry::definition::Declaration;
use crate::registry::field_rules::{Check, Fixed, Rule, at};
use crate::registry::object::items_at;

pub(crate) fn declaration() -> Declaration {
    Declaration::new("storage.k8s.io", "v1", "CSIDriver", "csidrivers")
        .cluster_scoped()
        .rules(RULES)
        .fixed(&[Fixed::Field("spec.attachRequired"), Fixed::Field("spec.volumeLifecycleModes")])
}

const RULES: &[Rule] = &[
    at("spec.attachRequired", Check::Given("")),
    at("spec.podInfoOnMount", Check::Given("")),
    at("spec.storageCapacity", Check::Given("")),
    at("spec.fsGroupPolicy", Check::OneOf(&["File", "None", "ReadWriteOnceWithFSType"])),
    at("spec.tokenRequests", Check::Judge(token_requests)),
    at("spec.volumeLifecycleModes", Check::Judge(lifecycle_modes)),
    at("spec.nodeAllocatableUpdatePeriodSeconds", Check::Judge(update_period)),
    at("spec", Check::Judge(tokens_in_secrets)),
];

fn token_requests(requests: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let mut audiences = std::collections::BTreeSet::new();
    for (i, request) in requests.as_array().into_iter().flatten().enumerate() {
        let audience = request["audience"].as_str().unwrap_or_default();
        if !audiences.insert(audience) {
            errors.push(FieldError::duplicate(format!("{path}[{i}].audience"), audience));
            continue;
        }
        let Some(seconds) = request["expirationSeconds"].as_i64() else { continue };
        let at = format!("{path}[{i}].expirationSeconds");
        if seconds < 600 {
            errors.push(FieldError::invalid(at, seconds, "may not specify a duration less than 10 minutes"));
        } else if seconds > 1 << 32 {
            errors.push(FieldError::invalid(
                at,
                seconds,
                "may not specify a duration larger than 2^32 seconds",
            ));
        }
    }
}

fn lifecycle_modes(modes: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let allowed = ["Ephemeral", "Persistent"];
    for mode in modes.as_array().into_iter().flatten().filter(|mode| !allowed.iter().any(|it| mode == it)) {
        errors.push(FieldError::not_supported(path, mode.clone(), &allowed));
    }
}

fn update_period(seconds: &Value, path: &str, errors: &mut Vec<FieldError>) {
    if seconds.as_i64().is_some_and(|n| n < 10) {
        let why = "must be greater than or equal to 10 seconds";
        errors.push(FieldError::invalid(path, seconds.clone(), why));
    }
}

fn tokens_in_secrets(spec: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let asked = &spec["serviceAccountTokenInSecrets"];
    if !asked.is_null() && items_at(spec, "/tokenRequests").is_empty() {
        let why = "serviceAccountTokenInSecrets is set but no tokenRequests are specified";
        errors.push(FieldError::invalid(format!("{path}.serviceAccountTokenInSecrets"), asked.clone(), why));
    }
}
