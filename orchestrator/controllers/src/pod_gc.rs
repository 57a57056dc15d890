//! Removes pods nobody else will: on nodes that are gone, going without ever having had a node, and finished ones
//! beyond a limit.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, Client};
use penstock_informers::cache::Cache;
use penstock_informers::failure::gone_is_fine;
use penstock_informers::{Key, Meta};
use tokio::time::Instant;

use crate::context::Context;
use crate::pod;

const SWEEP_EVERY: Duration = Duration::from_secs(20);
/// A node missing from the cache for so long is looked up live.
const MISSING_FOR: Duration = Duration::from_secs(40);

/// Runs the controller.
pub async fn run(context: Context) {
    let pods: Arc<Cache<Pod>> = context.informers.cache();
    let nodes: Arc<Cache<Node>> = context.informers.cache();
    tokio::join!(pods.wait_synced(), nodes.wait_synced());
    let client = context.client();
    let mut missing: HashMap<String, Instant> = HashMap::new();
    let mut ticks = tokio::time::interval(SWEEP_EVERY);
    loop {
        tokio::select! {
            () = context.shutdown.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let all = pods.list();
        for pod in plan_finished(&all, context.config.terminated_pods_max) {
            remove(&client, &pod, None).await;
        }
        for pod in all.iter().filter(|p| p.deleting() && pod::node_name(p).is_none()) {
            remove(&client, pod, None).await;
        }
        let gone = observe_gone_nodes(&client, &all, &nodes, &mut missing).await;
        for pod in all.iter().filter(|p| pod::node_name(p).is_some_and(|n| gone.iter().any(|g| g == n))) {
            remove(&client, pod, Some("PodGC: node no longer exists")).await;
        }
    }
}

/// The oldest finished pods beyond `keep`.
fn plan_finished(pods: &[Arc<Pod>], keep: usize) -> Vec<Arc<Pod>> {
    let mut finished: Vec<_> =
        pods.iter().filter(|p| pod::is_finished(p) && !p.deleting()).cloned().collect();
    let excess = finished.len().saturating_sub(keep);
    finished.sort_by_key(|p| p.created_seconds());
    finished.truncate(excess);
    finished
}

async fn observe_gone_nodes(
    client: &Client,
    pods: &[Arc<Pod>],
    nodes: &Cache<Node>,
    missing: &mut HashMap<String, Instant>,
) -> Vec<String> {
    let absent: std::collections::HashSet<&str> = pods
        .iter()
        .filter_map(|p| pod::node_name(p))
        .filter(|n| nodes.get(&Key::new("", *n)).is_none())
        .collect();
    missing.retain(|name, _| absent.contains(name.as_str()));
    let now = Instant::now();
    let mut gone = Vec::new();
    let api: Api<Node> = Api::all(client.clone());
    for name in absent {
        let since = *missing.entry(name.to_owned()).or_insert(now);
        if now.duration_since(since) >= MISSING_FOR && matches!(api.get_metadata_opt(name).await, Ok(None)) {
            gone.push(name.to_owned());
        }
    }
    gone
}

async fn remove(client: &Client, pod: &Pod, why: Option<&str>) {
    let api: Api<Pod> = Api::namespaced(client.clone(), pod.ns());
    if let Some(why) = why.filter(|_| !pod::is_finished(pod)) {
        // No agent will report the end of this pod any more.
        let patch = serde_json::json!({"metadata": {"uid": pod.uid_str()}, "status": {
            "phase": "Failed",
            "conditions": [{"type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC",
                "message": why, "lastTransitionTime": Time(Timestamp::now())}],
        }});
        let patched = api.patch_status(pod.name(), &PatchParams::default(), &Patch::Strategic(&patch)).await;
        if let Err(error) = gone_is_fine(patched) {
            tracing::debug!(pod = %pod.key(), %error, "end of pod not written");
        }
    }
    let params = DeleteParams {
        preconditions: Some(Preconditions { uid: pod.metadata.uid.clone(), resource_version: None }),
        ..DeleteParams::default()
    }
    .grace_period(0);
    if let Err(error) = gone_is_fine(api.delete(pod.name(), &params).await) {
        tracing::debug!(pod = %pod.key(), %error, "pod not collected");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::tests::{test_pod, time};

    #[test]
    fn the_oldest_finished_pods_beyond_the_limit_go() {
        let pods: Vec<Arc<Pod>> = [("new", 30), ("old", 10), ("running", 5)]
            .into_iter()
            .map(|(name, created)| {
                let phase = if name == "running" { "Running" } else { "Succeeded" };
                let mut pod = test_pod(name, None, phase, None);
                pod.metadata.creation_timestamp = Some(time(created));
                Arc::new(pod)
            })
            .collect();
        let names: Vec<_> = plan_finished(&pods, 1).iter().map(|p| p.name().to_owned()).collect();
        assert_eq!(names, ["old"]);
        assert!(plan_finished(&pods, 5).is_empty());
    }
}
