//! Claims that pods use and volumes that claims use stay until they are used no more, by a finalizer on each.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use kube::api::{ListParams, PostParams};
use kube::{Api, Client};
use penstock_informers::cache::Cache;
use penstock_informers::failure::{During, gone_is_fine};
use penstock_informers::volumes::claims_of_pod;
use penstock_informers::{Failure, Key, Meta, Next, Reconcile, WorkQueue, run_workers};

use crate::context::Context;

const CLAIM_FINALIZER: &str = "kubernetes.io/pvc-protection";
const VOLUME_FINALIZER: &str = "kubernetes.io/pv-protection";

/// Runs the controller of claims.
pub async fn run_claims(context: Context) {
    let queue = Arc::new(WorkQueue::new());
    let controller = Arc::new(Claims {
        client: context.client(),
        claims: context.informers.cache(),
        pods: context.informers.cache(),
    });
    tokio::join!(controller.claims.wait_synced(), controller.pods.wait_synced());
    let adder = queue.clone();
    controller.claims.subscribe(move |delta| adder.add(delta.object().key()));
    let (adder, handler) = (queue.clone(), controller.clone());
    controller.pods.subscribe(move |delta| {
        let pod = delta.object();
        for name in claims_of_pod(pod) {
            let key = Key::new(pod.ns(), name);
            // Only claims that are to go wait for pods.
            if handler.claims.get(&key).is_some_and(|claim| claim.deleting()) {
                adder.add(key);
            }
        }
    });
    run_workers(controller, queue, 1, context.shutdown).await;
}

/// Runs the controller of volumes.
pub async fn run_volumes(context: Context) {
    let queue = Arc::new(WorkQueue::new());
    let controller = Arc::new(Volumes { client: context.client(), volumes: context.informers.cache() });
    controller.volumes.wait_synced().await;
    let adder = queue.clone();
    controller.volumes.subscribe(move |delta| adder.add(delta.object().key()));
    run_workers(controller, queue, 1, context.shutdown).await;
}

struct Claims {
    client: Client,
    claims: Arc<Cache<PersistentVolumeClaim>>,
    pods: Arc<Cache<Pod>>,
}

struct Volumes {
    client: Client,
    volumes: Arc<Cache<PersistentVolume>>,
}

/// What becomes of a finalizer.
#[derive(Debug, PartialEq)]
enum Finalizer {
    Add,
    Remove,
    Keep,
}

fn plan_finalizer(is_deleting: bool, is_there: bool, is_used: impl FnOnce() -> bool) -> Finalizer {
    match (is_deleting, is_there) {
        (false, false) => Finalizer::Add,
        (true, true) if !is_used() => Finalizer::Remove,
        _ => Finalizer::Keep,
    }
}

/// Whether the pod keeps the claim: it has a node, and what ran there may still write.
fn uses(pod: &Pod, claim: &str) -> bool {
    let has_node = pod.spec.as_ref().and_then(|s| s.node_name.as_deref()).is_some_and(|n| !n.is_empty());
    has_node && claims_of_pod(pod).any(|name| name == claim)
}

fn with_finalizer(finalizers: &mut Option<Vec<String>>, name: &str, plan: &Finalizer) {
    let finalizers = finalizers.get_or_insert_default();
    finalizers.retain(|it| it != name);
    if *plan == Finalizer::Add {
        finalizers.push(name.to_owned());
    }
}

impl Reconcile for Claims {
    type Key = Key;
    const NAME: &'static str = "persistent-volume-claim-protection";

    async fn reconcile(&self, key: &Key) -> Result<Next, Failure> {
        let Some(claim) = self.claims.get(key) else { return Ok(Next::Done) };
        let is_used = || self.pods.list_namespace(&key.namespace).iter().any(|pod| uses(pod, &key.name));
        let plan = plan_finalizer(claim.deleting(), claim.has_finalizer(CLAIM_FINALIZER), is_used);
        if plan == Finalizer::Keep || (plan == Finalizer::Remove && self.is_used_for_sure(key).await?) {
            return Ok(Next::Done);
        }
        let mut changed = PersistentVolumeClaim::clone(&claim);
        with_finalizer(&mut changed.metadata.finalizers, CLAIM_FINALIZER, &plan);
        let api: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), &key.namespace);
        gone_is_fine(api.replace(&key.name, &PostParams::default(), &changed).await)
            .during(|| format!("protecting claim {key}"))?;
        Ok(Next::Done)
    }
}

impl Claims {
    /// Asked of the server: a pod that is newer than the cache must not lose its volume.
    async fn is_used_for_sure(&self, key: &Key) -> Result<bool, Failure> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &key.namespace);
        let pods = api
            .list(&ListParams::default())
            .await
            .during(|| format!("looking for pods that use claim {key}"))?;
        Ok(pods.items.iter().any(|pod| uses(pod, &key.name)))
    }
}

impl Reconcile for Volumes {
    type Key = Key;
    const NAME: &'static str = "persistent-volume-protection";

    async fn reconcile(&self, key: &Key) -> Result<Next, Failure> {
        let Some(volume) = self.volumes.get(key) else { return Ok(Next::Done) };
        let is_used = || volume.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Bound");
        let plan = plan_finalizer(volume.deleting(), volume.has_finalizer(VOLUME_FINALIZER), is_used);
        if plan == Finalizer::Keep {
            return Ok(Next::Done);
        }
        let mut changed = PersistentVolume::clone(&volume);
        with_finalizer(&mut changed.metadata.finalizers, VOLUME_FINALIZER, &plan);
        let api: Api<PersistentVolume> = Api::all(self.client.clone());
        gone_is_fine(api.replace(&key.name, &PostParams::default(), &changed).await)
            .during(|| format!("protecting volume {key}"))?;
        Ok(Next::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_used_stays_and_what_is_not_goes() {
        assert_eq!(plan_finalizer(false, false, || true), Finalizer::Add);
        assert_eq!(plan_finalizer(false, true, || false), Finalizer::Keep);
        assert_eq!(plan_finalizer(true, true, || true), Finalizer::Keep);
        assert_eq!(plan_finalizer(true, true, || false), Finalizer::Remove);
        // Another finalizer holds it; nothing new is added to what goes.
        assert_eq!(plan_finalizer(true, false, || true), Finalizer::Keep);
    }

    #[test]
    fn a_pod_without_a_node_uses_nothing() {
        let pod = |node: &str| -> Pod {
            let volumes = json!([{"name": "v", "persistentVolumeClaim": {"claimName": "data"}},
                {"name": "scratch", "ephemeral": {}}]);
            serde_json::from_value(json!({"metadata": {"name": "p"},
                "spec": {"containers": [], "nodeName": node, "volumes": volumes}}))
            .unwrap()
        };
        assert!(uses(&pod("node-1"), "data") && uses(&pod("node-1"), "p-scratch"));
        assert!(!uses(&pod("node-1"), "scratch") && !uses(&pod(""), "data"));
    }
}
