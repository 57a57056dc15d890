//! Mutating webhooks: asked one after the other, each about what those before it made of the object.

use async_trait::async_trait;
use penstock_schema::{check, defaults, patch};
use serde_json::{Value, json};

use super::call::{Invocation, ask, is_scaled, select};
use super::configuration::Webhook;
use super::{Refusal, Source, failed_closed, is_asked_about};
use crate::admission::{Attributes, Operation, Plugin};
use crate::error::ApiError;
use crate::registry::Registry;
use crate::registry::object::str_at;
use crate::registry::subresource::scale;

pub(crate) struct MutatingWebhooks(Source);

impl Default for MutatingWebhooks {
    fn default() -> Self {
        Self(Source::of("mutatingwebhookconfigurations"))
    }
}

#[async_trait]
impl Plugin for MutatingWebhooks {
    async fn admit(
        &self,
        registry: &Registry,
        a: &Attributes<'_>,
        object: &mut Value,
    ) -> Result<(), ApiError> {
        self.dispatch(registry, a, Some(object)).await
    }

    /// Deletes have nothing that could be changed, but they are asked about.
    async fn validate(
        &self,
        registry: &Registry,
        a: &Attributes<'_>,
        _object: Option<&Value>,
    ) -> Result<(), ApiError> {
        if a.operation == Operation::Delete { self.dispatch(registry, a, None).await } else { Ok(()) }
    }
}

impl MutatingWebhooks {
    async fn dispatch(
        &self,
        registry: &Registry,
        a: &Attributes<'_>,
        mut object: Option<&mut Value>,
    ) -> Result<(), ApiError> {
        if !is_asked_about(a) {
            return Ok(());
        }
        let webhooks = self.0.webhooks(registry).await?;
        if webhooks.is_empty() {
            return Ok(());
        }
        a.rounds.begin_webhooks(object.as_deref());
        for (index, webhook) in webhooks.iter().enumerate() {
            let Some(invocation) = select(registry, webhook, a, object.as_deref()).await? else { continue };
            if a.rounds.is_second() && !a.rounds.is_to_be_reinvoked(&webhook.id) {
                continue;
            }
            let asked = change(registry, webhook, &invocation, a, object.as_deref_mut()).await;
            let changed = matches!(asked, Ok(true));
            note(a, webhook, index, changed);
            a.rounds.ran(&webhook.id, changed, webhook.wants_again);
            match asked {
                Ok(_) => {}
                Err(Refusal::Failed { why }) if webhook.fails_open => {
                    tracing::warn!(webhook = webhook.name, why, "a webhook failed and lets the request pass");
                    let key = format!("failed-open.mutation.webhook.admission.k8s.io/{}", place(a, index));
                    a.context.annotate(key, &webhook.name);
                }
                Err(Refusal::Failed { why }) => return Err(failed_closed(webhook, &why)),
                Err(Refusal::Denied(error)) => return Err(*error),
            }
        }
        a.rounds.end_webhooks(object.as_deref());
        Ok(())
    }
}

/// `round_0_index_2`: which call a note for the audit log is about.
fn place(a: &Attributes<'_>, index: usize) -> String {
    format!("round_{}_index_{index}", u8::from(a.rounds.is_second()))
}

fn note(a: &Attributes<'_>, webhook: &Webhook, index: usize, mutated: bool) {
    let key = format!("mutation.webhook.admission.k8s.io/{}", place(a, index));
    let value = json!({"configuration": webhook.configuration, "webhook": webhook.name, "mutated": mutated});
    a.context.annotate(key, value.to_string());
}

/// Asks, and makes of the object what the answer says; tells whether that was something else.
async fn change(
    registry: &Registry,
    webhook: &Webhook,
    invocation: &Invocation,
    a: &Attributes<'_>,
    object: Option<&mut Value>,
) -> Result<bool, Refusal> {
    let answer = ask(registry, webhook, invocation, a, object.as_deref(), true).await?;
    let Some(operations) = answer.patch.filter(|patch| patch.as_array().is_some_and(|ops| !ops.is_empty()))
    else {
        return Ok(false);
    };
    let Some(object) = object else {
        return Err(Refusal::internal(ApiError::new(
            500,
            "",
            format!(
                "admission webhook {:?} attempted to modify the object, which is not supported for this operation",
                webhook.name
            ),
        )));
    };
    let internal = |why: String| Refusal::Denied(Box::new(ApiError::internal(why)));
    let before =
        invocation.present(registry, a, Some(object)).await.map_err(Refusal::internal)?.unwrap_or_default();
    let mut after = patch::json(&before, &operations).map_err(|e| internal(e.to_string()))?;
    let definition = invocation.definition(a);
    let is_whole = str_at(&before, "/kind") == &*definition.kind;
    let ty = if is_whole { Some(definition.ty.clone()) } else { type_of(registry, &before) };
    if let Some(ty) = ty {
        // Unknown fields are dropped, as a decoder drops them.
        check::conform(&ty, &mut after).map_err(|e| internal(e.to_string()))?;
        defaults::apply(&ty, &mut after);
    }
    for field in ["apiVersion", "kind"] {
        after[field] = before[field].clone();
    }
    keep_identity(&mut after, &before);
    if after == before {
        return Ok(false);
    }
    *object = if is_scaled(a, object) {
        scale::scaled(a.definition, a.name, object, &after).map_err(|e| Refusal::Denied(Box::new(e)))?
    } else if is_whole && definition.version != a.definition.version {
        registry.convert(definition, a.definition, after).await.map_err(Refusal::internal)?
    } else {
        after
    };
    Ok(true)
}

fn type_of(registry: &Registry, object: &Value) -> Option<penstock_schema::TypeRef> {
    let api_version = str_at(object, "/apiVersion");
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    registry.type_of(group, version, str_at(object, "/kind"))
}

/// An object is stored under the name that was admitted.
fn keep_identity(after: &mut Value, before: &Value) {
    let Some(meta) = before.get("metadata") else { return };
    for field in ["name", "namespace", "uid", "creationTimestamp"] {
        match meta.get(field) {
            Some(value) => after["metadata"][field] = value.clone(),
            None => {
                if let Some(meta) = after.get_mut("metadata").and_then(Value::as_object_mut) {
                    meta.remove(field);
                }
            }
        }
    }
}
