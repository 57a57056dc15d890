//! Small shapes that fields of several kinds have, as rules of the one engine.

use serde_json::Value;

use crate::error::FieldError;
use crate::registry::field_rules::{Check, Rule, at};
use crate::registry::meta::names;
use crate::registry::object::items_at;

/// Protocols of ports.
pub(crate) const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];
pub(crate) const NOT_BELOW_ZERO: Check = Check::AtLeast(0);

/// metav1.Condition, one item of a list.
pub(crate) const CONDITION: &[Rule] = &[
    at("type", Check::Text(names::qualified_name)),
    at("status", Check::Required("")),
    at("status", Check::OneOf(&["True", "False", "Unknown"])),
    at("observedGeneration", NOT_BELOW_ZERO),
    at("lastTransitionTime", Check::Required("")),
    at("reason", Check::Required("")),
    at("reason", Check::Name(condition_reason)),
    at("reason", Check::BytesMax(1024)),
    at("message", Check::BytesMax(32 * 1024)),
];

/// An object of the same namespace, or of none, by group, kind and name.
pub(crate) const TYPED_REFERENCE: &[Rule] = &[
    at("apiGroup", Check::Text(names::subdomain)),
    at("kind", Check::Required("")),
    at("kind", Check::Name(names::path_segment)),
    at("name", Check::Required("")),
    at("name", Check::Name(names::path_segment)),
];

fn condition_reason(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let inner = |c: &u8| c.is_ascii_alphanumeric() || *c == b'_';
    let good = bytes.first().is_some_and(u8::is_ascii_alphabetic)
        && bytes.last().is_some_and(inner)
        && bytes.iter().all(|c| inner(c) || matches!(c, b',' | b':'));
    (!good).then(|| {
        "a condition reason must start with alphabetic character, optionally followed by a string of alphanumeric characters or '_,:', and must end with an alphanumeric character or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName',  or 'ReasonA,ReasonB',  or 'ReasonA:ReasonB', regex used for validation is '[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?')".into()
    })
}

/// A number that is not below zero, or a percentage.
pub(crate) fn number_or_percent(value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    match value {
        Value::Number(number) if number.as_i64().is_some_and(|n| n < 0) => {
            errors.push(FieldError::invalid(path, value.clone(), super::NOT_NEGATIVE));
        }
        Value::String(text) if percent(text).is_none() => errors.push(FieldError::invalid(
            path,
            text.as_str(),
            "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')",
        )),
        _ => {}
    }
}

/// A percentage is no more than a hundred.
pub(crate) fn at_most_all(value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    if value.as_str().and_then(percent).is_some_and(|n| n > 100) {
        errors.push(FieldError::invalid(path, value.clone(), "must not be greater than 100%"));
    }
}

/// The number of `50%`.
fn percent(text: &str) -> Option<u64> {
    let digits =
        text.strip_suffix('%').filter(|it| !it.is_empty() && it.bytes().all(|c| c.is_ascii_digit()))?;
    Some(digits.parse().unwrap_or(u64::MAX))
}

/// Whether a number or percentage is nothing.
pub(crate) fn is_zero(value: &Value) -> bool {
    value == 0 || value.as_str().and_then(percent) == Some(0)
}

/// A list of conditions: each type once. For `status_rules` of kinds with metav1 conditions.
pub(crate) const CONDITIONS: &[Rule] = &[at("", Check::Unique(&["type"])), Rule::Within("[]", CONDITION)];

/// Texts, quoted and in order, as messages list them.
pub(crate) fn quoted(values: &[&str]) -> String {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    sorted.iter().map(|value| format!("\"{value}\"")).collect::<Vec<_>>().join(", ")
}

/// Node labels that topology terms choose by (`allowedTopologies`).
pub(crate) fn topology_terms(terms: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let mut seen: Vec<Vec<(String, Vec<String>)>> = Vec::new();
    for (i, term) in terms.as_array().into_iter().flatten().enumerate() {
        let mut shape = Vec::new();
        for (j, expression) in items_at(term, "/matchLabelExpressions").iter().enumerate() {
            let at = format!("{path}[{i}].matchLabelExpressions[{j}]");
            let key = expression["key"].as_str().unwrap_or_default();
            let values = items_at(expression, "/values");
            if values.is_empty() {
                errors.push(FieldError::required(format!("{at}.values"), ""));
            }
            let mut texts: Vec<String> = Vec::new();
            for (k, value) in values.iter().enumerate() {
                let text = value.as_str().unwrap_or_default().to_owned();
                if texts.contains(&text) {
                    errors.push(FieldError::duplicate(format!("{at}.values[{k}]"), text));
                } else {
                    texts.push(text);
                }
            }
            if let Some(why) = names::qualified_name(key) {
                errors.push(FieldError::invalid(format!("{at}.key"), key, why));
            }
            if shape.iter().any(|(known, _): &(String, _)| known == key) {
                errors.push(FieldError::duplicate(format!("{at}.key"), key));
            }
            texts.sort_unstable();
            shape.push((key.to_owned(), texts));
        }
        shape.sort_unstable();
        if seen.contains(&shape) {
            errors.push(FieldError::duplicate(format!("{path}[{i}].matchLabelExpressions"), ""));
        }
        seen.push(shape);
    }
}
