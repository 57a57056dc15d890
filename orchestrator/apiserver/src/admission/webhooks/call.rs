//! Whether one webhook is asked about a request, and asking it.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::Value;

use super::configuration::Webhook;
use super::matching::Asked;
use super::review::{Answer, Question};
use super::{Refusal, labels};
use crate::admission::{Attributes, Operation, lifecycle};
use crate::error::ApiError;
use crate::outbound::exchange::Limits;
use crate::registry::object::str_at;
use crate::registry::subresource::scale;
use crate::registry::{Definition, Registry};

/// A patch may hold an object of the largest size, in base64.
const ANSWER_BYTES_MAX: usize = 8 * 1024 * 1024;

/// How a webhook is asked about a request.
pub(super) struct Invocation {
    /// None: in the version of the request.
    equivalent: Option<Arc<Definition>>,
}

/// Decides whether `webhook` is asked.
pub(super) async fn select(
    registry: &Registry,
    webhook: &Webhook,
    a: &Attributes<'_>,
    object: Option<&Value>,
) -> Result<Option<Invocation>, ApiError> {
    let invocation = if webhook.rules.iter().any(|rule| rule.matches(&Asked::of(a, a.definition))) {
        Invocation { equivalent: None }
    } else if webhook.takes_equivalents {
        let equivalents = registry.equivalents(a.definition);
        // The first rule that matches any of them.
        let matching = |rule: &super::matching::Rule| {
            equivalents.iter().find(|equivalent| rule.matches(&Asked::of(a, equivalent))).cloned()
        };
        let Some(found) = webhook.rules.iter().find_map(matching) else { return Ok(None) };
        Invocation { equivalent: Some(found) }
    } else {
        return Ok(None);
    };
    if !selects_object(webhook, a, object) || !selects_namespace(registry, webhook, a, object).await? {
        return Ok(None);
    }
    match webhook.conditions.hold(registry, a, &invocation, object).await? {
        Ok(hold) => Ok(hold.then_some(invocation)),
        Err(_) if webhook.fails_open => Ok(None),
        Err(why) => Err(a.forbidden(why)),
    }
}

fn selects_object(webhook: &Webhook, a: &Attributes<'_>, object: Option<&Value>) -> bool {
    let selected =
        |object: Option<&Value>| seen(a, object).is_some_and(|o| webhook.objects.matches(&labels(&o)));
    webhook.objects.is_empty() || selected(object) || selected(a.old)
}

/// An object as the request has it: the body of a Scale's write is the Scale.
fn seen<'v>(a: &Attributes<'_>, object: Option<&'v Value>) -> Option<Cow<'v, Value>> {
    match object {
        Some(object) if is_scaled(a, object) => Some(Cow::Owned(scale::value_of(a.definition, object))),
        object => object.map(Cow::Borrowed),
    }
}

/// Whether this is the object of a Scale that is written.
pub(super) fn is_scaled(a: &Attributes<'_>, object: &Value) -> bool {
    a.subresource == "scale" && str_at(object, "/kind") == &*a.definition.kind
}

async fn selects_namespace(
    registry: &Registry,
    webhook: &Webhook,
    a: &Attributes<'_>,
    object: Option<&Value>,
) -> Result<bool, ApiError> {
    let namespace = a.namespace_of_request();
    if namespace.is_empty() || webhook.namespaces.is_empty() {
        return Ok(true);
    }
    // A namespace that is written is the one of the request; the stored one is older.
    let is_written = matches!(a.operation, Operation::Create | Operation::Update);
    if let (true, true, Some(object)) =
        (a.is_about_namespaces() && a.subresource.is_empty(), is_written, object)
    {
        return Ok(webhook.namespaces.matches(&labels(object)));
    }
    let found = lifecycle::namespace(registry, namespace).await?;
    Ok(webhook.namespaces.matches(&labels(&found)))
}

/// Asks, and gives the answer of one that allows the request.
pub(super) async fn ask(
    registry: &Registry,
    webhook: &Webhook,
    invocation: &Invocation,
    a: &Attributes<'_>,
    object: Option<&Value>,
    mutating: bool,
) -> Result<Answer, Refusal> {
    if a.context.dry_run && !webhook.may_run_dry {
        let why = format!("admission webhook {:?} does not support dry run", webhook.name);
        return Err(Refusal::Denied(Box::new(ApiError::bad_request(why))));
    }
    let failed = |why: String| Refusal::Failed { why };
    let Some(review_version) = webhook.review_version else {
        return Err(failed(
            "could not create admission objects: webhook does not accept known AdmissionReview versions (v1, v1beta1)"
                .into(),
        ));
    };
    let Some((target, path)) = &webhook.target else {
        return Err(failed(
            "could not get REST client: webhook configuration must have either service or URL".into(),
        ));
    };
    let object = invocation.present(registry, a, object).await.map_err(Refusal::internal)?;
    let old = invocation.present(registry, a, a.old).await.map_err(Refusal::internal)?;
    let definition = invocation.definition(a);
    let uid = uuid::Uuid::new_v4().to_string();
    let question = Question { attributes: a, definition, object: object.as_ref(), old: old.as_ref() };
    let question = question.write(&uid, review_version);
    let limits = Limits { timeout: webhook.timeout, answer_bytes_max: ANSWER_BYTES_MAX };
    let review = registry
        .outbound()
        .exchange(registry, target, path, &question, limits)
        .await
        .map_err(|e| failed(format!("failed to call webhook: {e}")))?;
    let answer = Answer::read(&review, &uid, review_version, mutating)
        .map_err(|why| failed(format!("received invalid webhook response: {why}")))?;
    for (key, value) in &answer.audit_annotations {
        a.context.annotate(format!("{}/{key}", webhook.name), value);
    }
    for warning in &answer.warnings {
        a.context.warn(warning);
    }
    if answer.allowed { Ok(answer) } else { Err(answer.denial(&webhook.name)) }
}

// === impl Invocation ===

impl Invocation {
    /// The definition of the version the webhook is asked in.
    pub fn definition<'a>(&'a self, a: &Attributes<'a>) -> &'a Definition {
        self.equivalent.as_deref().unwrap_or(a.definition)
    }

    /// An object of the request in the version the webhook is asked in. Bodies of subresources have but one.
    pub async fn present(
        &self,
        registry: &Registry,
        a: &Attributes<'_>,
        object: Option<&Value>,
    ) -> Result<Option<Value>, ApiError> {
        match (seen(a, object), &self.equivalent) {
            (Some(object), Some(to)) if str_at(&object, "/kind") == &*a.definition.kind => {
                registry.convert(a.definition, to, object.into_owned()).await.map(Some)
            }
            (object, _) => Ok(object.map(Cow::into_owned)),
        }
    }
}

// === impl Refusal ===

impl Refusal {
    /// What this server could not do, whatever the failure policy.
    pub(super) fn internal(error: ApiError) -> Self {
        Self::Denied(Box::new(ApiError::internal(error)))
    }
}
