//! Subresources that are more than another view of their object.
//!
//! `status` is the generic update with another isolation and needs nothing here. `scale`, `binding` and `eviction`
//! have bodies of their own; the rest (`finalize`, `approval`, `ephemeralcontainers`, `resize`) write one part of
//! their object.

pub(crate) mod binding;
pub(crate) mod eviction;
mod resize;
pub(crate) mod scale;

use serde_json::{Value, json};

use super::context::{Body, Context, Target};
use super::definition::Definition;
use super::kinds::certificates::certificatesigningrequests;
use super::object::{CachedObject, items_at, meta_mut, meta_str};
use super::{Outcome, Registry};
use crate::admission::{Attributes, Operation, Rounds};
use crate::error::{ApiError, FieldError};

/// POST to `<object>/<subresource>`, or to a collection that is create-only (`bindings`).
pub(crate) async fn create(
    registry: &Registry,
    context: &Context,
    definition: &Definition,
    target: &Target,
    body: Body,
) -> Result<Outcome, ApiError> {
    match target.subresource.as_deref() {
        Some("binding") => binding::create(registry, context, target, &body).await,
        Some("eviction") => eviction::create(registry, context, target, &body).await,
        None if definition.plural == "bindings" => binding::create(registry, context, target, &body).await,
        _ => Err(ApiError::method_not_allowed(&definition.group, &definition.plural, "create")),
    }
}

/// Admission of a body that is POSTed to an object. What changes it changes it here.
pub(crate) async fn admit(
    registry: &Registry,
    context: &Context,
    definition: &Definition,
    target: &Target,
    subresource: &str,
    body: &mut Value,
) -> Result<(), ApiError> {
    let attributes = Attributes {
        operation: Operation::Create,
        definition,
        subresource,
        namespace: target.namespace(),
        name: target.name(),
        context,
        old: None,
        rounds: Rounds::default(),
    };
    registry.admission().admit(registry, &attributes, body).await?;
    registry.admission().validate(registry, &attributes, Some(body)).await
}

/// A success Status as an answer.
pub(crate) fn success(registry: &Registry, created: bool) -> Result<Outcome, ApiError> {
    let ty = registry
        .schema()
        .by_name("io.k8s.apimachinery.pkg.apis.meta.v1.Status")
        .ok_or_else(|| ApiError::internal("the schema has no Status"))?;
    let code = if created { 201 } else { 200 };
    let value =
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": code});
    Ok(Outcome { object: std::sync::Arc::new(CachedObject::new(&ty, &value, Vec::new())), created })
}

/// Restores everything the subresource does not own.
pub(crate) fn prepare(subresource: &str, definition: &Definition, new: &mut Value, old: &Value) {
    if subresource == "binding" {
        // Built by the server from the stored pod.
        return;
    }
    let parts: &[&str] = match (&*definition.plural, subresource) {
        ("namespaces", "finalize") => &["/spec/finalizers"],
        ("certificatesigningrequests", "approval") => &["/status/conditions"],
        ("pods", "ephemeralcontainers") => &["/spec/ephemeralContainers"],
        _ => &[],
    };
    let mut kept = old.clone();
    for pointer in parts {
        transplant(&mut kept, new, pointer);
    }
    if (&*definition.plural, subresource) == ("pods", "resize") {
        resize::adopt(&mut kept, new);
    }
    if (&*definition.plural, subresource) == ("certificatesigningrequests", "approval") {
        certificatesigningrequests::prepare_approval(&mut kept, new, old);
    }
    // The version travels with the request, and metadata other than it does not.
    let version = meta_str(new, "resourceVersion").to_string();
    if let Some(meta) = meta_mut(&mut kept)
        && !version.is_empty()
    {
        meta.insert("resourceVersion".into(), version.into());
    }
    *new = kept;
}

/// Copies one value by pointer, absence included.
fn transplant(into: &mut Value, from: &Value, pointer: &str) {
    let Some((parent, field)) = pointer.rsplit_once('/') else {
        return;
    };
    if into.pointer(parent).is_none()
        && let Some(map) = into.as_object_mut()
    {
        map.insert(parent.trim_start_matches('/').into(), json!({}));
    }
    if let Some(Value::Object(map)) = into.pointer_mut(parent) {
        match from.pointer(pointer) {
            Some(v) => map.insert(field.into(), v.clone()),
            None => map.remove(field),
        };
    }
}

pub(crate) fn validate(
    subresource: &str,
    definition: &Definition,
    new: &Value,
    old: &Value,
) -> Vec<FieldError> {
    match (&*definition.plural, subresource) {
        ("pods", "ephemeralcontainers") => {
            let mut errors = definition.validate_kept(new, old);
            let before = items_at(old, "/spec/ephemeralContainers");
            for old_one in before {
                let name = old_one.get("name");
                match items_at(new, "/spec/ephemeralContainers").iter().find(|c| c.get("name") == name) {
                    Some(new_one) if new_one == old_one => {}
                    Some(_) => errors.push(FieldError::forbidden(
                        "spec.ephemeralContainers",
                        format!(
                            "existing ephemeral containers {} may not be changed",
                            name.cloned().unwrap_or_default()
                        ),
                    )),
                    None => errors.push(FieldError::forbidden(
                        "spec.ephemeralContainers",
                        format!(
                            "existing ephemeral containers {} may not be removed",
                            name.cloned().unwrap_or_default()
                        ),
                    )),
                }
            }
            errors
        }
        ("pods", "resize") => {
            let mut errors = definition.validate_kept(new, old);
            errors.extend(resize::validate(new, old));
            errors
        }
        ("certificatesigningrequests", "approval") => certificatesigningrequests::validate_approval(new, old),
        _ => Vec::new(),
    }
}
