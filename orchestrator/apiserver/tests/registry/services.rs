//! Services: addresses and node ports are given once.

use penstock_apiserver::registry::DeleteOptions;
use serde_json::{Value, json};

use crate::cluster::Cluster;

fn service(name: &str, spec: Value) -> Value {
    json!({"metadata": {"name": name}, "spec": spec})
}

#[tokio::test]
async fn an_address_is_given_once_and_comes_back() {
    let cluster = Cluster::start().await;
    let ports = json!([{"port": 80}]);
    let fixed = json!({"clusterIP": "10.96.5.5", "ports": ports});
    cluster.create("services", service("a", fixed.clone())).await.unwrap();
    let e = cluster.create("services", service("b", fixed.clone())).await.unwrap_err();
    assert_eq!(
        e.message,
        "Service \"b\" is invalid: spec.clusterIPs: Invalid value: [\"10.96.5.5\"]: failed to allocate IP 10.96.5.5: provided IP is already allocated"
    );
    cluster.get("ipaddresses", "10.96.5.5").await.unwrap();
    cluster.delete("services", "a", DeleteOptions::default()).await.unwrap();
    cluster.create("services", service("b", fixed)).await.unwrap();
}

#[tokio::test]
async fn services_made_at_once_get_addresses_of_their_own() {
    let cluster = Cluster::start().await;
    let made = futures::future::join_all((0..20).map(|i| {
        let object = service(&format!("s{i}"), json!({"type": "NodePort", "ports": [{"port": 80}]}));
        cluster.create("services", object)
    }))
    .await;
    let made: Vec<Value> = made.into_iter().map(Result::unwrap).collect();
    let unique = |pointer: &str| {
        made.iter()
            .map(|s| s.pointer(pointer).unwrap().to_string())
            .collect::<std::collections::BTreeSet<_>>()
            .len()
    };
    assert_eq!(unique("/spec/clusterIP"), 20);
    assert_eq!(unique("/spec/ports/0/nodePort"), 20);
}

#[tokio::test]
async fn an_update_keeps_the_address_and_a_type_change_gives_ports_back() {
    let cluster = Cluster::start().await;
    let made = cluster
        .create(
            "services",
            service("s", json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30080}]})),
        )
        .await
        .unwrap();
    let mut wanted = made.clone();
    wanted["spec"]["clusterIP"] = "10.96.200.200".into();
    wanted["spec"]["clusterIPs"] = json!(["10.96.200.200"]);
    assert_eq!(cluster.update("services", None, &wanted).await.unwrap_err().code, 422);
    let patched = cluster.merge("services", "s", json!({"spec": {"type": "ClusterIP"}})).await.unwrap();
    assert_eq!(patched["spec"]["clusterIP"], made["spec"]["clusterIP"]);
    assert!(patched["spec"]["ports"][0].get("nodePort").is_none());
    let other = json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30080}]});
    cluster.create("services", service("t", other)).await.unwrap();
}

#[tokio::test]
async fn headless_and_external_services_have_no_address() {
    let cluster = Cluster::start().await;
    let headless = cluster.create("services", service("h", json!({"clusterIP": "None"}))).await.unwrap();
    assert_eq!(headless["spec"]["clusterIPs"], json!(["None"]));
    let external = cluster
        .create("services", service("e", json!({"type": "ExternalName", "externalName": "example.com"})))
        .await
        .unwrap();
    assert!(external["spec"].get("clusterIP").is_none());
}
