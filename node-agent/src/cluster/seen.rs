//! An object that becomes a view while it is read.
//!
//! It exists because lists come in pages of hundreds. Were they read whole and then cut down, the views would lie scattered
//! among what is dropped, and memory of which a little is in use is never given back. It must not know what is kept of an object.

use std::borrow::Cow;
use std::fmt::Debug;
use std::marker::PhantomData;

use kube::Resource;
use kube::api::ObjectMeta;
use serde::{Deserialize, Deserializer};

/// A view that is read from an object's text.
pub trait View<K>: Sized {
    /// With it come name, namespace, resource version and uid, which are all that is looked at of the metadata.
    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(ObjectMeta, Self), D::Error>;
}

/// What is left of an object of kind `K`: the view of it, and what a watch needs to know.
pub struct Seen<K, V> {
    /// Name, namespace, resource version and uid.
    metadata: ObjectMeta,
    view: V,
    of: PhantomData<fn() -> K>,
}

// === impl Seen ===

impl<K, V> Seen<K, V> {
    pub fn into_view(self) -> V {
        self.view
    }
}

impl<'de, K, V: View<K>> Deserialize<'de> for Seen<K, V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (metadata, view) = V::read(deserializer)?;
        Ok(Self { metadata, view, of: PhantomData })
    }
}

impl<K: Resource, V> Resource for Seen<K, V> {
    type DynamicType = K::DynamicType;
    type Scope = K::Scope;

    fn kind(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::kind(dt)
    }

    fn group(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::group(dt)
    }

    fn version(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::version(dt)
    }

    fn plural(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::plural(dt)
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

impl<K, V: Clone> Clone for Seen<K, V> {
    fn clone(&self) -> Self {
        Self { metadata: self.metadata.clone(), view: self.view.clone(), of: PhantomData }
    }
}

impl<K, V: Debug> Debug for Seen<K, V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Seen").field("metadata", &self.metadata).field("view", &self.view).finish()
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Service;
    use kube::ResourceExt;
    use serde_json::json;

    use super::*;
    use crate::cluster::ServiceView;

    #[test]
    fn an_object_keeps_its_name_and_its_path_and_is_a_view_otherwise() {
        let service = json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": { "name": "web", "namespace": "a", "resourceVersion": "7", "uid": "u", "labels": { "x": "y" } },
            "spec": { "clusterIPs": ["10.96.0.7"], "ports": [{ "port": 80 }] },
        });
        let seen: Seen<Service, ServiceView> = serde_json::from_value(service.clone()).unwrap();
        assert_eq!((seen.name_any(), seen.namespace()), ("web".to_owned(), Some("a".to_owned())));
        assert_eq!(seen.resource_version().as_deref(), Some("7"));
        assert!(seen.labels().is_empty());
        let whole: Service = serde_json::from_value(service).unwrap();
        assert_eq!(seen.into_view(), ServiceView::from(whole));
        let path = Seen::<Service, ServiceView>::url_path(&(), Some("a"));
        assert_eq!(path, Service::url_path(&(), Some("a")));
        assert!(serde_json::from_value::<Seen<Service, ServiceView>>(json!({ "kind": "Pod" })).is_err());
    }
}
