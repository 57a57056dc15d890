//! LimitRanger: containers of a namespace get the requests and limits that its LimitRanges give by default, and what is
//! beyond their bounds is refused.
//!
//! What is asked for, and by whom, is here; the rules are pure functions of a pod or claim and one item of a LimitRange.

mod bounds;
mod given;

use async_trait::async_trait;
use serde_json::Value;

use super::{Attributes, Operation, Plugin};
use crate::error::ApiError;
use crate::registry::Registry;
use crate::registry::object::items_at;

pub struct LimitRanger;

#[async_trait]
impl Plugin for LimitRanger {
    async fn admit(
        &self,
        registry: &Registry,
        a: &Attributes<'_>,
        object: &mut Value,
    ) -> Result<(), ApiError> {
        if a.is(Operation::Create, "", "pods") {
            for items in items_of(registry, a.namespace).await? {
                given::give(object, &items);
            }
        }
        Ok(())
    }

    async fn validate(
        &self,
        registry: &Registry,
        a: &Attributes<'_>,
        object: Option<&Value>,
    ) -> Result<(), ApiError> {
        let Some(object) = object.filter(|object| is_bounded(a, object)) else { return Ok(()) };
        let check = if &*a.definition.plural == "pods" { bounds::of_pod } else { bounds::of_claim };
        for items in items_of(registry, a.namespace).await? {
            let broken: Vec<String> = items.iter().flat_map(|item| check(object, item)).collect();
            match &broken[..] {
                [] => {}
                [one] => return Err(a.forbidden(one)),
                several => return Err(a.forbidden(format!("[{}]", several.join(", ")))),
            }
        }
        Ok(())
    }
}

/// Whether a write may change what is bounded. What is about to go is left alone.
fn is_bounded(a: &Attributes<'_>, object: &Value) -> bool {
    if !a.definition.group.is_empty() || object.pointer("/metadata/deletionTimestamp").is_some() {
        return false;
    }
    match (&*a.definition.plural, a.subresource) {
        // What they ask for changes by a resize alone.
        ("pods", "") => a.operation == Operation::Create,
        ("pods", subresource) => subresource == "resize",
        ("persistentvolumeclaims", subresource) => subresource.is_empty(),
        _ => false,
    }
}

/// The items of each LimitRange of a namespace.
async fn items_of(registry: &Registry, namespace: &str) -> Result<Vec<Vec<Value>>, ApiError> {
    let ranges = registry.all("", "limitranges", Some(namespace)).await?;
    Ok(ranges.iter().map(|range| items_at(&range.value(), "/spec/limits").to_vec()).collect())
}
