//! What values a custom resource may hold: the validating half of a CRD's schema.
//!
//! A schema is compiled once ([`Validator::compile`]) and every object is held against it; all broken rules are
//! reported, in words and paths that clients of upstream know. Types of values are checked here as well, because the
//! decoder lets them pass (see `structural`). CEL rules are not this module's business.

mod compile;
mod formats;
mod items;
mod numbers;

use regex::Regex;

pub use compile::{CompileError, pattern};

use crate::{Map, Value};
use formats::Format;
use numbers::go_number;

/// One rule one value broke.
#[derive(Debug, Clone, PartialEq)]
pub struct Violation {
    pub rule: Rule,
    /// Such as `spec.list[0].name`; empty for the object itself.
    pub path: String,
    /// What to show of the value; null when there is nothing to show.
    pub value: Value,
    /// The message after the value; empty when the rule says it all.
    pub detail: String,
}

/// The kinds of rules, as clients tell them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    Required,
    Type,
    Enum,
    Duplicate,
    /// Longer than so many bytes.
    TooLong(usize),
    /// More items or properties than so many; the value is how many there are.
    TooMany(usize),
    Other,
}

/// A compiled schema.
#[derive(Debug)]
pub struct Validator {
    root: Node,
}

/// One node of a schema, with nothing in it that is not checked.
#[derive(Debug, Default)]
struct Node {
    types: Vec<Kind>,
    nullable: bool,
    format: Option<Format>,
    int32: bool,
    maximum: Option<(f64, bool)>,
    minimum: Option<(f64, bool)>,
    multiple_of: Option<f64>,
    max_length: Option<usize>,
    min_length: Option<usize>,
    pattern: Option<Regex>,
    max_items: Option<usize>,
    min_items: Option<usize>,
    max_properties: Option<usize>,
    min_properties: Option<usize>,
    allowed: Vec<Value>,
    required: Vec<String>,
    properties: Vec<(String, Node)>,
    additional: Option<Box<Node>>,
    closed: bool,
    items: Option<Box<Node>>,
    list: items::Uniqueness,
    all_of: Vec<Node>,
    any_of: Vec<Node>,
    one_of: Vec<Node>,
    not: Option<Box<Node>>,
}

/// A JSON type by the name schemas give it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Null,
    Boolean,
    Integer,
    Number,
    String,
    Array,
    Object,
}

/// Whether text is what a `format` of JSON Schema asks for; `None` for formats that are not known.
pub fn is_of_format(format: &str, text: &str) -> Option<bool> {
    Some(Format::named(format)?.admits(text))
}

// === impl Kind ===

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Null => "null",
            Kind::Boolean => "boolean",
            Kind::Integer => "integer",
            Kind::Number => "number",
            Kind::String => "string",
            Kind::Array => "array",
            Kind::Object => "object",
        }
    }

    fn of(value: &Value) -> Kind {
        match value {
            Value::Null => Kind::Null,
            Value::Bool(_) => Kind::Boolean,
            Value::Number(n) if n.is_f64() => Kind::Number,
            Value::Number(_) => Kind::Integer,
            Value::String(_) => Kind::String,
            Value::Array(_) => Kind::Array,
            Value::Object(_) => Kind::Object,
        }
    }

    /// Whether a value is of the type; 3.0 is an integer and 3 a number.
    fn admits(self, value: &Value) -> bool {
        match (self, value) {
            (Kind::Integer, Value::Number(n)) => n.as_f64().is_some_and(|f| f.fract() == 0.0),
            (Kind::Number, Value::Number(_)) => true,
            (kind, value) => kind == Kind::of(value),
        }
    }
}

// === impl Validator ===

impl Validator {
    /// Every rule the value breaks. First those of single values, depth first, then those of lists that are sets or
    /// maps.
    pub fn validate(&self, value: &Value) -> Vec<Violation> {
        let mut found = Vec::new();
        self.root.check(value, "", &mut found);
        self.root.check_uniqueness(value, "", &mut found);
        found
    }
}

