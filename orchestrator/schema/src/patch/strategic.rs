//! Strategic merge patch.
//!
//! Semantics: <https://github.com/kubernetes/community/blob/main/contributors/devel/sig-api-machinery/strategic-merge-patch.md>.

use serde_json::Map;

use crate::model::{Field, Schema, Struct, Type};
use crate::{PatchError, TypeRef, Value};

const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const ORDER: &str = "$setElementOrder/";
const DELETE: &str = "$deleteFromPrimitiveList/";

type Object = Map<String, Value>;

pub(super) fn apply(ty: &TypeRef, v: &Value, patch: &Value) -> Result<Value, PatchError> {
    let Value::Object(patch) = patch else {
        return Err(malformed("a strategic merge patch is an object"));
    };
    let merger = Merger { schema: ty.schema() };
    let current = v.as_object().cloned().unwrap_or_default();
    Ok(Value::Object(merger.object(Some(ty.def()), current, patch)?))
}

struct Merger<'a> {
    schema: &'a Schema,
}

/// What a nested value merges as.
#[derive(Clone, Copy)]
enum Shape<'a> {
    Struct(&'a Struct),
    /// An object with free keys, or anything the schema does not describe.
    Free,
}

impl<'a> Shape<'a> {
    fn def(self) -> Option<&'a Struct> {
        match self {
            Shape::Struct(def) => Some(def),
            Shape::Free => None,
        }
    }
}

impl<'a> Merger<'a> {
    /// Merges a patch into an object, whose struct is known or not.
    fn object(
        &self,
        def: Option<&'a Struct>,
        mut current: Object,
        patch: &Object,
    ) -> Result<Object, PatchError> {
        match patch.get(PATCH).map(|d| d.as_str()) {
            None => {}
            Some(Some("replace")) => {
                let mut fresh = patch.clone();
                fresh.remove(PATCH);
                return Ok(fresh);
            }
            Some(Some("delete")) => return Ok(Object::new()),
            Some(Some("merge")) => {}
            Some(_) => return Err(malformed("unrecognized type of $patch directive")),
        }
        if let Some(retained) = patch.get(RETAIN_KEYS) {
            retain(&mut current, retained, patch)?;
        }
        for (key, change) in patch {
            if key == PATCH || key == RETAIN_KEYS {
                continue;
            }
            if let Some(name) = key.strip_prefix(DELETE) {
                delete_from(&mut current, name, change)?;
                continue;
            }
            if let Some(name) = key.strip_prefix(ORDER) {
                // With a patch of the same list, the list itself puts its items in order.
                if !patch.contains_key(name)
                    && let Some(Value::Array(items)) = current.get_mut(name)
                {
                    let field = def.and_then(|d| d.field(name));
                    let merge_key = field.map(|f| f.patch_merge_key.as_ref()).unwrap_or_default();
                    let ordered = put_in_order(std::mem::take(items), change, merge_key)?;
                    *items = ordered;
                }
                continue;
            }
            if change.is_null() {
                current.remove(key);
                continue;
            }
            let field = def.and_then(|d| d.field(key));
            let order = patch.get(&format!("{ORDER}{key}"));
            let existing = current.remove(key);
            if let Some(value) = self.value(field, existing, change, order)? {
                current.insert(key.clone(), value);
            }
        }
        Ok(current)
    }

    /// Merges the patch of one field; `None` removes the field.
    fn value(
        &self,
        field: Option<&'a Field>,
        existing: Option<Value>,
        change: &Value,
        order: Option<&Value>,
    ) -> Result<Option<Value>, PatchError> {
        match change {
            Value::Object(changes) => {
                let shape = field.map_or(Shape::Free, |f| self.shape(&f.ty));
                let replaces = field.is_some_and(|f| matches!(f.ty, Type::Raw));
                if changes.get(PATCH).and_then(Value::as_str) == Some("delete") {
                    return Ok(None);
                }
                let current = match existing {
                    Some(Value::Object(current)) if !replaces => current,
                    _ => Object::new(),
                };
                let map_of_structs = field.and_then(|f| self.map_value(&f.ty));
                let merged = match map_of_structs {
                    Some(inner) => self.map(inner, current, changes)?,
                    None => self.object(shape.def(), current, changes)?,
                };
                Ok(Some(Value::Object(merged)))
            }
            Value::Array(changes) => {
                let Some(field) = field.filter(|f| f.patch_merge) else {
                    return Ok(Some(Value::Array(without_directives(changes))));
                };
                let current = match existing {
                    Some(Value::Array(current)) => current,
                    _ => Vec::new(),
                };
                let merged = if field.patch_merge_key.is_empty() {
                    self.scalars(current, changes, order)?
                } else {
                    self.items(field, current, changes, order)?
                };
                Ok(Some(Value::Array(merged)))
            }
            scalar => Ok(Some(scalar.clone())),
        }
    }

