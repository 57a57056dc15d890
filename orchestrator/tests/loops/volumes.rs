//! Volumes and claims: bound, kept while they are used, released, chosen together with a node, made for one pod.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::Resource;
use kube::api::{DeleteParams, PostParams};
use penstock_informers::Meta;
use penstock_informers::cache::Cached;
use serde_json::{Value, json};

use crate::cluster::{Cluster, eventually};

async fn make<K: Cached + Resource<Scope = k8s_openapi::ClusterResourceScope>>(
    cluster: &Cluster,
    object: Value,
) {
    let object: K = serde_json::from_value(object).expect("a typed object");
    cluster.global::<K>().create(&PostParams::default(), &object).await.expect("the object is accepted");
}

async fn volume(cluster: &Cluster, name: &str, size: &str, more: Value) {
    let mut spec = json!({"capacity": {"storage": size}, "accessModes": ["ReadWriteOnce"],
        "persistentVolumeReclaimPolicy": "Retain", "hostPath": {"path": "/data"}});
    spec.as_object_mut().expect("a map").extend(more.as_object().expect("a map").clone());
    make::<PersistentVolume>(cluster, json!({"metadata": {"name": name}, "spec": spec})).await;
}

async fn until_phase(cluster: &Cluster, volume: &str, phase: &str) {
    let api = cluster.global::<PersistentVolume>();
    eventually(&format!("volume {volume} {phase}"), async || {
        let status = api.get(volume).await.expect("a volume").status.unwrap_or_default();
        if status.phase.as_deref() == Some(phase) { Ok(()) } else { Err(format!("{status:?}")) }
    })
    .await;
}

fn claim(name: &str, class: &str, size: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"storageClassName": class, "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": size}}}})
}

fn pod_with(name: &str, volume: Value) -> Value {
    let mut volume = volume;
    volume["name"] = "data".into();
    json!({"metadata": {"name": name}, "spec": {"volumes": [volume],
        "containers": [{"name": "c", "image": "i"}]}})
}

fn is_bound(claim: &PersistentVolumeClaim) -> bool {
    claim.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Bound")
}

