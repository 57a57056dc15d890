//! A version's schema: structural, so that it can prune and default, and within what is supported.
//!
//! The rules are those of "Specifying a structural schema" in the Kubernetes documentation and of upstream's
//! validation; paths and sentences are the ones its clients know.

use penstock_schema::validation::{Validator, pattern};
use serde_json::{Value, json};

use crate::error::FieldError;
use crate::registry::custom::{field_error, rules};
use crate::registry::object::items_at;

const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];
/// Keywords of JSON Schema that upstream does not support.
const UNSUPPORTED: [&str; 6] =
    ["$ref", "additionalItems", "definitions", "dependencies", "id", "patternProperties"];
/// Beyond this the schema is no schema of an object we would decode.
const DEPTH_MAX: usize = 100;

/// Where a node stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Root,
    Items,
    Field,
}

/// `with_status`: the version has a status subresource.
pub(super) fn validate(schema: &Value, path: &str, with_status: bool, errors: &mut Vec<FieldError>) {
    let before = errors.len();
    if schema["nullable"] == true {
        errors.push(FieldError::forbidden(format!("{path}.nullable"), "nullable cannot be true at the root"));
    }
    if with_status && schema["type"] != "object" {
        errors.push(FieldError::invalid(
            format!("{path}.type"),
            schema["type"].as_str().unwrap_or_default(),
            r#"only "object" is allowed as the type at the root of the schema if the status subresource is enabled"#,
        ));
    }
    node(schema, path, Level::Root, 0, errors);
    if errors.len() == before {
        defaults(schema, path, errors);
    }
    if errors.len() == before {
        errors.extend(rules::definitions::errors_of(schema, path));
    }
}

fn node(schema: &Value, path: &str, level: Level, depth: usize, errors: &mut Vec<FieldError>) {
    if depth > DEPTH_MAX {
        errors.push(FieldError::forbidden(path, "the schema is nested too deeply"));
        return;
    }
    typed(schema, path, level, errors);
    supported(schema, path, errors);
    extensions(schema, path, level, errors);
    match &schema["items"] {
        Value::Array(_) => {
            errors.push(FieldError::forbidden(
                format!("{path}.items"),
                "items must be a schema object and not an array",
            ));
        }
        Value::Object(_) => node(&schema["items"], &format!("{path}.items"), Level::Items, depth + 1, errors),
        _ if schema["type"] == "array" => {
            errors.push(FieldError::required(format!("{path}.items"), "must be specified"));
        }
        _ => {}
    }
    for (key, property) in schema["properties"].as_object().into_iter().flatten() {
        let at = format!("{path}.properties[{key}]");
        if key == "metadata" && level == Level::Root {
            root_metadata(property, &at, errors);
            continue;
        }
        node(property, &at, Level::Field, depth + 1, errors);
    }
    let additional = &schema["additionalProperties"];
    if !additional.is_null() {
        let at = format!("{path}.additionalProperties");
        if level == Level::Root {
            errors.push(FieldError::forbidden(&*at, "must not be used at the root"));
        }
        if schema["properties"].as_object().is_some_and(|p| !p.is_empty()) && *additional != true {
            errors.push(FieldError::forbidden(
                &*at,
                "additionalProperties and properties are mutual exclusive",
            ));
        }
        if additional.is_object() {
            node(additional, &at, Level::Field, depth + 1, errors);
        }
    }
    for (part, at) in nested_parts(schema, path) {
        let skip = schema["x-kubernetes-int-or-string"] == true && is_int_or_string(schema, part);
        if !skip {
            nested(part, schema, &at, path, depth + 1, errors);
        }
    }
}

/// The schemas under the logical keywords of a node, with their paths.
fn nested_parts<'s>(schema: &'s Value, path: &str) -> Vec<(&'s Value, String)> {
    let mut parts = Vec::new();
    for key in ["anyOf", "allOf", "oneOf"] {
        for (index, part) in items_at(schema, &format!("/{key}")).iter().enumerate() {
            parts.push((part, format!("{path}.{key}[{index}]")));
        }
    }
    if schema["not"].is_object() {
        parts.push((&schema["not"], format!("{path}.not")));
    }
    parts
}

