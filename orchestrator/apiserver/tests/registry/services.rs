//! Services: addresses and node ports are given once.

use penstock_apiserver::registry::{DeleteOptions, RegistryConfig, Target};
use serde_json::{Value, json};

use crate::cluster::{Cluster, config, context};

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

#[tokio::test]
async fn a_service_changes_its_type_in_place_and_takes_and_gives_what_each_type_has() {
    let cluster = Cluster::start().await;
    let made = cluster.create("services", service("s", json!({"ports": [{"port": 80}]}))).await.unwrap();
    let ip = made["spec"]["clusterIP"].clone();
    assert!(made["spec"]["ports"][0].get("nodePort").is_none());

    let patched = cluster.merge("services", "s", json!({"spec": {"type": "NodePort"}})).await.unwrap();
    let node_port = patched["spec"]["ports"][0]["nodePort"].clone();
    assert!(node_port.is_number() && patched["spec"]["clusterIP"] == ip);
    assert_eq!(patched["spec"]["externalTrafficPolicy"], "Cluster");

    let local = json!({"spec": {"type": "LoadBalancer", "externalTrafficPolicy": "Local"}});
    let patched = cluster.merge("services", "s", local).await.unwrap();
    assert_eq!(patched["spec"]["ports"][0]["nodePort"], node_port, "it keeps its node port");
    let health_port = patched["spec"]["healthCheckNodePort"].clone();
    assert!(health_port.is_number() && health_port != node_port);
    assert_eq!(patched["spec"]["allocateLoadBalancerNodePorts"], true);

    let patched = cluster.merge("services", "s", json!({"spec": {"type": "ClusterIP"}})).await.unwrap();
    for field in ["healthCheckNodePort", "externalTrafficPolicy", "allocateLoadBalancerNodePorts"] {
        assert!(patched["spec"].get(field).is_none(), "{field} stays: {patched}");
    }
    assert!(patched["spec"]["ports"][0].get("nodePort").is_none() && patched["spec"]["clusterIP"] == ip);
    // Both ports are free for others.
    let ports = json!([{"name": "a", "port": 1, "nodePort": node_port}, {"name": "b", "port": 2, "nodePort": health_port}]);
    cluster.create("services", service("t", json!({"type": "NodePort", "ports": ports}))).await.unwrap();

    let external = json!({"spec": {"type": "ExternalName", "externalName": "example.com"}});
    let patched = cluster.merge("services", "s", external).await.unwrap();
    assert!(patched["spec"].get("clusterIP").is_none(), "{patched}");
    let text = ip.as_str().unwrap();
    assert!(cluster.get("ipaddresses", text).await.is_err(), "its address is given back");
    let other = json!({"clusterIP": text, "ports": [{"port": 80}]});
    cluster.create("services", service("u", other)).await.unwrap();

    let patched = cluster.merge("services", "s", json!({"spec": {"type": "ClusterIP"}})).await.unwrap();
    assert!(patched["spec"].get("externalName").is_none());
    assert!(patched["spec"]["clusterIP"] != ip && patched["spec"]["clusterIP"].is_string());
    let headless = json!({"spec": {"clusterIP": "None", "clusterIPs": ["None"]}});
    assert_eq!(cluster.merge("services", "s", headless).await.unwrap_err().code, 422);
}

#[tokio::test]
async fn a_load_balancer_without_node_ports_gets_none_and_keeps_those_it_names_or_had() {
    let cluster = Cluster::start().await;
    let without = |ports: Value| json!({"type": "LoadBalancer", "allocateLoadBalancerNodePorts": false, "ports": ports});
    let made = cluster.create("services", service("a", without(json!([{"port": 80}])))).await.unwrap();
    assert!(made["spec"]["ports"][0].get("nodePort").is_none());
    let named = without(json!([{"port": 80, "nodePort": 30123}]));
    let made = cluster.create("services", service("b", named.clone())).await.unwrap();
    assert_eq!(made["spec"]["ports"][0]["nodePort"], 30123);
    assert_eq!(cluster.create("services", service("c", named)).await.unwrap_err().code, 422, "it is taken");
    let outside = without(json!([{"port": 80, "nodePort": 80}]));
    assert_eq!(cluster.create("services", service("d", outside)).await.unwrap_err().code, 422);

    let with = json!({"type": "LoadBalancer", "ports": [{"port": 80}]});
    let made = cluster.create("services", service("e", with)).await.unwrap();
    let kept = json!({"spec": {"allocateLoadBalancerNodePorts": false}});
    let patched = cluster.merge("services", "e", kept).await.unwrap();
    assert_eq!(patched["spec"]["ports"], made["spec"]["ports"]);
}

