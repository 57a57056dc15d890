//! PriorityLevelConfiguration: how many requests of a priority run at once, and what becomes of the rest.

use serde_json::Value;

use crate::error::FieldError;
use crate::flow_control::{ENTROPY_BITS_MAX, entropy_bits};
use crate::registry::bootstrap::flow_control::{EXEMPT, mandatory};
use crate::registry::definition::{Declaration, STATUS};
use crate::registry::field_rules::{Check, Rule, at, when, within};
use crate::registry::object::meta_str;
use crate::registry::strategy::Strategy;
use crate::tables::flow_control::PRIORITY_LEVELS;

pub(crate) fn declaration() -> Declaration {
    Declaration::new(
        "flowcontrol.apiserver.k8s.io",
        "v1",
        "PriorityLevelConfiguration",
        "prioritylevelconfigurations",
    )
    .cluster_scoped()
    .generation()
    .subresources(&[STATUS])
    .columns(PRIORITY_LEVELS)
    .rules(RULES)
    .status_rules(super::CONDITIONS)
    .strategy(PriorityLevel)
}

const QUEUES_MAX: i64 = 10_000_000;

const RULES: &[Rule] = &[
    at("spec.type", Check::Required("")),
    at("spec.type", Check::OneOf(&["Exempt", "Limited"])),
    when(
        "spec.type",
        &["Exempt"],
        &[
            at("spec.limited", Check::Judge(not_limited)),
            within(
                "spec.exempt",
                &[
                    at("nominalConcurrencyShares", Check::Judge(not_negative)),
                    at("lendablePercent", Check::Between(0, 100)),
                ],
            ),
        ],
    ),
    when(
        "spec.type",
        &["Limited"],
        &[
            at("spec.exempt", Check::Judge(not_exempt)),
            at("spec.limited", Check::Given("must not be empty when type is Limited")),
            within(
                "spec.limited",
                &[
                    at("nominalConcurrencyShares", Check::Judge(not_negative)),
                    at("limitResponse.type", Check::Required("")),
                    at("limitResponse.type", Check::OneOf(&["Queue", "Reject"])),
                    when(
                        "limitResponse.type",
                        &["Reject"],
                        &[at("limitResponse.queuing", Check::Judge(not_queued))],
                    ),
                    when(
                        "limitResponse.type",
                        &["Queue"],
                        &[
                            at(
                                "limitResponse.queuing",
                                Check::Given("must not be empty if limited.limitResponse.type is Limited"),
                            ),
                            within("limitResponse.queuing", &[at("", Check::Judge(queuing))]),
                        ],
                    ),
                    at("lendablePercent", Check::Between(0, 100)),
                    at("borrowingLimitPercent", Check::Judge(borrowing)),
                ],
            ),
        ],
    ),
];

/// Refuses what is there, even if it is empty.
fn absent(value: &Value, why: &str, path: &str, errors: &mut Vec<FieldError>) {
    if !value.is_null() {
        errors.push(FieldError::forbidden(path, why));
    }
}

fn not_limited(value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    absent(value, "must be nil if the type is not Limited", path, errors);
}

fn not_exempt(value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    absent(value, "must be nil if the type is Limited", path, errors);
}

fn not_queued(value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    absent(value, "must be nil if limited.limitResponse.type is not Limited", path, errors);
}

fn not_negative(value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    if value.as_i64().is_some_and(|n| n < 0) {
        errors.push(FieldError::invalid(path, value.clone(), "must be a non-negative integer"));
    }
}

fn borrowing(value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    if value.as_i64().is_some_and(|n| n < 0) {
        let why = "if specified, must be a non-negative integer";
        errors.push(FieldError::invalid(path, value.clone(), why));
    }
}

fn queuing(queuing: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let number = |field: &str| queuing[field].as_i64().unwrap_or(0);
    let mut refuse = |field: &str, why: String| {
        errors.push(FieldError::invalid(format!("{path}.{field}"), number(field), why));
    };
    let (queues, hand) = (number("queues"), number("handSize"));
    if number("queueLengthLimit") <= 0 {
        refuse("queueLengthLimit", "must be positive".into());
    }
    if queues <= 0 {
        refuse("queues", "must be positive".into());
    } else if queues > QUEUES_MAX {
        refuse("queues", format!("must not be greater than {QUEUES_MAX}"));
    }
    if hand <= 0 {
        refuse("handSize", "must be positive".into());
    } else if hand > queues {
        refuse("handSize", format!("should not be greater than queues ({queues})"));
    } else if entropy_bits(queues as u32, hand as u32) > ENTROPY_BITS_MAX {
        let why = format!(
            "required entropy bits of deckSize {queues} and handSize {hand} should not be greater than {ENTROPY_BITS_MAX}"
        );
        refuse("handSize", why);
    }
}

struct PriorityLevel;

impl Strategy for PriorityLevel {
    fn validate(&self, new: &Value) -> Vec<FieldError> {
        let (name, spec) = (meta_str(new, "name"), &new["spec"]);
        let said = &spec["type"];
        let mut errors = Vec::new();
        if (name == EXEMPT) != (said == "Exempt") {
            let why = "must be 'Exempt' if and only if `name` is 'exempt'";
            errors.push(FieldError::invalid("spec.type", said.clone(), why));
        }
        errors.extend(unlike_mandatory(name, spec));
        errors
    }
}

/// What the two mandatory levels must be; of `exempt` the shares are free.
fn unlike_mandatory(name: &str, spec: &Value) -> Option<FieldError> {
    let mut want = mandatory("PriorityLevelConfiguration", name)?["spec"].clone();
    let is_exempt = name == EXEMPT;
    if is_exempt {
        want["exempt"] = spec["exempt"].clone();
    }
    let but = if is_exempt { " except the 'spec.exempt' field" } else { "" };
    let why = format!("spec of '{name}'{but} must equal the fixed value");
    (*spec != want).then(|| FieldError::invalid("spec", spec.clone(), why))
}
