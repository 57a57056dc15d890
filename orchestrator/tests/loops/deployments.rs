//! Deployment → ReplicaSets → pods → nodes, through the changes a user makes.

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, Patch, PatchParams};
use penstock_informers::Meta;
use serde_json::{Value, json};

use crate::cluster::{Cluster, staying};

pub fn deployment(name: &str, replicas: i32) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": {
            "metadata": {"labels": {"app": name}},
            "spec": {"terminationGracePeriodSeconds": 0, "containers": [{"name": "c", "image": "demo:1"}]},
        }},
    })
}

/// Whether the newest template is rolled out, as `kubectl rollout status` sees it.
pub fn rolled_out(deployment: &Deployment, replicas: i32) -> bool {
    let Some(status) = &deployment.status else {
        return false;
    };
    status.observed_generation == deployment.metadata.generation
        && status.updated_replicas.unwrap_or(0) == replicas
        && status.replicas.unwrap_or(0) == replicas
        && status.available_replicas.unwrap_or(0) == replicas
}

fn images(sets: &[ReplicaSet]) -> Vec<(String, i32)> {
    let mut images: Vec<(String, i32)> = sets
        .iter()
        .map(|set| {
            let spec = set.spec.as_ref().expect("a spec");
            let pod = spec.template.as_ref().and_then(|t| t.spec.as_ref()).expect("a template");
            let image = pod.containers[0].image.clone().unwrap_or_default();
            (image, spec.replicas.unwrap_or(1))
        })
        .collect();
    images.sort();
    images
}

async fn set_image(cluster: &Cluster, image: &str) {
    let patch = json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": image}]}}}});
    let api: Api<Deployment> = cluster.api();
    api.patch("web", &PatchParams::default(), &Patch::Strategic(patch)).await.expect("a new image");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_becomes_running_pods_on_every_node() {
    let cluster = Cluster::start(&["n1", "n2"]).await;
    cluster.create::<Deployment>(deployment("web", 4)).await;
    let done = cluster.until("web", |d| rolled_out(d, 4)).await;
    assert_eq!(done.annotation("deployment.kubernetes.io/revision"), Some("1"));
    let conditions = done.status.and_then(|s| s.conditions).unwrap_or_default();
    let is = |kind: &str, reason: &str| {
        let found = conditions.iter().find(|c| c.type_ == kind);
        found.is_some_and(|c| c.status == "True" && c.reason.as_deref() == Some(reason))
    };
    assert!(is("Available", "MinimumReplicasAvailable"), "{conditions:?}");
    assert!(is("Progressing", "NewReplicaSetAvailable"), "{conditions:?}");

    let pods = cluster.until_all::<Pod>(|pods| pods.len() == 4).await;
    let on = |node: &str| {
        let bound = pods.iter().filter_map(|p| p.spec.as_ref()?.node_name.as_deref());
        bound.filter(|n| *n == node).count()
    };
    assert_eq!((on("n1"), on("n2")), (2, 2), "pods spread over equal nodes");

    cluster.merge::<Deployment>("web", json!({"spec": {"replicas": 1}})).await;
    cluster.until::<Deployment>("web", |d| rolled_out(d, 1)).await;
    cluster.until_all::<Pod>(|pods| staying(pods).len() == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_image_rolls_out_and_back() {
    let cluster = Cluster::start(&["n1"]).await;
    cluster.create::<Deployment>(deployment("web", 3)).await;
    cluster.until::<Deployment>("web", |d| rolled_out(d, 3)).await;

    set_image(&cluster, "demo:2").await;
    let done = cluster.until::<Deployment>("web", |d| rolled_out(d, 3)).await;
    assert_eq!(done.annotation("deployment.kubernetes.io/revision"), Some("2"));
    let old = ("demo:1".to_owned(), 0);
    cluster.until_all::<ReplicaSet>(|sets| images(sets) == [old.clone(), ("demo:2".to_owned(), 3)]).await;

    // What `kubectl rollout undo` sends is the template of the older ReplicaSet: that one is used again.
    set_image(&cluster, "demo:1").await;
    let done = cluster.until::<Deployment>("web", |d| rolled_out(d, 3)).await;
    assert_eq!(done.annotation("deployment.kubernetes.io/revision"), Some("3"));
    let sets = cluster.until_all::<ReplicaSet>(|sets| images(sets)[0].1 == 3).await;
    let of = |image: &str| {
        let found = sets.iter().find(|s| images(std::slice::from_ref(*s))[0].0 == image);
        found.and_then(|s| s.annotation("deployment.kubernetes.io/revision"))
    };
    assert_eq!((of("demo:1"), of("demo:2")), (Some("3"), Some("2")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_deployment_scales_but_does_not_roll_out() {
    let cluster = Cluster::start(&["n1"]).await;
    cluster.create::<Deployment>(deployment("web", 2)).await;
    cluster.until::<Deployment>("web", |d| rolled_out(d, 2)).await;

    let paused = json!({"spec": {"paused": true, "replicas": 3}});
    cluster.merge::<Deployment>("web", paused).await;
    set_image(&cluster, "demo:2").await;
    cluster
        .until::<Deployment>("web", |d| {
            let status = d.status.clone().unwrap_or_default();
            status.observed_generation == d.metadata.generation && status.available_replicas == Some(3)
        })
        .await;
    let sets = cluster.until_all::<ReplicaSet>(|sets| !sets.is_empty()).await;
    assert_eq!(images(&sets), [("demo:1".to_owned(), 3)]);

    let resumed = json!({"spec": {"paused": null}});
    cluster.merge::<Deployment>("web", resumed).await;
    cluster.until::<Deployment>("web", |d| rolled_out(d, 3)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn recreate_has_no_two_versions_at_once() {
    let cluster = Cluster::start(&["n1"]).await;
    let mut object = deployment("web", 3);
    object["spec"]["strategy"] = json!({"type": "Recreate"});
    cluster.create::<Deployment>(object).await;
    cluster.until::<Deployment>("web", |d| rolled_out(d, 3)).await;
    set_image(&cluster, "demo:2").await;
    cluster
        .until_all::<Pod>(|pods| {
            let image = |p: &Pod| p.spec.as_ref().and_then(|s| s.containers[0].image.clone());
            let versions: std::collections::BTreeSet<_> = staying(pods).into_iter().map(image).collect();
            assert!(versions.len() < 2, "{versions:?}");
            pods.len() == 3 && versions.contains(&Some("demo:2".to_owned()))
        })
        .await;
    cluster.until::<Deployment>("web", |d| rolled_out(d, 3)).await;
}
