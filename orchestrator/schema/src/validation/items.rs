//! Lists that are sets or maps (`x-kubernetes-list-type`): no item, or no key, twice.

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::{Node, Rule, Violation, below};

/// What may not occur twice in a list.
#[derive(Debug, Default)]
pub(super) enum Uniqueness {
    #[default]
    Nothing,
    Items,
    /// Values of these fields together.
    Keys(Vec<String>),
}

impl Uniqueness {
    pub(super) fn of(schema: &Value) -> Self {
        match schema["x-kubernetes-list-type"].as_str() {
            Some("set") => Self::Items,
            Some("map") => {
                let keys = schema["x-kubernetes-list-map-keys"].as_array().into_iter().flatten();
                Self::Keys(keys.filter_map(Value::as_str).map(str::to_owned).collect())
            }
            _ => Self::Nothing,
        }
    }
}

impl Node {
    pub(super) fn check_uniqueness(&self, value: &Value, path: &str, found: &mut Vec<Violation>) {
        match value {
            Value::Array(items) => {
                match &self.list {
                    Uniqueness::Nothing => {}
                    Uniqueness::Items => twice(items.iter().cloned(), path, found),
                    Uniqueness::Keys(keys) => check_keys(items, keys, path, found),
                }
                if let Some(node) = &self.items {
                    for (index, item) in items.iter().enumerate() {
                        node.check_uniqueness(item, &format!("{path}[{index}]"), found);
                    }
                }
            }
            Value::Object(fields) => {
                for (key, value) in fields {
                    let named = self.properties.iter().find(|(name, _)| name == key).map(|(_, node)| node);
                    if let Some(node) = named.or(self.additional.as_deref()) {
                        node.check_uniqueness(value, &below(path, key), found);
                    }
                }
            }
            _ => {}
        }
    }
}

fn check_keys(items: &[Value], keys: &[String], path: &str, found: &mut Vec<Violation>) {
    let stranger = items.iter().enumerate().find(|(_, item)| !item.is_object() && !item.is_null());
    if let Some((index, item)) = stranger {
        found.push(Violation {
            rule: Rule::Other,
            path: format!("{path}[{index}]"),
            value: item.clone(),
            detail: "must be an object for an array of list-type map".into(),
        });
        return;
    }
    let key_of = |item: &Value| {
        let present = keys.iter().filter_map(|key| Some((key.clone(), item.get(key)?.clone())));
        Value::Object(present.collect::<Map<_, _>>())
    };
    twice(items.iter().map(key_of), path, found);
}

/// Reports the second of equal items, and no further one.
fn twice(items: impl Iterator<Item = Value>, path: &str, found: &mut Vec<Violation>) {
    let (mut seen, mut told) = (HashSet::new(), HashSet::new());
    for (index, item) in items.enumerate() {
        let text = item.to_string();
        if !seen.insert(text.clone()) && told.insert(text) {
            found.push(Violation {
                rule: Rule::Duplicate,
                path: format!("{path}[{index}]"),
                value: item,
                detail: String::new(),
            });
        }
    }
}
