//! The controllers: loops that drive what is towards what is wanted, one file each, listed in [`list`].
//!
//! Every loop observes through shared caches, plans with a pure function and applies the plan through the API.
//! None knows the store or the API server; all run against an upstream control plane too.

use context::Context;
use ipnet::Cidr;
use penstock_informers::Informers;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

pub mod bootstrap_tokens;
pub mod certificates;
pub mod claim;
pub mod cluster_role;
pub mod context;
pub mod cron_job;
pub mod daemon_set;
pub mod deployment;
pub mod discovery;
pub mod disruption;
pub mod endpoints;
pub mod garbage;
pub mod intstr;
pub mod ipnet;
pub mod job;
pub mod list;
pub mod namespace;
pub mod node_ipam;
pub mod node_lifecycle;
pub mod pod;
pub mod pod_gc;
pub mod replicas;
pub mod resource_quota;
pub mod revisions;
pub mod root_ca;
pub mod service_account;
pub mod service_account_token;
pub mod stateful_set;
pub mod template_hash;
pub mod ttl_after_finished;
pub mod volumes;

/// What the loops need to know about the cluster.
#[derive(Clone, Debug)]
pub struct ControllersConfig {
    /// Ranges pods get addresses from, at most one a family. Default 10.244.0.0/16.
    pub cluster_cidrs: Vec<NodeRanges>,
    /// PEM bundle published as `kube-root-ca.crt` in every namespace; `None`: nothing is published.
    pub root_ca_pem: Option<String>,
    /// A node not heard of for so long is taken as unreachable. Default 40 s.
    pub node_monitor_grace: Duration,
    /// Terminated pods kept before the oldest are collected. Default 12500.
    pub terminated_pods_max: usize,
    /// Certificate and key that sign approved requests, PEM; `None`: requests are not signed.
    pub signer: Option<SignerFiles>,
    /// How long the certificates of signed requests live, unless they ask for less. Default a year.
    pub signing_duration: Duration,
    /// Key that signs the tokens in Secrets, PEM; `None`: such Secrets stay empty.
    pub token_key_pem: Option<Secret>,
}

/// A range that is cut into one range per node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeRanges {
    pub range: Cidr,
    /// Prefix length of each node's range.
    pub node_prefix: u8,
}

impl NodeRanges {
    /// With upstream's prefix lengths (`--node-cidr-mask-size-ipv4`, `-ipv6`).
    pub fn new(range: Cidr) -> Self {
        Self { range, node_prefix: if range.address.is_ipv4() { 24 } else { 64 } }
    }
}

/// A text that no log shows.
#[derive(Clone)]
pub struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// The cluster's signing certificate and key, PEM text.
#[derive(Clone)]
pub struct SignerFiles {
    pub certificate_pem: String,
    pub key_pem: String,
}

impl std::fmt::Debug for SignerFiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SignerFiles(..)")
    }
}

impl Default for ControllersConfig {
    fn default() -> Self {
        Self {
            cluster_cidrs: vec![NodeRanges::new(Cidr::new([10, 244, 0, 0].into(), 16))],
            root_ca_pem: None,
            node_monitor_grace: Duration::from_secs(40),
            terminated_pods_max: 12_500,
            signer: None,
            signing_duration: Duration::from_secs(365 * 24 * 3600),
            token_key_pem: None,
        }
    }
}

/// Runs all controllers until `shutdown`. Needs no warm-up: each loop starts when its own caches are filled. The
/// caches may be shared with other loops of the process (the scheduler's), so that each object is held once.
pub async fn run_all_shared(informers: Informers, config: ControllersConfig, shutdown: CancellationToken) {
    let context = Context { informers, config: Arc::new(config), shutdown };
    let controllers = list::CONTROLLERS.iter().map(|(name, run)| {
        tracing::debug!(name, "controller starts");
        tokio::spawn(run(context.clone()))
    });
    futures::future::join_all(controllers).await;
}
