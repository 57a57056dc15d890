//! Admission webhooks and policies.

use super::{Hook, Object, fill, fill_zero};
use crate::Map;

pub(super) const HOOKS: &[(&str, Hook)] = &[
    ("io.k8s.api.admissionregistration.v1.ValidatingWebhook", webhook),
    ("io.k8s.api.admissionregistration.v1.MutatingWebhook", mutating_webhook),
    ("io.k8s.api.admissionregistration.v1.RuleWithOperations", |o| fill(o, "scope", "*")),
    ("io.k8s.api.admissionregistration.v1.NamedRuleWithOperations", |o| fill(o, "scope", "*")),
    ("io.k8s.api.admissionregistration.v1.ServiceReference", |o| fill(o, "port", 443)),
    ("io.k8s.api.admissionregistration.v1.ValidatingAdmissionPolicySpec", |o| {
        fill(o, "failurePolicy", "Fail")
    }),
    ("io.k8s.api.admissionregistration.v1.MutatingAdmissionPolicySpec", |o| fill(o, "failurePolicy", "Fail")),
    ("io.k8s.api.admissionregistration.v1.MatchResources", match_resources),
];

fn webhook(webhook: &mut Object) {
    fill(webhook, "failurePolicy", "Fail");
    fill(webhook, "timeoutSeconds", 10);
    match_resources(webhook);
}

fn mutating_webhook(mutating: &mut Object) {
    webhook(mutating);
    fill(mutating, "reinvocationPolicy", "Never");
}

fn match_resources(matched: &mut Object) {
    fill_zero(matched, "matchPolicy", "Equivalent");
    fill(matched, "namespaceSelector", Map::new());
    fill(matched, "objectSelector", Map::new());
}
