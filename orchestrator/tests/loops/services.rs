//! Service → EndpointSlices, Endpoints, and addresses for load balancers.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Endpoints, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Patch, PatchParams};
use penstock_cloud::CloudConfig;
use penstock_controllers::ControllersConfig;
use penstock_informers::Meta;
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::deployments::{deployment, rolled_out};

fn service(kind: &str) -> Value {
    json!({"metadata": {"name": "web"}, "spec": {
        "type": kind, "selector": {"app": "web"}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]}})
}

/// Addresses of slices of the Service, with whether they are ready, in order.
fn addresses(slices: &[EndpointSlice]) -> Vec<(String, bool)> {
    let ours = slices.iter().filter(|s| s.label("kubernetes.io/service-name") == Some("web"));
    let endpoints = ours.flat_map(|s| s.endpoints.iter().flatten());
    let mut all: Vec<(String, bool)> = endpoints
        .flat_map(|e| {
            let ready = e.conditions.as_ref().and_then(|c| c.ready) == Some(true);
            e.addresses.iter().map(move |a| (a.clone(), ready))
        })
        .collect();
    all.sort();
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn endpoints_follow_the_readiness_of_pods() {
    let cluster = Cluster::start(&["n1"]).await;
    cluster.create::<Service>(service("ClusterIP")).await;
    cluster.create::<Deployment>(deployment("web", 2)).await;
    cluster.until::<Deployment>("web", |d| rolled_out(d, 2)).await;
    let pods = cluster.until_all::<Pod>(|pods| pods.len() == 2).await;
    let mut expected: Vec<(String, bool)> =
        pods.iter().filter_map(|p| Some((p.status.as_ref()?.pod_ip.clone()?, true))).collect();
    expected.sort();
    let slices = cluster.until_all::<EndpointSlice>(|slices| addresses(slices) == expected).await;
    let slice =
        slices.iter().find(|s| s.label("kubernetes.io/service-name") == Some("web")).expect("a slice");
    let ports = slice.ports.clone().unwrap_or_default();
    assert_eq!((ports[0].name.as_deref(), ports[0].port), (Some("http"), Some(8080)));
    let legacy = cluster
        .until::<Endpoints>("web", |e| {
            let subsets = e.subsets.iter().flatten();
            subsets.flat_map(|s| s.addresses.iter().flatten()).count() == 2
        })
        .await;
    assert_eq!(legacy.subsets.map(|s| s.len()), Some(1));

    let unready = json!({"status": {"conditions": [{"type": "Ready", "status": "False"}]}});
    cluster
        .api::<Pod>()
        .patch_status(pods[0].name(), &PatchParams::default(), &Patch::Strategic(unready))
        .await
        .expect("a status");
    cluster
        .until_all::<EndpointSlice>(|slices| {
            addresses(slices).iter().filter(|(_, ready)| *ready).count() == 1
        })
        .await;

    cluster.api::<Service>().delete("web", &Default::default()).await.expect("a deletion");
    cluster.until_all::<EndpointSlice>(|slices| addresses(slices).is_empty()).await;
    cluster.until_gone::<Endpoints>("web").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn endpoints_somebody_wrote_for_a_service_without_selector_are_mirrored_to_slices() {
    let cluster = Cluster::start(&[]).await;
    cluster.create::<Service>(json!({"metadata": {"name": "web"}, "spec": {"ports": [{"port": 80}]}})).await;
    let written = |ip: &str| json!([{"addresses": [{"ip": ip}], "ports": [{"port": 8080}]}]);
    cluster.create::<Endpoints>(json!({"metadata": {"name": "web"}, "subsets": written("192.0.2.1")})).await;
    let is = |ip: &str, slices: &[EndpointSlice]| addresses(slices) == [(ip.to_owned(), true)];
    cluster.until_all::<EndpointSlice>(|slices| is("192.0.2.1", slices)).await;
    cluster.merge::<Endpoints>("web", json!({"subsets": written("192.0.2.2")})).await;
    cluster.until_all::<EndpointSlice>(|slices| is("192.0.2.2", slices)).await;
    cluster.merge::<Service>("web", json!({"spec": {"selector": {"app": "none"}}})).await;
    cluster.until_all::<EndpointSlice>(|slices| addresses(slices).is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_balancer_gets_an_address_and_gives_it_back() {
    let cloud = CloudConfig { load_balancer_pools: vec!["192.0.2.16/30".parse().expect("a range")] };
    let cluster = Cluster::start_with(&[], ControllersConfig::default(), cloud).await;
    cluster.create::<Service>(service("LoadBalancer")).await;
    let address = |service: &Service| {
        let status = service.status.as_ref()?.load_balancer.as_ref()?;
        status.ingress.as_ref()?.first()?.ip.clone()
    };
    let served = cluster.until::<Service>("web", |s| address(s).is_some()).await;
    assert_eq!(address(&served).as_deref(), Some("192.0.2.17"));
    cluster.merge::<Service>("web", json!({"spec": {"type": "ClusterIP"}})).await;
    cluster.until::<Service>("web", |s| address(s).is_none()).await;
}
