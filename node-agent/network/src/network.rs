//! The network of one node: what the plugin's requests and the list of nodes become.
//!
//! It exists to hold the ledger and the kernel together, so that an address, its file and its link come and go as
//! one. It must not know the Kubernetes API.

mod sweep;
mod verbs;

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use ipnetwork::IpNetwork;
use parking_lot::Mutex;
use penstock_cni::protocol::{AttachmentId, Refusal, Request, Response, Why};
use tokio::net::UnixListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::attachment::Attachment;
use crate::families::{NodeIps, PodRanges};
use crate::hooks::{HookError, PodHooks, PodLink};
use crate::install::{InstallError, ensure_conflist, ensure_plugin};
use crate::ipam::{IpamError, Ledger};
use crate::links::{Kernel, LinkError, Uplink};
use crate::netns::{Netns, NetnsError};
use crate::routes::{
    Ground, Local, Overlay, Peer, RouteError, apply_change, compile_routes, ensure_no_tunnel, ensure_tunnel,
    observe_routes, plan_routes, tunnel_overhead_bytes,
};
use crate::server;

/// How often attachments whose link vanished are looked for. A sandbox whose DEL was lost takes its link with its
/// namespace; its address comes back within this time.
const SWEEP_EVERY: Duration = Duration::from_secs(30);

/// How the network is to be.
#[derive(Debug, Clone)]
pub struct NetworkConfig {
    /// This node's name.
    pub node: String,
    /// This node's addresses.
    pub node_ips: NodeIps,
    /// The device that leads to other nodes; by default the one with the first address.
    pub uplink: Option<String>,
    /// Holds `cni.sock` and `ipam/`.
    pub state_dir: PathBuf,
    /// Where the runtime looks for configurations; none to write none.
    pub conf_dir: Option<PathBuf>,
    /// Where the runtime looks for plugins; none to install none.
    pub bin_dir: Option<PathBuf>,
    /// The plugin to install.
    pub plugin: PathBuf,
    /// When to tunnel.
    pub overlay: Overlay,
    /// Ranges that must not leave by the default route: the cluster's pods, its services.
    pub fenced: Vec<IpNetwork>,
    /// The node's network namespace.
    pub netns: Netns,
}

