//! Filters and scores by table: one pod against small clusters.

use super::*;
use crate::cluster::Placed;
use k8s_openapi::api::core::v1::Node;

fn node(json: serde_json::Value) -> Arc<Node> {
    Arc::new(serde_json::from_value(json).unwrap())
}

fn pod(json: serde_json::Value) -> Arc<Pod> {
    Arc::new(serde_json::from_value(json).unwrap())
}

fn plain_node(name: &str, zone: &str, cpu: &str) -> Arc<Node> {
    node(serde_json::json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, "topology.kubernetes.io/zone": zone}},
        "status": {"allocatable": {"cpu": cpu, "memory": "4Gi", "pods": "10"}},
    }))
}

fn plain_pod(name: &str, app: &str, spec: serde_json::Value) -> Arc<Pod> {
    let mut spec = spec;
    if spec["containers"].is_null() {
        spec["containers"] = serde_json::json!([{"name": "c", "resources": {"requests": {"cpu": "500m"}}}]);
    }
    pod(serde_json::json!({
        "metadata": {"name": name, "namespace": "ns", "uid": name, "labels": {"app": app},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": app, "uid": app, "controller": true}]},
        "spec": spec,
    }))
}

fn cluster(nodes: &[Arc<Node>], pods: &[(&str, Arc<Pod>)]) -> Cluster {
    let mut cluster = Cluster::default();
    nodes.iter().for_each(|n| cluster.put_node(n.clone()));
    pods.iter().for_each(|(node, pod)| cluster.put_pod(node, Placed::new(pod.clone())));
    cluster
}

fn two_zones() -> Vec<Arc<Node>> {
    vec![plain_node("n1", "a", "2"), plain_node("n2", "b", "2")]
}

#[test]
fn every_filter_says_why() {
    let tainted = node(serde_json::json!({
        "metadata": {"name": "t"}, "spec": {"taints": [{"key": "k", "value": "v", "effect": "NoSchedule"}]},
        "status": {"allocatable": {"cpu": "4", "memory": "4Gi", "pods": "10"}},
    }));
    let cordoned = node(serde_json::json!({
        "metadata": {"name": "c"}, "spec": {"unschedulable": true},
        "status": {"allocatable": {"cpu": "4", "memory": "4Gi", "pods": "10"}},
    }));
    let full = node(serde_json::json!({
        "metadata": {"name": "f"}, "status": {"allocatable": {"cpu": "4", "memory": "4Gi", "pods": "0"}},
    }));
    let big = serde_json::json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": "3", "example.com/gpu": "1"}}}]});
    let port =
        serde_json::json!({"containers": [{"name": "c", "ports": [{"containerPort": 80, "hostPort": 80}]}]});
    let anti = serde_json::json!({"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
        {"topologyKey": "topology.kubernetes.io/zone", "labelSelector": {"matchLabels": {"app": "web"}}}]}}});
    let with = serde_json::json!({"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
        {"topologyKey": "topology.kubernetes.io/zone", "labelSelector": {"matchLabels": {"app": "db"}}}]}}});
    let plain = serde_json::json!({});
    let one = vec![plain_node("n1", "a", "2")];
    let cases = [
        (vec![], vec![], plain.clone(), "no nodes available to schedule pods"),
        (
            vec![tainted],
            vec![],
            plain.clone(),
            "0/1 nodes are available: 1 node(s) had untolerated taint {k: v}.",
        ),
        (vec![cordoned], vec![], plain.clone(), "0/1 nodes are available: 1 node(s) were unschedulable."),
        (vec![full], vec![], plain.clone(), "0/1 nodes are available: 1 Too many pods."),
        (
            two_zones(),
            vec![],
            big,
            "0/2 nodes are available: 2 Insufficient cpu, 2 Insufficient example.com/gpu.",
        ),
        (
            one.clone(),
            vec![("n1", plain_pod("x", "web", port.clone()))],
            port,
            "0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports.",
        ),
        (
            one.clone(),
            vec![],
            serde_json::json!({"nodeSelector": {"disk": "ssd"}}),
            "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector.",
        ),
        (
            one.clone(),
            vec![("n1", plain_pod("x", "web", plain.clone()))],
            anti.clone(),
            "0/1 nodes are available: 1 node(s) didn't match pod anti-affinity rules.",
        ),
        (
            one.clone(),
            vec![("n1", plain_pod("x", "other", anti.clone()))],
            plain.clone(),
            "0/1 nodes are available: 1 node(s) didn't satisfy existing pods anti-affinity rules.",
        ),
        (one.clone(), vec![], with, "0/1 nodes are available: 1 node(s) didn't match pod affinity rules."),
        (
            one,
            vec![],
            serde_json::json!({"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]}),
            "0/1 nodes are available: persistentvolumeclaim \"data\" not found.",
        ),
    ];
    for (nodes, pods, spec, expected) in cases {
        let misfit = choose(&plain_pod("new", "web", spec), &cluster(&nodes, &pods), 0).unwrap_err();
        assert_eq!(misfit.message(), expected);
    }
}

#[test]
fn replicas_spread_over_nodes() {
    let mut cluster =
        cluster(&[plain_node("n1", "a", "8"), plain_node("n2", "b", "8"), plain_node("n3", "c", "8")], &[]);
    for i in 0..9 {
        let pod = plain_pod(&format!("p{i}"), "web", serde_json::json!({}));
        let node = choose(&pod, &cluster, i).unwrap();
        cluster.put_pod(&node, Placed::new(pod));
    }
    assert!(cluster.nodes.values().all(|n| n.pods.len() == 3), "three each");
}

#[test]
fn hard_spread_constraints_hold_and_say_so() {
    let spec = serde_json::json!({"topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone",
        "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {"matchLabels": {"app": "web"}}}]});
    let web = plain_pod("x", "web", serde_json::json!({}));
    let cluster = cluster(&two_zones(), &[("n1", web)]);
    assert_eq!(choose(&plain_pod("new", "web", spec.clone()), &cluster, 0).unwrap(), "n2");
    let pinned = serde_json::json!({"nodeSelector": {"topology.kubernetes.io/zone": "a"},
        "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone", "nodeAffinityPolicy": "Ignore",
        "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {"matchLabels": {"app": "web"}}}]});
    let misfit = choose(&plain_pod("new", "web", pinned), &cluster, 0).unwrap_err();
    assert_eq!(
        misfit.message(),
        "0/2 nodes are available: 1 node(s) didn't match Pod's node affinity/selector, \
         1 node(s) didn't match pod topology spread constraints."
    );
}

#[test]
fn the_first_pod_of_a_group_with_affinity_to_itself_is_placed() {
    let spec = serde_json::json!({"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
        {"topologyKey": "topology.kubernetes.io/zone", "labelSelector": {"matchLabels": {"app": "web"}}}]}}});
    let mut cluster = cluster(&two_zones(), &[]);
    let first = plain_pod("p1", "web", spec.clone());
    let node = choose(&first, &cluster, 1).unwrap();
    cluster.put_pod(&node, Placed::new(first));
    assert_eq!(choose(&plain_pod("p2", "web", spec), &cluster, 0).unwrap(), node, "the second joins it");
}

#[test]
fn room_promised_to_an_important_pod_is_not_given_away() {
    let mut cluster = cluster(&[plain_node("n1", "a", "1")], &[]);
    let important = plain_pod(
        "vip",
        "web",
        serde_json::json!({"priority": 100,
        "containers": [{"name": "c", "resources": {"requests": {"cpu": "800m"}}}]}),
    );
    cluster.nominate("n1", Placed::new(important.clone()));
    assert!(choose(&plain_pod("p", "web", serde_json::json!({})), &cluster, 0).is_err());
    assert!(choose(&important, &cluster, 0).is_ok());
}

#[test]
fn preferences_decide_among_equals() {
    let cluster = cluster(&two_zones(), &[]);
    let spec = serde_json::json!({"affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
        {"weight": 10, "preference": {"matchExpressions": [{"key": "topology.kubernetes.io/zone", "operator": "In", "values": ["b"]}]}}]}}});
    for start in 0..4 {
        assert_eq!(choose(&plain_pod("p", "web", spec.clone()), &cluster, start).unwrap(), "n2");
    }
}
