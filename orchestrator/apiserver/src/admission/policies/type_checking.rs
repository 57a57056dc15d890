//! Warnings of validating policies: their expressions are checked against the types their rules name, and what does not
//! fit is written into the status.

use std::sync::Arc;

use penstock_expressions::Type;
use serde_json::{Value, json};

use super::compiled::warnings_of;
use super::library::GROUP;
use super::matching::Matching;
use crate::error::ApiError;
use crate::registry::context::{Context, Target};
use crate::registry::generic::update::Race;
use crate::registry::object::meta_str;
use crate::registry::ownership::Tracking;
use crate::registry::{Definition, Registry};
use crate::shapes;

/// How many types a policy is checked against, as upstream.
const TYPES_MAX: usize = 10;
const PLURAL: &str = "validatingadmissionpolicies";

/// Checks a policy whose generation has not been checked, and writes the status.
pub(super) async fn settle(registry: &Arc<Registry>, policy: &Value) {
    if policy["status"]["observedGeneration"] == policy["metadata"]["generation"] {
        return;
    }
    if let Err(error) = write(registry, policy).await {
        tracing::warn!(policy = meta_str(policy, "name"), %error, "the type checking of a policy is not written");
    }
}

async fn write(registry: &Arc<Registry>, policy: &Value) -> Result<(), ApiError> {
    let Some(definition) = registry.find(GROUP, "v1", PLURAL) else { return Ok(()) };
    let target = Target::named(None, meta_str(policy, "name")).with_subresource("status");
    let context = Context::system();
    let written = registry
        .modify(&context, &definition, &target, Race::Rebases, Tracking::Changes, &mut |old, _| {
            let mut new = old.clone();
            if !new["status"].is_object() {
                new["status"] = json!({});
            }
            let warnings = warnings(registry, old);
            new["status"]["typeChecking"] =
                if warnings.is_empty() { json!({}) } else { json!({"expressionWarnings": warnings}) };
            new["status"]["observedGeneration"] = old["metadata"]["generation"].clone();
            Ok(new)
        })
        .await;
    match written {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(()),
    }
}

/// What does not fit, by field, with the types it does not fit.
fn warnings(registry: &Registry, policy: &Value) -> Vec<Value> {
    let mut found: Vec<(String, String)> = Vec::new();
    for definition in types_of(registry, policy) {
        let ty: Type = shapes::of(&definition.ty);
        let (group, version) = (&definition.group, &definition.version);
        let place = if group.is_empty() { format!("/{version}") } else { format!("{group}/{version}") };
        for (field, issue) in warnings_of(policy, &ty) {
            let text = format!("{place}, Kind={}: {issue}\n", definition.kind);
            match found.iter_mut().find(|(known, _)| *known == field) {
                Some((_, texts)) => texts.push_str(&text),
                None => found.push((field, text)),
            }
        }
    }
    found.into_iter().map(|(field, warning)| json!({"fieldRef": field, "warning": warning})).collect()
}

/// The kinds that rules name without wildcards.
fn types_of(registry: &Registry, policy: &Value) -> Vec<Arc<Definition>> {
    let matching = Matching::of(&policy["spec"]["matchConstraints"]);
    let definitions = registry.definitions();
    let mut found: Vec<Arc<Definition>> = Vec::new();
    for rule in matching.rules() {
        for definition in &definitions {
            let named = |list: &[String], wanted: &str| list.iter().any(|item| item == wanted);
            let matches = named(&rule.groups, &definition.group)
                && named(&rule.versions, &definition.version)
                && named(&rule.resources, &definition.plural);
            let known = found.iter().any(|other| Arc::ptr_eq(other, definition));
            if matches && !known && found.len() < TYPES_MAX {
                found.push(definition.clone());
            }
        }
    }
    found
}