#[tokio::test]
async fn a_health_check_port_is_given_once_and_stays() {
    let cluster = Cluster::start().await;
    let local = |health: Option<u16>, node_port: u16| {
        let mut spec = json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local",
            "ports": [{"port": 80, "nodePort": node_port}]});
        if let Some(health) = health {
            spec["healthCheckNodePort"] = health.into();
        }
        spec
    };
    cluster.create("services", service("a", local(Some(30200), 30201))).await.unwrap();
    for (health, node_port) in [(30200, 30202), (30201, 30202), (30203, 30200), (30204, 30204), (80, 30205)] {
        let refused = cluster.create("services", service("b", local(Some(health), node_port))).await;
        assert_eq!(refused.unwrap_err().code, 422, "{health} {node_port}");
    }
    let changed = cluster.merge("services", "a", json!({"spec": {"healthCheckNodePort": 30210}})).await;
    assert_eq!(changed.unwrap_err().code, 422);
    let cluster_wide = json!({"type": "LoadBalancer", "ports": [{"port": 80}], "healthCheckNodePort": 30211});
    assert_eq!(cluster.create("services", service("c", cluster_wide)).await.unwrap_err().code, 422);
}

#[tokio::test]
async fn only_a_load_balancer_has_addresses_of_one_and_they_say_how_they_are_reached() {
    let cluster = Cluster::start().await;
    let balancer = json!({"type": "LoadBalancer", "ports": [{"port": 80}]});
    let status =
        json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}, {"ip": "192.0.2.2", "ipMode": "Proxy"}]}});
    for (name, spec, modes) in
        [("a", balancer, json!(["VIP", "Proxy"])), ("b", json!({"ports": [{"port": 80}]}), json!([]))]
    {
        let mut made = cluster.create("services", service(name, spec)).await.unwrap();
        made["status"] = status.clone();
        let updated = cluster.update("services", Some("status"), &made).await.unwrap();
        let ingress = updated.pointer("/status/loadBalancer/ingress").and_then(Value::as_array).cloned();
        let found: Vec<Value> = ingress.unwrap_or_default().iter().map(|it| it["ipMode"].clone()).collect();
        assert_eq!(json!(found), modes);
    }
}

fn of_two_families() -> RegistryConfig {
    let mut config = config();
    config.service_cidrs.push("fd00:10:96::/112".parse().unwrap());
    config.cluster_dns.push("fd00:10:96::a".parse().unwrap());
    config
}

async fn dual() -> Cluster {
    Cluster::start_with(of_two_families()).await
}

fn text(object: &Value, pointer: &str) -> String {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
}

#[tokio::test]
async fn a_service_of_two_families_has_an_address_of_each_and_gives_both_back() {
    let cluster = dual().await;
    for (name, spec, families) in [
        ("plain", json!({}), json!(["IPv4"])),
        ("prefers", json!({"ipFamilyPolicy": "PreferDualStack"}), json!(["IPv4", "IPv6"])),
        ("second-first", json!({"ipFamilies": ["IPv6", "IPv4"]}), json!(["IPv6", "IPv4"])),
        ("second-only", json!({"ipFamilies": ["IPv6"]}), json!(["IPv6"])),
        (
            "asks",
            json!({"clusterIP": "fd00:10:96::77", "clusterIPs": ["fd00:10:96::77", "10.96.7.7"]}),
            json!(["IPv6", "IPv4"]),
        ),
        (
            "balances",
            json!({"type": "LoadBalancer", "ipFamilyPolicy": "RequireDualStack"}),
            json!(["IPv4", "IPv6"]),
        ),
    ] {
        let mut spec = spec;
        spec["ports"] = json!([{"port": 80}]);
        let made = cluster.create("services", service(name, spec)).await.unwrap();
        assert_eq!(made["spec"]["ipFamilies"], families, "{name}");
        assert_eq!(made["spec"]["clusterIPs"].as_array().unwrap().len(), families.as_array().unwrap().len());
        assert_eq!(made["spec"]["clusterIP"], made["spec"]["clusterIPs"][0]);
        for (i, family) in families.as_array().unwrap().iter().enumerate() {
            let ip = text(&made, &format!("/spec/clusterIPs/{i}"));
            assert_eq!(ip.contains(':'), family == "IPv6", "{name}: {ip}");
            let claim = cluster.get("ipaddresses", &ip).await.unwrap();
            assert_eq!(claim["metadata"]["labels"]["ipaddress.kubernetes.io/ip-family"], *family);
            assert_eq!(claim["spec"]["parentRef"]["name"], name);
        }
    }
    let taken = json!({"clusterIP": "10.96.9.9", "clusterIPs": ["10.96.9.9", "fd00:0010:96:0::77"], "ports": [{"port": 80}]});
    let error = cluster.create("services", service("late", taken)).await.unwrap_err();
    assert!(
        error.message.contains("fd00:0010:96:0::77: provided IP is already allocated"),
        "{}",
        error.message
    );
    assert!(cluster.get("ipaddresses", "10.96.9.9").await.is_err(), "a refused Service keeps no address");
    cluster.delete("services", "asks", DeleteOptions::default()).await.unwrap();
    for ip in ["fd00:10:96::77", "10.96.7.7"] {
        assert!(cluster.get("ipaddresses", ip).await.is_err(), "{ip} is free again");
    }
    let (kind, target) = (cluster.kind("services"), Target::named(Some("kube-system"), "kube-dns"));
    let dns = cluster.registry.get(&context(), &kind, &target).await.map(|found| found.value());
    assert_eq!(dns.unwrap()["spec"]["clusterIPs"], json!(["10.96.0.10", "fd00:10:96::a"]));
}

