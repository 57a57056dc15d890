//! The loop: follows the cluster through the shared caches, decides one pod at a time, and lets bindings run at
//! once. A placed pod is assumed to be where it was sent until the API shows it, so that deciding never waits for
//! binding.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::storage::v1::StorageClass;
use kube::Client;
use penstock_informers::failure::is_not_found;
use penstock_informers::{Cache, Delta, EventType, Informers, Meta, Recorder};
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::SchedulerConfig;
use crate::bind::{apply_binding, apply_eviction, apply_source, apply_unschedulable};
use crate::cluster::{Cluster, Placed};
use crate::decide::{Misfit, choose};
use crate::filters::volumes::{Source, plan_sources};
use crate::helps::Change;
use crate::preemption::{Preemption, plan_preemption};
use crate::queue::Queue;

/// The filter that waits for claims.
const VOLUMES: &str = "VolumeBinding";
const REVIVE_EVERY: Duration = Duration::from_secs(30);

pub(crate) struct Engine {
    client: Client,
    config: SchedulerConfig,
    recorder: Recorder,
    state: Mutex<State>,
    wake: Notify,
    bindings: Arc<Semaphore>,
    budgets: Arc<Cache<PodDisruptionBudget>>,
}

#[derive(Default)]
struct State {
    cluster: Cluster,
    queue: Queue,
    /// Pods sent to a node whose binding the API has not shown yet.
    assumed: HashSet<String>,
    start: usize,
}

impl State {
    fn changed(&mut self, change: Change<'_>) {
        let cluster = &self.cluster;
        self.queue.changed(Instant::now(), |pod, filters| change.helps(pod, filters, cluster));
    }
}

