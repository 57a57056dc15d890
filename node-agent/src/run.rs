//! `run`: the halves, side by side, until a signal.
//!
//! It exists to start and stop them in order. It must not know how they work.

use std::sync::Arc;

use anyhow::Context;
use penstock_identity::{Credentials, Renewal, Serving};
use penstock_pods::PodsConfig;
use penstock_process::memory;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::joining;
use crate::network;
use crate::options::{Half, Run, ServiceProxy};
use crate::rotation::Rotation;

/// The names under which the halves own fields of objects.
const PODS_AGENT: &str = "kubelet";
const NETWORK_AGENT: &str = "node-agent";

/// Runs until SIGTERM or SIGINT, or until a half cannot go on.
pub async fn run(mut options: Box<Run>) -> anyhow::Result<()> {
    joining::join_if_need_be(&options).await?;
    let credentials = Credentials::new(penstock_identity::read(&options.kubeconfig()).await?);
    joining::complete(&mut options, &credentials.config()).await?;
    let serves = options.service_proxy != ServiceProxy::None;
    let rotation = Rotation::new(&options.node_name, &credentials, serves)?;
    let client_of =
        |agent: &'static str| credentials.client(agent).with_context(|| unusable(&options.kubeconfig()));
    let shutdown = CancellationToken::new();
    tokio::spawn(cancel_on_signal(shutdown.clone())?);
    tokio::spawn(memory::trim_regularly(shutdown.clone()));
    tokio::spawn(renewal(&options, &credentials).run(shutdown.clone()));

    options.check_node_ips()?;
    let mut halves = tokio::task::JoinSet::new();
    if options.has(Half::Network) {
        let (options, client, shutdown) = (options.clone(), client_of(NETWORK_AGENT)?, shutdown.clone());
        let rotation = rotation.clone();
        halves.spawn(async move {
            network::run(&options, client, rotation, shutdown).await.context("the network half")
        });
    }
    if options.has(Half::Pods) {
        let runtime = penstock_runtime::cri::Cri::connect(&options.runtime_endpoint).await?;
        let client = client_of(PODS_AGENT)?;
        let config = pods_config(&options);
        if options.serving_cert.is_none() {
            tokio::spawn(serving(&config, &credentials).run(shutdown.clone()));
        }
        let shutdown = shutdown.clone();
        // Beside somebody else's proxy nobody knows when a pod is out of rotation.
        let rotation: Option<Arc<dyn penstock_pods::Rotation>> =
            if options.has(Half::Network) { Some(Arc::new(rotation)) } else { None };
        halves.spawn(async move {
            penstock_pods::run(config, client, Arc::new(runtime), rotation, shutdown)
                .await
                .context("the pods half")
        });
    }
    tracing::info!(node = options.node_name, halves = ?options.halves, "the node agent runs");

    let mut outcome = Ok(());
    while let Some(ended) = halves.join_next().await {
        // One half that cannot go on ends the process: whoever supervises it starts both again.
        let ended = ended.context("a half panicked").and_then(|half| half);
        if let Err(error) = &ended {
            tracing::error!("{error:#}");
        }
        shutdown.cancel();
        outcome = outcome.and(ended);
    }
    outcome
}

fn unusable(kubeconfig: &std::path::Path) -> String {
    format!("the kubeconfig {} cannot be used", kubeconfig.display())
}

fn renewal(options: &Run, credentials: &Credentials) -> Renewal {
    Renewal {
        credentials: credentials.clone(),
        kubeconfig: options.kubeconfig(),
        node: options.node_name.clone(),
    }
}

/// Who asks for a certificate of the kubelet API, if nobody gave one.
fn serving(config: &PodsConfig, credentials: &Credentials) -> Serving {
    Serving {
        credentials: credentials.clone(),
        node: config.node_name.clone(),
        addresses: config.node_ips.clone(),
        certificate: config.serving_cert.clone().unwrap_or_default(),
        key: config.serving_key.clone().unwrap_or_default(),
    }
}

fn pods_config(options: &Run) -> PodsConfig {
    let mut config = PodsConfig::new(&options.node_name, options.node_ip.clone(), &options.state_dir);
    config.kubelet_dir = options.kubelet_dir.clone();
    config.pod_logs_dir = options.pod_logs_dir.clone();
    config.manifest_dir = options.manifest_dir.clone();
    config.cgroup_parent = options.cgroup_parent.clone();
    config.cluster_dns = options.cluster_dns.clone();
    config.cluster_domain = options.cluster_domain.clone();
    config.listen.set_ip(options.every_address());
    config.resolv_conf = options.resolv_conf.clone();
    let own = |name: &str| Some(options.state_dir.join(name));
    config.serving_cert = options.serving_cert.clone().or_else(|| own("serving.crt"));
    config.serving_key = options.serving_key.clone().or_else(|| own("serving.key"));
    let joined = options.joined_authority();
    config.client_ca = options.client_ca.clone().or_else(|| {
        let has_joined = options.join.server.is_some() && joined.exists();
        has_joined.then_some(joined)
    });
    config.termination_wait = options.termination_wait;
    config
}

fn cancel_on_signal(shutdown: CancellationToken) -> anyhow::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping; pods and connections live on");
        shutdown.cancel();
    })
}
