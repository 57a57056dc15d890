//! Nodes that come, fall silent and return, and what becomes of their pods.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use penstock_cloud::CloudConfig;
use penstock_controllers::ControllersConfig;
use penstock_informers::Meta;
use serde_json::{Value, json};

use crate::cluster::{Cluster, eventually};

fn patient(name: &str, node: &str, seconds: i64) -> Value {
    let toleration = json!({"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute",
        "tolerationSeconds": seconds});
    json!({"metadata": {"name": name}, "spec": {
        "nodeName": node, "tolerations": [toleration], "containers": [{"name": "c", "image": "demo:1"}]}})
}

async fn until_node(cluster: &Cluster, name: &str, wanted: impl Fn(&Node) -> bool) -> Node {
    let api = cluster.global::<Node>();
    eventually(&format!("node {name}"), async || {
        let node = api.get(name).await.map_err(|e| e.to_string())?;
        if wanted(&node) { Ok(node) } else { Err(format!("{node:?}")) }
    })
    .await
}

fn tainted(node: &Node, key: &str, effect: &str) -> bool {
    let taints = node.spec.as_ref().and_then(|s| s.taints.as_ref());
    taints.into_iter().flatten().any(|t| t.key == key && t.effect == effect)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_node_gets_a_range_of_its_own() {
    let cluster = Cluster::start(&["n1", "n2"]).await;
    let range = |node: &Node| node.spec.as_ref().and_then(|s| s.pod_cidr.clone());
    let first = until_node(&cluster, "n1", |n| range(n).is_some()).await;
    let second = until_node(&cluster, "n2", |n| range(n).is_some()).await;
    assert_ne!(range(&first), range(&second));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_of_two_families_gets_a_range_of_each() {
    let cluster_cidrs = ["10.244.0.0/16", "fd00:10:244::/56"]
        .map(|range| penstock_controllers::NodeRanges::new(range.parse().expect("a range")))
        .to_vec();
    let config = ControllersConfig { cluster_cidrs, ..ControllersConfig::default() };
    let cluster = Cluster::start_with(&["n1", "n2"], config, CloudConfig::default()).await;
    let mut given = std::collections::BTreeSet::new();
    for name in ["n1", "n2"] {
        let node =
            until_node(&cluster, name, |n| n.spec.as_ref().is_some_and(|s| s.pod_cidr.is_some())).await;
        let spec = node.spec.expect("a spec");
        let ranges = spec.pod_cidrs.expect("ranges");
        assert_eq!(ranges.first(), spec.pod_cidr.as_ref());
        assert!(ranges[0].ends_with(".0/24") && ranges[1].ends_with("::/64"), "{ranges:?}");
        given.extend(ranges);
    }
    assert_eq!(given.len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_node_loses_its_pods_and_may_come_back() {
    // Also a beat that is seconds late is in time: whole seconds are kept of when it was.
    let config =
        ControllersConfig { node_monitor_grace: Duration::from_secs(8), ..ControllersConfig::default() };
    let cluster = Cluster::start_with(&["silent", "alive"], config, CloudConfig::default()).await;
    let beats = tokio::spawn({
        let client = cluster.client.clone();
        async move {
            let api: kube::Api<Node> = kube::Api::all(client);
            let mut tick = tokio::time::interval(Duration::from_millis(300));
            loop {
                tick.tick().await;
                let beat = json!({"status": {"conditions": [{
                    "type": "Ready", "status": "True", "lastHeartbeatTime": jiff::Timestamp::now().to_string()}]}});
                let patch = kube::api::Patch::Strategic(beat);
                drop(api.patch_status("alive", &Default::default(), &patch).await);
            }
        }
    });
    cluster.create::<Pod>(patient("hasty", "silent", 0)).await;
    cluster.create::<Pod>(patient("patient", "silent", 3600)).await;

    const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
    let node = until_node(&cluster, "silent", |n| tainted(n, UNREACHABLE, "NoExecute")).await;
    assert!(tainted(&node, UNREACHABLE, "NoSchedule"));
    let conditions = node.status.and_then(|s| s.conditions).unwrap_or_default();
    let ready = conditions.iter().find(|c| c.type_ == "Ready").expect("a condition");
    assert_eq!((ready.status.as_str(), ready.reason.as_deref()), ("Unknown", Some("NodeStatusUnknown")));
    cluster.until_gone::<Pod>("hasty").await;
    let patient = cluster.api::<Pod>().get("patient").await.expect("the pod");
    assert!(!patient.deleting(), "it tolerates the silence for an hour");
    let alive = cluster.global::<Node>().get("alive").await.expect("the node");
    assert!(!tainted(&alive, UNREACHABLE, "NoSchedule"));

    cluster.beat("silent").await;
    until_node(&cluster, "silent", |n| {
        !tainted(n, UNREACHABLE, "NoSchedule") && !tainted(n, UNREACHABLE, "NoExecute")
    })
    .await;
    beats.abort();
}
