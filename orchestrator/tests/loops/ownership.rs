//! What goes when its owner goes, what stays, and what must wait.

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod};
use kube::api::{Api, DeleteParams, PostParams, PropagationPolicy};
use penstock_informers::Meta;
use serde_json::json;

use crate::cluster::{Cluster, eventually};
use crate::deployments::{deployment, rolled_out};

async fn delete(cluster: &Cluster, policy: PropagationPolicy) {
    let params = DeleteParams { propagation_policy: Some(policy), ..DeleteParams::default() };
    let api: Api<Deployment> = cluster.api();
    api.delete("web", &params).await.expect("a deletion");
}

#[tokio::test(flavor = "multi_thread")]
async fn background_deletion_takes_all_that_was_owned() {
    let cluster = Cluster::start(&["n1"]).await;
    cluster.create::<Deployment>(deployment("web", 2)).await;
    cluster.until::<Deployment>("web", |d| rolled_out(d, 2)).await;
    delete(&cluster, PropagationPolicy::Background).await;
    let gone = cluster.api::<Deployment>().get_opt("web").await.expect("a read");
    assert!(gone.is_none(), "the owner does not wait for what it owned");
    cluster.until_all::<ReplicaSet>(<[ReplicaSet]>::is_empty).await;
    cluster.until_all::<Pod>(<[Pod]>::is_empty).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn foreground_deletion_takes_the_owner_last() {
    let cluster = Cluster::start(&["n1"]).await;
    let mut object = deployment("web", 2);
    object["spec"]["template"]["metadata"]["finalizers"] = json!(["example.org/hold"]);
    cluster.create::<Deployment>(object).await;
    cluster.until::<Deployment>("web", |d| rolled_out(d, 2)).await;
    delete(&cluster, PropagationPolicy::Foreground).await;
    let pods = cluster.until_all::<Pod>(|pods| pods.len() == 2 && pods.iter().all(Meta::deleting)).await;
    let owner = cluster.api::<Deployment>().get("web").await.expect("the owner waits");
    assert!(owner.has_finalizer("foregroundDeletion") && owner.deleting());
    for pod in pods {
        cluster.merge::<Pod>(pod.name(), json!({"metadata": {"finalizers": null}})).await;
    }
    cluster.until_gone::<Deployment>("web").await;
    let left = cluster.api::<Pod>().list(&Default::default()).await.expect("a list");
    assert!(left.items.is_empty(), "pods went before their owner");
}

#[tokio::test(flavor = "multi_thread")]
async fn orphaning_leaves_what_was_owned_to_itself() {
    let cluster = Cluster::start(&["n1"]).await;
    cluster.create::<Deployment>(deployment("web", 2)).await;
    cluster.until::<Deployment>("web", |d| rolled_out(d, 2)).await;
    delete(&cluster, PropagationPolicy::Orphan).await;
    cluster.until_gone::<Deployment>("web").await;
    let sets = cluster.api::<ReplicaSet>().list(&Default::default()).await.expect("a list");
    assert_eq!(sets.items.len(), 1);
    assert!(sets.items[0].metadata.owner_references.as_ref().is_none_or(Vec::is_empty));

    // A deployment of the same selector takes the orphan in again, and its pods run on.
    let before = cluster.api::<Pod>().list(&Default::default()).await.expect("a list");
    cluster.create::<Deployment>(deployment("web", 2)).await;
    cluster.until::<Deployment>("web", |d| rolled_out(d, 2)).await;
    let set = cluster.api::<ReplicaSet>().get(sets.items[0].name()).await.expect("the set");
    assert!(set.controller_ref().is_some_and(|owner| owner.name == "web"));
    let after = cluster.api::<Pod>().list(&Default::default()).await.expect("a list");
    let uids = |pods: &[Pod]| pods.iter().map(|p| p.uid_str().to_owned()).collect::<Vec<_>>();
    assert_eq!(uids(&before.items), uids(&after.items));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_an_owner_that_is_no_more_goes() {
    let cluster = Cluster::start(&[]).await;
    let owned = |name: &str, uid: &str| {
        json!({"metadata": {"name": name, "ownerReferences": [
            {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": uid}]}})
    };
    let owner: ConfigMap = cluster.create(json!({"metadata": {"name": "owner"}})).await;
    cluster.create::<ConfigMap>(owned("child", owner.uid_str())).await;
    cluster.create::<ConfigMap>(owned("stray", "00000000-0000-0000-0000-000000000000")).await;
    cluster.until_gone::<ConfigMap>("stray").await;
    assert!(cluster.api::<ConfigMap>().get_opt("child").await.expect("a read").is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_goes_with_all_it_holds_when_no_finalizer_is_left() {
    let cluster = Cluster::start(&["n1"]).await;
    let namespaces: Api<Namespace> = cluster.global();
    let namespace: Namespace = serde_json::from_value(json!({"metadata": {"name": "team"}})).expect("typed");
    namespaces.create(&PostParams::default(), &namespace).await.expect("a namespace");
    let deployments: Api<Deployment> = Api::namespaced(cluster.client.clone(), "team");
    let web: Deployment = serde_json::from_value(deployment("web", 2)).expect("typed");
    deployments.create(&PostParams::default(), &web).await.expect("a deployment");
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), "team");
    let held = json!({"metadata": {"name": "held", "finalizers": ["example.org/hold"]}});
    let held: ConfigMap = serde_json::from_value(held).expect("typed");
    maps.create(&PostParams::default(), &held).await.expect("a config map");

    namespaces.delete("team", &DeleteParams::default()).await.expect("a deletion");
    eventually("the namespace says what holds it", async || {
        let namespace = namespaces.get("team").await.map_err(|e| e.to_string())?;
        let status = namespace.status.unwrap_or_default();
        let conditions = status.conditions.unwrap_or_default();
        let held = conditions.iter().any(|c| c.type_ == "NamespaceFinalizersRemaining" && c.status == "True");
        let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), "team");
        let left = pods.list(&Default::default()).await.expect("a list").items.len();
        let seen = format!("{:?} {conditions:?}, {left} pods", status.phase);
        if status.phase.as_deref() == Some("Terminating") && held && left == 0 { Ok(()) } else { Err(seen) }
    })
    .await;
    let refused = maps
        .create(
            &PostParams::default(),
            &serde_json::from_value(json!({"metadata": {"name": "late"}})).expect("typed"),
        )
        .await;
    assert!(matches!(refused, Err(kube::Error::Api(s)) if s.code == 403), "nothing new comes in");

    let patch = kube::api::Patch::Merge(json!({"metadata": {"finalizers": null}}));
    maps.patch("held", &Default::default(), &patch).await.expect("a patch");
    eventually("the namespace is gone", async || match namespaces.get_opt("team").await.expect("a read") {
        None => Ok(()),
        Some(namespace) => Err(format!("{namespace:?}")),
    })
    .await;
}