    fn shape(&self, ty: &Type) -> Shape<'a> {
        match ty {
            Type::Struct(id) | Type::SchemaOr(_, id) => Shape::Struct(self.schema.get(*id)),
            _ => Shape::Free,
        }
    }

    /// The struct of a map's values.
    fn map_value(&self, ty: &Type) -> Option<&'a Struct> {
        match ty {
            Type::Map(value) => self.shape(value).def(),
            _ => None,
        }
    }

    /// A map from free keys to structs.
    fn map(&self, inner: &'a Struct, mut current: Object, changes: &Object) -> Result<Object, PatchError> {
        if changes.get(PATCH).and_then(Value::as_str) == Some("replace") {
            current.clear();
        }
        for (key, change) in changes.iter().filter(|(key, _)| *key != PATCH) {
            match change {
                Value::Null => {
                    current.remove(key);
                }
                Value::Object(patch) => {
                    let existing = match current.remove(key) {
                        Some(Value::Object(existing)) => existing,
                        _ => Object::new(),
                    };
                    current.insert(key.clone(), Value::Object(self.object(Some(inner), existing, patch)?));
                }
                other => {
                    current.insert(key.clone(), other.clone());
                }
            }
        }
        Ok(current)
    }

    /// A list of scalars that is a set.
    fn scalars(
        &self,
        mut current: Vec<Value>,
        changes: &[Value],
        order: Option<&Value>,
    ) -> Result<Vec<Value>, PatchError> {
        for change in changes {
            if !current.contains(change) {
                current.push(change.clone());
            }
        }
        match order {
            Some(order) => put_in_order(current, order, ""),
            None => Ok(current),
        }
    }

    /// A list of structs identified by a key.
    fn items(
        &self,
        field: &'a Field,
        mut current: Vec<Value>,
        changes: &[Value],
        order: Option<&Value>,
    ) -> Result<Vec<Value>, PatchError> {
        let key = field.patch_merge_key.as_ref();
        let def = match &field.ty {
            Type::List(item) => self.shape(item).def(),
            _ => None,
        };
        let replace = changes.iter().any(|c| c.get(PATCH).and_then(Value::as_str) == Some("replace"));
        if replace {
            // Everything but the directive itself is the new list.
            let kept = changes.iter().filter(|c| c.get(PATCH).is_none());
            return Ok(kept.cloned().collect());
        }
        let before: Vec<Value> = current.iter().filter_map(|item| item.get(key).cloned()).collect();
        for change in changes {
            let Value::Object(patch) = change else {
                return Err(malformed(&format!("items of {} must be objects", field.name)));
            };
            let id = patch.get(key).ok_or_else(|| {
                malformed(&format!("map: {change} does not contain declared merge key: {key}"))
            })?;
            match patch.get(PATCH).map(Value::as_str) {
                None | Some(Some("merge")) => {}
                Some(Some("delete")) => {
                    current.retain(|item| item.get(key) != Some(id));
                    continue;
                }
                Some(_) => return Err(malformed("unrecognized type of $patch directive")),
            }
            let at = current.iter().position(|item| item.get(key) == Some(id));
            let existing = match at.map(|at| current[at].take()) {
                Some(Value::Object(existing)) => existing,
                _ => Object::new(),
            };
            let merged = Value::Object(self.object(def, existing, patch)?);
            match at {
                Some(at) => current[at] = merged,
                None => current.push(merged),
            }
        }
        match order {
            Some(order) => put_in_order(current, order, key),
            None => Ok(patched_first(current, changes, &before, key)),
        }
    }
}

