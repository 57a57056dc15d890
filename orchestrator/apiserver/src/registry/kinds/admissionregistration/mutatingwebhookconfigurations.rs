//! MutatingWebhookConfiguration: see `webhooks` for its rules, `admission::webhooks` for what it does.

use super::webhooks::WebhookConfiguration;
use crate::registry::definition::Declaration;

pub(crate) fn declaration() -> Declaration {
    Declaration::new(
        "admissionregistration.k8s.io",
        "v1",
        "MutatingWebhookConfiguration",
        "mutatingwebhookconfigurations",
    )
    .cluster_scoped()
    .generation()
    .strategy(WebhookConfiguration)
}
