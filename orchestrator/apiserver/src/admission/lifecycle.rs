//! NamespaceLifecycle: objects are made in namespaces that exist and stay; some namespaces are for ever.

use async_trait::async_trait;
use serde_json::Value;

use super::{Attributes, Operation, Plugin};
use crate::error::ApiError;
use crate::registry::Registry;
use crate::registry::object::meta_str;

pub struct NamespaceLifecycle;

const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

/// The namespace a request is in.
pub(super) async fn namespace(registry: &Registry, name: &str) -> Result<Value, ApiError> {
    if let Some(found) = registry.peek("", "namespaces", "", name).await? {
        return Ok(found.value());
    }
    // The cache may be a moment behind a namespace that was just made.
    let namespaces = registry.find("", "v1", "namespaces").ok_or_else(ApiError::no_such_path)?;
    Ok(registry.require(&namespaces, "", name).await?.0)
}

#[async_trait]
impl Plugin for NamespaceLifecycle {
    async fn admit(
        &self,
        registry: &Registry,
        a: &Attributes<'_>,
        _object: &mut Value,
    ) -> Result<(), ApiError> {
        if a.operation != Operation::Create || !a.definition.namespaced {
            return Ok(());
        }
        let namespace = namespace(registry, a.namespace).await?;
        if !meta_str(&namespace, "deletionTimestamp").is_empty() {
            let why = format!(
                "unable to create new content in namespace {} because it is being terminated",
                a.namespace
            );
            return Err(a.forbidden(why).with_cause(
                "NamespaceTerminating",
                format!("namespace {} is being terminated", a.namespace),
                Some("metadata.namespace"),
            ));
        }
        Ok(())
    }

    async fn validate(
        &self,
        _registry: &Registry,
        a: &Attributes<'_>,
        _object: Option<&Value>,
    ) -> Result<(), ApiError> {
        if a.is(Operation::Delete, "", "namespaces") && IMMORTAL.contains(&a.name) {
            return Err(a.forbidden("this namespace may not be deleted"));
        }
        Ok(())
    }
}
