//! `run`: the halves, side by side, until a signal.
//!
//! It exists to start and stop them in order. It must not know how they work.

use std::sync::Arc;

use anyhow::Context;
use http::HeaderValue;
use http::header::USER_AGENT;
use kube::config::{KubeConfigOptions, Kubeconfig};
use penstock_pods::PodsConfig;
use penstock_process::memory;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::network;
use crate::options::{Half, Run, ServiceProxy};
use crate::rotation::Rotation;

/// The names under which the halves own fields of objects.
const PODS_AGENT: &str = "kubelet";
const NETWORK_AGENT: &str = "node-agent";

/// Runs until SIGTERM or SIGINT, or until a half cannot go on.
pub async fn run(options: Box<Run>) -> anyhow::Result<()> {
    let config = config(&options).await?;
    let serves = options.service_proxy != ServiceProxy::None;
    let rotation = Rotation::new(&options.node_name, &config, serves)?;
    let client_of = |agent: &'static str| {
        let mut config = config.clone();
        config.headers.push((USER_AGENT, HeaderValue::from_static(agent)));
        kube::Client::try_from(config).with_context(|| unusable(&options))
    };
    let shutdown = CancellationToken::new();
    tokio::spawn(cancel_on_signal(shutdown.clone())?);
    tokio::spawn(memory::trim_regularly(shutdown.clone()));

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

/// What the kubeconfig says. Whether the server is there is found out, and waited for, by whoever asks it.
async fn config(options: &Run) -> anyhow::Result<kube::Config> {
    let kubeconfig = Kubeconfig::read_from(&options.kubeconfig)
        .with_context(|| format!("reading the kubeconfig {}", options.kubeconfig.display()))?;
    kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .with_context(|| unusable(options))
}

fn unusable(options: &Run) -> String {
    format!("the kubeconfig {} cannot be used", options.kubeconfig.display())
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
    config.serving_cert = options.serving_cert.clone();
    config.serving_key = options.serving_key.clone();
    config.client_ca = options.client_ca.clone();
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
