//! The cloud loops behind a provider trait, with the provider for bare metal built in: addresses for Services
//! of type LoadBalancer come from AddressPools, a custom kind this crate installs, and from configured ranges.
//!
//! Node and route loops of a cloud have nothing to do on bare metal; they come with the first provider that has.

use std::sync::Arc;

use ipnetwork::IpNetwork;
use kube::Client;
use penstock_informers::{Informers, Meta, Recorder, WorkQueue, run_workers};
use tokio_util::sync::CancellationToken;

pub mod address_pool;
pub mod announced;
pub mod bare_metal;
pub mod install;
pub mod load_balancers;
pub mod plan;
pub mod pool_status;
pub mod pools;
pub mod provider;

/// How the cloud loops run.
#[derive(Clone, Debug, Default)]
pub struct CloudConfig {
    /// Ranges given beside those of AddressPools. With neither, Services of the type wait, and say why.
    pub load_balancer_pools: Vec<IpNetwork>,
}

/// Runs the cloud loops until `shutdown`.
pub async fn run(client: Client, config: CloudConfig, shutdown: CancellationToken) {
    run_shared(Informers::new(client, shutdown.clone()), config, shutdown).await;
}

/// The same over caches shared with other loops of the process, so that each object is held once.
pub async fn run_shared(informers: Informers, config: CloudConfig, shutdown: CancellationToken) {
    let client = informers.client().clone();
    let services = informers.cache();
    let nodes = informers.cache();
    let pools = tokio::select! {
        () = shutdown.cancelled() => return,
        () = install::ensure_definition(&client) => informers.cache::<address_pool::AddressPool>(),
    };
    // Pools and addresses in use are known before the first address is given out.
    tokio::select! {
        () = shutdown.cancelled() => return,
        () = async { tokio::join!(services.wait_synced(), pools.wait_synced()); } => {}
    }
    let (queue, pool_queue) = (Arc::new(WorkQueue::new()), Arc::new(WorkQueue::new()));
    let provider = Arc::new(bare_metal::BareMetal::new(config.load_balancer_pools, pools.clone()));
    let balancers = Arc::new(load_balancers::Controller {
        recorder: Recorder::new(client.clone(), "service-controller", shutdown.clone()),
        client: client.clone(),
        services: services.clone(),
        pools: pools.clone(),
        nodes: nodes.clone(),
        provider: provider.clone(),
        queue: queue.clone(),
        pool_queue: pool_queue.clone(),
    });
    services.list().iter().for_each(|service| balancers.note(service));
    let adder = queue.clone();
    services.subscribe(move |delta| adder.add(delta.object().key()));
    let handler = balancers.clone();
    pools.subscribe(move |delta| handler.pool_changed(delta));
    let handler = balancers.clone();
    nodes.subscribe(move |delta| handler.node_changed(delta));
    let statuses = Arc::new(pool_status::Controller { client, pools, provider });
    // One worker each: who gets an address is decided one after the other.
    tokio::join!(
        run_workers(balancers, queue, 1, shutdown.clone()),
        run_workers(statuses, pool_queue, 1, shutdown),
    );
}