fn volume_of(claim: &PersistentVolumeClaim) -> Option<&str> {
    claim.spec.as_ref().and_then(|s| s.volume_name.as_deref())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_gets_the_smallest_volume_keeps_it_while_a_pod_runs_and_releases_it() {
    let cluster = Cluster::start(&["node-1"]).await;
    volume(&cluster, "large", "5Gi", json!({})).await;
    volume(&cluster, "small", "1Gi", json!({})).await;
    until_phase(&cluster, "large", "Available").await;
    until_phase(&cluster, "small", "Available").await;
    cluster.create::<PersistentVolumeClaim>(claim("data", "", "1Gi")).await;
    let bound = cluster.until::<PersistentVolumeClaim>("data", is_bound).await;
    assert_eq!(volume_of(&bound), Some("small"));
    let capacity = bound.status.expect("a status").capacity.expect("a capacity");
    assert_eq!(capacity["storage"].0, "1Gi");
    until_phase(&cluster, "small", "Bound").await;

    let uses = json!({"persistentVolumeClaim": {"claimName": "data"}});
    cluster.create::<Pod>(pod_with("user", uses)).await;
    let has_node = |pod: &Pod| pod.spec.as_ref().is_some_and(|s| s.node_name.is_some());
    cluster.until::<Pod>("user", has_node).await;
    cluster
        .api::<PersistentVolumeClaim>()
        .delete("data", &DeleteParams::default())
        .await
        .expect("a deletion");
    let going = cluster.until::<PersistentVolumeClaim>("data", Meta::deleting).await;
    assert!(going.has_finalizer("kubernetes.io/pvc-protection"), "{:?}", going.metadata);
    cluster.api::<Pod>().delete("user", &DeleteParams::default()).await.expect("a deletion");
    cluster.until_gone::<PersistentVolumeClaim>("data").await;
    until_phase(&cluster, "small", "Released").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_waits_for_its_volume_and_says_so() {
    let cluster = Cluster::start(&["node-1"]).await;
    cluster.create::<PersistentVolumeClaim>(claim("data", "", "1Gi")).await;
    cluster.create::<Pod>(pod_with("user", json!({"persistentVolumeClaim": {"claimName": "data"}}))).await;
    let is_told = |pod: &Pod| {
        let conditions = pod.status.iter().flat_map(|s| s.conditions.iter().flatten());
        conditions
            .filter_map(|c| c.message.as_deref())
            .any(|message| message.contains("unbound immediate PersistentVolumeClaims"))
    };
    cluster.until::<Pod>("user", is_told).await;
    volume(&cluster, "late", "1Gi", json!({})).await;
    cluster.until::<PersistentVolumeClaim>("data", is_bound).await;
    cluster.until::<Pod>("user", |pod| pod.spec.as_ref().is_some_and(|s| s.node_name.is_some())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_local_volume_is_chosen_together_with_the_node() {
    let cluster = Cluster::start(&["node-1", "node-2"]).await;
    let class = json!({"metadata": {"name": "local"}, "provisioner": "kubernetes.io/no-provisioner",
        "volumeBindingMode": "WaitForFirstConsumer"});
    make::<StorageClass>(&cluster, class).await;
    let required = json!({"nodeSelectorTerms": [{"matchExpressions": [
        {"key": "kubernetes.io/hostname", "operator": "In", "values": ["node-2"]}]}]});
    let local = json!({"storageClassName": "local", "nodeAffinity": {"required": required}});
    volume(&cluster, "on-node-2", "1Gi", local).await;
    until_phase(&cluster, "on-node-2", "Available").await;
    cluster.create::<PersistentVolumeClaim>(claim("data", "local", "1Gi")).await;
    cluster.create::<Pod>(pod_with("user", json!({"persistentVolumeClaim": {"claimName": "data"}}))).await;
    let placed =
        cluster.until::<Pod>("user", |pod| pod.spec.as_ref().is_some_and(|s| s.node_name.is_some())).await;
    assert_eq!(placed.spec.expect("a spec").node_name.as_deref(), Some("node-2"));
    assert!(is_bound(&cluster.until::<PersistentVolumeClaim>("data", is_bound).await));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provisioner_is_asked_and_told_the_node() {
    let cluster = Cluster::start(&["node-1"]).await;
    let class = json!({"metadata": {"name": "made"}, "provisioner": "example.com/disks",
        "volumeBindingMode": "WaitForFirstConsumer"});
    make::<StorageClass>(&cluster, class).await;
    let template = json!({"spec": {"storageClassName": "made", "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Gi"}}}});
    let own = json!({"ephemeral": {"volumeClaimTemplate": template}});
    cluster.create::<Pod>(pod_with("user", own)).await;
    let is_asked = |claim: &PersistentVolumeClaim| {
        claim.annotation("volume.kubernetes.io/storage-provisioner") == Some("example.com/disks")
            && claim.annotation("volume.kubernetes.io/selected-node") == Some("node-1")
    };
    let asked = cluster.until::<PersistentVolumeClaim>("user-data", is_asked).await;
    // What the provisioner does.
    let kept = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": "default",
        "name": "user-data", "uid": asked.uid_str()});
    volume(&cluster, "made-1", "1Gi", json!({"storageClassName": "made", "claimRef": kept})).await;
    cluster.until::<PersistentVolumeClaim>("user-data", is_bound).await;
    cluster.until::<Pod>("user", |pod| pod.spec.as_ref().is_some_and(|s| s.node_name.is_some())).await;
    cluster.api::<Pod>().delete("user", &DeleteParams::default()).await.expect("a deletion");
    cluster.until_gone::<PersistentVolumeClaim>("user-data").await;
}
