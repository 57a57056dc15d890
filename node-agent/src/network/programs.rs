//! The data plane, which may come late: loading it, trying again, and handing it pods' links.
//!
//! It exists so that a node whose kernel or object file is wrong still has pod addresses, routes and DNS, and says
//! clearly what is missing. It must not know Services.

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Context;
use ipnetwork::IpNetwork;
use penstock_dataplane::{Dataplane, DropLog, Inside, InsideRange, Limits, LoadOptions};
use penstock_network::{HookError, Network, PodHooks, PodLink};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;

use super::condition::{Condition, Part};
use crate::kernel;
use crate::options::Run;

/// Pause between attempts to load.
const RETRY_EVERY: Duration = Duration::from_secs(15);

/// The data plane, once it is loaded.
#[derive(Default)]
pub struct Programs {
    dataplane: OnceLock<Arc<Dataplane>>,
    loaded: Notify,
}

impl Programs {
    /// The data plane, if it is loaded.
    pub fn get(&self) -> Option<Arc<Dataplane>> {
        self.dataplane.get().cloned()
    }

    /// Returns when it is loaded.
    pub async fn wait(&self) -> Arc<Dataplane> {
        loop {
            let notified = self.loaded.notified();
            if let Some(dataplane) = self.get() {
                return dataplane;
            }
            notified.await;
        }
    }

    /// Tries to load it, and says in the node's condition how that went.
    pub async fn load(&self, options: &Run, uplink: u32, condition: &Condition) -> bool {
        let options = options.clone();
        let loaded = tokio::task::spawn_blocking(move || load(&options, uplink)).await;
        match loaded.context("loading panicked").and_then(|loaded| loaded) {
            Ok(dataplane) => {
                if let Some(drops) = dataplane.take_drop_log() {
                    tokio::spawn(follow(drops));
                }
                let _ = self.dataplane.set(Arc::new(dataplane));
                self.loaded.notify_waiters();
                condition.set(Part::Dataplane, Ok(()));
                tracing::info!("the eBPF programs are attached");
                true
            }
            Err(error) => {
                let message = format!("{error:#}");
                if condition.set(Part::Dataplane, Err(message.clone())) {
                    tracing::error!("Services are not served on this node: {message}");
                }
                false
            }
        }
    }
}

impl PodHooks for Programs {
    fn attach(&self, link: &PodLink) -> Result<(), HookError> {
        // Without programs a pod has its network, only no Services; `retry` attaches what it missed.
        let Some(dataplane) = self.get() else { return Ok(()) };
        let pod = penstock_dataplane::PodLink { ifindex: link.ifindex, addresses: link.addresses.clone() };
        dataplane.attach_pod(&pod).map_err(failed)
    }

    fn detach(&self, link: &PodLink) -> Result<(), HookError> {
        let Some(dataplane) = self.get() else { return Ok(()) };
        dataplane.detach_pod(link.ifindex).map_err(failed)
    }
}

/// Tries until it is loaded, then attaches the links that were made before.
pub async fn retry(
    programs: Arc<Programs>,
    network: Arc<Network>,
    options: Run,
    uplink: u32,
    condition: Condition,
) {
    if programs.get().is_none() {
        loop {
            tokio::time::sleep(RETRY_EVERY).await;
            if programs.load(&options, uplink, &condition).await {
                break;
            }
        }
        network.attach_all().await;
    }
    // Ending would end the half.
    std::future::pending::<()>().await;
}

fn load(options: &Run, uplink: u32) -> anyhow::Result<Dataplane> {
    kernel::ensure_bpffs(&options.bpffs)?;
    let cgroup_v2 = kernel::ensure_cgroup(&options.cgroup_parent)?;
    let object = options.ebpf_object.clone().unwrap_or_else(|| Run::beside("penstock.bpf.o"));
    let options = LoadOptions {
        object,
        bpffs: options.bpffs.join(kernel::PIN_DIR),
        cgroup_v2,
        uplink_ifindex: Some(uplink),
        node_ips: vec![IpAddr::V4(options.node_ipv4()?)],
        inside: inside(options),
        masquerade: options.masquerade,
        limits: Limits {
            services_max: options.services_max,
            vips_max: options.service_addresses_max,
            ..Limits::default()
        },
        tell_drops: options.log_drops,
    };
    Ok(Dataplane::load(options)?)
}

/// The ranges to which pods' packets go with their own addresses.
fn inside(options: &Run) -> Vec<InsideRange> {
    let range = |cidr: IpNetwork, of| InsideRange { address: cidr.network(), prefix: cidr.prefix(), of };
    [(options.cluster_cidr, Inside::Pods), (options.service_cidr, Inside::Services)]
        .into_iter()
        .map(|(cidr, of)| range(cidr.into(), of))
        .chain(options.non_masquerade_cidr.iter().map(|cidr| range(*cidr, Inside::Neighbours)))
        .collect()
}

/// Logs dropped packets as the programs tell of them.
async fn follow(drops: DropLog) {
    // SAFETY: the log owns the descriptor of its ring buffer, and the registration owns the log.
    let registered = unsafe { AsyncFd::register_with_interest(drops, Interest::READABLE) };
    let mut drops = match registered {
        Ok(drops) => drops,
        Err(error) => return tracing::error!("dropped packets are counted but not logged: {error}"),
    };
    while let Ok(mut ready) = drops.readable_mut().await {
        ready.get_inner_mut().flush();
        ready.clear_ready();
    }
}

fn failed(error: penstock_dataplane::DataplaneError) -> HookError {
    HookError { message: format!("{:#}", anyhow::Error::from(error)) }
}
