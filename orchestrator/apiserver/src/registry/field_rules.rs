//! What fields of a kind must keep, as data, and the one engine that judges an object by it.
//!
//! A kind's file lists [`Rule`]s and what an update may not change ([`Fixed`]); the engine finds every field a rule
//! names and reports all that break it, each under its path. What data cannot say is a function (`Check::Judge`)
//! of the value at a path, so that shared shapes (a pod template, a selector) are one entry. Pure; knows no kind.
//!
//! A path is fields joined by dots; `items[]` is every item of a list, `map{}` every value of a map, `""` the value
//! itself. A field that is absent counts as an empty one, as it does on the wire: rules of its fields are asked too.
//! Where upstream has a pointer, whose fields mean nothing while it is absent, [`within`] enters only what is there.

mod check;
mod fixed;

use serde_json::Value;

pub(crate) use check::{Check, Judge, quantity};
pub(crate) use fixed::{Fixed, is_same};

use crate::error::FieldError;

/// One demand on an object.
pub(crate) enum Rule {
    /// Every value at the path keeps the check.
    At(&'static str, Check),
    /// Every value that is there at the path keeps the rules.
    Within(&'static str, &'static [Rule]),
    /// The rules hold while the value at the path, a text, is one of these.
    When(&'static str, &'static [&'static str], &'static [Rule]),
}

/// Every value at `path` keeps `check`.
pub(crate) const fn at(path: &'static str, check: Check) -> Rule {
    Rule::At(path, check)
}

/// Every value that is there at `path` keeps `rules`.
pub(crate) const fn within(path: &'static str, rules: &'static [Rule]) -> Rule {
    Rule::Within(path, rules)
}

/// `rules` hold while the text at `path` is one of `values`.
pub(crate) const fn when(
    path: &'static str,
    values: &'static [&'static str],
    rules: &'static [Rule],
) -> Rule {
    Rule::When(path, values, rules)
}

/// Judges the object or part `value`, which stands at `path` (empty for a whole object).
pub(crate) fn judge(rules: &[Rule], value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    apply(rules, value, &Place::Root(path), errors);
}

/// Where a value stands; made into text only for an error.
#[derive(Clone, Copy)]
enum Place<'a> {
    Root(&'a str),
    Field(&'a Place<'a>, &'a str),
    Index(&'a Place<'a>, usize),
    Key(&'a Place<'a>, &'a str),
}

impl std::fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Root(path) => f.write_str(path),
            Self::Field(Place::Root(""), name) => f.write_str(name),
            Self::Field(parent, name) => write!(f, "{parent}.{name}"),
            Self::Index(parent, i) => write!(f, "{parent}[{i}]"),
            Self::Key(parent, key) => write!(f, "{parent}[{key}]"),
        }
    }
}

fn apply(rules: &[Rule], value: &Value, place: &Place<'_>, errors: &mut Vec<FieldError>) {
    for rule in rules {
        match rule {
            Rule::At(path, check) => {
                walk(value, place, path, &mut |value, place| check.judge(value, place, errors));
            }
            Rule::Within(path, rules) => walk(value, place, path, &mut |value, place| {
                if !value.is_null() {
                    apply(rules, value, place, errors);
                }
            }),
            Rule::When(path, values, rules) => {
                if values.contains(&text_at(value, path)) {
                    apply(rules, value, place, errors);
                }
            }
        }
    }
}

/// The text at a path of plain fields; empty when absent.
fn text_at<'a>(value: &'a Value, path: &str) -> &'a str {
    at_path(value, path).as_str().unwrap_or_default()
}

/// The value at a path of plain fields; null when absent.
fn at_path<'a>(value: &'a Value, path: &str) -> &'a Value {
    path.split('.').filter(|field| !field.is_empty()).fold(value, |value, field| &value[field])
}

fn walk(value: &Value, place: &Place<'_>, path: &'static str, visit: &mut dyn FnMut(&Value, &Place<'_>)) {
    if path.is_empty() {
        return visit(value, place);
    }
    let (segment, rest) = path.split_once('.').unwrap_or((path, ""));
    let field = segment.strip_suffix("[]").or_else(|| segment.strip_suffix("{}")).unwrap_or(segment);
    let named = Place::Field(place, field);
    let (child, here) =
        if field.is_empty() { (value, place) } else { (value.get(field).unwrap_or(&Value::Null), &named) };
    if segment.ends_with("[]") {
        for (i, item) in child.as_array().into_iter().flatten().enumerate() {
            walk(item, &Place::Index(here, i), rest, visit);
        }
    } else if segment.ends_with("{}") {
        for (key, item) in child.as_object().into_iter().flatten() {
            walk(item, &Place::Key(here, key), rest, visit);
        }
    } else {
        walk(child, here, rest, visit);
    }
}

/// Absent, or as good as absent on the wire. A number and a boolean are something.
pub(crate) fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

#[cfg(test)]
mod tests;