/// `anyOf: [{type: integer}, {type: string}]`, there or in the first of `allOf`, spells out int-or-string.
fn is_int_or_string(schema: &Value, part: &Value) -> bool {
    let spelled = json!([{"type": "integer"}, {"type": "string"}]);
    let any_of = schema["anyOf"] == spelled && items_at(schema, "/anyOf").contains(part);
    any_of || (schema["allOf"][0] == *part && part["anyOf"] == spelled)
}

fn typed(schema: &Value, path: &str, level: Level, errors: &mut Vec<FieldError>) {
    let at = format!("{path}.type");
    let free = schema["x-kubernetes-int-or-string"] == true
        || schema["x-kubernetes-preserve-unknown-fields"] == true;
    match schema["type"].as_str().unwrap_or_default() {
        "" if schema["x-kubernetes-embedded-resource"] == true => {
            errors.push(FieldError::required(at, "must be object if x-kubernetes-embedded-resource is true"))
        }
        "" if free => {}
        "" => errors.push(FieldError::required(
            at,
            match level {
                Level::Root => "must not be empty at the root",
                Level::Items => "must not be empty for specified array items",
                Level::Field => "must not be empty for specified object fields",
            },
        )),
        "null" => errors
            .push(FieldError::forbidden(at, "type cannot be set to null, use nullable as an alternative")),
        other if !TYPES.contains(&other) => errors.push(FieldError::not_supported(at, other, &TYPES)),
        other if other != "object" && level == Level::Root => {
            errors.push(FieldError::invalid(at, other, "must be object at the root"));
        }
        other if other != "object" && schema["x-kubernetes-embedded-resource"] == true => {
            errors.push(FieldError::invalid(
                at,
                other,
                "must be object if x-kubernetes-embedded-resource is true",
            ));
        }
        _ => {}
    }
}

fn supported(schema: &Value, path: &str, errors: &mut Vec<FieldError>) {
    for key in UNSUPPORTED.into_iter().filter(|key| !schema[*key].is_null() && schema[*key] != "") {
        errors.push(FieldError::forbidden(format!("{path}.{key}"), format!("{key} is not supported")));
    }
    if schema["uniqueItems"] == true {
        let why = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
        errors.push(FieldError::forbidden(format!("{path}.uniqueItems"), why));
    }
    checked_pattern(schema, path, errors);
}

fn checked_pattern(schema: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let text = schema["pattern"].as_str().unwrap_or_default();
    if let Err(why) = pattern(text) {
        let why = format!("must be a valid regular expression, but isn't: {why}");
        errors.push(FieldError::invalid(format!("{path}.pattern"), text, why));
    }
}

fn extensions(schema: &Value, path: &str, level: Level, errors: &mut Vec<FieldError>) {
    let int_or_string = schema["x-kubernetes-int-or-string"] == true;
    let preserve = &schema["x-kubernetes-preserve-unknown-fields"];
    if *preserve == false {
        errors.push(FieldError::invalid(
            format!("{path}.x-kubernetes-preserve-unknown-fields"),
            false,
            "must be true or undefined",
        ));
    }
    for key in ["x-kubernetes-preserve-unknown-fields", "x-kubernetes-embedded-resource"] {
        if int_or_string && schema[key] == true {
            let why = "must be false if x-kubernetes-int-or-string is true";
            errors.push(FieldError::invalid(format!("{path}.{key}"), true, why));
        }
    }
    if schema["x-kubernetes-embedded-resource"] == true {
        if !schema["additionalProperties"].is_null() {
            let why = "must not be used if x-kubernetes-embedded-resource is set";
            errors.push(FieldError::forbidden(format!("{path}.additionalProperties"), why));
        }
        if *preserve != true && schema["properties"].as_object().is_none_or(|p| p.is_empty()) {
            let why = "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields";
            errors.push(FieldError::required(format!("{path}.properties"), why));
        }
    }
    if level == Level::Root || schema["x-kubernetes-embedded-resource"] == true {
        for key in ["kind", "apiVersion"] {
            if let Some(property) = schema["properties"].get(key)
                && property["type"] != "string"
            {
                let at = format!("{path}.properties[{key}].type");
                let is = property["type"].as_str().unwrap_or_default();
                errors.push(FieldError::invalid(at, is, "must be string"));
            }
        }
    }
    list_and_map(schema, path, errors);
}

