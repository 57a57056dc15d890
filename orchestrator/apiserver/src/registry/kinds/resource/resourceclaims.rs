//! ResourceClaim: devices somebody asks for. The claim stays; its status says what it was given.

use serde_json::Value;

use super::claims::{self, is_request, pool};
use crate::error::FieldError;
use crate::registry::definition::{Declaration, STATUS};
use crate::registry::field_rules::{Check, Fixed, Rule, at, is_same, within};
use crate::registry::kinds::rules::IMMUTABLE;
use crate::registry::kinds::rules::pod_spec::affinity::node_selector;
use crate::registry::kinds::rules::shapes::CONDITIONS;
use crate::registry::meta::names;
use crate::registry::object::{items_at, meta_str};
use crate::registry::strategy::Strategy;

pub(crate) fn declaration() -> Declaration {
    Declaration::new("resource.k8s.io", "v1", "ResourceClaim", "resourceclaims")
        .subresources(&[STATUS])
        .rules(RULES)
        .fixed(&[Fixed::Field("spec")])
        .status_rules(STATUS_RULES)
        .strategy(Claim)
}

const RULES: &[Rule] = &[at("spec", Check::Judge(claims::validate_spec))];

const STATUS_RULES: &[Rule] = &[
    at("status.reservedFor", Check::ItemsMax(256)),
    within(
        "status.reservedFor[]",
        &[
            at("resource", Check::Required("")),
            at("name", Check::Required("")),
            at("uid", Check::Required("")),
        ],
    ),
    at("status.reservedFor", Check::Unique(&["uid"])),
    within(
        "status.allocation",
        &[
            at("devices.results", Check::ItemsMax(32)),
            within("devices.results[]", DEVICE),
            at("devices.config", Check::ItemsMax(64)),
            within("nodeSelector", &[at("", Check::Judge(node_selector))]),
        ],
    ),
    within("status.devices[]", DEVICE),
    within("status.devices[].conditions", CONDITIONS),
];

const DEVICE: &[Rule] = &[
    at("driver", Check::Required("")),
    at("driver", Check::Name(names::csi_driver)),
    at("pool", Check::Required("")),
    at("pool", Check::Name(pool)),
    at("device", Check::Text(names::label)),
];

struct Claim;

impl Strategy for Claim {
    fn validate_status(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let (is, was) = (&new["status"], &old["status"]);
        let reserved = items_at(is, "/reservedFor");
        if !reserved.is_empty() && is["allocation"].is_null() {
            let why = "may not be specified when `allocated` is not set";
            errors.push(FieldError::forbidden("status.reservedFor", why));
        } else if !meta_str(new, "deletionTimestamp").is_empty()
            && reserved.iter().any(|it| !items_at(was, "/reservedFor").contains(it))
        {
            let why =
                "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set";
            errors.push(FieldError::forbidden("status.reservedFor", why));
        }
        let (is, was) = (&is["allocation"], &was["allocation"]);
        if is.is_null() {
            return errors;
        }
        if !was.is_null() {
            if !is_same(is, was) {
                errors.push(FieldError::invalid("status.allocation", is.clone(), IMMUTABLE));
            }
            return errors;
        }
        for (i, result) in items_at(is, "/devices/results").iter().enumerate() {
            let name = result["request"].as_str().unwrap_or_default();
            if !is_request(&new["spec"]["devices"], name) {
                let why = "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";
                let at = format!("status.allocation.devices.results[{i}].request");
                errors.push(FieldError::invalid(at, name, why));
            }
        }
        errors
    }
}
