//! What the scheduler writes: bindings, the reason a pod waits, and the room made for it.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Binding, ObjectReference, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Status, Time};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client};
use penstock_informers::Meta;
use penstock_informers::identity::object_reference;
use penstock_informers::volumes::{BOUND_BY_CONTROLLER, SELECTED_NODE};

use crate::filters::volumes::Source;

/// Binds the pod to the node.
pub async fn apply_binding(client: &Client, pod: &Pod, node: &str) -> Result<(), kube::Error> {
    let binding = Binding {
        metadata: ObjectMeta {
            name: pod.metadata.name.clone(),
            namespace: pod.metadata.namespace.clone(),
            // The server refuses to bind another pod of the same name.
            uid: pod.metadata.uid.clone(),
            ..Default::default()
        },
        target: ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Node".into()),
            name: Some(node.to_owned()),
            ..Default::default()
        },
    };
    let pods: Api<Pod> = Api::namespaced(client.clone(), pod.ns());
    let _: Status = pods.create_subresource("binding", pod.name(), &PostParams::default(), &binding).await?;
    Ok(())
}

/// Keeps a volume for a claim that waited for its first consumer, or has one made for the node. The binder does the rest.
pub async fn apply_source(
    client: &Client,
    claim: &PersistentVolumeClaim,
    source: &Source,
    node: &str,
) -> Result<(), kube::Error> {
    match source {
        Source::Volume(volume) => {
            let mut kept = PersistentVolume::clone(volume);
            kept.spec.get_or_insert_default().claim_ref = Some(object_reference(claim));
            let annotations = kept.metadata.annotations.get_or_insert_default();
            annotations.insert(BOUND_BY_CONTROLLER.to_owned(), "yes".to_owned());
            // Its resource version decides between two pods that want it.
            let volumes: Api<PersistentVolume> = Api::all(client.clone());
            volumes.replace(volume.name(), &PostParams::default(), &kept).await.map(drop)
        }
        Source::Provisioner => {
            let mut selected = claim.clone();
            let annotations = selected.metadata.annotations.get_or_insert_default();
            annotations.insert(SELECTED_NODE.to_owned(), node.to_owned());
            let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), claim.ns());
            claims.replace(claim.name(), &PostParams::default(), &selected).await.map(drop)
        }
    }
}

/// Says on the pod why it has no node, and which node is being cleared for it.
pub async fn apply_unschedulable(
    client: &Client,
    pod: &Pod,
    reason: &str,
    message: &str,
    nominated: Option<&str>,
) -> Result<(), kube::Error> {
    let conditions = pod.status.as_ref().and_then(|s| s.conditions.as_ref());
    let old = conditions.into_iter().flatten().find(|c| c.type_ == "PodScheduled");
    let same = old.filter(|c| c.status == "False");
    let unchanged =
        same.is_some_and(|c| c.reason.as_deref() == Some(reason) && c.message.as_deref() == Some(message));
    if unchanged && nominated.is_none() {
        return Ok(());
    }
    let since = same.and_then(|c| c.last_transition_time.clone()).unwrap_or(Time(Timestamp::now()));
    let mut patch = serde_json::json!({
        "metadata": {"uid": pod.uid_str()},
        "status": {"conditions": [{
            "type": "PodScheduled", "status": "False", "reason": reason, "message": message,
            "lastTransitionTime": since, "observedGeneration": pod.metadata.generation,
        }]},
    });
    if let Some(node) = nominated {
        patch["status"]["nominatedNodeName"] = node.into();
    }
    let pods: Api<Pod> = Api::namespaced(client.clone(), pod.ns());
    pods.patch_status(pod.name(), &PatchParams::default(), &Patch::Strategic(&patch)).await.map(drop)
}

/// Removes a victim of preemption, leaving on it why it went.
pub async fn apply_eviction(client: &Client, victim: &Arc<Pod>, scheduler: &str) -> Result<(), kube::Error> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), victim.ns());
    let patch = serde_json::json!({
        "metadata": {"uid": victim.uid_str()},
        "status": {"conditions": [{
            "type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler",
            "message": format!("{scheduler}: preempting to accommodate a higher priority pod"),
            "lastTransitionTime": Time(Timestamp::now()),
        }]},
    });
    pods.patch_status(victim.name(), &PatchParams::default(), &Patch::Strategic(&patch)).await?;
    let params = DeleteParams {
        preconditions: Some(Preconditions { uid: victim.metadata.uid.clone(), resource_version: None }),
        ..Default::default()
    };
    pods.delete(victim.name(), &params).await.map(drop)
}
