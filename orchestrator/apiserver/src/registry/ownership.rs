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
    /// The change is nobody's.
    Kept,
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
        "approval" => &[&["status", "conditions"], &["metadata"]],
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
pub(crate) fn listed(managed: Managed) -> Option<Value> {
    Some(Value::Array(managed.write()))
}

/// A write as its tracking sees it. Objects stand here without their lists.
pub(crate) struct Tracked<'a> {
    pub registry: &'a Registry,
    pub context: &'a Context,
    pub definition: &'a Definition,
    pub subresource: &'a str,
    /// None: of an object that is created.
    pub old: Option<&'a Value>,
    pub new: &'a Value,
    /// What the writer said the list is.
    pub given: Option<Value>,
    /// What it was.
    pub before: Option<&'a Value>,
}

// === impl Tracked ===

impl Tracked<'_> {
    /// The list after the write; none when it stays as it was.
    pub fn list(self) -> Option<Option<Value>> {
        let Tracked { registry, context, definition, subresource, old, new, given, before } = self;
        // Clients that know nothing of the list leave it out; those that read it hand it back.
        let untouched = given.is_none() || given.as_ref() == before || !subresource.is_empty();
        let named = match &given {
            _ if untouched => None,
            Some(given) if clears(given) => Some(Managed::default()),
            given => Managed::read(given.as_ref()).ok().filter(|managed| !managed.is_empty()),
        };
        if old.is_some() && named.as_ref().map_or(before.is_none(), Managed::is_empty) {
            // Nobody tracks it: that begins with the first apply.
            return named.map(|_| None);
        }
        let nothing = json!({});
        let old = old.unwrap_or(&nothing);
        let api_version = definition.api_version();
        let write = Write {
            versions: &Kinds::of(registry, definition),
            filter: &filter(definition, subresource),
            api_version: &api_version,
            now: &now_text(),
        };
        let changes = write.changes(old, new);
        if changes.is_empty() && named.is_none() {
            return None;
        }
        let managed = named.unwrap_or_else(|| Managed::read_written(before.cloned()));
        let manager = Manager::updating(context.manager(), &api_version, subresource);
        let mut managed = write.update_by(manager, managed, old, new, changes);
        managed.cap();
        Some(listed(managed))
    }
}

/// The two ways to say that nobody owns anything: an empty list, or one empty entry.
fn clears(list: &Value) -> bool {
    match list.as_array().map(Vec::as_slice) {
        Some([]) => true,
        Some([only]) => only.as_object().is_some_and(|entry| entry.values().all(Value::is_null)),
        _ => false,
    }
}

/// Whether two lists differ in times at most.
pub(crate) fn is_same_but_for_times(a: Option<&Value>, b: Option<&Value>) -> bool {
    fn entries(list: Option<&Value>) -> &[Value] {
        list.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
    }
    fn timeless(entry: &Value) -> Vec<(&String, &Value)> {
        entry.as_object().into_iter().flatten().filter(|(key, _)| *key != "time").collect()
    }
    let (a, b) = (entries(a), entries(b));
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| timeless(a) == timeless(b))
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
        let list = |manager: &str, time: &str| json!([{"manager": manager, "time": time}]);
        assert!(is_same_but_for_times(Some(&list("a", "1")), Some(&list("a", "2"))));
        assert!(is_same_but_for_times(Some(&list("a", "1")), Some(&json!([{"manager": "a"}]))));
        assert!(is_same_but_for_times(None, Some(&json!([]))));
        assert!(!is_same_but_for_times(Some(&list("a", "1")), Some(&list("b", "1"))));
        assert!(!is_same_but_for_times(None, Some(&list("a", "1"))));
    }
}