/// `path` of a field below another.
fn below(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

// === impl Node ===

impl Node {
    fn passes(&self, value: &Value) -> bool {
        let mut found = Vec::new();
        self.check(value, "", &mut found);
        found.is_empty()
    }

    fn check(&self, value: &Value, path: &str, found: &mut Vec<Violation>) {
        let mut report = |rule, value: Value, detail: String| {
            found.push(Violation { rule, path: path.to_owned(), value, detail })
        };
        if value.is_null() {
            if !self.types.is_empty() && !self.nullable && !self.types.contains(&Kind::Null) {
                report(Rule::Type, "null".into(), self.type_message(path, "null"));
            }
            // A null that is allowed has nothing else to keep to.
            return;
        }
        if !self.types.is_empty() && !self.types.iter().any(|kind| kind.admits(value)) {
            let is = Kind::of(value).name();
            report(Rule::Type, is.into(), self.type_message(path, is));
            return;
        }
        if !self.allowed.is_empty() && !self.allowed.contains(value) {
            let listed: Vec<String> = self.allowed.iter().map(shown_quoted).collect();
            report(Rule::Enum, value.clone(), format!("supported values: {}", listed.join(", ")));
        }
        match value {
            Value::String(text) => self.check_text(text, path, &mut report),
            Value::Number(number) => self.check_number(number, path, &mut report),
            Value::Array(items) => {
                self.check_items(items, path, &mut report);
                if let Some(node) = &self.items {
                    for (index, item) in items.iter().enumerate() {
                        node.check(item, &format!("{path}[{index}]"), found);
                    }
                }
            }
            Value::Object(fields) => {
                self.check_size(fields, path, &mut report);
                self.check_fields(fields, path, found);
            }
            Value::Bool(_) | Value::Null => {}
        }
        self.check_logic(value, path, found);
    }

    fn type_message(&self, path: &str, is: &str) -> String {
        let wanted: Vec<&str> = self.types.iter().map(|kind| kind.name()).collect();
        format!("{path} in body must be of type {}: {is:?}", wanted.join(","))
    }

    fn check_text(&self, text: &str, path: &str, report: &mut impl FnMut(Rule, Value, String)) {
        let length = text.chars().count();
        if let Some(max) = self.max_length
            && length > max
        {
            report(Rule::TooLong(max), Value::Null, String::new());
        } else if let Some(min) = self.min_length
            && length < min
        {
            report(Rule::Other, text.into(), format!("{path} in body should be at least {min} chars long"));
        } else if let Some(pattern) = &self.pattern
            && !pattern.is_match(text)
        {
            report(Rule::Other, text.into(), format!("{path} in body should match '{pattern}'"));
        }
        if let Some(format) = self.format
            && !format.admits(text)
        {
            let message = format!("{path} in body must be of type {}: {text:?}", format.name());
            report(Rule::Type, text.into(), message);
        }
    }

    fn check_number(
        &self,
        number: &serde_json::Number,
        path: &str,
        report: &mut impl FnMut(Rule, Value, String),
    ) {
        let value = number.as_f64().unwrap_or_default();
        let shown = |limit: f64| go_number(limit, !number.is_f64());
        if self.int32 && number.as_i64().is_none_or(|n| i32::try_from(n).is_err()) {
            let message = format!("Checked value must be of type integer with format int32 in {path}");
            report(Rule::Other, "".into(), message);
        }
        if let Some(factor) = self.multiple_of
            && (value / factor).fract() != 0.0
        {
            let message = format!("{path} in body should be a multiple of {}", shown(factor));
            report(Rule::Other, number.clone().into(), message);
        }
        if let Some((max, exclusive)) = self.maximum
            && (value > max || exclusive && value == max)
        {
            let word = if exclusive { "less than" } else { "less than or equal to" };
            report(
                Rule::Other,
                number.clone().into(),
                format!("{path} in body should be {word} {}", shown(max)),
            );
        }
        if let Some((min, exclusive)) = self.minimum
            && (value < min || exclusive && value == min)
        {
            let word = if exclusive { "greater than" } else { "greater than or equal to" };
            report(
                Rule::Other,
                number.clone().into(),
                format!("{path} in body should be {word} {}", shown(min)),
            );
        }
    }

    fn check_items(&self, items: &[Value], path: &str, report: &mut impl FnMut(Rule, Value, String)) {
        let count = items.len();
        if let Some(min) = self.min_items
            && count < min
        {
            report(Rule::Other, count.into(), format!("{path} in body should have at least {min} items"));
        }
        if let Some(max) = self.max_items
            && count > max
        {
            report(Rule::TooMany(max), count.into(), String::new());
        }
    }

    fn check_size(
        &self,
        fields: &Map<String, Value>,
        path: &str,
        report: &mut impl FnMut(Rule, Value, String),
    ) {
        let count = fields.len();
        if let Some(min) = self.min_properties
            && count < min
        {
            report(
                Rule::Other,
                count.into(),
                format!("{path} in body should have at least {min} properties"),
            );
        }
        if let Some(max) = self.max_properties
            && count > max
        {
            report(Rule::TooMany(max), count.into(), String::new());
        }
    }

    fn check_fields(&self, fields: &Map<String, Value>, path: &str, found: &mut Vec<Violation>) {
        let known = |key: &str| self.properties.iter().any(|(name, _)| name == key);
        if self.closed || self.additional.is_some() {
            for (key, value) in fields.iter().filter(|(key, _)| !known(key)) {
                match &self.additional {
                    Some(node) => node.check(value, &below(path, key), found),
                    None => found.push(Violation {
                        rule: Rule::Other,
                        path: path.to_owned(),
                        value: "".into(),
                        detail: format!("{path}.{key} in body is a forbidden property"),
                    }),
                }
            }
        }
        for (name, node) in &self.properties {
            if let Some(value) = fields.get(name) {
                node.check(value, &below(path, name), found);
            }
        }
        for name in self.required.iter().filter(|name| !fields.contains_key(*name)) {
            found.push(Violation {
                rule: Rule::Required,
                path: below(path, name),
                value: Value::Null,
                detail: String::new(),
            });
        }
    }

    fn check_logic(&self, value: &Value, path: &str, found: &mut Vec<Violation>) {
        // Upstream names no field for these: the sentence does.
        let mut report = |detail: String| {
            found.push(Violation { rule: Rule::Other, path: String::new(), value: "".into(), detail });
        };
        let broken = |nodes: &[Node]| -> Vec<Vec<Violation>> {
            let each = nodes.iter().map(|node| {
                let mut inner = Vec::new();
                node.check(value, path, &mut inner);
                inner
            });
            each.collect()
        };
        // The alternative that is nearest to being kept explains most.
        let nearest = |alternatives: Vec<Vec<Violation>>| {
            alternatives.into_iter().min_by_key(Vec::len).unwrap_or_default()
        };
        let mut also = Vec::new();
        if !self.any_of.is_empty() {
            let alternatives = broken(&self.any_of);
            if alternatives.iter().all(|a| !a.is_empty()) {
                report(format!("{path:?} must validate at least one schema (anyOf)"));
                also.extend(nearest(alternatives));
            }
        }
        if !self.one_of.is_empty() {
            let alternatives = broken(&self.one_of);
            let valid = alternatives.iter().filter(|a| a.is_empty()).count();
            if valid != 1 {
                let why = match valid {
                    0 => "Found none valid".to_owned(),
                    n => format!("Found {n} valid alternatives"),
                };
                report(format!("{path:?} must validate one and only one schema (oneOf). {why}"));
                if valid == 0 {
                    also.extend(nearest(alternatives));
                }
            }
        }
        let parts = broken(&self.all_of);
        if parts.iter().any(|part| !part.is_empty()) {
            let none = if parts.iter().all(|part| !part.is_empty()) { ". None validated" } else { "" };
            report(format!("{path:?} must validate all the schemas (allOf){none}"));
            also.extend(parts.into_iter().flatten());
        }
        if self.not.as_ref().is_some_and(|node| node.passes(value)) {
            report(format!("{path:?} must not validate the schema (not)"));
        }
        found.extend(also);
    }
}

/// A value inside a list of allowed ones.
fn shown_quoted(value: &Value) -> String {
    match value {
        Value::String(text) => format!("{text:?}"),
        other => format!("{:?}", other.to_string()),
    }
}

#[cfg(test)]
mod tests;
