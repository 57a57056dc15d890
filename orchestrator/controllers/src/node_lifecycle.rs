//! Nodes that fall silent or report trouble: their conditions, their taints, and the pods on them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client};
use penstock_informers::cache::{Cache, Delta};
use penstock_informers::failure::{During, gone_is_fine};
use penstock_informers::{EventType, Failure, Key, Meta, Next, Reconcile, Recorder, WorkQueue, run_workers};
use tokio::time::Instant;

use crate::context::Context;
use crate::pod;

pub mod plan;

const LEASE_NAMESPACE: &str = "kube-node-lease";
/// A node that has never reported gets so long to do so.
const FIRST_REPORT: Duration = Duration::from_secs(60);

/// Runs the controller.
pub async fn run(context: Context) {
    let controller = Arc::new(Controller {
        client: context.client(),
        nodes: context.informers.cache(),
        leases: context.informers.cache(),
        pods: context.informers.cache(),
        grace: context.config.node_monitor_grace,
        heard: Mutex::default(),
        recorder: context.recorder("node-controller"),
    });
    let queue = Arc::new(WorkQueue::new());
    tokio::join!(
        controller.nodes.wait_synced(),
        controller.leases.wait_synced(),
        controller.pods.wait_synced()
    );
    let (adder, handler) = (queue.clone(), controller.clone());
    controller.nodes.subscribe(move |delta| {
        if let Delta::Deleted(node) = delta {
            handler.heard().remove(node.name());
        }
        adder.add(delta.object().key());
    });
    let (adder, handler) = (queue.clone(), controller.clone());
    controller.leases.subscribe(move |delta| {
        // A renewal matters only to a node that had been given up; the rest is told by the clock.
        let lease = delta.object();
        if lease.ns() == LEASE_NAMESPACE && handler.is_silent(lease.name()) {
            adder.add(Key::new("", lease.name()));
        }
    });
    let (adder, handler) = (queue.clone(), controller.clone());
    controller.pods.subscribe(move |delta| {
        if let Some(node) = pod::node_name(delta.object())
            && handler.nodes.get(&Key::new("", node)).is_some_and(|n| plan::evicts(&n))
        {
            adder.add(Key::new("", node));
        }
    });
    run_workers(controller, queue, 4, context.shutdown).await;
}

/// What was last heard of a node, and when (by our clock: the node's may be wrong).
struct Heard {
    sign: (Option<Timestamp>, Option<Timestamp>),
    at: Instant,
    reported: bool,
}

struct Controller {
    client: Client,
    nodes: Arc<Cache<Node>>,
    leases: Arc<Cache<Lease>>,
    pods: Arc<Cache<Pod>>,
    grace: Duration,
    heard: Mutex<HashMap<String, Heard>>,
    recorder: Recorder,
}

impl Controller {
    fn heard(&self) -> std::sync::MutexGuard<'_, HashMap<String, Heard>> {
        self.heard.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn is_silent(&self, node: &str) -> bool {
        self.nodes.get(&Key::new("", node)).is_some_and(|n| plan::ready(&n) == plan::Readiness::Unknown)
    }

    /// How long until the node counts as silent; zero when it does.
    fn observe_silence(&self, node: &Node) -> Duration {
        let lease = self.leases.get(&Key::new(LEASE_NAMESPACE, node.name()));
        let renewed = lease.and_then(|l| l.spec.as_ref()?.renew_time.as_ref().map(|t| t.0));
        // Our own writes of Unknown carry the last heartbeat along and are no sign of life.
        let beat = plan::condition(node, "Ready").and_then(|c| c.last_heartbeat_time.as_ref()).map(|t| t.0);
        let sign = (renewed, beat);
        let mut heard = self.heard();
        let entry = heard.entry(node.name().to_owned()).or_insert_with(|| Heard {
            sign,
            at: Instant::now(),
            reported: beat.is_some() || renewed.is_some(),
        });
        if entry.sign != sign {
            *entry = Heard { sign, at: Instant::now(), reported: true };
        }
        let limit = if entry.reported { self.grace } else { FIRST_REPORT };
        limit.saturating_sub(entry.at.elapsed())
    }

    async fn mark_silent(&self, node: &Node) -> Result<(), Failure> {
        let Some(changed) = plan::plan_silent(node, Timestamp::now()) else {
            return Ok(());
        };
        let api: Api<Node> = Api::all(self.client.clone());
        let written = api.replace_status(node.name(), &PostParams::default(), &changed).await;
        gone_is_fine(written).during(|| format!("status of node {}", node.name()))?;
        let message = format!("Node {} status is now: NodeNotReady", node.name());
        self.recorder.record(node, EventType::Normal, "NodeNotReady", message);
        Ok(())
    }

