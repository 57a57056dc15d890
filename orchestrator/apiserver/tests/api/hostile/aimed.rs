//! Requests that are right but for one thing: an object of a kind, at its place, with something made up in it.

use penstock_schema::{Schema, protobuf};
use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::{Value, json};

use super::made::{Made, any_json, query};

/// A collection's path and an object of it, a line each.
const KINDS: &str = include_str!("kinds.txt");

/// What is done to an object.
#[derive(Debug, Clone, Copy)]
enum Damage {
    None,
    Replace,
    Remove,
    Add,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Create,
    Update,
    UpdateStatus,
    Patch(&'static str),
    PatchStatus,
    Delete,
    DeleteAll,
    Get,
    List,
    Scale,
}

fn kinds() -> Vec<(String, Value)> {
    let read = |line: &str| {
        let (path, object) = line.split_once(' ').expect("a path and an object");
        (path.to_owned(), serde_json::from_str(object).expect("an object"))
    };
    KINDS.lines().map(read).collect()
}

/// Pointers to everything in a value.
fn places(value: &Value, at: &str, out: &mut Vec<String>) {
    out.push(at.to_owned());
    match value {
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                places(item, &format!("{at}/{index}"), out);
            }
        }
        Value::Object(fields) => {
            for (key, field) in fields {
                let key = key.replace('~', "~0").replace('/', "~1");
                places(field, &format!("{at}/{key}"), out);
            }
        }
        _ => {}
    }
}

fn damage(mut object: Value, damage: Damage, at: &Index, key: &str, made: Value) -> Value {
    let mut all = Vec::new();
    places(&object, "", &mut all);
    let place = at.get(&all).clone();
    match damage {
        Damage::None => {}
        Damage::Replace => {
            if let Some(at) = object.pointer_mut(&place) {
                *at = made;
            }
        }
        Damage::Remove => {
            let (parent, key) = place.rsplit_once('/').unwrap_or_default();
            match object.pointer_mut(parent) {
                Some(Value::Object(fields)) => drop(fields.remove(key)),
                Some(Value::Array(items)) => items.clear(),
                _ => {}
            }
        }
        Damage::Add => match object.pointer_mut(&place) {
            Some(Value::Object(fields)) => drop(fields.insert(key.to_owned(), made)),
            Some(Value::Array(items)) => items.push(made),
            _ => {}
        },
    }
    object
}

fn sealed(object: &Value) -> Option<Vec<u8>> {
    let text = |key: &str| object.get(key).and_then(Value::as_str).unwrap_or_default();
    let (group, version) = text("apiVersion").split_once('/').unwrap_or(("", text("apiVersion")));
    let ty = Schema::builtin().kind(group, version, text("kind"))?;
    let raw = protobuf::encode(&ty, object).ok()?;
    Some(protobuf::seal_envelope(text("apiVersion"), text("kind"), &raw))
}

pub fn aimed() -> impl Strategy<Value = Made> {
    let harm = select(vec![Damage::None, Damage::Replace, Damage::Replace, Damage::Remove, Damage::Add]);
    let action = select(vec![
        Action::Create,
        Action::Create,
        Action::Create,
        Action::Update,
        Action::Update,
        Action::UpdateStatus,
        Action::Patch("application/merge-patch+json"),
        Action::Patch("application/strategic-merge-patch+json"),
        Action::Patch("application/json-patch+json"),
        Action::Patch("application/apply-patch+yaml"),
        Action::PatchStatus,
        Action::Delete,
        Action::DeleteAll,
        Action::Get,
        Action::List,
        Action::Scale,
    ]);
    let key =
        select(vec!["spec", "status", "name", "x", "labels", "finalizers", "type", "template", "items"]);
    let accept = select(vec![
        "application/json",
        "application/vnd.kubernetes.protobuf",
        "application/json;as=Table;v=v1;g=meta.k8s.io",
        "application/yaml",
    ]);
    let query = prop_oneof![3 => Just(String::new()), 1 => query()];
    let place = (any::<Index>(), key, any_json());
    (select(kinds()), harm, action, place, accept, query, 0..3_usize).prop_map(
        |((path, object), harm, action, (at, key, value), accept, query, encoding)| {
            let named = object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or("default").to_owned();
            let damaged = damage(object, harm, &at, key, value.clone());
            let object_path = format!("{path}/{named}");
            let (method, uri, content, body) = match action {
                Action::Create => ("POST", path, "", damaged),
                Action::Update => ("PUT", object_path, "", damaged),
                Action::UpdateStatus => ("PUT", format!("{object_path}/status"), "", damaged),
                Action::Patch(content @ "application/json-patch+json") => {
                    let patch = json!([{"op": "add", "path": format!("/{key}"), "value": value},
                        {"op": "copy", "from": "/metadata", "path": format!("/{key}/x")}]);
                    ("PATCH", object_path, content, patch)
                }
                Action::Patch(content) => ("PATCH", object_path, content, damaged),
                Action::PatchStatus => {
                    ("PATCH", format!("{object_path}/status"), "application/merge-patch+json", json!({"status": value}))
                }
                Action::Delete => ("DELETE", object_path, "", Value::Null),
                Action::DeleteAll => ("DELETE", path, "", Value::Null),
                Action::Get => ("GET", object_path, "", Value::Null),
                Action::List => ("GET", path, "", Value::Null),
                Action::Scale => {
                    let scale = json!({"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": {"name": named},
                        "spec": {"replicas": value}});
                    ("PUT", format!("{object_path}/scale"), "", scale)
                }
            };
            let text = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
            let (content, body) = match (content, encoding) {
                ("", 1) => ("application/yaml", text),
                ("", 2) => match sealed(&body) {
                    Some(bytes) => ("application/vnd.kubernetes.protobuf", bytes),
                    None => ("application/json", text),
                },
                ("", _) => ("application/json", text),
                (content, _) => (content, text),
            };
            let query = match (content, query.is_empty()) {
                ("application/apply-patch+yaml", true) => "?fieldManager=m&force=true".to_owned(),
                (_, true) => String::new(),
                (_, false) => format!("?{query}"),
            };
            let headers = [("accept", accept), ("content-type", content)];
            let headers = headers.map(|(name, value)| (name, value.as_bytes().to_vec())).to_vec();
            Made { method, uri: format!("{uri}{query}"), headers, body }
        },
    )
}
