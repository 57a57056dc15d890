//! Names of objects: the key every cache and queue uses, and short readers of `ObjectMeta`.
//!
//! Exists because the typed metadata is all `Option<String>`, and a loop that spells out the defaults each time
//! hides what it does. Knows no kind in particular.

use std::fmt;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Resource;

/// Namespace and name of an object; the namespace of a cluster-scoped object is empty.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    pub namespace: String,
    pub name: String,
}

impl Key {
    /// A key from its parts.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            f.write_str(&self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}

/// Readers of metadata with the absent value spelled as the empty one.
pub trait Meta {
    /// The object's metadata.
    fn meta_ref(&self) -> &ObjectMeta;

    /// Name, or the empty string before the server has given one.
    fn name(&self) -> &str {
        self.meta_ref().name.as_deref().unwrap_or_default()
    }
    /// Namespace, empty for a cluster-scoped object.
    fn ns(&self) -> &str {
        self.meta_ref().namespace.as_deref().unwrap_or_default()
    }
    /// UID, empty before the object is stored.
    fn uid_str(&self) -> &str {
        self.meta_ref().uid.as_deref().unwrap_or_default()
    }
    /// Namespace and name.
    fn key(&self) -> Key {
        Key::new(self.ns(), self.name())
    }
    /// Whether the object has been asked to go.
    fn deleting(&self) -> bool {
        self.meta_ref().deletion_timestamp.is_some()
    }
    /// The owner reference with `controller: true`, if any.
    fn controller_ref(&self) -> Option<&OwnerReference> {
        self.meta_ref().owner_references.as_ref()?.iter().find(|o| o.controller == Some(true))
    }
    /// Whether the object with this UID controls this one.
    fn controlled_by(&self, uid: &str) -> bool {
        self.controller_ref().is_some_and(|o| o.uid == uid)
    }
    /// The value of a label.
    fn label(&self, key: &str) -> Option<&str> {
        self.meta_ref().labels.as_ref()?.get(key).map(String::as_str)
    }
    /// The value of an annotation.
    fn annotation(&self, key: &str) -> Option<&str> {
        self.meta_ref().annotations.as_ref()?.get(key).map(String::as_str)
    }
    /// Whether the finalizer is still on the object.
    fn has_finalizer(&self, finalizer: &str) -> bool {
        self.meta_ref().finalizers.as_ref().is_some_and(|f| f.iter().any(|x| x == finalizer))
    }
    /// Creation time as seconds since 1970, 0 when unset.
    fn created_seconds(&self) -> i64 {
        self.meta_ref().creation_timestamp.as_ref().map_or(0, |t| t.0.as_second())
    }
}

impl<K: Resource> Meta for K {
    fn meta_ref(&self) -> &ObjectMeta {
        self.meta()
    }
}

/// An owner reference that makes `owner` the controller, blocking its foreground deletion.
pub fn controller_reference<K: Resource<DynamicType = ()>>(owner: &K) -> OwnerReference {
    OwnerReference {
        api_version: K::api_version(&()).into_owned(),
        kind: K::kind(&()).into_owned(),
        name: owner.name().to_owned(),
        uid: owner.uid_str().to_owned(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// A reference to an object, as events and endpoints carry it.
pub fn object_reference<K: Resource<DynamicType = ()>>(object: &K) -> ObjectReference {
    ObjectReference {
        api_version: Some(K::api_version(&()).into_owned()),
        kind: Some(K::kind(&()).into_owned()),
        name: object.meta().name.clone(),
        namespace: object.meta().namespace.clone(),
        uid: object.meta().uid.clone(),
        resource_version: object.meta().resource_version.clone(),
        field_path: None,
    }
}
