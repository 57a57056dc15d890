//! Validating webhooks: asked all at once about what will be stored.

use async_trait::async_trait;
use futures::future::join_all;
use serde_json::Value;

use super::call::{ask, select};
use super::{Refusal, Source, failed_closed, is_asked_about};
use crate::admission::{Attributes, Plugin};
use crate::error::ApiError;
use crate::registry::Registry;

pub(crate) struct ValidatingWebhooks(Source);

impl Default for ValidatingWebhooks {
    fn default() -> Self {
        Self(Source::of("validatingwebhookconfigurations"))
    }
}

#[async_trait]
impl Plugin for ValidatingWebhooks {
    async fn validate(
        &self,
        registry: &Registry,
        a: &Attributes<'_>,
        object: Option<&Value>,
    ) -> Result<(), ApiError> {
        if !is_asked_about(a) {
            return Ok(());
        }
        let webhooks = self.0.webhooks(registry).await?;
        let mut selected = Vec::new();
        for webhook in webhooks.iter() {
            if let Some(invocation) = select(registry, webhook, a, object).await? {
                selected.push((webhook, invocation));
            }
        }
        let asking =
            selected.iter().map(|(webhook, invocation)| ask(registry, webhook, invocation, a, object, false));
        // All are heard, so that every warning and note is there; the first refusal in order is the answer.
        let answers = join_all(asking).await;
        for (index, ((webhook, _), answer)) in selected.iter().zip(answers).enumerate() {
            match answer {
                Ok(_) => {}
                Err(Refusal::Failed { why }) if webhook.fails_open => {
                    tracing::warn!(webhook = webhook.name, why, "a webhook failed and lets the request pass");
                    let key =
                        format!("failed-open.validating.webhook.admission.k8s.io/round_0_index_{index}");
                    a.context.annotate(key, &webhook.name);
                }
                Err(Refusal::Failed { why }) => return Err(failed_closed(webhook, &why)),
                Err(Refusal::Denied(error)) => return Err(*error),
            }
        }
        Ok(())
    }
}
