//! DNS on the cluster's addresses.
//!
//! It exists to put the addresses on the node and the server behind it, and to try again while something else holds
//! the port. It must not know what is in the zone.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use arc_swap::ArcSwap;
use penstock_dns::{Forwarder, Listening, ServiceName, ServiceRecord, Zone, ZoneConfig};
use penstock_network::Network;
use tokio_util::sync::CancellationToken;

use crate::options::Run;

/// Pause between attempts to bind.
const RETRY_EVERY: Duration = Duration::from_secs(5);

/// The zone to be filled, and the server as a future. Nothing is served before the zone was filled once: "no such
/// name" about a name that exists would be remembered.
pub fn start(
    options: &Run,
    network: Arc<Network>,
    shutdown: CancellationToken,
) -> (Names, impl Future<Output = ()> + use<>) {
    let zone = Zone::new(ZoneConfig {
        domain: options.cluster_domain.clone(),
        addresses: options.cluster_dns.clone(),
        reverse: options.service_cidr.iter().chain(&options.cluster_cidr).copied().collect(),
    });
    let zone = Arc::new(ArcSwap::from_pointee(zone));
    let filled = CancellationToken::new();
    let names = Names { zone: zone.clone(), filled: filled.clone() };
    let own = options.cluster_dns.iter().chain(&options.node_ip).copied().collect();
    let forwarder = Arc::new(Forwarder::new(&options.resolv_conf, own));
    let addresses = options.cluster_dns.clone();
    let serving = async move {
        filled.cancelled().await;
        let each = addresses
            .iter()
            .map(|address| serve_on(&network, *address, zone.clone(), forwarder.clone(), shutdown.clone()));
        futures::future::join_all(each).await;
    };
    (names, serving)
}

/// The zone, for whoever fills it.
#[derive(Clone)]
pub struct Names {
    zone: Arc<ArcSwap<Zone>>,
    filled: CancellationToken,
}

impl Names {
    /// Says what Services are now, none for one that is gone; lookups under way keep what was.
    pub fn set(&self, services: impl Iterator<Item = (ServiceName, Option<ServiceRecord>)>) {
        let known = self.zone.load();
        let news = services.filter(|(name, record)| match record {
            Some(record) => !known.has(record),
            None => known.has_name(name),
        });
        let mut news = news.peekable();
        if news.peek().is_some() {
            let mut zone = Zone::clone(&known);
            for (name, record) in news {
                match record {
                    Some(record) => zone.insert(record),
                    None => zone.remove(&name),
                }
            }
            self.zone.store(Arc::new(zone));
        }
        self.filled.cancel();
    }
}

/// Serves on one address until `shutdown`.
async fn serve_on(
    network: &Network,
    address: IpAddr,
    zone: Arc<ArcSwap<Zone>>,
    forwarder: Arc<Forwarder>,
    shutdown: CancellationToken,
) {
    let mut said = false;
    while !shutdown.is_cancelled() {
        match bind(network, address).await {
            Ok(listening) => {
                tracing::info!(%address, "DNS is served");
                let served =
                    penstock_dns::serve(listening, zone.clone(), forwarder.clone(), shutdown.clone());
                if let Err(error) = served.await {
                    tracing::warn!(%address, %error, "DNS stopped");
                }
            }
            Err(error) if !std::mem::replace(&mut said, true) => {
                tracing::error!("DNS is not served on this node: {error:#}");
            }
            Err(_) => {}
        }
        shutdown.run_until_cancelled(tokio::time::sleep(RETRY_EVERY)).await;
    }
}

async fn bind(network: &Network, address: IpAddr) -> anyhow::Result<Listening> {
    network.ensure_local_address(address).await?;
    Listening::bind(SocketAddr::new(address, 53)).with_context(|| format!("{address} port 53"))
}
