//! The list of controllers. Adding one is one file and one line here.

use std::future::Future;
use std::pin::Pin;

use crate::context::Context;

type Run = fn(Context) -> Pin<Box<dyn Future<Output = ()> + Send>>;

/// Name and entry point of every controller.
pub const CONTROLLERS: &[(&str, Run)] = &[
    ("bootstrap-signer", |c| Box::pin(crate::bootstrap_tokens::signing::run(c))),
    ("certificate-approving", |c| Box::pin(crate::certificates::approving::run(c))),
    ("certificate-cleaning", |c| Box::pin(crate::certificates::cleaning::run(c))),
    ("certificate-signing", |c| Box::pin(crate::certificates::signing::run(c))),
    ("cluster-role", |c| Box::pin(crate::cluster_role::run(c))),
    ("cron-job", |c| Box::pin(crate::cron_job::run(c))),
    ("daemon-set", |c| Box::pin(crate::daemon_set::run(c))),
    ("deployment", |c| Box::pin(crate::deployment::run(c))),
    ("disruption", |c| Box::pin(crate::disruption::run(c))),
    ("endpoints", |c| Box::pin(crate::endpoints::run(c))),
    ("endpoint-slice-mirroring", |c| Box::pin(crate::endpoints::mirror::run(c))),
    ("ephemeral-volume", |c| Box::pin(crate::volumes::ephemeral::run(c))),
    ("garbage-collector", |c| Box::pin(crate::garbage::run(c))),
    ("job", |c| Box::pin(crate::job::run(c))),
    ("namespace", |c| Box::pin(crate::namespace::run(c))),
    ("node-ipam", |c| Box::pin(crate::node_ipam::run(c))),
    ("node-lifecycle", |c| Box::pin(crate::node_lifecycle::run(c))),
    ("persistent-volume-binder", |c| Box::pin(crate::volumes::binder::run(c))),
    ("persistent-volume-claim-protection", |c| Box::pin(crate::volumes::protection::run_claims(c))),
    ("persistent-volume-protection", |c| Box::pin(crate::volumes::protection::run_volumes(c))),
    ("pod-gc", |c| Box::pin(crate::pod_gc::run(c))),
    ("replicas", |c| Box::pin(crate::replicas::run(c))),
    ("resource-quota", |c| Box::pin(crate::resource_quota::run(c))),
    ("root-ca", |c| Box::pin(crate::root_ca::run(c))),
    ("service-account", |c| Box::pin(crate::service_account::run(c))),
    ("service-account-token", |c| Box::pin(crate::service_account_token::run(c))),
    ("stateful-set", |c| Box::pin(crate::stateful_set::run(c))),
    ("token-cleaner", |c| Box::pin(crate::bootstrap_tokens::cleaning::run(c))),
    ("ttl-after-finished", |c| Box::pin(crate::ttl_after_finished::run(c))),
];
