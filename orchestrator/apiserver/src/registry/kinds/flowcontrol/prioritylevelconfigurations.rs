//! PriorityLevelConfiguration: how many seats requests of a level share, and what becomes of those it has none for.

use serde_json::Value;

use crate::error::FieldError;
use crate::flow_control::{ENTROPY_BITS_MAX, entropy_bits};
use crate::registry::bootstrap::flow_control::{EXEMPT, mandatory};
use crate::registry::definition::{Declaration, STATUS};
use crate::registry::object::{meta_str, str_at};
use crate::registry::strategy::Strategy;
use crate::tables::flow_control::PRIORITY_LEVELS;

use super::errors_of_conditions;

/// Upstream's bound.
const QUEUES_MAX: i64 = 10_000_000;

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
    .strategy(PriorityLevelConfiguration)
}

struct PriorityLevelConfiguration;

impl Strategy for PriorityLevelConfiguration {
    fn validate(&self, new: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let (name, spec) = (meta_str(new, "name"), &new["spec"]);
        let kind = str_at(spec, "/type");
        if (name == EXEMPT) != (kind == "Exempt") {
            let why = "must be 'Exempt' if and only if `name` is 'exempt'";
            errors.push(FieldError::invalid("spec.type", kind, why));
        }
        match kind {
            "Exempt" => {
                if !spec["limited"].is_null() {
                    let why = "must be nil if the type is not Limited";
                    errors.push(FieldError::forbidden("spec.limited", why));
                }
                errors_of_shares(&spec["exempt"], "spec.exempt", &mut errors);
            }
            "Limited" => {
                if !spec["exempt"].is_null() {
                    errors.push(FieldError::forbidden("spec.exempt", "must be nil if the type is Limited"));
                }
                if spec["limited"].is_null() {
                    let why = "must not be empty when type is Limited";
                    errors.push(FieldError::required("spec.limited", why));
                } else {
                    errors_of_limited(&spec["limited"], &mut errors);
                }
            }
            other => errors.push(FieldError::not_supported("spec.type", other, &["Exempt", "Limited"])),
        }
        errors.extend(errors_of_mandatory(name, spec));
        errors.extend(errors_of_conditions(new));
        errors
    }

    fn validate_status(&self, new: &Value, _old: &Value) -> Vec<FieldError> {
        errors_of_conditions(new)
    }
}

/// What the two mandatory levels must be; of `exempt` the shares are free.
fn errors_of_mandatory(name: &str, spec: &Value) -> Option<FieldError> {
    let mut want = mandatory("PriorityLevelConfiguration", name)?["spec"].clone();
    let is_exempt = name == EXEMPT;
    if is_exempt {
        want["exempt"] = spec["exempt"].clone();
    }
    let but = if is_exempt { " except the 'spec.exempt' field" } else { "" };
    let why = format!("spec of '{name}'{but} must equal the fixed value");
    (*spec != want).then(|| FieldError::invalid("spec", spec.clone(), why))
}

fn errors_of_shares(part: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let shares = part["nominalConcurrencyShares"].as_i64();
    if let Some(shares) = shares.filter(|shares| *shares < 0) {
        let path = format!("{path}.nominalConcurrencyShares");
        errors.push(FieldError::invalid(path, shares, "must be a non-negative integer"));
    }
    let lendable = part["lendablePercent"].as_i64();
    if let Some(percent) = lendable.filter(|percent| !(0..=100).contains(percent)) {
        let path = format!("{path}.lendablePercent");
        errors.push(FieldError::invalid(path, percent, "must be between 0 and 100, inclusive"));
    }
}

fn errors_of_limited(limited: &Value, errors: &mut Vec<FieldError>) {
    errors_of_shares(limited, "spec.limited", errors);
    let borrowing = limited["borrowingLimitPercent"].as_i64();
    if let Some(percent) = borrowing.filter(|percent| *percent < 0) {
        let why = "if specified, must be a non-negative integer";
        errors.push(FieldError::invalid("spec.limited.borrowingLimitPercent", percent, why));
    }
    let response = &limited["limitResponse"];
    let path = "spec.limited.limitResponse.queuing";
    let queuing = &response["queuing"];
    match str_at(response, "/type") {
        "Reject" if !queuing.is_null() => {
            let why = "must be nil if limited.limitResponse.type is not Limited";
            errors.push(FieldError::forbidden(path, why));
        }
        "Reject" => {}
        "Queue" if queuing.is_null() => {
            let why = "must not be empty if limited.limitResponse.type is Limited";
            errors.push(FieldError::required(path, why));
        }
        "Queue" => errors_of_queuing(queuing, path, errors),
        other => errors.push(FieldError::not_supported(
            "spec.limited.limitResponse.type",
            other,
            &["Queue", "Reject"],
        )),
    }
}

