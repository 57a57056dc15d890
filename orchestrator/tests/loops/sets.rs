//! StatefulSets and DaemonSets: pods with a place, in order and through changes.

use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, StatefulSet};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use penstock_informers::Meta;
use serde_json::{Value, json};

use crate::cluster::Cluster;

fn template(image: &str) -> Value {
    json!({"metadata": {"labels": {"app": "db"}}, "spec": {
        "terminationGracePeriodSeconds": 0, "containers": [{"name": "c", "image": image}]}})
}

fn stateful_set(replicas: i32) -> Value {
    json!({"metadata": {"name": "db"}, "spec": {
        "replicas": replicas, "serviceName": "db", "selector": {"matchLabels": {"app": "db"}},
        "template": template("demo:1"),
        "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {
            "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}]}})
}

fn complete(set: &StatefulSet, replicas: i32) -> bool {
    let Some(status) = &set.status else { return false };
    status.observed_generation == set.metadata.generation
        && status.replicas == replicas
        && status.ready_replicas.unwrap_or(0) == replicas
        && status.updated_replicas.unwrap_or(0) == replicas
        && status.current_revision == status.update_revision
}

fn names(pods: &[Pod]) -> Vec<String> {
    let mut names: Vec<String> = pods.iter().map(|p| p.name().to_owned()).collect();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stateful_set_grows_in_order_updates_and_shrinks() {
    let cluster = Cluster::start(&["n1"]).await;
    // A pod whose claim is not bound cannot be placed: volumes come with their own controller.
    let mut object = stateful_set(3);
    object["spec"].as_object_mut().expect("an object").remove("volumeClaimTemplates");
    cluster.create::<StatefulSet>(object).await;
    cluster.until::<StatefulSet>("db", |s| complete(s, 3)).await;
    let pods = cluster.until_all::<Pod>(|pods| pods.len() == 3).await;
    assert_eq!(names(&pods), ["db-0", "db-1", "db-2"]);

    let change = json!({"spec": {"template": template("demo:2")}});
    cluster.merge::<StatefulSet>("db", change).await;
    cluster.until::<StatefulSet>("db", |s| complete(s, 3)).await;
    let pods = cluster.until_all::<Pod>(|pods| pods.len() == 3).await;
    let image = |p: &Pod| p.spec.as_ref().and_then(|s| s.containers[0].image.clone());
    assert!(pods.iter().all(|p| image(p).as_deref() == Some("demo:2")));
    let revisions = cluster.until_all::<ControllerRevision>(|r| r.len() == 2).await;
    assert_eq!(revisions.iter().map(|r| r.revision).max(), Some(2));

    cluster.merge::<StatefulSet>("db", json!({"spec": {"replicas": 1}})).await;
    cluster.until_all::<Pod>(|pods| names(pods) == ["db-0"]).await;
    cluster.until::<StatefulSet>("db", |s| complete(s, 1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn claims_outlive_the_pods_they_were_made_for() {
    let cluster = Cluster::start(&[]).await;
    let mut object = stateful_set(2);
    object["spec"]["podManagementPolicy"] = "Parallel".into();
    cluster.create::<StatefulSet>(object).await;
    cluster.until_all::<Pod>(|pods| names(pods) == ["db-0", "db-1"]).await;
    cluster.merge::<StatefulSet>("db", json!({"spec": {"replicas": 0}})).await;
    cluster.until_all::<Pod>(<[Pod]>::is_empty).await;
    let claims = cluster.until_all::<PersistentVolumeClaim>(|claims| claims.len() == 2).await;
    assert_eq!(claims[0].name(), "data-db-0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_set_is_on_every_node_and_keeps_its_history() {
    let cluster = Cluster::start(&["n1", "n2"]).await;
    let object = json!({"metadata": {"name": "ds"}, "spec": {
        "selector": {"matchLabels": {"app": "db"}}, "template": template("demo:1")}});
    cluster.create::<DaemonSet>(object).await;
    let done = |set: &DaemonSet, nodes: i32| {
        let status = set.status.clone().unwrap_or_default();
        status.observed_generation == set.metadata.generation
            && status.updated_number_scheduled == Some(nodes)
            && status.number_available == Some(nodes)
    };
    cluster.until::<DaemonSet>("ds", |s| done(s, 2)).await;
    cluster.add_node("n3").await;
    cluster.until::<DaemonSet>("ds", |s| done(s, 3)).await;
    let change = json!({"spec": {"template": template("demo:2")}});
    cluster.merge::<DaemonSet>("ds", change).await;
    cluster.until::<DaemonSet>("ds", |s| done(s, 3)).await;
    let undo = json!({"spec": {"template": template("demo:1")}});
    cluster.merge::<DaemonSet>("ds", undo).await;
    cluster.until::<DaemonSet>("ds", |s| done(s, 3)).await;
    let mut revisions = cluster.until_all::<ControllerRevision>(|r| r.len() == 2).await;
    revisions.sort_by_key(|r| r.revision);
    assert_eq!(revisions.iter().map(|r| r.revision).collect::<Vec<_>>(), [2, 3]);
}
