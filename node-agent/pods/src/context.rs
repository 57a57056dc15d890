//! What all workers of the node share.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use kube::runtime::reflector::Store;
use parking_lot::Mutex;
use penstock_runtime::{Runtime, RuntimeEvent, RuntimeEventKind};
use tokio::sync::Notify;

use crate::cgroups::Cgroups;
use crate::config::PodsConfig;
use crate::desired::Desired;
use crate::events::Recorder;
use crate::fields::Allocatable;
use crate::images::Images;
use crate::ledger::Ledger;
use crate::metrics::Metrics;
use crate::objects::Objects;
use crate::rotation::Rotation;
use crate::volumes::Volumes;

/// See the module.
pub struct Context {
    /// Settings.
    pub config: PodsConfig,
    /// API.
    pub client: kube::Client,
    /// Runtime.
    pub runtime: Arc<dyn Runtime>,
    /// `containerd` in `containerd://…`.
    pub runtime_name: String,
    /// Events.
    pub events: Recorder,
    /// Cached reads.
    pub objects: Arc<Objects>,
    /// Volumes.
    pub volumes: Volumes,
    /// Images.
    pub images: Images,
    /// Services, for links in environments.
    pub services: Store<Service>,
    /// Pod cgroups.
    pub cgroups: Cgroups,
    /// What the node can give.
    pub node: Allocatable,
    /// What of it the node's pods were given.
    pub ledger: Ledger,
    /// Lowest OOM score this process may set.
    pub oom_score_adj_min: i64,
    /// Who wants to hear of which container.
    pub routes: Routes,
    /// Pods as wanted, by UID, for `/pods` and statistics.
    pub pods: Mutex<HashMap<String, Arc<Desired>>>,
    /// Counters.
    pub metrics: Metrics,
    /// Whoever programs Services on this node, if it can be asked.
    pub rotation: Option<Arc<dyn Rotation>>,
}

impl Context {
    /// The node's resolver file, read anew each time: it changes with the network.
    pub fn node_resolver(&self) -> String {
        std::fs::read_to_string(&self.config.resolv_conf).unwrap_or_default()
    }
}

/// Container and sandbox ids to the workers that own them.
#[derive(Default)]
pub struct Routes {
    by_id: Mutex<HashMap<String, Arc<Notify>>>,
}

impl Routes {
    /// From now on news of these ids, and of no others, wake `worker`.
    pub fn set<'a>(&self, worker: &Arc<Notify>, ids: impl Iterator<Item = &'a str>) {
        let mut routes = self.by_id.lock();
        routes.retain(|_, w| !Arc::ptr_eq(w, worker));
        routes.extend(ids.map(|id| (id.to_string(), worker.clone())));
    }

    /// Forgets a worker.
    pub fn remove(&self, worker: &Arc<Notify>) {
        self.by_id.lock().retain(|_, w| !Arc::ptr_eq(w, worker));
    }

    /// Wakes who is concerned; everyone when events may have been lost, or when the id is not known yet: a process may
    /// end before its worker has seen that it began.
    pub fn wake(&self, event: Option<&RuntimeEvent>) {
        let routes = self.by_id.lock();
        match event.filter(|e| e.kind != RuntimeEventKind::Resync).and_then(|e| routes.get(&e.id)) {
            Some(worker) => worker.notify_one(),
            None => routes.values().for_each(|w| w.notify_one()),
        }
    }
}

/// The lowest OOM score this process may give: its own, unless it has CAP_SYS_RESOURCE.
pub fn observe_oom_score_adj_min() -> i64 {
    const CAP_SYS_RESOURCE: u32 = 24;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let capabilities = status.lines().find_map(|l| l.strip_prefix("CapEff:")).map(str::trim);
    let capabilities = capabilities.and_then(|hex| u64::from_str_radix(hex, 16).ok()).unwrap_or(0);
    if capabilities >> CAP_SYS_RESOURCE & 1 == 1 {
        return -1000;
    }
    let own = std::fs::read_to_string("/proc/self/oom_score_adj").ok();
    own.and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

/// Free and total bytes of the file system a path is on.
pub fn observe_disk(path: &Path) -> Option<(u64, u64)> {
    let stat = nix::sys::statvfs::statvfs(path).ok()?;
    let unit = stat.fragment_size();
    Some((stat.blocks_available() * unit, stat.blocks() * unit))
}