impl Engine {
    pub(crate) fn new(
        informers: &Informers,
        config: SchedulerConfig,
        shutdown: &CancellationToken,
    ) -> Arc<Self> {
        let client = informers.client().clone();
        Arc::new(Self {
            recorder: Recorder::new(client.clone(), "default-scheduler", shutdown.clone()),
            client,
            bindings: Arc::new(Semaphore::new(config.bindings_max.max(1))),
            config,
            state: Mutex::default(),
            wake: Notify::new(),
            budgets: informers.cache(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Follows everything a decision looks at. Pods come last: none is decided on an incomplete picture.
    pub(crate) async fn follow(self: &Arc<Self>, informers: &Informers) {
        let nodes = informers.cache::<Node>();
        let namespaces = informers.cache::<Namespace>();
        let claims = informers.cache::<PersistentVolumeClaim>();
        let volumes = informers.cache::<PersistentVolume>();
        let classes = informers.cache::<StorageClass>();
        let pods = informers.cache::<Pod>();
        tokio::join!(
            nodes.wait_synced(),
            namespaces.wait_synced(),
            claims.wait_synced(),
            volumes.wait_synced(),
            classes.wait_synced(),
            pods.wait_synced(),
        );
        let engine = self.clone();
        nodes.subscribe(move |delta| engine.node_changed(delta));
        let engine = self.clone();
        namespaces.subscribe(move |delta| {
            let namespace = delta.object();
            let labels = namespace.metadata.labels.clone().unwrap_or_default();
            engine.state().cluster.namespace_labels.insert(namespace.name().to_owned(), labels);
        });
        let engine = self.clone();
        claims.subscribe(move |delta| {
            let claim = delta.object().clone();
            engine.storage_changed(|cluster| match delta {
                Delta::Deleted(_) => drop(cluster.claims.remove(&claim.key())),
                _ => drop(cluster.claims.insert(claim.key(), claim)),
            });
        });
        let engine = self.clone();
        volumes.subscribe(move |delta| {
            let volume = delta.object().clone();
            engine.storage_changed(|cluster| match delta {
                Delta::Deleted(_) => drop(cluster.volumes.remove(volume.name())),
                _ => drop(cluster.volumes.insert(volume.name().to_owned(), volume)),
            });
        });
        let engine = self.clone();
        classes.subscribe(move |delta| {
            let class = delta.object().clone();
            engine.storage_changed(|cluster| match delta {
                Delta::Deleted(_) => drop(cluster.classes.remove(class.name())),
                _ => drop(cluster.classes.insert(class.name().to_owned(), class)),
            });
        });
        let engine = self.clone();
        pods.subscribe(move |delta| engine.pod_changed(delta));
    }

    fn storage_changed(&self, change: impl FnOnce(&mut Cluster)) {
        let mut state = self.state();
        change(&mut state.cluster);
        state.changed(Change::Storage);
        drop(state);
        self.wake.notify_one();
    }

    fn node_changed(&self, delta: &Delta<'_, Node>) {
        let mut state = self.state();
        match delta {
            Delta::Deleted(node) => return state.cluster.remove_node(node.name()),
            Delta::Added(node) => state.cluster.put_node((*node).clone()),
            Delta::Updated { old, new } => {
                state.cluster.put_node((*new).clone());
                if same_for_scheduling(old, new) {
                    return;
                }
            }
        }
        state.changed(Change::Node(delta.object().name()));
        drop(state);
        self.wake.notify_one();
    }

    fn pod_changed(&self, delta: &Delta<'_, Pod>) {
        let pod = delta.object();
        let uid = pod.uid_str();
        let gone = matches!(delta, Delta::Deleted(_)) || is_finished(pod);
        let node = pod.spec.as_ref().and_then(|s| s.node_name.as_deref()).filter(|n| !n.is_empty());
        let mut state = self.state();
        if gone {
            state.assumed.remove(uid);
            state.queue.remove(uid);
            state.cluster.withdraw(uid);
            if let Some(node) = state.cluster.remove_pod(uid) {
                state.changed(Change::Node(&node));
            }
        } else if let Some(node) = node {
            state.queue.remove(uid);
            state.cluster.withdraw(uid);
            let assumed = state.assumed.remove(uid);
            let relabelled = matches!(delta, Delta::Updated { old, new }
                if old.metadata.labels != new.metadata.labels || old.spec != new.spec);
            state.cluster.put_pod(node, Placed::new(pod.clone()));
            if !assumed && (matches!(delta, Delta::Added(_)) || relabelled) {
                state.changed(Change::PodPlaced);
            }
        } else if self.is_ours(pod) && !state.assumed.contains(uid) {
            state.queue.put(pod.clone(), Instant::now());
        }
        drop(state);
        self.wake.notify_one();
    }

    fn is_ours(&self, pod: &Pod) -> bool {
        let Some(spec) = &pod.spec else { return false };
        let named = spec.scheduler_name.as_deref().unwrap_or("default-scheduler");
        let gated = spec.scheduling_gates.as_ref().is_some_and(|g| !g.is_empty());
        named == self.config.scheduler_name && !gated && !pod.deleting()
    }

    /// Decides pods until shutdown.
    pub(crate) async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        let mut revive = tokio::time::interval(REVIVE_EVERY);
        loop {
            let woken = self.wake.notified();
            let deadline = {
                let mut decided = 0;
                while self.decide_one() {
                    decided += 1;
                    // Bindings and watches share the runtime; a burst of pods must not starve them.
                    if decided % 16 == 0 {
                        tokio::task::yield_now().await;
                    }
                }
                self.state().queue.next_deadline()
            };
            let far = Instant::now() + REVIVE_EVERY;
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = woken => {}
                () = tokio::time::sleep_until(deadline.unwrap_or(far)) => {}
                _ = revive.tick() => self.state().queue.revive(Instant::now()),
            }
        }
    }

    fn decide_one(self: &Arc<Self>) -> bool {
        let mut state = self.state();
        let Some(pod) = state.queue.next(Instant::now()) else {
            return false;
        };
        if !self.is_ours(&pod) {
            state.queue.remove(pod.uid_str());
            return true;
        }
        let start = state.start;
        state.start = start.wrapping_add(1);
        match choose(&pod, &state.cluster, start) {
            Ok(node) => {
                let sources = self.sources(&pod, &state.cluster, &node);
                if !sources.is_empty() {
                    // Tried again when a claim or volume changed: then the volumes say where it can go.
                    state.queue.park(pod.uid_str(), [VOLUMES].into(), Instant::now());
                    drop(state);
                    tokio::spawn(self.clone().give_volumes(pod, sources, node));
                    return true;
                }
                // Assumed from here on: the next decision sees the pod there.
                state.assumed.insert(pod.uid_str().to_owned());
                state.cluster.withdraw(pod.uid_str());
                state.cluster.put_pod(&node, Placed::new(pod.clone()));
                drop(state);
                tokio::spawn(self.clone().bind(pod, node));
            }
            Err(misfit) => {
                let preemption = self.preemption(&pod, &state.cluster, &misfit);
                if let Some(preemption) = &preemption {
                    state.cluster.nominate(&preemption.node, Placed::new(pod.clone()));
                }
                state.queue.park(pod.uid_str(), misfit.filters.clone(), Instant::now());
                drop(state);
                tokio::spawn(self.clone().report(pod, misfit, preemption));
            }
        }
        true
    }

    fn preemption(&self, pod: &Arc<Pod>, cluster: &Cluster, misfit: &Misfit) -> Option<Preemption> {
        // Room is being made already: wait for the victims to go.
        let nominated = pod.status.as_ref().and_then(|s| s.nominated_node_name.as_ref());
        if let Some(state) = nominated.and_then(|n| cluster.nodes.get(n))
            && state
                .pods
                .values()
                .any(|p| p.pod.deleting() && crate::decide::priority(&p.pod) < crate::decide::priority(pod))
        {
            return None;
        }
        plan_preemption(pod, cluster, misfit, &self.budgets.list())
    }

    /// What the pod's claims need before it can go to the node.
    fn sources(
        &self,
        pod: &Arc<Pod>,
        cluster: &Cluster,
        node: &str,
    ) -> Vec<(Arc<PersistentVolumeClaim>, Source)> {
        let node = cluster.nodes.get(node).map(|state| &state.node);
        node.and_then(|node| plan_sources(pod, cluster, node)).unwrap_or_default()
    }

    async fn give_volumes(
        self: Arc<Self>,
        pod: Arc<Pod>,
        sources: Vec<(Arc<PersistentVolumeClaim>, Source)>,
        node: String,
    ) {
        let _permit = self.bindings.acquire().await;
        for (claim, source) in sources {
            if let Err(error) = apply_source(&self.client, &claim, &source, &node).await {
                self.state().queue.back_off_if_parked(pod.uid_str(), Instant::now());
                self.wake.notify_one();
                let message = format!("giving claim {} a volume on {node}: {error}", claim.name());
                self.recorder.record(pod.as_ref(), EventType::Warning, "FailedScheduling", message);
                return;
            }
        }
    }

    async fn bind(self: Arc<Self>, pod: Arc<Pod>, node: String) {
        let _permit = self.bindings.acquire().await;
        match apply_binding(&self.client, &pod, &node).await {
            Ok(()) => {
                let message = format!("Successfully assigned {} to {node}", pod.key());
                self.recorder.record(pod.as_ref(), EventType::Normal, "Scheduled", message);
            }
            Err(error) => {
                let mut state = self.state();
                // Only if the API has not shown it as placed or gone meanwhile.
                if state.assumed.remove(pod.uid_str()) {
                    state.cluster.remove_pod(pod.uid_str());
                    if is_not_found(&error) {
                        state.queue.remove(pod.uid_str());
                    } else {
                        state.queue.back_off(pod.uid_str(), Instant::now());
                    }
                    state.changed(Change::Node(&node));
                }
                drop(state);
                self.wake.notify_one();
                if !is_not_found(&error) {
                    let message = format!("binding to {node}: {error}");
                    self.recorder.record(pod.as_ref(), EventType::Warning, "FailedScheduling", message);
                }
            }
        }
    }

    async fn report(self: Arc<Self>, pod: Arc<Pod>, misfit: Misfit, preemption: Option<Preemption>) {
        let _permit = self.bindings.acquire().await;
        let mut message = misfit.message();
        if preemption.is_none() && misfit.nodes > 0 {
            let hopeless = misfit.rejections.values().filter(|r| !r.resolvable).count();
            let useless = misfit.rejections.len() - hopeless;
            let mut parts = Vec::new();
            if useless > 0 {
                parts.push(format!("{useless} No preemption victims found for incoming pod"));
            }
            if hopeless > 0 || misfit.whole.is_some() {
                let count = if misfit.whole.is_some() { misfit.nodes } else { hopeless };
                parts.push(format!("{count} Preemption is not helpful for scheduling"));
            }
            let parts = parts.join(", ");
            message.push_str(&format!(" preemption: 0/{} nodes are available: {parts}.", misfit.nodes));
        }
        self.recorder.record(pod.as_ref(), EventType::Warning, "FailedScheduling", message.clone());
        let nominated = preemption.as_ref().map(|p| p.node.as_str());
        let written = apply_unschedulable(&self.client, &pod, "Unschedulable", &message, nominated).await;
        if let Err(error) = written
            && !is_not_found(&error)
        {
            tracing::debug!(pod = %pod.key(), %error, "reason of waiting not written");
        }
        for victim in preemption.iter().flat_map(|p| &p.victims) {
            match apply_eviction(&self.client, victim, &self.config.scheduler_name).await {
                Ok(()) => {
                    let by = format!(
                        "Preempted by pod {} on node {}",
                        pod.uid_str(),
                        nominated.unwrap_or_default()
                    );
                    self.recorder.record(victim.as_ref(), EventType::Normal, "Preempted", by);
                }
                Err(error) if is_not_found(&error) => {}
                Err(error) => {
                    tracing::warn!(victim = %victim.key(), %error, "victim not removed");
                    self.state().cluster.withdraw(pod.uid_str());
                }
            }
        }
    }
}

fn is_finished(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// Whether a node's change (a heartbeat, say) can make no difference to any pod.
fn same_for_scheduling(old: &Node, new: &Node) -> bool {
    let room = |n: &Node| n.status.as_ref().map(|s| (s.allocatable.clone(), s.capacity.clone()));
    let limits = |n: &Node| n.spec.as_ref().map(|s| (s.taints.clone(), s.unschedulable));
    old.metadata.labels == new.metadata.labels && room(old) == room(new) && limits(old) == limits(new)
}
