//! A schema document into nodes: what must be known of each is read and checked once.

use regex::Regex;

use super::formats::Format;
use super::items::Uniqueness;
use super::{Kind, Node, Validator};
use crate::Value;
use crate::json::DEPTH_MAX;

/// A pattern's compiled size is bounded, so that a CRD cannot fill the memory.
const PATTERN_BYTES_MAX: usize = 1 << 20;

/// Why a schema cannot be validated with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// A pattern that is no regular expression.
    #[error("{path}: {reason}")]
    Pattern { path: String, reason: String },
    /// Nesting beyond what objects may have.
    #[error("{path}: the schema is nested too deeply")]
    TooDeep { path: String },
}

impl Validator {
    /// Reads `openAPIV3Schema`; null allows everything.
    ///
    /// # Errors
    /// A pattern that does not compile, or a schema nested too deeply.
    pub fn compile(schema: &Value) -> Result<Validator, CompileError> {
        Ok(Validator { root: node(schema, "", 0)? })
    }
}

/// Checks that text is a regular expression a schema may use.
pub fn pattern(text: &str) -> Result<Regex, String> {
    let built = regex::RegexBuilder::new(text).size_limit(PATTERN_BYTES_MAX).build();
    built.map_err(|error| error.to_string().replace('\n', " "))
}

fn node(schema: &Value, path: &str, depth: usize) -> Result<Node, CompileError> {
    if depth > DEPTH_MAX {
        return Err(CompileError::TooDeep { path: path.to_owned() });
    }
    let child = |key: &str, part: &Value| node(part, &format!("{path}.{key}"), depth + 1);
    let boxed = |key: &str| -> Result<Option<Box<Node>>, CompileError> {
        match &schema[key] {
            part @ Value::Object(_) => child(key, part).map(|n| Some(Box::new(n))),
            _ => Ok(None),
        }
    };
    let list = |key: &str| -> Result<Vec<Node>, CompileError> {
        schema[key].as_array().into_iter().flatten().map(|part| child(key, part)).collect()
    };
    let count = |key: &str| schema[key].as_u64().and_then(|n| usize::try_from(n).ok());
    let number = |key: &str| schema[key].as_f64();
    let bound = |key: &str, exclusive: &str| number(key).map(|limit| (limit, schema[exclusive] == true));

    let pattern = match schema["pattern"].as_str().filter(|p| !p.is_empty()) {
        Some(text) => {
            Some(pattern(text).map_err(|reason| CompileError::Pattern { path: path.to_owned(), reason })?)
        }
        None => None,
    };
    let mut properties = Vec::new();
    for (key, part) in schema["properties"].as_object().into_iter().flatten() {
        properties.push((key.clone(), child(key, part)?));
    }
    let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let types = types(schema);
    let format = schema["format"].as_str().unwrap_or_default();
    Ok(Node {
        int32: format == "int32" && types == [Kind::Integer],
        format: matches!(types[..], [] | [Kind::String]).then(|| Format::named(format)).flatten(),
        types,
        nullable: schema["nullable"] == true,
        maximum: bound("maximum", "exclusiveMaximum"),
        minimum: bound("minimum", "exclusiveMinimum"),
        multiple_of: number("multipleOf").filter(|factor| *factor > 0.0),
        max_length: count("maxLength"),
        min_length: count("minLength"),
        pattern,
        max_items: count("maxItems"),
        min_items: count("minItems"),
        max_properties: count("maxProperties"),
        min_properties: count("minProperties"),
        allowed: schema["enum"].as_array().cloned().unwrap_or_default(),
        required: required.map(str::to_owned).collect(),
        properties,
        additional: boxed("additionalProperties")?,
        closed: schema["additionalProperties"] == false,
        items: boxed("items")?,
        list: Uniqueness::of(schema),
        all_of: list("allOf")?,
        any_of: list("anyOf")?,
        one_of: list("oneOf")?,
        not: boxed("not")?,
    })
}

fn types(schema: &Value) -> Vec<Kind> {
    if schema["x-kubernetes-int-or-string"] == true {
        return vec![Kind::Integer, Kind::String];
    }
    let kind = match schema["type"].as_str() {
        Some("boolean") => Kind::Boolean,
        Some("integer") => Kind::Integer,
        Some("number") => Kind::Number,
        Some("string") => Kind::String,
        Some("array") => Kind::Array,
        Some("object") => Kind::Object,
        _ => return Vec::new(),
    };
    vec![kind]
}
