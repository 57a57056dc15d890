//! The vocabulary: what a field can be asked to be, and the words upstream has for what is not.

use std::collections::BTreeSet;

use penstock_schema::Quantity;
use serde_json::Value;

use super::{Place, at_path, is_empty};
use crate::error::FieldError;
use crate::registry::meta;
use crate::registry::meta::names;

/// Judges the value at a path: what data cannot say.
pub(crate) type Judge = fn(&Value, &str, &mut Vec<FieldError>);

/// What a value must be. All but `Required` and `Given` are content with an absent one.
pub(crate) enum Check {
    /// Not absent, and no empty text, list or map; the words are added to the error.
    Required(&'static str),
    /// Not absent; may be empty.
    Given(&'static str),
    /// Absent or empty, else forbidden in these words.
    Forbidden(&'static str),
    /// A text of these. An empty one counts as absent.
    OneOf(&'static [&'static str]),
    /// A number no less than this.
    AtLeast(i64),
    /// A number within these, both included.
    Between(i64, i64),
    /// A text that the rule of names has nothing against. An empty one counts as absent.
    Name(fn(&str) -> Option<String>),
    /// A text, even an empty one, that the rule has nothing against.
    Text(fn(&str) -> Option<String>),
    /// Name of a port, or a number that a port can have.
    Port,
    /// Name of a port. An empty one counts as absent.
    PortName,
    /// A text of at most so many bytes.
    BytesMax(usize),
    /// A list or map of at most so many.
    ItemsMax(usize),
    /// No two items of the list have the same in these fields (none named: are the same). What is empty in all of
    /// them counts as different. Reported at the first field of the later one.
    Unique(&'static [&'static str]),
    /// A map of labels.
    Labels,
    /// An amount that is not below zero.
    NotNegative,
    /// An amount above zero.
    Positive,
    /// The rule of a function.
    Judge(Judge),
}

impl Check {
    pub(super) fn judge(&self, value: &Value, place: &Place<'_>, errors: &mut Vec<FieldError>) {
        let path = || place.to_string();
        match self {
            Self::Required(words) => {
                if is_empty(value) {
                    errors.push(FieldError::required(path(), *words));
                }
            }
            Self::Given(words) => {
                if value.is_null() {
                    errors.push(FieldError::required(path(), *words));
                }
            }
            Self::Forbidden(words) => {
                if !is_empty(value) {
                    errors.push(FieldError::forbidden(path(), *words));
                }
            }
            Self::OneOf(allowed) => {
                if let Some(text) = value.as_str()
                    && !text.is_empty()
                    && !allowed.contains(&text)
                {
                    errors.push(FieldError::not_supported(path(), text, allowed));
                }
            }
            Self::AtLeast(min) => {
                if let Some(number) = value.as_i64()
                    && number < *min
                {
                    let why = format!("must be greater than or equal to {min}");
                    errors.push(FieldError::invalid(path(), number, why));
                }
            }
            Self::Between(min, max) => {
                if let Some(number) = value.as_i64()
                    && !(*min..=*max).contains(&number)
                {
                    let why = format!("must be between {min} and {max}, inclusive");
                    errors.push(FieldError::invalid(path(), number, why));
                }
            }
            Self::Name(rule) => {
                if let Some(text) = value.as_str().filter(|text| !text.is_empty())
                    && let Some(why) = rule(text)
                {
                    errors.push(FieldError::invalid(path(), text, why));
                }
            }
            Self::Text(rule) => {
                if let Some(text) = value.as_str()
                    && let Some(why) = rule(text)
                {
                    errors.push(FieldError::invalid(path(), text, why));
                }
            }
            Self::Port => port(value, place, errors),
            Self::PortName => {
                if !is_empty(value) {
                    port(value, place, errors);
                }
            }
            Self::BytesMax(max) => {
                if value.as_str().is_some_and(|text| text.len() > *max) {
                    errors.push(FieldError::too_long(path(), *max));
                }
            }
            Self::ItemsMax(max) => {
                let count = match value {
                    Value::Array(items) => items.len(),
                    Value::Object(map) => map.len(),
                    _ => 0,
                };
                if count > *max {
                    errors.push(FieldError::too_many(path(), count, *max));
                }
            }
            Self::Unique(fields) => unique(fields, value, place, errors),
            Self::Labels => {
                if let Some(labels) = value.as_object() {
                    meta::validate_labels(labels, &path(), errors);
                }
            }
            Self::NotNegative => {
                amount(value, place, "must be greater than or equal to 0", |it| it >= Quantity::ZERO, errors)
            }
            Self::Positive => {
                amount(value, place, "must be greater than zero", |it| it > Quantity::ZERO, errors)
            }
            Self::Judge(function) => function(value, &path(), errors),
        }
    }
}

fn port(value: &Value, place: &Place<'_>, errors: &mut Vec<FieldError>) {
    match value {
        Value::Number(number) => {
            let number = number.as_i64().unwrap_or(0);
            if !(1..=65535).contains(&number) {
                let why = "must be between 1 and 65535, inclusive";
                errors.push(FieldError::invalid(place.to_string(), number, why));
            }
        }
        Value::String(name) => {
            for why in names::port_name(name) {
                errors.push(FieldError::invalid(place.to_string(), name.as_str(), why));
            }
        }
        _ => {}
    }
}

fn amount(
    value: &Value,
    place: &Place<'_>,
    words: &str,
    good: impl Fn(Quantity) -> bool,
    errors: &mut Vec<FieldError>,
) {
    if let Some(quantity) = quantity(value)
        && !good(quantity)
    {
        errors.push(FieldError::invalid(place.to_string(), value.clone(), words));
    }
}

/// An amount as it is decoded: text, or a number where nobody decoded it.
pub(crate) fn quantity(value: &Value) -> Option<Quantity> {
    match value {
        Value::String(text) => Quantity::parse(text),
        Value::Number(number) => Quantity::parse(&number.to_string()),
        _ => None,
    }
}

fn unique(fields: &[&str], list: &Value, place: &Place<'_>, errors: &mut Vec<FieldError>) {
    let mut seen = BTreeSet::new();
    for (i, item) in list.as_array().into_iter().flatten().enumerate() {
        let key: Vec<&Value> = match fields {
            [] => vec![item],
            fields => fields.iter().map(|field| at_path(item, field)).collect(),
        };
        if key.iter().all(|part| is_empty(part)) {
            continue;
        }
        let text: Vec<String> = key.iter().map(ToString::to_string).collect();
        if !seen.insert(text) {
            let here = Place::Index(place, i);
            let path = match fields {
                [field] => Place::Field(&here, field).to_string(),
                _ => here.to_string(),
            };
            let shown = if let [one] = key.as_slice() { (*one).clone() } else { item.clone() };
            errors.push(FieldError::duplicate(path, shown));
        }
    }
}
