//! What stands in for the agents of all nodes: bound pods run at once, pods told to go are gone.
//!
//! A pod with the annotation `stand-in/exit` ends with that exit code; one with `stand-in/silent` is left alone.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use penstock_informers::cache::Cache;
use penstock_informers::failure::{During, gone_is_fine};
use penstock_informers::{Failure, Informers, Key, Meta, Next, Reconcile, WorkQueue, run_workers};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

/// Plays all agents until `shutdown`.
pub async fn run(informers: Informers, shutdown: CancellationToken) {
    let agents = Arc::new(Agents { client: informers.client().clone(), pods: informers.cache() });
    let queue = Arc::new(WorkQueue::new());
    agents.pods.wait_synced().await;
    let adder = queue.clone();
    agents.pods.subscribe(move |delta| adder.add(delta.object().key()));
    run_workers(agents, queue, 4, shutdown).await;
}

struct Agents {
    client: Client,
    pods: Arc<Cache<Pod>>,
}

/// The status to report for a pod that has none from its agent yet.
fn plan_status(pod: &Pod) -> Value {
    let now = jiff::Timestamp::now().to_string();
    let containers = pod.spec.iter().flat_map(|s| &s.containers);
    // The address follows from the UID, so that two pods rarely share one.
    let place = pod.uid_str().bytes().fold(7_u32, |sum, b| sum.wrapping_mul(31) + u32::from(b));
    let address = format!("10.244.{}.{}", (place >> 8) % 250, place % 250 + 2);
    let Some(code) = pod.annotation("stand-in/exit").and_then(|c| c.parse::<i32>().ok()) else {
        let running: Vec<Value> = containers
            .map(|c| {
                json!({"name": c.name, "image": c.image, "imageID": "", "ready": true, "restartCount": 0,
                    "state": {"running": {"startedAt": now}}})
            })
            .collect();
        let conditions = ["Ready", "ContainersReady", "Initialized"]
            .map(|kind| json!({"type": kind, "status": "True", "lastTransitionTime": now}));
        return json!({"phase": "Running", "podIP": address, "podIPs": [{"ip": address}], "startTime": now,
            "conditions": conditions, "containerStatuses": running});
    };
    let ended: Vec<Value> = containers
        .map(|c| {
            json!({"name": c.name, "image": c.image, "imageID": "", "ready": false, "restartCount": 0,
                "state": {"terminated": {"exitCode": code, "startedAt": now, "finishedAt": now}}})
        })
        .collect();
    json!({"phase": if code == 0 { "Succeeded" } else { "Failed" }, "startTime": now, "containerStatuses": ended})
}

impl Reconcile for Agents {
    type Key = Key;
    const NAME: &'static str = "stand-in";

    async fn reconcile(&self, key: &Key) -> Result<Next, Failure> {
        let Some(pod) = self.pods.get(key) else {
            return Ok(Next::Done);
        };
        let bound = pod.spec.as_ref().is_some_and(|s| s.node_name.is_some());
        if !bound || pod.annotation("stand-in/silent").is_some() {
            return Ok(Next::Done);
        }
        let api: Api<Pod> = Api::namespaced(self.client.clone(), pod.ns());
        let begun = pod.status.as_ref().is_some_and(|s| s.start_time.is_some());
        if pod.deleting() {
            let params = DeleteParams::default().grace_period(0);
            gone_is_fine(api.delete(pod.name(), &params).await).during(|| format!("ending {key}"))?;
        } else if !begun {
            let patch = json!({"metadata": {"uid": pod.uid_str()}, "status": plan_status(&pod)});
            let patched =
                api.patch_status(pod.name(), &PatchParams::default(), &Patch::Strategic(patch)).await;
            gone_is_fine(patched).during(|| format!("reporting {key}"))?;
        }
        Ok(Next::Done)
    }
}
