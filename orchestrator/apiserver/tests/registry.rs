//! The registry over an embedded store: one CRUD test for every kind, and the semantics clients rely on.

#[path = "registry/apply.rs"]
mod apply;
#[path = "registry/catalogue.rs"]
mod catalogue;
#[path = "registry/certificates.rs"]
mod certificates;
#[path = "registry/cluster.rs"]
mod cluster;
#[path = "registry/conversion.rs"]
mod conversion;
#[path = "registry/custom.rs"]
mod custom;
#[path = "registry/https.rs"]
mod https;
#[path = "registry/lagging.rs"]
mod lagging;
#[path = "registry/lifecycle.rs"]
mod lifecycle;
#[path = "registry/limits.rs"]
mod limits;
#[path = "registry/manifests.rs"]
mod manifests;
#[path = "registry/pod_security.rs"]
mod pod_security;
#[path = "registry/policies.rs"]
mod policies;
#[path = "registry/quotas.rs"]
mod quotas;
#[path = "registry/reading.rs"]
mod reading;
#[path = "registry/services.rs"]
mod services;
#[path = "registry/validation.rs"]
mod validation;
#[path = "registry/webhooks.rs"]
mod webhooks;
