//! Lease: who holds something, and until when.

use crate::registry::definition::Declaration;
use crate::registry::field_rules::{Check, Rule, at, when};
use crate::registry::kinds::rules::shapes::NOT_BELOW_ZERO;
use crate::registry::meta::names;
use crate::tables::cluster::LEASES;

pub(crate) fn declaration() -> Declaration {
    Declaration::new("coordination.k8s.io", "v1", "Lease", "leases")
        .columns(LEASES)
        .create_on_update()
        .conditional_update()
        .rules(RULES)
}

const RULES: &[Rule] = &[
    at("spec.leaseDurationSeconds", Check::Judge(longer_than_nothing)),
    at("spec.leaseTransitions", NOT_BELOW_ZERO),
    at("spec.strategy", Check::Name(strategy)),
    when(
        "spec.strategy",
        &[""],
        &[at("spec.preferredHolder", Check::Forbidden("may only be specified if `strategy` is defined"))],
    ),
];

fn longer_than_nothing(seconds: &serde_json::Value, path: &str, errors: &mut Vec<crate::error::FieldError>) {
    if seconds.as_i64().is_some_and(|n| n <= 0) {
        errors.push(crate::error::FieldError::invalid(path, seconds.clone(), "must be greater than 0"));
    }
}

/// The one strategy there is, or somebody's own under a domain.
fn strategy(text: &str) -> Option<String> {
    match text {
        "OldestEmulationVersion" => None,
        own if own.contains('/') => names::qualified_name(own),
        _ => Some("supported values: \"OldestEmulationVersion\"".into()),
    }
}
