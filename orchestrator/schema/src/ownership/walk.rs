//! Values walked by their type: which fields a value has, what differs between two, and what cannot be owned.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use serde_json::{Map, Value};

use super::element::Element;
use super::set::Set;
use super::shape::{Items, Parts, Place};
use crate::TypeRef;
use crate::model::Type;

/// What one value has that another has not.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Comparison {
    pub removed: Set,
    /// In both, and different.
    pub modified: Set,
    pub added: Set,
}

/// What became of one value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Same,
    Removed,
    Modified,
    Added,
}

/// Every field and item that a value names.
pub fn fields_of(ty: &TypeRef, value: &Value) -> Set {
    let root = Type::Struct(ty.id());
    fields_at(&Place::root(ty, &root), value).1
}

/// What became of the fields of `old` in `new`. Absent is the value of nothing.
pub fn compare(ty: &TypeRef, old: &Value, new: &Value) -> Comparison {
    let root = Type::Struct(ty.id());
    let mut found = Comparison::default();
    compare_at(&Place::root(ty, &root), Some(old), Some(new), &mut found);
    found
}

/// What of a value cannot be owned part by part, such as two items under one name; each in upstream's words, with its
/// path.
pub fn faults_of(ty: &TypeRef, value: &Value) -> Vec<String> {
    let root = Type::Struct(ty.id());
    let mut out = Vec::new();
    faults_at(&Place::root(ty, &root), value, &mut Vec::new(), &mut out);
    out
}

/// A path as decoders print it (`spec.containers[0].image`) by the elements of its steps. Keys of maps may hold dots, so
/// the longest key that is there and fits is taken; the last step need not be there.
pub fn named_path(ty: &TypeRef, value: &Value, path: &str) -> Vec<Element> {
    let root = Type::Struct(ty.id());
    let (mut place, mut here) = (Some(Place::root(ty, &root)), Some(value));
    let (mut rest, mut out) = (path, Vec::new());
    while !rest.is_empty() {
        if let Some((index, after)) = rest.strip_prefix('[').and_then(|r| r.split_once(']')) {
            let at: usize = index.parse().unwrap_or(usize::MAX);
            let item = here.and_then(|v| v.get(at));
            let element = match (place, here, item) {
                (Some(p), Some(list), Some(item)) => match p.parts(list, None) {
                    Parts::Items(by, _) => p.element(by, item).ok(),
                    _ => None,
                },
                _ => None,
            };
            out.push(element.unwrap_or(Element::Index(at as i64)));
            (place, here) = (place.and_then(|p| p.of_item()), item);
            rest = after.strip_prefix('.').unwrap_or(after);
            continue;
        }
        let fits = |key: &&String| {
            rest.strip_prefix(key.as_str()).is_some_and(|r| r.is_empty() || r.starts_with(['.', '[']))
        };
        let known = here.and_then(Value::as_object).into_iter().flat_map(Map::keys).filter(fits);
        let length = match known.map(String::len).max() {
            Some(length) => length,
            None => rest.find(['.', '[']).unwrap_or(rest.len()).max(1).min(rest.len()),
        };
        let (name, after) = rest.split_at(length);
        out.push(Element::field(name));
        (place, here) = (place.and_then(|p| p.of_field(name)), here.and_then(|v| v.get(name)));
        rest = after.strip_prefix('.').unwrap_or(after);
    }
    out
}

/// The set, with every named field that has parts in it a member. `ty` is what the set is of.
pub(crate) fn with_named_fields(ty: &TypeRef, set: Set) -> Set {
    let root = Type::Struct(ty.id());
    named_at(Some(Place::root(ty, &root)), set)
}

fn named_at(place: Option<Place<'_>>, set: Set) -> Set {
    set.rebuilt(|element, member, below| {
        let (named, inner) = match element {
            Element::Field(name) => {
                (place.is_some_and(|p| p.declares(name)), place.and_then(|p| p.of_field(name)))
            }
            _ => (false, place.and_then(|p| p.of_item())),
        };
        (member || (named && !below.is_empty()), named_at(inner, below))
    })
}

/// Whether the value is owned as a whole, and the fields below it.
fn fields_at(place: &Place<'_>, value: &Value) -> (bool, Set) {
    let mut out = Set::default();
    match place.parts(value, None) {
        Parts::Leaf => return (true, out),
        Parts::Fields(fields) => {
            for (name, inner) in fields {
                let Some(inner_place) = place.of_field(name) else { continue };
                let (whole, below) = fields_at(&inner_place, inner);
                let bare = inner.is_null() || inner.as_object().is_some_and(Map::is_empty);
                let member = whole || bare || !place.declares(name);
                out.insert_node(Element::Field(name.clone()), member, below);
            }
        }
        Parts::Items(by, items) => {
            let Some(item_place) = place.of_item() else { return (true, out) };
            for (element, found) in by_element(place, by, items) {
                // Two of one name are owned as one.
                let below = match found.as_slice() {
                    [one] => fields_at(&item_place, one).1,
                    _ => Set::default(),
                };
                out.insert_node(element, true, below);
            }
        }
    }
    (false, out)
}

/// Items by what tells them apart. What nothing tells apart is left out.
fn by_element<'v>(place: &Place<'_>, by: Items<'_>, items: &'v [Value]) -> BTreeMap<Element, Vec<&'v Value>> {
    let mut out: BTreeMap<Element, Vec<&Value>> = BTreeMap::new();
    for item in items {
        if let Ok(element) = place.element(by, item) {
            out.entry(element).or_default().push(item);
        }
    }
    out
}

