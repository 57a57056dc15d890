//! Claims that live as long as a pod: made from the template in its volume, owned by it.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Volume};
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use penstock_informers::cache::Cache;
use penstock_informers::failure::{During, is_already_exists, is_namespace_terminating};
use penstock_informers::identity::controller_reference;
use penstock_informers::volumes::own_claim;
use penstock_informers::{EventType, Failure, Key, Meta, Next, Reconcile, Recorder, WorkQueue, run_workers};

use crate::context::Context;

/// Runs the controller.
pub async fn run(context: Context) {
    let queue = Arc::new(WorkQueue::new());
    let controller = Arc::new(Controller {
        client: context.client(),
        recorder: context.recorder("ephemeral_volume"),
        claims: context.informers.cache(),
        pods: context.informers.cache(),
    });
    tokio::join!(controller.claims.wait_synced(), controller.pods.wait_synced());
    let adder = queue.clone();
    controller.pods.subscribe(move |delta| {
        let pod = delta.object();
        if templates(pod).next().is_some() {
            adder.add(pod.key());
        }
    });
    let adder = queue.clone();
    controller.claims.subscribe(move |delta| {
        // Somebody may have deleted it.
        let claim = delta.object();
        if let Some(owner) = claim.controller_ref().filter(|owner| owner.kind == "Pod") {
            adder.add(Key::new(claim.ns(), owner.name.as_str()));
        }
    });
    run_workers(controller, queue, 1, context.shutdown).await;
}

fn templates(pod: &Pod) -> impl Iterator<Item = &Volume> {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    volumes.filter(|volume| volume.ephemeral.is_some())
}

/// The claim of one volume of the pod.
fn plan_claim(pod: &Pod, volume: &Volume) -> Option<PersistentVolumeClaim> {
    let template = volume.ephemeral.as_ref()?.volume_claim_template.as_ref()?;
    let given = template.metadata.clone().unwrap_or_default();
    Some(PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: Some(own_claim(pod, volume)),
            namespace: pod.metadata.namespace.clone(),
            labels: given.labels,
            annotations: given.annotations,
            owner_references: Some(vec![controller_reference(pod)]),
            ..Default::default()
        },
        spec: Some(template.spec.clone()),
        status: None,
    })
}

struct Controller {
    client: Client,
    recorder: Recorder,
    claims: Arc<Cache<PersistentVolumeClaim>>,
    pods: Arc<Cache<Pod>>,
}

impl Reconcile for Controller {
    type Key = Key;
    const NAME: &'static str = "ephemeral-volume";

    async fn reconcile(&self, key: &Key) -> Result<Next, Failure> {
        let Some(pod) = self.pods.get(key).filter(|pod| !pod.deleting()) else { return Ok(Next::Done) };
        for claim in templates(&pod).filter_map(|volume| plan_claim(&pod, volume)) {
            self.ensure(&pod, &claim).await?;
        }
        Ok(Next::Done)
    }
}

impl Controller {
    async fn ensure(&self, pod: &Pod, claim: &PersistentVolumeClaim) -> Result<(), Failure> {
        let key = claim.key();
        if let Some(there) = self.claims.get(&key) {
            return match there.controlled_by(pod.uid_str()) {
                true => Ok(()),
                false => Err(self.refuse(pod, &key)),
            };
        }
        let api: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), pod.ns());
        match api.create(&PostParams::default(), claim).await {
            Ok(_) => Ok(()),
            // Newer than what is known here: the next look tells whose it is.
            Err(error) if is_already_exists(&error) => Err(Failure::again(format!("claim {key} is there"))),
            Err(error) if is_namespace_terminating(&error) => Ok(()),
            Err(error) => Err(error).during(|| format!("creating claim {key} of pod {}", pod.key())),
        }
    }

    fn refuse(&self, pod: &Pod, claim: &Key) -> Failure {
        let reason =
            format!("claim {claim} is there and not this pod's; rename the volume or delete the claim");
        self.recorder.record(pod, EventType::Warning, "VolumeClaimConflict", reason.clone());
        Failure::Terminal { reason }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_claim_is_the_pods_with_what_its_template_says() {
        let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}}}});
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u"},
            "spec": {"containers": [], "volumes": [{"name": "plain", "emptyDir": {}},
                {"name": "scratch", "ephemeral": {"volumeClaimTemplate": template}}]},
        }))
        .unwrap();
        let claims: Vec<_> = templates(&pod).filter_map(|volume| plan_claim(&pod, volume)).collect();
        assert_eq!(claims.len(), 1);
        assert_eq!((claims[0].name(), claims[0].ns(), claims[0].label("a")), ("p-scratch", "n", Some("b")));
        assert!(claims[0].controlled_by("u"));
    }
}
