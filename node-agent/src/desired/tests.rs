//! The API's rules about Services and endpoints, one test a rule.

use k8s_openapi::api::discovery::v1::EndpointSlice;
use penstock_dataplane::ServiceKey;
use serde_json::{Value, json};

use std::net::IpAddr;

use super::*;
use crate::cluster::Seen;

const NODE: &str = "node-1";

fn name(text: &str) -> ObjectName {
    ObjectName { namespace: "a".into(), name: text.into() }
}

fn service(services: &mut Services, spec: Value) {
    let object = json!({"metadata": {"name": "web", "namespace": "a"}, "spec": spec});
    let object: k8s_openapi::api::core::v1::Service = serde_json::from_value(object).unwrap();
    services.see_service(Event::Is(name("web"), object.into()));
}

fn view(slice: Value) -> SliceView {
    serde_json::from_value::<Seen<EndpointSlice, SliceView>>(slice).unwrap().into_view()
}

fn slice(services: &mut Services, slice: &str, ports: Value, endpoints: Value) {
    let object = json!({
        "metadata": {"name": slice, "namespace": "a", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4", "ports": ports, "endpoints": endpoints,
    });
    services.see_slice(Event::Is(name(slice), view(object)));
}

/// What the data plane was told so far.
#[derive(Default)]
struct Desired {
    services: BTreeMap<ServiceKey, Service>,
}

impl Desired {
    fn note(&mut self, change: ServiceChange) {
        self.services.retain(|key, _| (&key.namespace, &key.name) != (&change.namespace, &change.name));
        let keys: Vec<_> = change.keys().collect();
        self.services.extend(keys.into_iter().zip(change.ports.into_values()));
    }
}

fn compile(services: &mut Services, desired: &mut Desired) {
    for name in services.take_dirty() {
        desired.note(services.compile(&name, NODE));
    }
}

fn in_zone(zone: Option<&str>) -> OwnNodeView {
    OwnNodeView { zone: zone.map(str::to_owned), leaving: false }
}

fn web() -> Value {
    json!({"clusterIPs": ["10.96.0.5"], "ports": [{"name": "http", "port": 80, "targetPort": "web", "nodePort": 30080}]})
}

#[test]
fn a_port_takes_its_backends_from_slices_that_have_its_name() {
    let (mut services, mut desired) = (Services::default(), Desired::default());
    service(&mut services, web());
    slice(
        &mut services,
        "web-1",
        json!([{"name": "http", "port": 8080}, {"name": "metrics", "port": 9090}]),
        json!([{"addresses": ["10.244.0.2"], "nodeName": NODE}, {"addresses": ["10.244.1.2"], "nodeName": "node-2"}]),
    );
    compile(&mut services, &mut desired);
    let port = &desired.services[&ServiceKey::new("a", "web", "http")];
    assert_eq!(port.node_port, Some(30080));
    let backends: Vec<_> = port.backends.iter().map(|b| (b.address.to_string(), b.port, b.local)).collect();
    assert_eq!(backends, [("10.244.0.2".to_string(), 8080, true), ("10.244.1.2".to_string(), 8080, false)]);
}

#[test]
fn slices_may_resolve_a_named_port_differently() {
    let (mut services, mut desired) = (Services::default(), Desired::default());
    service(&mut services, web());
    let endpoint = |address| json!([{"addresses": [address]}]);
    slice(&mut services, "web-1", json!([{"name": "http", "port": 8080}]), endpoint("10.244.0.2"));
    slice(&mut services, "web-2", json!([{"name": "http", "port": 8081}]), endpoint("10.244.0.3"));
    compile(&mut services, &mut desired);
    let ports: Vec<u16> =
        desired.services[&ServiceKey::new("a", "web", "http")].backends.iter().map(|b| b.port).collect();
    assert_eq!(ports, [8080, 8081]);
}

#[test]
fn absent_conditions_mean_ready_and_terminating_endpoints_keep_theirs() {
    let (mut services, mut desired) = (Services::default(), Desired::default());
    service(&mut services, web());
    slice(
        &mut services,
        "web-1",
        json!([{"name": "http", "port": 8080}]),
        json!([
            {"addresses": ["10.244.0.2"]},
            {"addresses": ["10.244.0.3"], "conditions": {"ready": false}},
            {"addresses": ["10.244.0.4"], "conditions": {"ready": false, "serving": true, "terminating": true}},
        ]),
    );
    compile(&mut services, &mut desired);
    let conditions: Vec<_> = desired.services[&ServiceKey::new("a", "web", "http")]
        .backends
        .iter()
        .map(|b| (b.ready, b.serving, b.terminating))
        .collect();
    assert_eq!(conditions, [(true, true, false), (false, false, false), (false, true, true)]);
}

#[test]
fn an_endpoint_that_moves_between_slices_is_one_backend_and_ready_if_it_is_in_either() {
    let (mut services, mut desired) = (Services::default(), Desired::default());
    service(&mut services, web());
    let ports = json!([{"name": "http", "port": 8080}]);
    let not_ready = json!([{"addresses": ["10.244.0.2"], "conditions": {"ready": false}}]);
    slice(&mut services, "web-1", ports.clone(), not_ready);
    slice(&mut services, "web-2", ports, json!([{"addresses": ["10.244.0.2"]}]));
    compile(&mut services, &mut desired);
    let backends = &desired.services[&ServiceKey::new("a", "web", "http")].backends;
    assert_eq!(backends.len(), 1);
    assert!(backends[0].ready);
}

#[test]
fn headless_external_and_foreign_services_are_not_proxied_but_named() {
    for (spec, exposure) in [
        (json!({"clusterIPs": ["None"], "ports": [{"port": 80}]}), "headless"),
        (json!({"type": "ExternalName", "externalName": "example.com"}), "external"),
    ] {
        let (mut services, mut desired) = (Services::default(), Desired::default());
        service(&mut services, spec);
        compile(&mut services, &mut desired);
        assert!(desired.services.is_empty(), "{exposure}");
        let record = services.compile_record(&name("web")).unwrap();
        match exposure {
            "headless" => assert_eq!(record.exposure, Exposure::Headless(vec![])),
            _ => assert_eq!(record.exposure, Exposure::External("example.com".into())),
        }
    }
    let (mut services, mut desired) = (Services::default(), Desired::default());
    let foreign = json!({
        "metadata": {"labels": {"service.kubernetes.io/service-proxy-name": "other"}}, "spec": web(),
    });
    let foreign: k8s_openapi::api::core::v1::Service = serde_json::from_value(foreign).unwrap();
    services.see_service(Event::Is(name("web"), foreign.into()));
    compile(&mut services, &mut desired);
    assert!(desired.services.is_empty());
}

#[test]
fn a_headless_service_names_ready_endpoints_only() {
    let mut services = Services::default();
    service(&mut services, json!({"clusterIPs": ["None"], "ports": [{"name": "http", "port": 80}]}));
    slice(
        &mut services,
        "web-1",
        json!([{"name": "http", "port": 8080}]),
        json!([
            {"addresses": ["10.244.0.2"], "hostname": "web-0"},
            {"addresses": ["10.244.0.3"], "conditions": {"ready": false}},
        ]),
    );
    let Exposure::Headless(endpoints) = services.compile_record(&name("web")).unwrap().exposure else {
        panic!()
    };
    assert_eq!(endpoints.len(), 1);
    assert_eq!(endpoints[0].hostname.as_deref(), Some("web-0"));
    assert_eq!(endpoints[0].ports[0].number, 8080);
}

#[test]
fn a_port_that_is_renamed_and_a_service_that_is_deleted_leave_nothing() {
    let (mut services, mut desired) = (Services::default(), Desired::default());
    service(&mut services, web());
    compile(&mut services, &mut desired);
    service(&mut services, json!({"clusterIPs": ["10.96.0.5"], "ports": [{"name": "api", "port": 80}]}));
    compile(&mut services, &mut desired);
    let keys: Vec<String> = desired.services.keys().map(ToString::to_string).collect();
    assert_eq!(keys, ["a/web:api"]);
    services.see_service(Event::All(BTreeSet::new()));
    compile(&mut services, &mut desired);
    assert!(desired.services.is_empty());
    assert_eq!(services.compile_record(&name("web")), None);
}

#[test]
fn a_change_of_nothing_is_no_work() {
    let mut services = Services::default();
    service(&mut services, web());
    services.take_dirty();
    service(&mut services, web());
    assert!(services.take_dirty().is_empty());
}

#[test]
fn nothing_is_acted_on_before_all_kinds_were_listed() {
    let mut services = Services::default();
    services.see_service(Event::All(BTreeSet::new()));
    assert!(!services.is_complete());
    services.see_slice(Event::All(BTreeSet::new()));
    assert!(!services.is_complete(), "the node's zone may be missing");
    services.see_own(Event::All(BTreeSet::new()));
    assert!(services.is_complete());
    services.see_slice(Event::Listing);
    assert!(services.is_complete(), "what is known stays known while it is listed again");
}

#[test]
fn policies_affinity_and_load_balancers_are_carried_over() {
    let (mut services, mut desired) = (Services::default(), Desired::default());
    let object = json!({
        "metadata": {"name": "web", "namespace": "a"},
        "spec": {
            "clusterIPs": ["10.96.0.5"], "ports": [{"port": 53, "protocol": "UDP"}], "sessionAffinity": "ClientIP",
            "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 60}}, "internalTrafficPolicy": "Local",
            "externalTrafficPolicy": "Local", "externalIPs": ["192.0.2.7"],
        },
        "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}, {"ip": "192.0.2.2", "ipMode": "Proxy"}]}},
    });
    let object: k8s_openapi::api::core::v1::Service = serde_json::from_value(object).unwrap();
    services.see_service(Event::Is(name("web"), object.into()));
    compile(&mut services, &mut desired);
    let port = &desired.services[&ServiceKey::new("a", "web", "")];
    assert_eq!(port.protocol, Protocol::Udp);
    assert_eq!(port.affinity_seconds, Some(60));
    assert!(port.internal_local && port.external_local);
    assert_eq!(port.load_balancer_ips, ["192.0.2.1".parse::<IpAddr>().unwrap()]);
    assert_eq!(port.external_ips, ["192.0.2.7".parse::<IpAddr>().unwrap()]);
}

#[test]
fn a_host_port_lives_as_long_as_its_pod_and_never_meets_a_service_of_the_same_name() {
    let (mut services, mut desired) = (Services::default(), Desired::default());
    service(&mut services, web());
    compile(&mut services, &mut desired);
    let attachment: penstock_network::Attachment = serde_json::from_value(json!({
        "id": {"container": "c", "interface": "eth0"}, "network": "penstock", "netns": "/n",
        "pod": {"namespace": "a", "name": "web", "uid": "u"}, "address": "10.244.0.9",
        "port_mappings": [{"hostPort": 8080, "containerPort": 80}, {"hostPort": 0, "containerPort": 81}],
    }))
    .unwrap();
    let node_ip: IpAddr = "10.240.0.11".parse().unwrap();
    let host_ports = compile_host_ports(&[attachment], &[node_ip]);
    host_ports.into_iter().for_each(|change| desired.note(change));
    assert_eq!(desired.services.len(), 2);
    services.see_service(Event::Gone(name("web")));
    compile(&mut services, &mut desired);
    let (_, left) = desired.services.iter().next().unwrap();
    assert_eq!((left.port, left.backends[0].port, left.external_ips[0]), (8080, 80, node_ip));
    assert!(compile_host_ports(&[], &[node_ip]).is_empty());
}

#[test]
fn a_host_port_leads_to_the_pod_s_address_of_the_family_that_was_asked() {
    let both: [IpAddr; 2] = ["10.240.0.11".parse().unwrap(), "fd00:240::11".parse().unwrap()];
    let of = |host_ip: &str, address_v6: Option<&str>| {
        let attachment: penstock_network::Attachment = serde_json::from_value(json!({
            "id": {"container": "c", "interface": "eth0"}, "network": "penstock", "netns": "/n",
            "pod": {"namespace": "a", "name": "web", "uid": "u"}, "address": "10.244.0.9", "address_v6": address_v6,
            "port_mappings": [{"hostPort": 8080, "containerPort": 80, "hostIP": host_ip}],
        }))
        .unwrap();
        let pods = compile_host_ports(&[attachment], &both);
        let ports = pods.iter().flat_map(|pod| pod.ports.values());
        let mut leads: Vec<String> =
            ports.map(|it| format!("{} -> {}", it.external_ips[0], it.backends[0].address)).collect();
        leads.sort();
        leads
    };
    let (four, six) = ("10.240.0.11 -> 10.244.0.9", "fd00:240::11 -> fd00:244::9");
    assert_eq!(of("", Some("fd00:244::9")), [four, six]);
    assert_eq!(of("0.0.0.0", Some("fd00:244::9")), [four]);
    assert_eq!(of("::", Some("fd00:244::9")), [six]);
    assert_eq!(of("fd00:240::11", Some("fd00:244::9")), [six]);
    assert_eq!(of("", None), [four]);
    assert!(of("::", None).is_empty());
}

#[test]
fn a_host_port_of_the_loopback_is_for_the_node_s_own_processes() {
    let attachment: penstock_network::Attachment = serde_json::from_value(json!({
        "id": {"container": "c", "interface": "eth0"}, "network": "penstock", "netns": "/n",
        "pod": {"namespace": "a", "name": "web", "uid": "u"}, "address": "10.244.0.9",
        "port_mappings": [{"hostPort": 8080, "containerPort": 80, "hostIP": "127.0.0.1"}],
    }))
    .unwrap();
    let pods = compile_host_ports(&[attachment], &["10.240.0.11".parse().unwrap()]);
    let port = pods[0].ports.values().next().unwrap();
    assert!(port.external_ips.is_empty());
    assert_eq!(port.loopbacks, [IpAddr::from([127, 0, 0, 1])]);
}

#[test]
fn ingress_gets_the_tcp_endpoints_of_headless_services_too_and_none_on_the_node_itself() {
    let mut services = Services::default();
    let ports = json!([{"name": "http", "port": 80}, {"name": "dns", "port": 53, "protocol": "UDP"}]);
    service(&mut services, json!({"clusterIP": "None", "clusterIPs": ["None"], "ports": ports}));
    let endpoints = json!([
        {"addresses": ["10.244.0.2"], "conditions": {"ready": false, "serving": true, "terminating": true}},
        {"addresses": ["127.0.0.1"]},
        {"addresses": ["169.254.169.254"]},
    ]);
    slice(&mut services, "web-1", json!([{"name": "http", "port": 8080}]), endpoints);
    let address = "10.244.0.2:8080".parse().unwrap();
    let endpoint = penstock_ingress::Endpoint { address, ready: false, serving: true };
    let http = ServicePort { name: "http".into(), number: 80, endpoints: vec![endpoint] };
    assert_eq!(services.compile_upstream(&name("web")), Some(vec![http]));

    service(&mut services, json!({"type": "ExternalName", "externalName": "a.test", "ports": ports}));
    assert_eq!(services.compile_upstream(&name("web")), Some(vec![]), "an external name is not forwarded to");
    services.see_service(Event::Gone(name("web")));
    assert_eq!(services.compile_upstream(&name("web")), None);
}

#[test]
fn hints_are_read_for_this_node_and_its_zone_and_a_distribution_stands_in_for_them() {
    let seen_from = |zone: Option<&str>, spec: Value, endpoint: Value| {
        let (mut services, mut desired) = (Services::default(), Desired::default());
        services.see_own(Event::Is(name(NODE), in_zone(zone)));
        service(&mut services, spec);
        slice(&mut services, "web-1", json!([{"name": "http", "port": 8080}]), json!([endpoint]));
        compile(&mut services, &mut desired);
        let backend = &desired.services[&ServiceKey::new("a", "web", "http")].backends[0];
        (backend.node_hint, backend.zone_hint)
    };
    let near = |distribution: &str| {
        let mut spec = web();
        spec["trafficDistribution"] = distribution.into();
        spec
    };
    let hinted = json!({"addresses": ["10.244.0.2"], "hints": {"forZones": [{"name": "east"}], "forNodes": [{"name": NODE}]}});
    assert_eq!(seen_from(Some("east"), web(), hinted.clone()), (Hint::Here, Hint::Here));
    assert_eq!(seen_from(Some("west"), web(), hinted.clone()), (Hint::Here, Hint::Elsewhere));
    assert_eq!(seen_from(None, web(), hinted), (Hint::Here, Hint::Elsewhere));
    let placed = json!({"addresses": ["10.244.0.2"], "nodeName": "node-2", "zone": "east"});
    assert_eq!(seen_from(Some("east"), web(), placed.clone()), (Hint::None, Hint::None));
    for (distribution, expected) in [
        ("PreferClose", (Hint::None, Hint::Here)),
        ("PreferSameZone", (Hint::None, Hint::Here)),
        ("PreferSameNode", (Hint::Elsewhere, Hint::Here)),
    ] {
        assert_eq!(seen_from(Some("east"), near(distribution), placed.clone()), expected, "{distribution}");
    }
}

#[test]
fn another_zone_of_the_node_makes_every_service_one_that_changed() {
    let mut services = Services::default();
    service(&mut services, web());
    services.take_dirty();
    services.see_own(Event::Is(name(NODE), in_zone(Some("east"))));
    assert_eq!(services.take_dirty().len(), 1);
    services.see_own(Event::Is(name(NODE), in_zone(Some("east"))));
    assert!(services.take_dirty().is_empty());
}

#[test]
fn slices_were_seen_up_to_a_version_once_all_are_listed() {
    let mut services = Services::default();
    let at = |services: &mut Services, slice: &str, version: &str, address: &str| {
        let labels = json!({"kubernetes.io/service-name": "web"});
        let object = json!({
            "metadata": {"name": slice, "namespace": "a", "labels": labels, "resourceVersion": version},
            "addressType": "IPv4", "ports": [{"name": "http", "port": 80}], "endpoints": [{"addresses": [address]}],
        });
        services.see_slice(Event::Is(name(slice), view(object)));
    };
    services.see_slice(Event::Listing);
    at(&mut services, "web-1", "70", "10.244.0.2");
    assert_eq!(services.seen_up_to(), 0, "an older change of another slice may not have come yet");
    at(&mut services, "web-2", "30", "10.244.0.3");
    services.see_slice(Event::All([name("web-1"), name("web-2")].into()));
    assert_eq!(services.seen_up_to(), 70);
    at(&mut services, "web-2", "81", "10.244.0.4");
    assert_eq!(services.seen_up_to(), 81);
    services.take_dirty();
    at(&mut services, "web-2", "82", "10.244.0.4");
    assert!(services.take_dirty().is_empty(), "a version alone is no work");
    services.see_slice(Event::Listing);
    at(&mut services, "web-1", "99", "10.244.0.2");
    assert_eq!(services.seen_up_to(), 82, "older changes of others may not have come yet");
}

#[test]
fn a_slice_full_of_nonsense_leaves_what_is_right_in_it() {
    let (mut services, mut desired) = (Services::default(), Desired::default());
    service(&mut services, web());
    let ports = json!([
        {"name": "http", "port": 0}, {"name": "http", "port": -1}, {"name": "http", "port": 70000},
        {"name": "http"}, {"name": "http", "protocol": "QUIC", "port": 1}, {"name": "http", "port": 8080},
    ]);
    let endpoints = json!([
        {"addresses": []}, {"addresses": ["nobody"]}, {"addresses": ["10.0.0.300"]}, {"addresses": [""]},
        {"addresses": ["10.244.0.2", "nobody"]}, {"addresses": ["10.244.0.2"]},
    ]);
    slice(&mut services, "web-1", ports, endpoints);
    compile(&mut services, &mut desired);
    let backends = &desired.services[&ServiceKey::new("a", "web", "http")].backends;
    let backends: Vec<_> = backends.iter().map(|it| (it.address.to_string(), it.port)).collect();
    assert_eq!(backends, [("10.244.0.2".to_owned(), 8080)]);
}

#[test]
fn thousands_of_ports_are_each_found() {
    const PORTS: u16 = 3000;
    let (mut services, mut desired) = (Services::default(), Desired::default());
    let ports: Vec<_> = (1..=PORTS).map(|port| json!({"name": format!("p{port}"), "port": port})).collect();
    service(&mut services, json!({"clusterIPs": ["10.96.0.5"], "ports": ports}));
    slice(&mut services, "web-1", json!(ports), json!([{"addresses": ["10.244.0.2"]}]));
    compile(&mut services, &mut desired);
    assert_eq!(desired.services.len(), usize::from(PORTS));
    assert!(
        desired.services.values().all(|port| port.backends.len() == 1 && port.backends[0].port == port.port)
    );
}

#[test]
fn addresses_from_our_pools_are_announced_by_all_nodes_or_by_those_with_endpoints() {
    let mut services = Services::default();
    let mut announced = |policy: &str, condition: &str, endpoints: Value| {
        let object = json!({
            "metadata": {"name": "web", "namespace": "a"},
            "spec": {"clusterIPs": ["10.96.0.5"], "externalTrafficPolicy": policy, "ports": [{"port": 80}]},
            "status": {
                "loadBalancer": {"ingress": [{"ip": "192.0.2.1"}, {"ip": "127.0.0.1"}]},
                "conditions": [{"type": condition, "status": "True", "reason": "R", "message": "",
                    "lastTransitionTime": "2026-01-01T00:00:00Z"}],
            },
        });
        let object: k8s_openapi::api::core::v1::Service = serde_json::from_value(object).unwrap();
        services.see_service(Event::Is(name("web"), object.into()));
        slice(&mut services, "web-1", json!([{"name": "", "port": 8080}]), endpoints);
        services.compile_announced(&name("web"))
    };
    let endpoint = |node: &str, conditions: Value| json!({"addresses": ["10.244.0.2"], "nodeName": node, "conditions": conditions});
    assert_eq!(announced("Cluster", "Other", json!([])), None, "somebody else's balancer");
    let cluster = announced("Cluster", "AddressAssigned", json!([])).unwrap();
    assert_eq!(cluster, Announced { addresses: vec![[192, 0, 2, 1].into()], nodes: None });

    let mut nodes =
        |endpoints: Value| announced("Local", "AddressAssigned", endpoints).unwrap().nodes.unwrap();
    let ends = json!({"ready": false, "serving": true, "terminating": true});
    let both = json!([endpoint("node-1", json!({"ready": true})), endpoint("node-2", ends.clone())]);
    assert_eq!(nodes(both), ["node-1".to_owned()].into());
    assert_eq!(
        nodes(json!([endpoint("node-2", ends)])),
        ["node-2".to_owned()].into(),
        "the last one serves on"
    );
    assert!(nodes(json!([endpoint("node-1", json!({"ready": false}))])).is_empty());
}

#[test]
fn when_a_change_happened_is_told_once_and_not_of_a_slice_that_is_as_it_was() {
    let mut services = Services::default();
    let mut see = |time: &str, address: &str| {
        let object = json!({
            "metadata": {
                "name": "web-1", "namespace": "a", "labels": {"kubernetes.io/service-name": "web"},
                "annotations": {"endpoints.kubernetes.io/last-change-trigger-time": time},
            },
            "addressType": "IPv4", "ports": [{"port": 80}], "endpoints": [{"addresses": [address]}],
        });
        services.see_slice(Event::Is(name("web-1"), view(object)));
        services.take_changed_at().iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(see("2026-01-01T00:00:01Z", "10.244.0.2"), ["2026-01-01T00:00:01Z"]);
    assert!(see("2026-01-01T00:00:02Z", "10.244.0.2").is_empty(), "nothing changed");
    assert_eq!(see("2026-01-01T00:00:03.5Z", "10.244.0.3"), ["2026-01-01T00:00:03.5Z"]);
    assert!(see("yesterday", "10.244.0.4").is_empty(), "no time");
}