fn errors_of_queuing(queuing: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let number = |field: &str| queuing[field].as_i64().unwrap_or(0);
    let (queues, hand, length) = (number("queues"), number("handSize"), number("queueLengthLimit"));
    let mut refuse = |field: &str, value: i64, why: String| {
        errors.push(FieldError::invalid(format!("{path}.{field}"), value, why));
    };
    if length <= 0 {
        refuse("queueLengthLimit", length, "must be positive".into());
    }
    if queues <= 0 {
        refuse("queues", queues, "must be positive".into());
    } else if queues > QUEUES_MAX {
        refuse("queues", queues, format!("must not be greater than {QUEUES_MAX}"));
    }
    if hand <= 0 {
        refuse("handSize", hand, "must be positive".into());
    } else if hand > queues {
        refuse("handSize", hand, format!("should not be greater than queues ({queues})"));
    } else if entropy_bits(queues as u32, hand as u32) > ENTROPY_BITS_MAX {
        let what = format!("required entropy bits of deckSize {queues} and handSize {hand}");
        refuse("handSize", hand, format!("{what} should not be greater than {ENTROPY_BITS_MAX}"));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::registry::bootstrap::flow_control::objects;

    fn refused(name: &str, spec: Value) -> Vec<String> {
        let object = json!({"metadata": {"name": name}, "spec": spec});
        PriorityLevelConfiguration.validate(&object).iter().map(ToString::to_string).collect()
    }

    fn queuing(queues: i64, hand: i64, length: i64) -> Value {
        json!({"type": "Limited", "limited": {"nominalConcurrencyShares": 1, "limitResponse": {"type": "Queue",
            "queuing": {"queues": queues, "handSize": hand, "queueLengthLimit": length}}}})
    }

    #[test]
    fn those_every_cluster_has_are_valid() {
        for object in objects().iter().filter(|object| object["kind"] == "PriorityLevelConfiguration") {
            assert_eq!(PriorityLevelConfiguration.validate(object), []);
        }
    }

    #[test]
    fn queues_hands_and_lengths_must_fit_together() {
        assert!(refused("a", queuing(64, 8, 50)).is_empty());
        assert_eq!(refused("a", queuing(0, 0, 0)).len(), 3);
        assert_eq!(refused("a", queuing(4, 5, 1)).len(), 1);
        assert!(refused("a", queuing(100_000, 10, 1))[0].contains("entropy bits"));
    }

    #[test]
    fn the_type_and_its_part_must_agree() {
        assert_eq!(
            refused("a", json!({"type": "Limited"})),
            ["spec.limited: Required value: must not be empty when type is Limited"]
        );
        assert!(
            refused("a", json!({"type": "Exempt"}))[0].starts_with("spec.type: Invalid value: \"Exempt\"")
        );
        let both = json!({"type": "Limited", "exempt": {}, "limited": {"limitResponse": {"type": "Reject"}}});
        assert_eq!(refused("a", both), ["spec.exempt: Forbidden: must be nil if the type is Limited"]);
    }

    #[test]
    fn only_shares_of_the_exempt_level_may_be_changed() {
        let exempt =
            json!({"type": "Exempt", "exempt": {"nominalConcurrencyShares": 9, "lendablePercent": 0}});
        assert!(refused("exempt", exempt).is_empty());
        let catch_all = json!({"type": "Limited", "limited": {"nominalConcurrencyShares": 6, "lendablePercent": 0,
            "limitResponse": {"type": "Reject"}}});
        assert!(
            refused("catch-all", catch_all)[0].contains("spec of 'catch-all' must equal the fixed value")
        );
    }
}