/// Why the network does not work.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// The socket cannot be bound.
    #[error("the CNI socket {path:?} cannot be bound")]
    Socket {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Devices.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// Addresses.
    #[error(transparent)]
    Ipam(#[from] IpamError),
    /// Routes.
    #[error(transparent)]
    Route(#[from] RouteError),
    /// Namespaces.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// The plugin or its configuration.
    #[error(transparent)]
    Install(#[from] InstallError),
    /// The data plane refused a pod's link.
    #[error("the data plane refused the link of {container}")]
    Hook {
        /// Whose.
        container: String,
        /// Why.
        #[source]
        source: HookError,
    },
    /// The node's range is not known yet.
    #[error("the node has no range of pod addresses yet (spec.podCIDR)")]
    NoRange,
}

/// The network of one node.
pub struct Network {
    config: NetworkConfig,
    kernel: Kernel,
    hooks: Arc<dyn PodHooks>,
    /// None until the node's range is known.
    ledger: Mutex<Option<Ledger>>,
    /// One lock an attachment in progress, so that an ADD and a DEL of one never interleave. At most one entry a
    /// connection.
    busy: Mutex<HashMap<AttachmentId, Arc<tokio::sync::Mutex<()>>>>,
    /// MTU of new links.
    pod_mtu: AtomicU32,
    /// The VXLAN device; zero while there is none.
    tunnel: AtomicU32,
    pod_ranges: watch::Sender<Option<PodRanges>>,
    attachments: watch::Sender<Arc<Vec<Attachment>>>,
    /// One sync of routes at a time.
    routing: tokio::sync::Mutex<()>,
}

impl Network {
    /// Opens the node's namespace and makes it forward. Answers nothing until [`serve`](Self::serve).
    pub async fn open(config: NetworkConfig, hooks: Arc<dyn PodHooks>) -> Result<Arc<Self>, NetworkError> {
        let kernel = Kernel::open(config.netns.clone())?;
        let uplink = kernel.observe_uplink(config.uplink.as_deref(), config.node_ips.first()).await?;
        kernel.ensure_sysctls(&[
            ("net/ipv4/ip_forward".into(), "1"),
            (format!("net/ipv4/conf/{}/rp_filter", uplink.name), "2"),
        ])?;
        if config.node_ips.v6().is_some() {
            kernel.ensure_v6_forwarding(&uplink.name)?;
        }
        let network = Arc::new(Self {
            kernel,
            hooks,
            ledger: Mutex::new(None),
            busy: Mutex::default(),
            pod_mtu: AtomicU32::new(mtu_for(&config, &uplink, config.overlay == Overlay::Always)),
            tunnel: AtomicU32::new(0),
            pod_ranges: watch::Sender::new(None),
            attachments: watch::Sender::default(),
            routing: tokio::sync::Mutex::new(()),
            config,
        });
        Ok(network)
    }

    /// Where the plugin finds the agent.
    pub fn socket(&self) -> PathBuf {
        self.config.state_dir.join("cni.sock")
    }

    /// Binds the socket; from here on the plugin is answered, if only with "not yet".
    pub fn bind(&self) -> Result<UnixListener, NetworkError> {
        server::bind(&self.socket()).map_err(|source| NetworkError::Socket { path: self.socket(), source })
    }

    /// Serves the plugin until `shutdown`.
    pub async fn serve(self: Arc<Self>, listener: UnixListener, shutdown: CancellationToken) {
        let sweeping = {
            let (network, shutdown) = (self.clone(), shutdown.clone());
            tokio::spawn(async move {
                while shutdown.run_until_cancelled(tokio::time::sleep(SWEEP_EVERY)).await.is_some() {
                    network.sweep().await;
                }
            })
        };
        server::serve(self, listener, shutdown).await;
        sweeping.abort();
    }

    /// Takes the node's ranges: finds what an earlier agent left, removes what nobody holds, hands every living
    /// link to the hooks, and only then tells the runtime that the network is there.
    pub async fn set_pod_ranges(&self, ranges: PodRanges) -> Result<(), NetworkError> {
        if *self.pod_ranges.borrow() == Some(ranges) {
            return Ok(());
        }
        let ledger = Ledger::open(&self.config.state_dir.join("ipam"), ranges)?;
        *self.ledger.lock() = Some(ledger);
        self.reconcile().await?;
        self.pod_ranges.send_replace(Some(ranges));
        if let Some(bin_dir) = &self.config.bin_dir {
            ensure_plugin(bin_dir, &self.config.plugin)?;
        }
        if let Some(conf_dir) = &self.config.conf_dir {
            ensure_conflist(conf_dir, &self.socket())?;
        }
        Ok(())
    }

    /// The node's ranges, as they become known.
    pub fn pod_ranges(&self) -> watch::Receiver<Option<PodRanges>> {
        self.pod_ranges.subscribe()
    }

    /// The pods' attachments on this node, as they come and go.
    pub fn attachments(&self) -> watch::Receiver<Arc<Vec<Attachment>>> {
        self.attachments.subscribe()
    }

    /// Makes the routes fit the nodes. Reads the kernel each time, so it also repairs. Every change is tried; the
    /// first error is returned.
    pub async fn sync_routes(&self, peers: &[Peer]) -> Result<usize, NetworkError> {
        let _one = self.routing.lock().await;
        let uplink = self.observe_uplink().await?;
        let ranges = *self.pod_ranges.borrow();
        let local = Local {
            node: self.config.node.clone(),
            tunnel_end: self.config.node_ips.first(),
            connected: uplink.connected.clone(),
            pod_cidrs: ranges.iter().flat_map(PodRanges::all).collect(),
            overlay: self.config.overlay,
            fenced: self.config.fenced.clone(),
        };
        let desired = compile_routes(&local, peers);
        let tunnelled = !desired.tunnels.is_empty() || self.config.overlay == Overlay::Always;
        self.pod_mtu.store(mtu_for(&self.config, &uplink, tunnelled), Ordering::Relaxed);
        let tunnel = match ranges {
            Some(ranges) if tunnelled => {
                Some(ensure_tunnel(&self.kernel, &uplink, self.config.node_ips.first(), ranges).await?)
            }
            _ => None,
        };
        self.tunnel.store(tunnel.unwrap_or_default(), Ordering::Relaxed);
        let ground = Ground {
            uplink: uplink.index,
            tunnel,
            node_ips: self.config.node_ips,
            inner_v4: ranges.and_then(|ranges| ranges.v4()).map(|range| range.network()),
            inner_v6: ranges.and_then(|ranges| ranges.v6()).map(|range| range.network()),
        };
        let observed = observe_routes(&self.kernel).await?;
        let (mut applied, mut first_error) = (0, None);
        for change in plan_routes(&desired, &observed) {
            match apply_change(&self.kernel, &ground, &change).await {
                Ok(()) => applied += 1,
                Err(error) => {
                    tracing::warn!(%error, cause = %cause(&error), "a route to another node is not in place");
                    first_error.get_or_insert(error);
                }
            }
        }
        if !tunnelled {
            ensure_no_tunnel(&self.kernel).await?;
        }
        match first_error {
            Some(error) => Err(error.into()),
            None => Ok(applied),
        }
    }

    /// Index of the VXLAN device, as of the last sync of routes.
    pub fn tunnel_index(&self) -> Option<u32> {
        Some(self.tunnel.load(Ordering::Relaxed)).filter(|index| *index != 0)
    }

    /// Index of the uplink in the node's namespace.
    pub async fn observe_uplink_index(&self) -> Result<u32, NetworkError> {
        Ok(self.observe_uplink().await?.index)
    }

    async fn observe_uplink(&self) -> Result<Uplink, LinkError> {
        self.kernel.observe_uplink(self.config.uplink.as_deref(), self.config.node_ips.first()).await
    }

    /// Puts `address` on `lo` for a server on this node. The kernel does not pick it as the source of other packets: of
    /// IPv4 its scope is `host`, of IPv6 the addresses of the device a packet leaves by come first (RFC 6724, rule 5).
    pub async fn ensure_local_address(&self, address: IpAddr) -> Result<(), NetworkError> {
        Ok(self.kernel.ensure_local_address(address).await?)
    }

    /// Answers one request of the plugin.
    pub async fn answer(&self, request: Request) -> Response {
        let answered = match request {
            Request::Add(add) => self.add(add).await.map(Response::Attached),
            Request::Del(del) => self.del(&del.id).await.map(|()| Response::Done),
            Request::Check(check) => self.check(&check).await,
            Request::Gc(gc) => self.gc(&gc.network, &BTreeSet::from_iter(gc.keep)).await,
            Request::Status => self.status().await,
        };
        answered.unwrap_or_else(|error| {
            let why = match &error {
                NetworkError::NoRange => Why::NotReady,
                NetworkError::Ipam(IpamError::Exhausted { .. }) => Why::Exhausted,
                NetworkError::Link(LinkError::Netns(NetnsError::Open { .. }))
                | NetworkError::Netns(NetnsError::Open { .. }) => Why::Invalid,
                _ => Why::Failed,
            };
            Response::Refused(Refusal { why, message: cause(&error) })
        })
    }

    fn with_ledger<T>(&self, work: impl FnOnce(&mut Ledger) -> T) -> Result<T, NetworkError> {
        self.ledger.lock().as_mut().map(work).ok_or(NetworkError::NoRange)
    }

    /// Tells whoever listens which attachments there are.
    fn publish(&self) {
        if let Ok(all) = self.with_ledger(|ledger| ledger.all().cloned().collect::<Vec<_>>()) {
            self.attachments.send_replace(Arc::new(all));
        }
    }

    fn lock_of(&self, id: &AttachmentId) -> Arc<tokio::sync::Mutex<()>> {
        self.busy.lock().entry(id.clone()).or_default().clone()
    }

    /// Drops the lock of an attachment when nobody else waits for it.
    fn forget_lock(&self, id: &AttachmentId, lock: Arc<tokio::sync::Mutex<()>>) {
        let mut busy = self.busy.lock();
        // Two: the table's and ours.
        if Arc::strong_count(&lock) <= 2 {
            busy.remove(id);
        }
    }

    /// Calls a hook where it may block.
    async fn hook(
        &self,
        link: PodLink,
        call: impl FnOnce(&dyn PodHooks, &PodLink) -> Result<(), HookError> + Send + 'static,
    ) -> Result<(), HookError> {
        let hooks = self.hooks.clone();
        tokio::task::spawn_blocking(move || call(hooks.as_ref(), &link))
            .await
            .unwrap_or_else(|error| Err(HookError { message: format!("the hook panicked: {error}") }))
    }
}

/// MTU of pods' links: the uplink's, less the tunnel's header as soon as one node is behind a tunnel.
fn mtu_for(config: &NetworkConfig, uplink: &Uplink, tunnelled: bool) -> u32 {
    match tunnelled && config.overlay != Overlay::Never {
        true => uplink.mtu.saturating_sub(tunnel_overhead_bytes(config.node_ips.first())),
        false => uplink.mtu,
    }
}

/// The error and every cause below it, in one line: what the runtime shows to people.
fn cause(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text.push_str(": ");
        text.push_str(&error.to_string());
        next = error.source();
    }
    text
}
