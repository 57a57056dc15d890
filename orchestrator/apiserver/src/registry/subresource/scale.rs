//! Scale: the replica count of a workload, as an autoscaling/v1 object of its own.

use std::sync::Arc;

use penstock_schema::{TypeRef, check, patch};
use serde_json::{Map, Value, json};

use crate::error::{ApiError, FieldError};
use crate::registry::context::{Body, Context, PatchKind, Target};
use crate::registry::definition::Definition;
use crate::registry::generic::body::{Expected, report};
use crate::registry::generic::update::Race;
use crate::registry::object::{CachedObject, meta_str};
use crate::registry::{Outcome, Registry};

fn ty(registry: &Registry) -> Result<TypeRef, ApiError> {
    let missing = || ApiError::internal("the schema has no Scale");
    registry.schema().kind("autoscaling", "v1", "Scale").ok_or_else(missing)
}

/// The Scale of a workload.
pub(crate) fn of(
    registry: &Registry,
    definition: &Definition,
    parent: &Value,
) -> Result<Arc<CachedObject>, ApiError> {
    if let Some(paths) = definition.custom.as_ref().and_then(|custom| custom.scale.as_ref())
        && paths.wanted(parent).is_none()
    {
        let path = &paths.spec_replicas;
        return Err(ApiError::internal(format!("the spec replicas field {path:?} does not exist")));
    }
    let value = value_of(definition, parent);
    Ok(Arc::new(CachedObject::new(&ty(registry)?, &value, Vec::new())))
}

fn value_of(definition: &Definition, parent: &Value) -> Value {
    let mut meta = Map::new();
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(v) = parent.pointer(&format!("/metadata/{field}")) {
            meta.insert(field.into(), v.clone());
        }
    }
    let number = |pointer: &str| parent.pointer(pointer).and_then(Value::as_i64).unwrap_or(0);
    let (wanted, present, selector) =
        match definition.custom.as_ref().and_then(|custom| custom.scale.as_ref()) {
            Some(paths) => (paths.wanted(parent).unwrap_or(0), paths.present(parent), paths.selector(parent)),
            None => (number("/spec/replicas"), number("/status/replicas"), selector_text(definition, parent)),
        };
    let mut scale = json!({
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": meta,
        "spec": {"replicas": wanted},
        "status": {"replicas": present},
    });
    if !selector.is_empty() {
        scale["status"]["selector"] = selector.into();
    }
    scale
}

/// The selector in the query parameter's grammar.
fn selector_text(definition: &Definition, parent: &Value) -> String {
    let selector = parent.pointer("/spec/selector");
    let labels = if definition.plural == "replicationcontrollers" {
        selector
    } else {
        selector.and_then(|s| s.get("matchLabels"))
    };
    let mut terms: Vec<String> = labels
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default()))
        .collect();
    for e in selector.and_then(|s| s.get("matchExpressions")).and_then(Value::as_array).into_iter().flatten()
    {
        let key = e["key"].as_str().unwrap_or_default();
        let mut values: Vec<&str> =
            e["values"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        values.sort_unstable();
        terms.push(match e["operator"].as_str().unwrap_or_default() {
            "In" => format!("{key} in ({})", values.join(",")),
            "NotIn" => format!("{key} notin ({})", values.join(",")),
            "DoesNotExist" => format!("!{key}"),
            _ => key.to_string(),
        });
    }
    terms.sort_unstable();
    terms.join(",")
}

pub(crate) async fn update(
    registry: &Registry,
    context: &Context,
    definition: &Definition,
    target: &Target,
    body: &Body,
) -> Result<Outcome, ApiError> {
    let ty = ty(registry)?;
    let expected = Expected { ty: &ty, group: "autoscaling", version: "v1", kind: "Scale" };
    let scale = expected.decode(context, body)?;
    store(registry, context, definition, target, &mut |_| Ok(scale.clone())).await
}

pub(crate) async fn patch(
    registry: &Registry,
    context: &Context,
    definition: &Definition,
    target: &Target,
    kind: PatchKind,
    patch_body: &Value,
) -> Result<Outcome, ApiError> {
    let ty = ty(registry)?;
    store(registry, context, definition, target, &mut |old| {
        let scale = value_of(definition, old);
        let mut new = match kind {
            PatchKind::Json => {
                patch::json(&scale, patch_body).map_err(|e| ApiError::bad_request(e.to_string()))?
            }
            _ => patch::merge(&scale, patch_body),
        };
        let expected = Expected { ty: &ty, group: "autoscaling", version: "v1", kind: "Scale" };
        let issues = check::conform(&ty, &mut new).map_err(|e| expected.refused(e))?;
        report(context, &issues)?;
        Ok(new)
    })
    .await
}

async fn store(
    registry: &Registry,
    context: &Context,
    definition: &Definition,
    target: &Target,
    wanted: &mut (dyn FnMut(&Value) -> Result<Value, ApiError> + Send),
) -> Result<Outcome, ApiError> {
    let main = Target { subresource: None, ..target.clone() };
    let outcome = registry
        .modify(context, definition, &main, Race::Rebases, &mut |old| {
            let scale = wanted(old)?;
            let replicas = scale.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or(0);
            if replicas < 0 {
                let error =
                    FieldError::invalid("spec.replicas", replicas, "must be greater than or equal to 0");
                return Err(ApiError::invalid("autoscaling", "Scale", target.name(), vec![error]));
            }
            let named = meta_str(&scale, "name");
            if !named.is_empty() && named != target.name() {
                return Err(ApiError::bad_request(format!(
                    "the name of the object ({named}) does not match the name on the URL ({})",
                    target.name()
                )));
            }
            let mut new = old.clone();
            match definition.custom.as_ref().and_then(|custom| custom.scale.as_ref()) {
                Some(paths) => paths.set(&mut new, replicas),
                None => new["spec"]["replicas"] = json!(replicas),
            }
            let version = meta_str(&scale, "resourceVersion");
            if !version.is_empty() {
                new["metadata"]["resourceVersion"] = version.into();
            }
            Ok(new)
        })
        .await?;
    let object = of(registry, definition, &outcome.object.value())?;
    Ok(Outcome { object, created: false })
}
