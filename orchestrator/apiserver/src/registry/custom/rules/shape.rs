//! Schemas as types of expressions, and how large their values can be.

use std::collections::BTreeMap;
use std::sync::Arc;

use penstock_expressions::{Field, Measure, REQUEST_BYTES_MAX, Record, Shape, Type, unescaped};
use serde_json::Value;

/// The type of values of a node. The root, and embedded resources, have what every object has.
pub(super) fn type_of(schema: &Value, root: bool) -> Type {
    known_type(schema, root).unwrap_or_default()
}

/// `None` for what expressions cannot see: values without a type.
fn known_type(schema: &Value, root: bool) -> Option<Type> {
    if schema["x-kubernetes-int-or-string"] == true {
        return Some(Type::Dyn);
    }
    Some(match schema["type"].as_str()? {
        "boolean" => Type::Bool,
        "integer" => Type::Int,
        "number" => Type::Double,
        "string" => match schema["format"].as_str() {
            Some("byte") => Type::Bytes,
            Some("duration") => Type::Duration,
            Some("date" | "date-time") => Type::Timestamp,
            _ => Type::String,
        },
        "array" => Type::list(known_type(&schema["items"], false)?),
        "object" if schema["additionalProperties"].is_object() => {
            Type::map(Type::String, known_type(&schema["additionalProperties"], false)?)
        }
        "object" => object(schema, root),
        _ => return None,
    })
}

fn object(schema: &Value, root: bool) -> Type {
    let mut fields: BTreeMap<String, Type> = BTreeMap::new();
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        fields.extend(known_type(property, false).map(|ty| (name.clone(), ty)));
    }
    if root || schema["x-kubernetes-embedded-resource"] == true {
        fields.insert("apiVersion".into(), Type::String);
        fields.insert("kind".into(), Type::String);
        let names = [("name", Type::String), ("generateName", Type::String)];
        fields.insert("metadata".into(), Record::of("metadata", names));
    }
    Type::Object(Arc::new(Node { name: "object".into(), fields }))
}

/// An object of a schema, under the names its fields have in JSON.
struct Node {
    name: String,
    fields: BTreeMap<String, Type>,
}

impl Shape for Node {
    fn name(&self) -> &str {
        &self.name
    }

    fn field(&self, name: &str) -> Option<Field> {
        let escaped = unescaped(name);
        let (key, ty) = self.fields.get_key_value(name).or_else(|| self.fields.get_key_value(&escaped))?;
        Some(Field { key: key.clone(), ty: ty.clone() })
    }
}

/// How large values of a node can be, by its bounds and by what fits into a request.
pub(super) fn measure_of(schema: &Value, root: bool) -> Measure {
    let bound = |key: &str| schema[key].as_u64();
    let room = |least: u64| (REQUEST_BYTES_MAX - 2) / (least + 1);
    if schema["x-kubernetes-int-or-string"] == true {
        return Measure::of_length(bound("maxLength").unwrap_or(REQUEST_BYTES_MAX - 2));
    }
    match schema["type"].as_str() {
        Some("string") => Measure::of_length(longest(schema)),
        Some("array") => {
            let items = &schema["items"];
            let most = bound("maxItems").unwrap_or_else(|| room(least_bytes(items)));
            Measure::of_many(most, measure_of(items, false))
        }
        Some("object") if schema["additionalProperties"].is_object() => {
            let values = &schema["additionalProperties"];
            let most = bound("maxProperties").unwrap_or_else(|| room(least_bytes(values) + 3));
            let (key, value) = (Measure::of_length(room(0) / most.max(1)), measure_of(values, false));
            let inner =
                if value.length_max < key.length_max && value.inner.is_none() && value.fields.is_empty() {
                    key
                } else {
                    value
                };
            Measure::of_many(most, inner)
        }
        Some("object") => {
            let properties = schema["properties"].as_object().into_iter().flatten();
            let mut fields: BTreeMap<String, Measure> =
                properties.map(|(name, property)| (name.clone(), measure_of(property, false))).collect();
            if root || schema["x-kubernetes-embedded-resource"] == true {
                let names = ["name", "generateName"].map(|name| (name.to_owned(), Measure::of_length(253)));
                let metadata = Measure { fields: Arc::new(names.into()), ..Measure::of_length(2) };
                fields.insert("metadata".into(), metadata);
                fields.insert("kind".into(), Measure::of_length(63));
                fields.insert("apiVersion".into(), Measure::of_length(317));
            }
            Measure { length_max: fields.len() as u64, inner: None, fields: Arc::new(fields) }
        }
        _ => Measure::of_length(1),
    }
}

/// Characters of a string at most: its bound, what it enumerates, or what its format comes to.
fn longest(schema: &Value) -> u64 {
    if let Some(allowed) = schema["enum"].as_array() {
        return allowed.iter().filter_map(Value::as_str).map(|text| text.len() as u64).max().unwrap_or(0);
    }
    match (schema["maxLength"].as_u64(), schema["format"].as_str()) {
        (Some(most), _) => most,
        (None, Some("date")) => 10,
        (None, Some("date-time" | "duration")) => 32,
        (None, _) => REQUEST_BYTES_MAX - 2,
    }
}

/// Bytes of the shortest value of a node.
pub(super) fn least_bytes(schema: &Value) -> u64 {
    match schema["type"].as_str() {
        Some("boolean") => 4,
        Some("string") => 2,
        Some("array") => 2,
        Some("object") => {
            let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
            let fields = required.map(|name| {
                let property = &schema["properties"][name];
                let given = property.get("default").is_none();
                if given { name.len() as u64 + 4 + least_bytes(property) } else { 0 }
            });
            2 + fields.sum::<u64>()
        }
        _ => 1,
    }
}