/// Where nothing is said of an order, items of the patch stand in the patch's, before what they were not known to follow.
fn patched_first(items: Vec<Value>, changes: &[Value], before: &[Value], key: &str) -> Vec<Value> {
    let place_in = |list: &[Value], id: Option<&Value>| list.iter().position(|known| Some(known) == id);
    let changed: Vec<Value> = changes.iter().filter_map(|change| change.get(key).cloned()).collect();
    let (mut patched, others): (Vec<Value>, Vec<Value>) =
        items.into_iter().partition(|item| place_in(&changed, item.get(key)).is_some());
    patched.sort_by_key(|item| place_in(&changed, item.get(key)));
    let (mut patched, mut others) = (patched.into_iter().peekable(), others.into_iter().peekable());
    let mut out = Vec::new();
    while let (Some(own), Some(other)) = (patched.peek(), others.peek()) {
        let places = place_in(before, own.get(key)).zip(place_in(before, other.get(key)));
        let follows = places.is_some_and(|(own, other)| other < own);
        out.extend(if follows { others.next() } else { patched.next() });
    }
    out.extend(patched);
    out.extend(others);
    out
}

/// Drops what `$retainKeys` does not name. Every key the patch sets must be named.
fn retain(current: &mut Object, retained: &Value, patch: &Object) -> Result<(), PatchError> {
    let names: Vec<&str> = match retained {
        Value::Array(names) => names.iter().filter_map(Value::as_str).collect(),
        _ => return Err(malformed("$retainKeys is a list of field names")),
    };
    let set = patch.iter().filter(|(key, value)| !key.starts_with('$') && !value.is_null());
    for (key, _) in set {
        if !names.contains(&key.as_str()) {
            return Err(malformed(&format!("the $retainKeys list does not hold the patched field {key}")));
        }
    }
    current.retain(|key, _| names.contains(&key.as_str()));
    Ok(())
}

fn delete_from(current: &mut Object, name: &str, unwanted: &Value) -> Result<(), PatchError> {
    let Value::Array(unwanted) = unwanted else {
        return Err(malformed(&format!("{DELETE}{name} is a list")));
    };
    if let Some(Value::Array(items)) = current.get_mut(name) {
        items.retain(|item| !unwanted.contains(item));
    }
    Ok(())
}

/// Puts named items into the given order. Items the order does not name (the server's own) keep their place
/// relative to their neighbours: each stays behind the item it followed.
fn put_in_order(items: Vec<Value>, order: &Value, key: &str) -> Result<Vec<Value>, PatchError> {
    let Value::Array(order) = order else {
        return Err(malformed("$setElementOrder is a list"));
    };
    let identity = |item: &Value| -> Option<Value> {
        if key.is_empty() { Some(item.clone()) } else { item.get(key).cloned() }
    };
    let rank_of = |item: &Value| -> Option<usize> {
        let id = identity(item)?;
        order.iter().position(|wanted| identity(wanted).as_ref() == Some(&id))
    };
    // An unnamed item takes the rank of the named one before it, so a stable sort keeps them together.
    let mut named: Vec<(usize, Value)> = Vec::new();
    let mut unnamed: Vec<(Option<Value>, Value)> = Vec::new();
    let mut before: Option<Value> = None;
    for item in items {
        match rank_of(&item) {
            Some(rank) => {
                before = identity(&item);
                named.push((rank, item));
            }
            None => unnamed.push((before.clone(), item)),
        }
    }
    named.sort_by_key(|(rank, _)| *rank);
    let mut out: Vec<Value> = Vec::with_capacity(named.len() + unnamed.len());
    out.extend(unnamed.iter().filter(|(before, _)| before.is_none()).map(|(_, item)| item.clone()));
    for (_, item) in named {
        let id = identity(&item);
        out.push(item);
        out.extend(
            unnamed
                .iter()
                .filter(|(before, _)| before.is_some() && *before == id)
                .map(|(_, item)| item.clone()),
        );
    }
    Ok(out)
}

/// A replaced list as it is to be stored: `$patch` items are no items.
fn without_directives(items: &[Value]) -> Vec<Value> {
    items.iter().filter(|item| item.get(PATCH).is_none()).cloned().collect()
}

fn malformed(reason: &str) -> PatchError {
    PatchError::Malformed { reason: reason.to_owned() }
}
