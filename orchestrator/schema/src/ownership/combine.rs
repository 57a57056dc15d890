//! Values combined by their type: one merged into another, and fields taken out.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::element::Element;
use super::set::Set;
use super::shape::{Items, Parts, Place};
use crate::TypeRef;
use crate::model::Type;

/// `live` with everything that `config` says. Nothing is removed.
pub fn merge(ty: &TypeRef, live: &Value, config: &Value) -> Value {
    let root = Type::Struct(ty.id());
    merge_at(&Place::root(ty, &root), live, config)
}

/// `value` without the fields and items in `set`. What is owned as a whole and not in the set stays.
pub fn remove(ty: &TypeRef, value: &Value, set: &Set) -> Value {
    let root = Type::Struct(ty.id());
    remove_at(&Place::root(ty, &root), value, set).unwrap_or_else(|| Value::Object(Map::new()))
}

fn merge_at(place: &Place<'_>, live: &Value, config: &Value) -> Value {
    match (place.parts(live, Some(config)), place.parts(config, Some(live))) {
        (Parts::Fields(a), Parts::Fields(b)) if !(a.is_empty() && b.is_empty()) => {
            let mut out = a.clone();
            for (name, theirs) in b {
                let merged = match (a.get(name), place.of_field(name)) {
                    (Some(ours), Some(inner)) => merge_at(&inner, ours, theirs),
                    _ => theirs.clone(),
                };
                out.insert(name.clone(), merged);
            }
            Value::Object(out)
        }
        (Parts::Items(by, a), Parts::Items(_, b)) if !(a.is_empty() && b.is_empty()) => {
            merge_items(place, by, a, b).map_or_else(|| config.clone(), Value::Array)
        }
        _ => config.clone(),
    }
}

/// Items in the order of `config`; those it does not name stay beside the ones they stood with. None when items cannot
/// be told apart.
fn merge_items(place: &Place<'_>, by: Items<'_>, live: &[Value], config: &[Value]) -> Option<Vec<Value>> {
    let item = place.of_item()?;
    let named = |items: &[Value]| -> Option<Vec<Element>> {
        items.iter().map(|item| place.element(by, item).ok()).collect()
    };
    let (ours, theirs) = (named(live)?, named(config)?);
    let mut live_of: BTreeMap<&Element, Option<&Value>> = BTreeMap::new();
    for (element, value) in ours.iter().zip(live) {
        // What there is more than one of is not merged but replaced.
        live_of.entry(element).and_modify(|one| *one = None).or_insert(Some(value));
    }
    let in_config: BTreeSet<&Element> = theirs.iter().collect();
    let mut shared = theirs.iter().filter(|element| live_of.contains_key(element)).peekable();
    let mut out = Vec::with_capacity(live.len().max(config.len()));
    let take = |at: usize| match live_of.get(&theirs[at]) {
        Some(Some(ours)) => merge_at(&item, ours, &config[at]),
        _ => config[at].clone(),
    };
    let mut merged: BTreeSet<&Element> = BTreeSet::new();
    let (mut l, mut r) = (0, 0);
    while l < ours.len() || r < theirs.len() {
        if let (Some(mine), Some(wanted)) = (ours.get(l), theirs.get(r)) {
            if mine == wanted {
                merged.insert(wanted);
                out.push(take(r));
                (l, r) = (l + 1, r + 1);
                shared.next();
                continue;
            }
            if in_config.contains(mine) && shared.peek().is_some_and(|next| *next != mine) {
                // Its turn comes later, or has been.
                l += 1;
                continue;
            }
        }
        if let Some(mine) = ours.get(l) {
            if !in_config.contains(mine) {
                out.push(live[l].clone());
                l += 1;
                continue;
            }
            if merged.contains(mine) {
                l += 1;
            }
        }
        if let Some(wanted) = theirs.get(r) {
            merged.insert(wanted);
            out.push(take(r));
            if shared.peek() == Some(&wanted) {
                shared.next();
            }
            r += 1;
        }
    }
    Some(out)
}

/// None when nothing is left of something that had parts.
fn remove_at(place: &Place<'_>, value: &Value, set: &Set) -> Option<Value> {
    match place.parts(value, None) {
        Parts::Fields(fields) if !fields.is_empty() => {
            let mut out = Map::new();
            for (name, inner) in fields {
                let element = Element::Field(name.clone());
                if set.has_member(&element) {
                    continue;
                }
                let left = match (set.below(&element), place.of_field(name)) {
                    (Some(below), Some(inner_place)) => remove_at(&inner_place, inner, below),
                    _ => Some(inner.clone()),
                };
                out.extend(left.map(|left| (name.clone(), left)));
            }
            (!out.is_empty()).then_some(Value::Object(out))
        }
        Parts::Items(by, items) if !items.is_empty() => {
            let mut out = Vec::with_capacity(items.len());
            for item in items {
                let left = match (place.element(by, item), place.of_item()) {
                    (Ok(element), _) if set.has_member(&element) => None,
                    (Ok(element), Some(item_place)) => match set.below(&element) {
                        Some(below) => remove_at(&item_place, item, below),
                        None => Some(item.clone()),
                    },
                    _ => Some(item.clone()),
                };
                out.extend(left);
            }
            (!out.is_empty()).then_some(Value::Array(out))
        }
        _ => Some(value.clone()),
    }
}