fn compare_at(
    place: &Place<'_>,
    old: Option<&Value>,
    new: Option<&Value>,
    found: &mut Comparison,
) -> Verdict {
    if old == new {
        return Verdict::Same;
    }
    static NULL: Value = Value::Null;
    let alone = match (old, new) {
        (None, _) => Verdict::Added,
        (_, None) => Verdict::Removed,
        _ => Verdict::Same,
    };
    let parts = (place.parts(old.unwrap_or(&NULL), new), place.parts(new.unwrap_or(&NULL), old));
    let both_present = alone == Verdict::Same;
    let none = Map::new();
    match parts {
        (Parts::Fields(a), Parts::Fields(b)) if !(a.is_empty() && b.is_empty()) => {
            compare_fields(place, both_present, a, b, found);
            return alone;
        }
        (Parts::Items(by, a), Parts::Items(_, b)) if !(a.is_empty() && b.is_empty()) => {
            compare_items(place, by, a, b, found);
            return alone;
        }
        // One has parts and the other is of another form.
        (Parts::Fields(a), Parts::Leaf) => compare_fields(place, false, a, &none, found),
        (Parts::Leaf, Parts::Fields(b)) => compare_fields(place, false, &none, b, found),
        (Parts::Items(by, a), Parts::Leaf) => compare_items(place, by, a, &[], found),
        (Parts::Leaf, Parts::Items(by, b)) => compare_items(place, by, &[], b, found),
        _ => {}
    }
    if both_present { Verdict::Modified } else { alone }
}

fn compare_fields(
    place: &Place<'_>,
    both_present: bool,
    old: &Map<String, Value>,
    new: &Map<String, Value>,
    found: &mut Comparison,
) {
    static EMPTY: LazyLock<Value> = LazyLock::new(|| Value::Object(Map::new()));
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    for name in names {
        let Some(inner) = place.of_field(name) else { continue };
        let (mut a, mut b) = (old.get(name), new.get(name));
        let implied = both_present && place.always_has(name);
        if implied && matches!(inner.parts(&EMPTY, None), Parts::Fields(_)) {
            a = a.or(Some(&*EMPTY));
            b = b.or(Some(&*EMPTY));
        }
        let mut below = Comparison::default();
        let mut verdict = compare_at(&inner, a, b, &mut below);
        let items = |v: Option<&Value>| v.is_some_and(|v| matches!(inner.parts(v, None), Parts::Items(..)));
        if implied && (items(a) || items(b)) {
            verdict = Verdict::Same;
        }
        found.place(Element::Field(name.clone()), verdict, below);
    }
}

fn compare_items(place: &Place<'_>, by: Items<'_>, old: &[Value], new: &[Value], found: &mut Comparison) {
    let Some(item) = place.of_item() else { return };
    let (old, new) = (by_element(place, by, old), by_element(place, by, new));
    let elements: BTreeSet<&Element> = old.keys().chain(new.keys()).collect();
    for element in elements {
        let none = Vec::new();
        let (a, b) = (old.get(element).unwrap_or(&none), new.get(element).unwrap_or(&none));
        let mut below = Comparison::default();
        let verdict = match (a.as_slice(), b.as_slice()) {
            ([] | [_], [] | [_]) => compare_at(&item, a.first().copied(), b.first().copied(), &mut below),
            // Several of one name are one thing.
            ([_, _, ..], [_, _, ..]) if a == b => Verdict::Same,
            ([_, _, ..], [_, _, ..]) => Verdict::Modified,
            ([_, _, ..], _) => {
                if let Some(one) = b.first() {
                    compare_at(&item, None, Some(one), &mut below);
                }
                Verdict::Removed
            }
            (_, _) => {
                if let Some(one) = a.first() {
                    compare_at(&item, Some(one), None, &mut below);
                }
                Verdict::Added
            }
        };
        found.place(element.clone(), verdict, below);
    }
}

fn faults_at(place: &Place<'_>, value: &Value, path: &mut Vec<Element>, out: &mut Vec<String>) {
    let at = |path: &[Element], fault: &str| format!("{}: {fault}", super::element::path_text(path));
    match place.parts(value, None) {
        Parts::Leaf => {}
        Parts::Fields(fields) => {
            for (name, inner) in fields {
                let Some(inner_place) = place.of_field(name) else { continue };
                path.push(Element::Field(name.clone()));
                faults_at(&inner_place, inner, path, out);
                path.pop();
            }
        }
        Parts::Items(by, items) => {
            let Some(item_place) = place.of_item() else { return };
            let mut seen = BTreeSet::new();
            for (index, item) in items.iter().enumerate() {
                match place.element(by, item) {
                    Err(why) => out.push(at(path, &format!("element {index}: {why}"))),
                    Ok(element) => {
                        if !seen.insert(element.clone()) {
                            out.push(at(path, &format!("duplicate entries for key {element}")));
                        }
                        path.push(element);
                        faults_at(&item_place, item, path, out);
                        path.pop();
                    }
                }
            }
        }
    }
}

// === impl Comparison ===

impl Comparison {
    pub fn is_empty(&self) -> bool {
        self.removed.is_empty() && self.modified.is_empty() && self.added.is_empty()
    }

    /// What the newer value says: all it changed and all it added.
    pub fn changed(&self) -> Set {
        self.modified.clone().union(self.added.clone())
    }

    fn place(&mut self, element: Element, verdict: Verdict, below: Comparison) {
        let each = [
            (&mut self.removed, Verdict::Removed, below.removed),
            (&mut self.modified, Verdict::Modified, below.modified),
            (&mut self.added, Verdict::Added, below.added),
        ];
        for (set, this, below) in each {
            if verdict == this || !below.is_empty() {
                set.insert_node(element.clone(), verdict == this, below);
            }
        }
    }
}