#[tokio::test]
async fn a_second_family_comes_and_goes_in_place() {
    let cluster = dual().await;
    let made = cluster.create("services", service("s", json!({"ports": [{"port": 80}]}))).await.unwrap();
    let first = text(&made, "/spec/clusterIP");
    let wants = |policy: &str| json!({"spec": {"ipFamilyPolicy": policy}});
    let both = cluster.merge("services", "s", wants("PreferDualStack")).await.unwrap();
    assert_eq!(both["spec"]["ipFamilies"], json!(["IPv4", "IPv6"]));
    assert_eq!(text(&both, "/spec/clusterIPs/0"), first);
    let second = text(&both, "/spec/clusterIPs/1");
    let kept = cluster.merge("services", "s", json!({"metadata": {"labels": {"a": "b"}}})).await.unwrap();
    assert_eq!(kept["spec"]["clusterIPs"], both["spec"]["clusterIPs"]);
    let swapped = json!({"spec": {"ipFamilies": ["IPv6", "IPv4"]}});
    assert_eq!(cluster.merge("services", "s", swapped).await.unwrap_err().code, 422);
    let dropped = json!({"spec": {"clusterIPs": [first], "ipFamilies": ["IPv4"]}});
    assert_eq!(cluster.merge("services", "s", dropped).await.unwrap_err().code, 422, "only with SingleStack");

    let single = cluster.merge("services", "s", wants("SingleStack")).await.unwrap();
    assert_eq!(single["spec"]["clusterIPs"], json!([first]));
    assert_eq!(single["spec"]["ipFamilies"], json!(["IPv4"]));
    assert!(cluster.get("ipaddresses", &second).await.is_err(), "{second} is given back");
    let external = json!({"spec": {"type": "ExternalName", "externalName": "example.com"}});
    let external = cluster.merge("services", "s", external).await.unwrap();
    assert!(external["spec"].get("ipFamilies").is_none() && external["spec"].get("ipFamilyPolicy").is_none());
}

#[tokio::test]
async fn one_family_is_enough_where_two_are_only_preferred() {
    let cluster = Cluster::start().await;
    let with = |policy: &str| json!({"ipFamilyPolicy": policy, "ports": [{"port": 80}]});
    let made = cluster.create("services", service("p", with("PreferDualStack"))).await.unwrap();
    assert_eq!(made["spec"]["ipFamilies"], json!(["IPv4"]));
    let refused = cluster.create("services", service("r", with("RequireDualStack"))).await.unwrap_err();
    assert!(refused.message.contains("this cluster is not configured for dual-stack"), "{}", refused.message);
    let headless = |extra: Value| {
        let mut spec = json!({"clusterIP": "None", "ports": [{"port": 80}]});
        spec.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        spec
    };
    let free = cluster.create("services", service("h", headless(json!({})))).await.unwrap();
    assert_eq!(free["spec"]["ipFamilies"], json!(["IPv4", "IPv6"]), "its endpoints are somebody else's");
    assert_eq!(free["spec"]["ipFamilyPolicy"], "RequireDualStack");
    let selects = headless(json!({"selector": {"a": "b"}}));
    let selects = cluster.create("services", service("i", selects)).await.unwrap();
    assert_eq!(selects["spec"]["ipFamilies"], json!(["IPv4"]));
}

#[tokio::test]
async fn a_kept_store_gains_a_second_range_and_its_services_keep_what_they_have() {
    let both = json!({"ports": [{"port": 80}], "ipFamilyPolicy": "PreferDualStack"});
    let cluster = Cluster::start().await;
    let before = cluster.create("services", service("before", both.clone())).await.unwrap();
    assert_eq!(before["spec"]["ipFamilies"], json!(["IPv4"]));

    let cluster = cluster.start_again_with(of_two_families()).await;
    let ranges = json!(["10.96.0.0/16", "fd00:10:96::/112"]);
    assert_eq!(cluster.get("servicecidrs", "kubernetes").await.unwrap()["spec"]["cidrs"], ranges);
    assert_eq!(cluster.get("services", "before").await.unwrap()["spec"], before["spec"]);
    let after = cluster.create("services", service("after", both)).await.unwrap();
    assert_eq!(after["spec"]["ipFamilies"], json!(["IPv4", "IPv6"]));

    let cluster = cluster.start_again_with(config()).await;
    assert_eq!(cluster.get("servicecidrs", "kubernetes").await.unwrap()["spec"]["cidrs"], ranges);
    assert_eq!(cluster.get("services", "after").await.unwrap()["spec"], after["spec"]);
}
