//! Who owns which field, as the registry knows it: what each subresource may own, the versions of a kind, and the list
//! in `metadata.managedFields`. What follows from them is `penstock_schema::ownership`'s to say.

use std::borrow::Cow;
use std::sync::Arc;

use penstock_schema::TypeRef;
use penstock_schema::ownership::claims::Write;
use penstock_schema::ownership::{Filter, Managed, Manager, Set, Versions};
use serde_json::{Value, json};

use super::Registry;
use super::context::Context;
use super::definition::Definition;
use super::generic::{from_stored, now_text, to_stored};
use super::object::meta_mut;
use super::served::Served;

const FIELD: &str = "managedFields";
/// The manager of what was there before anything was tracked.
pub(crate) const BEFORE_FIRST_APPLY: &str = "before-first-apply";

/// How a write that changes an object is noted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tracking {
    /// The writer comes to own what changed.
    Changes,
    /// The wanted object says who owns what.
    Given,
}

/// The versions of a kind, as they are served now.
pub(crate) struct Kinds<'a> {
    served: Arc<Served>,
    definition: &'a Definition,
}

// === impl Kinds ===

impl<'a> Kinds<'a> {
    pub fn of(registry: &Registry, definition: &'a Definition) -> Kinds<'a> {
        Kinds { served: registry.served(), definition }
    }

    /// The definition of another version whose objects are stored as this one's are.
    pub fn sibling(&self, api_version: &str) -> Option<Arc<Definition>> {
        let of =
            |d: &&Arc<Definition>| d.storage() == self.definition.storage() && d.api_version() == api_version;
        self.served.definitions().iter().find(of).cloned()
    }
}

impl Versions for Kinds<'_> {
    fn convert<'v>(&self, object: &'v Value, api_version: &str) -> Option<(TypeRef, Cow<'v, Value>)> {
        if api_version == self.definition.api_version() {
            return Some((self.definition.ty.clone(), Cow::Borrowed(object)));
        }
        let sibling = self.sibling(api_version)?;
        let converted = from_stored(&sibling, to_stored(self.definition, object.clone()));
        Some((sibling.ty.clone(), Cow::Owned(converted)))
    }

    fn back(&self, object: Value, api_version: &str) -> Value {
        if api_version == self.definition.api_version() {
            return object;
        }
        match self.sibling(api_version) {
            Some(sibling) => from_stored(self.definition, to_stored(&sibling, object)),
            None => object,
        }
    }
}

/// What a write to a subresource (empty: to the object itself) can change.
pub(crate) fn filter(definition: &Definition, subresource: &str) -> Filter {
    let within: &[&[&str]] = match subresource {
        "status" if definition.custom.is_some() => &[&["status"]],
        "status" => &[&["status"], &["metadata"]],
        "finalize" => &[&["spec", "finalizers"]],
        "approval" => &[&["status", "conditions"]],
        "ephemeralcontainers" => &[&["spec", "ephemeralContainers"]],
        "resize" => &[
            &["spec", "containers", "*", "resources"],
            &["spec", "containers", "*", "resizePolicy"],
            &["spec", "initContainers", "*", "resources"],
            &["spec", "initContainers", "*", "resizePolicy"],
            &["spec", "resources"],
        ],
        _ => &[],
    };
    let without: &[&[&str]] = match subresource {
        "" if definition.isolates_status() => &[&["status"]],
        "status" => &[&["metadata", "ownerReferences"]],
        _ => &[],
    };
    Filter { within, without: Set::of(without.iter().copied()) }
}

/// The list of an object.
pub(crate) fn list_of(object: &Value) -> Option<&Value> {
    object.get("metadata")?.get(FIELD)
}

/// Takes the list out of an object.
pub(crate) fn take_list(object: &mut Value) -> Option<Value> {
    meta_mut(object)?.remove(FIELD)
}

