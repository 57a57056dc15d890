//! Admission webhooks: servers that clients of the API register to change or refuse writes.
//!
//! [`configuration`] reads who is to be asked, [`matching`] decides about what, [`review`] writes the question and
//! checks the answer (all pure); [`call`] asks. [`mutating`] asks one after the other, [`validating`] all at once.

mod call;
pub(crate) mod conditions;
pub(crate) mod configuration;
mod matching;
mod mutating;
mod review;
mod validating;

use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::Value;

use super::{Attributes, Operation};
use crate::error::ApiError;
use crate::registry::Registry;
use configuration::Webhook;

pub(crate) use mutating::MutatingWebhooks;
pub(crate) use validating::ValidatingWebhooks;

pub(crate) const GROUP: &str = "admissionregistration.k8s.io";

/// Kinds that no webhook sees: one that refused them could never be removed.
const EXEMPT: [&str; 6] = [
    "mutatingwebhookconfigurations",
    "validatingwebhookconfigurations",
    "validatingadmissionpolicies",
    "validatingadmissionpolicybindings",
    "mutatingadmissionpolicies",
    "mutatingadmissionpolicybindings",
];

/// Whether webhooks are asked at all.
fn is_asked_about(a: &Attributes<'_>) -> bool {
    let exempt = a.definition.group == GROUP && EXEMPT.contains(&&*a.definition.plural);
    // A binding was admitted when it was made; the update of the pod that follows is the server's own.
    !exempt && !a.context.is_own && (a.operation, a.subresource) != (Operation::Update, "binding")
}

/// The webhooks of one kind of configuration, in the order they are asked.
struct Source {
    plural: &'static str,
    /// What the configurations were when they were read last: names and versions.
    read: Mutex<(Vec<(String, u64)>, Arc<Vec<Webhook>>)>,
}

// === impl Source ===

impl Source {
    fn of(plural: &'static str) -> Self {
        Self { plural, read: Mutex::default() }
    }

    /// Configurations may be a moment old, as upstream's are.
    async fn webhooks(&self, registry: &Registry) -> Result<Arc<Vec<Webhook>>, ApiError> {
        let mut configurations = registry.cached(GROUP, self.plural, None).await?;
        configurations.sort_by(|a, b| a.name.cmp(&b.name));
        let now: Vec<(String, u64)> =
            configurations.iter().map(|c| (c.name.clone(), c.resource_version)).collect();
        let mut read = self.read.lock();
        if read.0 != now {
            let webhooks = configurations.iter().flat_map(|c| configuration::read(&c.value())).collect();
            *read = (now, Arc::new(webhooks));
        }
        Ok(read.1.clone())
    }
}

/// Why one webhook did not let a request through.
enum Refusal {
    /// It could not be asked, or gave no proper answer: the failure policy decides.
    Failed { why: String },
    /// It said no, or this server did.
    Denied(Box<ApiError>),
}

/// The error of a webhook that failed and whose policy is to fail.
fn failed_closed(webhook: &Webhook, why: &str) -> ApiError {
    ApiError::internal(format!("failed calling webhook {:?}: {why}", webhook.name))
}

/// The labels of an object.
fn labels(object: &Value) -> std::collections::BTreeMap<String, String> {
    let labels = object.pointer("/metadata/labels").and_then(Value::as_object);
    let text = |(key, value): (&String, &Value)| Some((key.clone(), value.as_str()?.to_owned()));
    labels.into_iter().flatten().filter_map(text).collect()
}
