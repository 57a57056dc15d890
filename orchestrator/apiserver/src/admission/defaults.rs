//! DefaultStorageClass and DefaultIngressClass: the annotated class is given to claims and ingresses without one.

use async_trait::async_trait;
use serde_json::Value;

use super::{Attributes, Operation, Plugin};
use crate::error::ApiError;
use crate::registry::Registry;
use crate::registry::object::meta_str;

pub struct DefaultClasses;

#[async_trait]
impl Plugin for DefaultClasses {
    async fn admit(
        &self,
        registry: &Registry,
        a: &Attributes<'_>,
        object: &mut Value,
    ) -> Result<(), ApiError> {
        if a.is(Operation::Create, "", "persistentvolumeclaims")
            && object.pointer("/spec/storageClassName").is_none()
            && object.pointer("/metadata/annotations/volume.beta.kubernetes.io~1storage-class").is_none()
        {
            let key = "storageclass.kubernetes.io/is-default-class";
            if let Some(name) = default_of(registry, "storage.k8s.io", "storageclasses", key).await? {
                object["spec"]["storageClassName"] = name.into();
            }
        }
        if a.is(Operation::Create, "networking.k8s.io", "ingresses")
            && object.pointer("/spec/ingressClassName").is_none()
            && object.pointer("/metadata/annotations/kubernetes.io~1ingress.class").is_none()
        {
            let key = "ingressclass.kubernetes.io/is-default-class";
            if let Some(name) = default_of(registry, "networking.k8s.io", "ingressclasses", key).await? {
                object["spec"]["ingressClassName"] = name.into();
            }
        }
        Ok(())
    }
}

/// The newest class that calls itself the default; of equally old ones the first by name.
async fn default_of(
    registry: &Registry,
    group: &str,
    plural: &str,
    annotation: &str,
) -> Result<Option<String>, ApiError> {
    let mut found: Vec<(String, String)> = registry
        .all(group, plural, None)
        .await?
        .iter()
        .map(|c| c.value())
        .filter(|c| {
            let said = c.pointer("/metadata/annotations").and_then(|m| m.get(annotation));
            said.and_then(Value::as_str) == Some("true")
        })
        .map(|c| (meta_str(&c, "creationTimestamp").to_string(), meta_str(&c, "name").to_string()))
        .collect();
    found.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
    Ok(found.into_iter().next().map(|(_, name)| name))
}