/// Puts a list into an object; an empty one is none.
pub(crate) fn put_list(object: &mut Value, list: Option<Value>) {
    let Some(meta) = meta_mut(object) else { return };
    match list {
        Some(Value::Array(entries)) if !entries.is_empty() => {
            meta.insert(FIELD.into(), Value::Array(entries))
        }
        _ => meta.remove(FIELD),
    };
}

/// The owners as a list.
pub(crate) fn listed(managed: &Managed) -> Option<Value> {
    Some(Value::Array(managed.write()))
}

/// The owners of an object; none if its list cannot be read, as upstream takes it.
pub(crate) fn owners_of(object: &Value) -> Managed {
    Managed::read(list_of(object)).unwrap_or_default()
}

/// The list after a write has made `new`, whose list was `given`, of `old`. None: of an object that is created.
pub(crate) fn tracked(
    registry: &Registry,
    context: &Context,
    definition: &Definition,
    subresource: &str,
    new: &Value,
    given: Option<Value>,
    old: Option<&Value>,
) -> Option<Value> {
    let old_list = old.and_then(list_of);
    // Clients that know nothing of the list leave it out; those that read it hand it back.
    let untouched = given.is_none() || given.as_ref() == old_list || !subresource.is_empty();
    let managed = match &given {
        _ if untouched => None,
        Some(given) if clears(given) => Some(Managed::default()),
        given => Managed::read(given.as_ref()).ok().filter(|managed| !managed.is_empty()),
    };
    let managed = managed.unwrap_or_else(|| Managed::read(old_list).unwrap_or_default());
    if old.is_some() && managed.is_empty() {
        // Nobody tracked it before: that begins with the first apply.
        return None;
    }
    let nothing = json!({});
    let api_version = definition.api_version();
    let write = Write {
        versions: &Kinds::of(registry, definition),
        filter: &filter(definition, subresource),
        api_version: &api_version,
        now: &now_text(),
    };
    let manager = Manager::updating(context.manager(), &api_version, subresource);
    let mut managed = write.update(manager, managed, old.unwrap_or(&nothing), new);
    managed.cap();
    listed(&managed)
}

/// The two ways to say that nobody owns anything: an empty list, or one empty entry.
fn clears(list: &Value) -> bool {
    match list.as_array().map(Vec::as_slice) {
        Some([]) => true,
        Some([only]) => only.as_object().is_some_and(|entry| entry.values().all(Value::is_null)),
        _ => false,
    }
}

/// Whether an object differs from another in the times of its owners at most. If so it gets those of the other.
pub(crate) fn is_same_but_for_times(new: &mut Value, old: &Value) -> bool {
    let ours = take_list(new);
    let is_same = timeless(ours.as_ref()) == timeless(list_of(old));
    if is_same {
        put_list(new, list_of(old).cloned());
        if new == old {
            return true;
        }
    }
    put_list(new, ours);
    false
}

fn timeless(list: Option<&Value>) -> Vec<Vec<(&String, &Value)>> {
    let entries = list.and_then(Value::as_array).into_iter().flatten();
    entries
        .map(|entry| entry.as_object().into_iter().flatten().filter(|(key, _)| *key != "time").collect())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_cleared_in_two_ways() {
        assert!(clears(&json!([])) && clears(&json!([{}])));
        assert!(!clears(&json!([{"manager": "a"}])) && !clears(&json!([{}, {}])) && !clears(&json!("x")));
    }

    #[test]
    fn times_alone_make_no_difference() {
        let object = |time: &str, data: &str| json!({"metadata": {"managedFields": [{"manager": "a", "time": time}]}, "data": data});
        let mut new = object("2", "x");
        assert!(is_same_but_for_times(&mut new, &object("1", "x")));
        assert_eq!(new, object("1", "x"));
        let mut new = object("2", "y");
        assert!(!is_same_but_for_times(&mut new, &object("1", "x")));
        assert_eq!(new, object("2", "y"));
    }
}
