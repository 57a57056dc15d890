//! The cloud loops behind a provider trait, with the provider for bare metal built in: addresses for Services
//! of type LoadBalancer come from configured pools.
//!
//! Node and route loops of a cloud have nothing to do on bare metal; they come with the first provider that has.

use std::sync::Arc;

use ipnetwork::IpNetwork;
use kube::Client;
use penstock_informers::{Informers, Recorder, WorkQueue, run_workers};
use tokio_util::sync::CancellationToken;

pub mod bare_metal;
pub mod load_balancers;
pub mod provider;

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
    let client = informers.client().clone();
    let queue = Arc::new(WorkQueue::new());
    let services = informers.cache();
    let controller = Arc::new(load_balancers::Controller {
        recorder: Recorder::new(client.clone(), "service-controller", shutdown.clone()),
        client,
        services: services.clone(),
        provider: bare_metal::BareMetal::new(config.load_balancer_pools),
        queue: queue.clone(),
    });
    tokio::select! {
        () = shutdown.cancelled() => return,
        () = services.wait_synced() => {}
    }
    // Addresses in use are known before the first is given out.
    services.list().iter().for_each(|service| controller.note(service));
    let handler = controller.clone();
    services.subscribe(move |delta| handler.changed(delta));
    run_workers(controller, queue, 1, shutdown).await;
}
