//! Pods: the kubelet half of the agent.
//!
//! Registers the node, watches the pods bound to it and keeps the runtime at what they say; answers the API server on
//! port 10250. Deciding is pure ([`plan`], [`phase`] and the `compile` functions), doing is in the workers. It must
//! not know a concrete runtime, nor anything of the pod network beyond what the runtime reports.
//!
//! The way of a pod: `dispatch` (watch) → `admission` → `worker` (one each) → [`observed`] + [`memory`] → [`plan`] → operations on the
//! runtime; beside it [`phase`] → `status_writer` → the API server.

mod config;
mod context;
mod error;

mod admission;
mod dispatch;
mod worker;
mod worker_cleanup;

pub mod allocation;
pub mod desired;
pub mod in_force;
mod ledger;
pub mod memory;
pub mod observed;
pub mod phase;
pub mod plan;

mod cgroups;
mod class_weights;
mod container;
mod env;
mod fields;
mod hosts;
mod image_volumes;
mod images;
mod probes;
mod quantity;
mod quiet;
pub mod resources;
mod rotation;
mod sandbox;
mod volumes;

mod events;
mod last_words;
mod logs;
mod metrics;
mod mirror;
mod names;
mod node;
mod objects;
mod server;
mod static_pods;
mod status_writer;
mod watch_pause;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

// Compiles what kube and serde make of them there, once.
use penstock_kinds as _;

use futures::StreamExt;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::Api;
use kube::runtime::reflector::{self, Store};
use kube::runtime::{WatchStreamExt, watcher};
use penstock_runtime::Runtime;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use config::PodsConfig;
pub use error::PodsError;
pub use rotation::{Answer, Question, Rotation};
pub use watch_pause::WatchPause;

use context::Context;

/// Runs until `shutdown`; containers go on running when it returns, and the next start adopts them. With `rotation`, pods
/// that end are stopped when they get no new connections any more.
///
/// # Errors
/// Only what no retry can heal: directories that cannot be made, a serving certificate that cannot be read, a port in
/// use. An API server or runtime that is away is waited for.
pub async fn run(
    config: PodsConfig,
    client: kube::Client,
    runtime: Arc<dyn Runtime>,
    rotation: Option<Arc<dyn Rotation>>,
    shutdown: CancellationToken,
) -> Result<(), PodsError> {
    for dir in [&config.state_dir, &config.kubelet_dir.join("pods"), &config.pod_logs_dir] {
        ensure_dir(dir)?;
    }
    let mut tasks = JoinSet::new();
    let services = start_services(client.clone(), &mut tasks, shutdown.clone());
    let runtime_name = runtime.version().await.map(|v| v.name).ok().filter(|n| !n.is_empty());
    let objects = Arc::new(objects::Objects::new(client.clone()));
    let node = node::observe_allocatable(&config.kubelet_dir);
    let context = Arc::new(Context {
        runtime_name: runtime_name.unwrap_or_else(|| "containerd".to_string()),
        events: events::Recorder::start(client.clone(), config.node_name.clone()),
        volumes: volumes::Volumes {
            client: client.clone(),
            objects: objects.clone(),
            tokens: volumes::Tokens::default(),
            kubelet_dir: config.kubelet_dir.clone(),
            node: node.clone(),
        },
        objects,
        images: images::Images::default(),
        services,
        cgroups: cgroups::Cgroups::observe(&config.cgroup_parent),
        ledger: ledger::Ledger::new(node::compile_usable(&node)),
        node,
        oom_score_adj_min: context::observe_oom_score_adj_min(),
        routes: context::Routes::default(),
        pods: parking_lot::Mutex::default(),
        metrics: metrics::Metrics::default(),
        client,
        runtime,
        rotation,
        config,
    });
    server::start(context.clone(), shutdown.clone()).await?;
    tasks.spawn(node::run_status(context.clone(), shutdown.clone()));
    tasks.spawn(node::run_lease(context.clone(), shutdown.clone()));
    tasks.spawn(class_weights::run(context.clone(), shutdown.clone()));
    tasks.spawn(worker::route_events(context.clone(), shutdown.clone()));
    tasks.spawn(logs::rotate::run(context.clone(), shutdown.clone()));
    let statics = start_static_pods(&context.config, &mut tasks, shutdown.clone());
    tasks.spawn(dispatch::run(context, statics, shutdown));
    while tasks.join_next().await.is_some() {}
    Ok(())
}

fn ensure_dir(path: &Path) -> Result<(), PodsError> {
    std::fs::create_dir_all(path).map_err(|source| PodsError::Path { path: path.to_path_buf(), source })
}

/// Pods of the manifest directory; none, for ever, when there is no such directory.
fn start_static_pods(
    config: &PodsConfig,
    tasks: &mut JoinSet<()>,
    shutdown: CancellationToken,
) -> watch::Receiver<BTreeMap<String, Pod>> {
    let Some(dir) = config.manifest_dir.clone() else {
        return watch::channel(BTreeMap::new()).1;
    };
    let node = config.node_name.clone();
    let (sender, receiver) = watch::channel(static_pods::observe(&dir, &node));
    tasks.spawn(static_pods::run(dir, node, sender, shutdown));
    receiver
}

/// Keeps all services at hand: containers learn of them by their environment.
fn start_services(
    client: kube::Client,
    tasks: &mut JoinSet<()>,
    shutdown: CancellationToken,
) -> Store<Service> {
    let (store, writer) = reflector::store();
    let api: Api<Service> = Api::all(client);
    let stream =
        reflector::reflector(writer, watcher(api, watcher::Config::default()).backoff(WatchPause::default()));
    tasks.spawn(async move {
        let mut stream = stream.boxed();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                event = stream.next() => if event.is_none() { return },
            }
        }
    });
    store
}

/// How often a property is tried in CI; `PENSTOCK_FUZZ_CASES` says how often instead.
#[cfg(test)]
fn fuzz_cases(of_ci: u32) -> proptest::prelude::ProptestConfig {
    let asked = std::env::var("PENSTOCK_FUZZ_CASES").ok().and_then(|cases| cases.parse().ok());
    proptest::prelude::ProptestConfig {
        cases: asked.unwrap_or(of_ci),
        failure_persistence: None,
        ..proptest::prelude::ProptestConfig::default()
    }
}