fn list_and_map(schema: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let kind = schema["type"].as_str().unwrap_or_default();
    let wants_type = |key: &str, wanted: &str, errors: &mut Vec<FieldError>| {
        let why = format!("must be {wanted} if {key} is specified");
        let at = format!("{path}.type");
        match kind {
            "" => errors.push(FieldError::required(at, why)),
            other => errors.push(FieldError::invalid(at, other, why)),
        }
    };
    if let Some(map) = schema["x-kubernetes-map-type"].as_str() {
        if kind != "object" {
            wants_type("x-kubernetes-map-type", "object", errors);
        }
        if !["atomic", "granular"].contains(&map) {
            let at = format!("{path}.x-kubernetes-map-type");
            errors.push(FieldError::not_supported(at, map, &["atomic", "granular"]));
        }
    }
    let list = schema["x-kubernetes-list-type"].as_str();
    let keys = items_at(schema, "/x-kubernetes-list-map-keys");
    let (list_at, keys_at) =
        (format!("{path}.x-kubernetes-list-type"), format!("{path}.x-kubernetes-list-map-keys"));
    let items = &schema["items"];
    if let Some(list) = list {
        if kind != "array" {
            wants_type("x-kubernetes-list-type", "array", errors);
        }
        if !["atomic", "set", "map"].contains(&list) {
            errors.push(FieldError::not_supported(&*list_at, list, &["atomic", "map", "set"]));
        }
        if list == "set" && items["type"] == "object" && items["x-kubernetes-map-type"] != "atomic" {
            let at = format!("{path}.items.x-kubernetes-map-type");
            let why = "must be atomic as item of a list with x-kubernetes-list-type=set";
            errors.push(FieldError::invalid(at, items["x-kubernetes-map-type"].clone(), why));
        }
        if ["set", "map"].contains(&list) && items["nullable"] == true {
            let why = format!("cannot be nullable when x-kubernetes-list-type is {list}");
            errors.push(FieldError::forbidden(format!("{path}.items.nullable"), why));
        }
    }
    if !keys.is_empty() && list != Some("map") {
        let why = "must be map if x-kubernetes-list-map-keys is non-empty";
        errors.push(match list {
            None => FieldError::required(&*list_at, why),
            Some(other) => FieldError::invalid(&*list_at, other, why),
        });
    }
    if list != Some("map") {
        return;
    }
    if keys.is_empty() {
        let why = "must not be empty if x-kubernetes-list-type is map";
        errors.push(FieldError::required(&*keys_at, why));
    }
    if items.is_object() && items["type"] != "object" {
        let is = items["type"].as_str().unwrap_or_default();
        let why = "must be object if parent array's x-kubernetes-list-type is map";
        errors.push(FieldError::invalid(format!("{path}.items.type"), is, why));
        return;
    }
    for (index, key) in keys.iter().enumerate() {
        let name = key.as_str().unwrap_or_default();
        let at = format!("{path}.items.properties[{name}]");
        if keys[..index].contains(key) {
            errors.push(FieldError::invalid(&*keys_at, keys.to_vec(), "must not contain duplicate entries"));
        }
        let Some(property) = items["properties"].get(name) else {
            let why = "entries must all be names of item properties";
            errors.push(FieldError::invalid(&*keys_at, keys.to_vec(), why));
            continue;
        };
        if matches!(property["type"].as_str(), Some("array" | "object")) {
            let why = "must be a scalar type if parent array's x-kubernetes-list-type is map";
            errors.push(FieldError::invalid(format!("{at}.type"), items["type"].clone(), why));
        }
        if !items_at(items, "/required").contains(key) && property.get("default").is_none() {
            let why = "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property";
            errors.push(FieldError::required(format!("{at}.default"), why));
        }
        if property["nullable"] == true {
            let why = "this property is in x-kubernetes-list-map-keys, so it cannot be nullable";
            errors.push(FieldError::forbidden(format!("{at}.nullable"), why));
        }
    }
}

