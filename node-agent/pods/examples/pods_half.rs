//! The kubelet half alone, against any API server and runtime: to work on it without the network half.
//! Pods need a CNI configuration of the runtime, or `hostNetwork: true`.
//!
//! `pods_half NAME IP RUNTIME_ENDPOINT DIR [CERT KEY CLIENT_CA]`, with KUBECONFIG set.

use std::sync::Arc;

use penstock_pods::PodsConfig;
use penstock_runtime::cri::Cri;
use tokio_util::sync::CancellationToken;

type Failure = Box<dyn std::error::Error>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    tracing_subscriber::fmt().with_env_filter(tracing_subscriber::EnvFilter::from_default_env()).init();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [name, ip, endpoint, dir, certificates @ ..] = arguments.as_slice() else {
        return Err("usage: pods_half NAME IP RUNTIME_ENDPOINT DIR [CERT KEY CLIENT_CA]".into());
    };
    let mut config = PodsConfig::new(name, vec![ip.parse()?], dir);
    config.kubelet_dir = format!("{dir}/kubelet").into();
    config.pod_logs_dir = format!("{dir}/logs").into();
    config.cgroup_parent = format!("/penstock-example/{name}");
    if let [cert, key, ca] = certificates {
        config.serving_cert = Some(cert.into());
        config.serving_key = Some(key.into());
        config.client_ca = Some(ca.into());
    }
    let shutdown = CancellationToken::new();
    let stop = shutdown.clone();
    tokio::spawn(async move {
        let _ = tokio::signal::ctrl_c().await;
        stop.cancel();
    });
    let runtime = Arc::new(Cri::connect(endpoint).await?);
    penstock_pods::run(config, kube::Client::try_default().await?, runtime, None, shutdown).await?;
    Ok(())
}