    async fn mark_pods_not_ready(&self, node: &Node) -> Result<(), Failure> {
        for pod in self.pods_on(node).into_iter().filter(|p| pod::is_ready(p)) {
            let patch = serde_json::json!({"metadata": {"uid": pod.uid_str()}, "status": {"conditions": [{
                "type": "Ready", "status": "False", "lastTransitionTime": Time(Timestamp::now()),
            }]}});
            let api: Api<Pod> = Api::namespaced(self.client.clone(), pod.ns());
            let patched =
                api.patch_status(pod.name(), &PatchParams::default(), &Patch::Strategic(&patch)).await;
            gone_is_fine(patched).during(|| format!("readiness of {}", pod.key()))?;
            let message = "Node is not ready";
            self.recorder.record(pod.as_ref(), EventType::Warning, "NodeNotReady", message);
        }
        Ok(())
    }

    fn pods_on(&self, node: &Node) -> Vec<Arc<Pod>> {
        let mut pods = self.pods.list();
        pods.retain(|p| pod::node_name(p) == Some(node.name()));
        pods
    }

    async fn ensure_taints(&self, node: &Node) -> Result<(), Failure> {
        // When no node at all is ready, the fault is more likely ours: nobody is evicted then.
        let all_dark = self.nodes.list().iter().all(|n| plan::ready(n) != plan::Readiness::True);
        let Some(taints) = plan::plan_taints(node, !all_dark, Timestamp::now()) else {
            return Ok(());
        };
        let patch = serde_json::json!({
            "metadata": {"resourceVersion": node.metadata.resource_version},
            "spec": {"taints": taints},
        });
        let api: Api<Node> = Api::all(self.client.clone());
        let patched = api.patch(node.name(), &PatchParams::default(), &Patch::Merge(&patch)).await;
        gone_is_fine(patched).map(drop).during(|| format!("taints of node {}", node.name()))
    }

    /// Evicts what does not tolerate the node's taints; returns when to look again.
    async fn evict(&self, node: &Node) -> Result<Option<Duration>, Failure> {
        if !plan::evicts(node) {
            return Ok(None);
        }
        let now = Timestamp::now();
        let mut next: Option<Duration> = None;
        for pod in self.pods_on(node).into_iter().filter(|p| !p.deleting() && !pod::is_finished(p)) {
            match plan::plan_eviction(node, &pod, now) {
                plan::Stay::ForEver => {}
                plan::Stay::For(seconds) if seconds > 0 => {
                    let wait = Duration::from_secs(seconds);
                    next = Some(next.map_or(wait, |n| n.min(wait)));
                }
                plan::Stay::For(_) => self.apply_eviction(&pod).await?,
            }
        }
        Ok(next)
    }

    async fn apply_eviction(&self, pod: &Pod) -> Result<(), Failure> {
        let message = format!("Marking for deletion Pod {}", pod.key());
        self.recorder.record(pod, EventType::Normal, "TaintManagerEviction", message);
        let api: Api<Pod> = Api::namespaced(self.client.clone(), pod.ns());
        let patch = serde_json::json!({"metadata": {"uid": pod.uid_str()}, "status": {"conditions": [{
            "type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager",
            "message": "Taint manager: deleting due to NoExecute taint",
            "lastTransitionTime": Time(Timestamp::now()),
        }]}});
        let patched = api.patch_status(pod.name(), &PatchParams::default(), &Patch::Strategic(&patch)).await;
        gone_is_fine(patched).during(|| format!("marking {}", pod.key()))?;
        let params = DeleteParams {
            preconditions: Some(Preconditions { uid: pod.metadata.uid.clone(), resource_version: None }),
            ..Default::default()
        };
        gone_is_fine(api.delete(pod.name(), &params).await)
            .map(drop)
            .during(|| format!("evicting {}", pod.key()))
    }
}

impl Reconcile for Controller {
    type Key = Key;
    const NAME: &'static str = "node-lifecycle";

    async fn reconcile(&self, key: &Key) -> Result<Next, Failure> {
        let Some(node) = self.nodes.get(key) else {
            return Ok(Next::Done);
        };
        let until_silent = self.observe_silence(&node);
        if until_silent.is_zero() {
            self.mark_silent(&node).await?;
        }
        if plan::ready(&node) != plan::Readiness::True && plan::condition(&node, "Ready").is_some() {
            self.mark_pods_not_ready(&node).await?;
        }
        self.ensure_taints(&node).await?;
        let eviction = self.evict(&node).await?;
        let clock = if until_silent.is_zero() { self.grace } else { until_silent };
        Ok(Next::After(eviction.map_or(clock, |e| e.min(clock)).max(Duration::from_millis(200))))
    }
}