/// Metadata is every object's; a schema may only say more of its names.
fn root_metadata(schema: &Value, path: &str, errors: &mut Vec<FieldError>) {
    if schema["type"] != "object" {
        let is = schema["type"].as_str().unwrap_or_default();
        errors.push(FieldError::invalid(format!("{path}.type"), is, "must be object"));
    }
    let only_names = schema["properties"]
        .as_object()
        .is_none_or(|p| p.keys().all(|key| matches!(key.as_str(), "name" | "generateName")));
    let only_known = schema
        .as_object()
        .is_none_or(|s| s.keys().all(|key| matches!(key.as_str(), "type" | "properties" | "description")));
    if !only_names || !only_known {
        let why = "must not specify anything other than name and generateName, but metadata is implicitly specified";
        errors.push(FieldError::forbidden(path, why));
    }
}

/// A schema under a logical keyword only says more of values; what fields there are stands outside (`outer`).
fn nested(
    part: &Value,
    outer: &Value,
    path: &str,
    outer_path: &str,
    depth: usize,
    errors: &mut Vec<FieldError>,
) {
    if depth > DEPTH_MAX {
        errors.push(FieldError::forbidden(path, "the schema is nested too deeply"));
        return;
    }
    supported(part, path, errors);
    for (key, why) in [
        ("type", "must be empty to be structural"),
        ("additionalProperties", "must be undefined to be structural"),
        ("default", "must be undefined to be structural"),
        ("title", "must be empty to be structural"),
        ("description", "must be empty to be structural"),
        ("nullable", "must be false to be structural"),
        ("x-kubernetes-preserve-unknown-fields", "must be false to be structural"),
        ("x-kubernetes-embedded-resource", "must be false to be structural"),
        ("x-kubernetes-int-or-string", "must be false to be structural"),
        ("x-kubernetes-list-map-keys", "must be empty to be structural"),
        ("x-kubernetes-list-type", "must be undefined to be structural"),
        ("x-kubernetes-map-type", "must be undefined to be structural"),
        ("x-kubernetes-validations", "must be empty to be structural"),
    ] {
        let absent = match &part[key] {
            Value::Null => true,
            Value::Bool(b) => !b && why.contains("false"),
            Value::String(text) => text.is_empty() && why.contains("empty"),
            Value::Array(items) => items.is_empty(),
            _ => false,
        };
        if !absent {
            errors.push(FieldError::forbidden(format!("{path}.{key}"), why));
        }
    }
    for (key, property) in part["properties"].as_object().into_iter().flatten() {
        let at = format!("{path}.properties[{key}]");
        let outer_at = format!("{outer_path}.properties[{key}]");
        if key == "metadata" {
            errors.push(FieldError::forbidden(&*at, "must not be specified in a nested context"));
        }
        match outer["properties"].get(key) {
            Some(outer) => nested(property, outer, &at, &outer_at, depth + 1, errors),
            None => errors.push(FieldError::required(outer_at, format!("because it is defined in {at}"))),
        }
    }
    if part["items"].is_object() {
        let (at, outer_at) = (format!("{path}.items"), format!("{outer_path}.items"));
        match outer.get("items") {
            Some(outer) => nested(&part["items"], outer, &at, &outer_at, depth + 1, errors),
            None => errors.push(FieldError::required(outer_at, format!("because it is defined in {at}"))),
        }
    }
    for (inner, at) in nested_parts(part, path) {
        nested(inner, outer, &at, outer_path, depth + 1, errors);
    }
}

/// Defaults must be values the schema itself admits.
fn defaults(schema: &Value, path: &str, errors: &mut Vec<FieldError>) {
    if let Some(default) = schema.get("default") {
        match Validator::compile(schema) {
            Ok(validator) => {
                for violation in validator.validate(default) {
                    let mut error = field_error(violation);
                    error.path = match error.path.as_str() {
                        "" | "<nil>" => format!("{path}.default"),
                        below => format!("{path}.default.{below}"),
                    };
                    errors.push(error);
                }
            }
            Err(error) => {
                errors.push(FieldError::invalid(path, "", format!("error building validator: {error}")))
            }
        }
    }
    for (key, property) in schema["properties"].as_object().into_iter().flatten() {
        if key == "metadata" && path.ends_with("openAPIV3Schema") {
            continue;
        }
        defaults(property, &format!("{path}.properties[{key}]"), errors);
    }
    for key in ["items", "additionalProperties"] {
        if schema[key].is_object() {
            defaults(&schema[key], &format!("{path}.{key}"), errors);
        }
    }
}
