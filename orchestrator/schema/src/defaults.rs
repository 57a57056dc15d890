//! Defaults: those of the table, and upstream's conditional ones by type.
//!
//! A hook belongs to a struct, not to a kind, so a container's defaults hold in a Pod, in every template and in
//! whatever embeds one later. Parents come before their children, as upstream's generated defaulters do it.
//! Hooks only fill what is absent; applying defaults twice changes nothing. What is empty in the end and need not be
//! there is left out, as upstream's encoder does it.

mod admission;
mod apps;
mod autoscaling;
mod batch;
mod core;
mod extensions;
mod networking;
mod pod;
mod rbac;
mod resource;
mod storage;

use std::collections::HashMap;
use std::sync::LazyLock;

use crate::model::{Field, Schema, Struct, Type};
use crate::{Map, TypeRef, Value};

type Object = Map<String, Value>;

/// Fills one object of the struct it is registered for.
type Hook = fn(&mut Object);

static HOOKS: LazyLock<HashMap<&'static str, Hook>> = LazyLock::new(|| {
    [
        admission::HOOKS,
        apps::HOOKS,
        autoscaling::HOOKS,
        batch::HOOKS,
        core::HOOKS,
        extensions::HOOKS,
        networking::HOOKS,
        pod::HOOKS,
        rbac::HOOKS,
        resource::HOOKS,
        storage::HOOKS,
    ]
    .into_iter()
    .flatten()
    .copied()
    .collect()
});

/// Fills in every default of an object of this type and leaves out what upstream would not store: empty lists, maps and
/// zeros of fields that need not be there. Anything but an object is left alone.
pub fn apply(ty: &TypeRef, v: &mut Value) {
    if let Value::Object(object) = v {
        structure(ty.schema(), ty.def(), object);
    }
}

fn structure(schema: &Schema, def: &Struct, object: &mut Object) {
    for field in def.fields.iter().filter(|f| !f.default_text.is_empty()) {
        let absent = match object.get(field.name.as_ref()) {
            None => true,
            Some(value) => field.zero_is_absent && is_zero(value),
        };
        if absent && let Some(default) = field.default_value() {
            object.insert(field.name.to_string(), default);
        }
    }
    if let Some(hook) = HOOKS.get(def.name.as_ref()) {
        hook(object);
    }
    let mut omits = false;
    for (name, value) in object.iter_mut() {
        if let Some(field) = def.field(name) {
            within(schema, &field.ty, value);
            omits |= is_omitted(def, field, value);
        }
    }
    if omits {
        object.retain(|name, value| def.field(name).is_none_or(|field| !is_omitted(def, field, value)));
    }
}

/// An empty list of these says that nobody owns anything, and none says nothing: whoever keeps owners takes it out.
const OWNERS: &str = "managedFields";

/// Whether Go's encoder leaves the value out. A custom kind's fields are kept as they were written.
fn is_omitted(def: &Struct, field: &Field, value: &Value) -> bool {
    if field.required || def.proto.is_empty() || field.name == OWNERS {
        return false;
    }
    match (&field.ty, value) {
        (Type::List(_) | Type::WrappedList(_), Value::Array(items)) => items.is_empty(),
        (Type::Map(_), Value::Object(entries)) => entries.is_empty(),
        _ => field.zero_is_absent && is_zero(value),
    }
}

fn within(schema: &Schema, ty: &Type, value: &mut Value) {
    match (ty.bare(), value) {
        (Type::Struct(id), Value::Object(object)) => structure(schema, schema.get(*id), object),
        (Type::List(item), Value::Array(items)) if holds_struct(item) => {
            items.iter_mut().for_each(|value| within(schema, item, value));
        }
        (Type::Map(inner), Value::Object(entries)) if holds_struct(inner) => {
            entries.values_mut().for_each(|value| within(schema, inner, value));
        }
        _ => {}
    }
}

fn holds_struct(ty: &Type) -> bool {
    match ty.bare() {
        Type::Struct(_) => true,
        Type::List(inner) | Type::Map(inner) => holds_struct(inner),
        _ => false,
    }
}

/// Sets a field that is absent. For Go's pointers, where zero is a value.
fn fill(object: &mut Object, name: &str, default: impl Into<Value>) {
    // Most fields are there when an object is updated: no key is allocated for them.
    if object.get(name).is_none_or(Value::is_null) {
        object.insert(name.to_owned(), default.into());
    }
}

/// Sets a field that is absent, zero or empty. For Go's plain values.
fn fill_zero(object: &mut Object, name: &str, default: impl Into<Value>) {
    if object.get(name).is_none_or(is_zero) {
        object.insert(name.to_owned(), default.into());
    }
}

/// The object at a field, made if it is absent.
fn child<'o>(object: &'o mut Object, name: &str) -> Option<&'o mut Object> {
    fill(object, name, Map::new());
    object.get_mut(name).and_then(Value::as_object_mut)
}

/// The object at a field, if it is there.
fn existing<'o>(object: &'o mut Object, name: &str) -> Option<&'o mut Object> {
    object.get_mut(name).and_then(Value::as_object_mut)
}

/// The objects of a list.
fn each(object: &mut Object, name: &str, mut change: impl FnMut(&mut Object)) {
    if let Some(Value::Array(items)) = object.get_mut(name) {
        items.iter_mut().filter_map(Value::as_object_mut).for_each(&mut change);
    }
}

/// The text at a field; empty if there is none.
fn text<'o>(object: &'o Object, name: &str) -> &'o str {
    object.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn has(object: &Object, name: &str) -> bool {
    object.get(name).is_some_and(|v| !v.is_null())
}

fn is_empty_list(object: &Object, name: &str) -> bool {
    object.get(name).and_then(Value::as_array).is_none_or(Vec::is_empty)
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(b) => !b,
        Value::Number(n) => n.as_f64() == Some(0.0),
        Value::String(s) => s.is_empty(),
        Value::Array(_) | Value::Object(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_hook_belongs_to_a_type_of_the_table() {
        let schema = Schema::builtin();
        let strays: Vec<_> = HOOKS.keys().filter(|name| schema.by_name(name).is_none()).collect();
        assert_eq!(strays, Vec::<&&str>::new());
    }
}
