//! DNS on the cluster's address.
//!
//! It exists to put the address on the node and the server behind it, and to try again while something else holds
//! the port. It must not know what is in the zone.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use arc_swap::ArcSwap;
use penstock_dns::{Forwarder, Listening, Zone, ZoneConfig};
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
        address: options.cluster_dns,
        reverse: vec![options.service_cidr.into(), options.cluster_cidr.into()],
    });
    let zone = Arc::new(ArcSwap::from_pointee(zone));
    let filled = CancellationToken::new();
    let names = Names { zone: zone.clone(), filled: filled.clone() };
    let own = vec![options.cluster_dns, options.node_ip];
    let forwarder = Arc::new(Forwarder::new(&options.resolv_conf, own));
    let address = options.cluster_dns;
    let serving = async move {
        filled.cancelled().await;
        let mut said = false;
        while !shutdown.is_cancelled() {
            match bind(&network, address).await {
                Ok(listening) => {
                    tracing::info!(%address, "DNS is served");
                    if let Err(error) =
                        penstock_dns::serve(listening, zone.clone(), forwarder.clone(), shutdown.clone())
                            .await
                    {
                        tracing::warn!(%error, "DNS stopped");
                    }
                }
                Err(error) if !std::mem::replace(&mut said, true) => {
                    tracing::error!("DNS is not served on this node: {error:#}");
                }
                Err(_) => {}
            }
            shutdown.run_until_cancelled(tokio::time::sleep(RETRY_EVERY)).await;
        }
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
    /// Changes the zone; lookups under way keep the old one.
    pub fn update(&self, change: impl FnOnce(&mut Zone)) {
        let mut zone = Zone::clone(&self.zone.load());
        change(&mut zone);
        self.zone.store(Arc::new(zone));
        self.filled.cancel();
    }
}

async fn bind(network: &Network, address: IpAddr) -> anyhow::Result<Listening> {
    let IpAddr::V4(four) = address else { anyhow::bail!("--cluster-dns {address} is not an IPv4 address") };
    network.ensure_local_address(four).await?;
    Listening::bind(SocketAddr::new(address, 53)).with_context(|| format!("{address} port 53"))
}
