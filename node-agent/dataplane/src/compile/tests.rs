//! Golden tests: a cluster in YAML in, the map image out, in a form one can read.

use std::fmt::Write;

use super::*;
use crate::Limits;

fn shown(compiled: &Compiled) -> String {
    let mut text = compiled.image.to_string();
    for (key, address, port) in &compiled.conflicts {
        let _ = writeln!(text, "conflict: {key} {address}:{port}");
    }
    text
}

fn check(yaml: &str, expected: &str) {
    let desired: Desired = serde_yaml::from_str(yaml).expect("the desired state in the test");
    let compiled = compile(&desired, &Ids::new(&Limits::default()));
    assert_eq!(shown(&compiled), expected.trim_start_matches('\n'));
}

#[test]
fn a_node_port_service_is_reached_by_its_address_each_node_address_and_the_loopback() {
    check(
        "
node_addresses: [10.240.0.11]
services:
  demo/hello:http:
    cluster_ips: [10.96.0.7]
    port: 80
    node_port: 30080
    backends:
    - { address: 10.244.1.3, port: 8080, local: true }
    - { address: 10.244.0.2, port: 8080 }
",
        "
10.96.0.7:80/TCP demo/hello:http inside=cluster outside=-
10.240.0.11:30080/TCP demo/hello:http inside=cluster outside=cluster nodeport
127.0.0.1:30080/TCP demo/hello:http inside=cluster outside=- nodeport host-only
demo/hello:http cluster: 10.244.0.2:8080 10.244.1.3:8080*
",
    );
}

#[test]
fn a_port_of_the_loopback_is_reached_by_the_node_s_own_processes_alone() {
    check(
        "
node_addresses: [10.240.0.11]
services:
  demo/pod:
    loopbacks: [127.0.0.1, 10.0.0.1]
    port: 8080
    backends:
    - { address: 10.244.1.3, port: 80, local: true }
",
        "
127.0.0.1:8080/TCP demo/pod: inside=cluster outside=- host-only
demo/pod: cluster: 10.244.1.3:80*
",
    );
}

#[test]
fn local_policies_lead_to_the_set_of_this_node() {
    check(
        "
node_addresses: [10.240.0.11]
services:
  demo/both:
    cluster_ips: [10.96.0.7]
    external_ips: [192.0.2.1]
    port: 80
    internal_local: true
    external_local: true
    backends:
    - { address: 10.244.0.2, port: 8080 }
",
        "
10.96.0.7:80/TCP demo/both: inside=local outside=-
192.0.2.1:80/TCP demo/both: inside=cluster outside=local yields
demo/both: cluster: 10.244.0.2:8080
demo/both: local empty=drop:
",
    );
}

#[test]
fn backends_that_end_serve_only_when_nobody_is_ready() {
    check(
        "
services:
  demo/ending:
    cluster_ips: [10.96.0.7]
    port: 53
    protocol: UDP
    affinity_seconds: 10800
    backends:
    - { address: 10.244.0.2, port: 53, ready: false, serving: true, terminating: true }
    - { address: 10.244.0.3, port: 53, ready: false, serving: false, terminating: true }
  demo/mixed:
    cluster_ips: [10.96.0.8]
    port: 53
    protocol: UDP
    backends:
    - { address: 10.244.0.2, port: 53, ready: false, serving: true, terminating: true }
    - { address: 10.244.0.4, port: 53 }
",
        "
10.96.0.7:53/UDP demo/ending: inside=cluster outside=-
10.96.0.8:53/UDP demo/mixed: inside=cluster outside=-
demo/ending: cluster affinity=10800s: 10.244.0.2:53
demo/mixed: cluster: 10.244.0.4:53
",
    );
}

#[test]
fn an_address_of_the_node_itself_is_never_translated() {
    check(
        "
never_translated: [10.96.0.10]
services:
  kube-system/kube-dns:dns:
    cluster_ips: [10.96.0.10]
    port: 53
    protocol: UDP
",
        "",
    );
}

#[test]
fn an_address_of_two_services_stays_with_the_first_by_name() {
    check(
        "
services:
  demo/a: { external_ips: [192.0.2.1], port: 80 }
  demo/b: { external_ips: [192.0.2.1], port: 80 }
",
        "
192.0.2.1:80/TCP demo/a: inside=cluster outside=cluster yields
demo/a: cluster:
demo/b: cluster:
conflict: demo/b: 192.0.2.1:80
",
    );
}

#[test]
fn more_service_ports_than_numbers_are_reported_and_the_rest_is_served() {
    let service =
        |last: u8| Service { cluster_ips: vec![[10, 96, 0, last].into()], port: 80, ..Service::default() };
    let services =
        (1..=3).map(|last| (ServiceKey::new("demo", format!("s{last}"), ""), service(last))).collect();
    let desired = Desired { services, ..Desired::default() };
    let compiled = compile(&desired, &Ids::new(&Limits { services_max: 3, ..Limits::default() }));
    assert_eq!(compiled.unplaced, [ServiceKey::new("demo", "s3", "")]);
    assert_eq!(compiled.image.vips.len(), 2);
}

#[test]
fn each_family_of_a_dual_stack_service_chooses_among_backends_of_its_own() {
    check(
        "
node_addresses: [10.240.0.11, 'fd00:240::11']
services:
  demo/dual:
    cluster_ips: [10.96.0.7, 'fd00:96::7']
    port: 80
    node_port: 30080
    external_local: true
    backends:
    - { address: 10.244.0.2, port: 8080 }
    - { address: 'fd00:244::2', port: 8080, local: true }
",
        "
[::1]:30080/TCP demo/dual: inside=cluster6 outside=- nodeport host-only
10.96.0.7:80/TCP demo/dual: inside=cluster outside=-
10.240.0.11:30080/TCP demo/dual: inside=cluster outside=local nodeport
127.0.0.1:30080/TCP demo/dual: inside=cluster outside=- nodeport host-only
[fd00:96::7]:80/TCP demo/dual: inside=cluster6 outside=-
[fd00:240::11]:30080/TCP demo/dual: inside=cluster6 outside=local6 nodeport
demo/dual: cluster: 10.244.0.2:8080
demo/dual: local empty=drop:
demo/dual: cluster6: [fd00:244::2]:8080*
demo/dual: local6 empty=drop: [fd00:244::2]:8080*
",
    );
}

#[test]
fn a_single_stack_service_is_not_served_on_the_node_s_other_family() {
    check(
        "
node_addresses: [10.240.0.11, 'fd00:240::11']
services:
  demo/six:
    cluster_ips: ['fd00:96::7']
    port: 80
    node_port: 30080
    external_ips: [192.0.2.1]
",
        "
[::1]:30080/TCP demo/six: inside=cluster6 outside=- nodeport host-only
[fd00:96::7]:80/TCP demo/six: inside=cluster6 outside=-
[fd00:240::11]:30080/TCP demo/six: inside=cluster6 outside=cluster6 nodeport
demo/six: cluster6:
",
    );
}

#[test]
fn source_ranges_hold_for_the_load_balancer_s_addresses_only() {
    check(
        "
node_addresses: [10.240.0.11]
services:
  demo/lb:
    cluster_ips: [10.96.0.7]
    port: 80
    node_port: 30080
    load_balancer_ips: [192.0.2.1]
    source_ranges: [203.0.113.77/24, 'fd00:7::/64']
",
        "
10.96.0.7:80/TCP demo/lb: inside=cluster outside=-
10.240.0.11:30080/TCP demo/lb: inside=cluster outside=cluster nodeport
127.0.0.1:30080/TCP demo/lb: inside=cluster outside=- nodeport host-only
192.0.2.1:80/TCP demo/lb: inside=cluster outside=cluster ranges
demo/lb: cluster:
demo/lb: lets in 203.0.113.0/24
demo/lb: lets in fd00:7::/64
",
    );
}

#[test]
fn hints_count_when_all_ready_endpoints_have_one_and_the_node_s_come_before_the_zone_s() {
    let service = |first: &str, second: &str| {
        format!(
            "
services:
  demo/near:
    cluster_ips: [10.96.0.7]
    port: 80
    backends:
    - {{ address: 10.244.0.2, port: 80, {first} }}
    - {{ address: 10.244.0.3, port: 80, {second} }}
    - {{ address: 10.244.0.4, port: 80, ready: false, node_hint: here, zone_hint: here }}
"
        )
    };
    for (first, second, chosen) in [
        ("zone_hint: here", "zone_hint: elsewhere", "2"),
        ("zone_hint: elsewhere", "zone_hint: elsewhere", "2 3"),
        ("zone_hint: here", "zone_hint: none", "2 3"),
        ("zone_hint: here, node_hint: elsewhere", "zone_hint: here, node_hint: here", "3"),
        ("zone_hint: here, node_hint: elsewhere", "zone_hint: elsewhere, node_hint: elsewhere", "2"),
    ] {
        let desired: Desired = serde_yaml::from_str(&service(first, second)).expect("services");
        let image = compile(&desired, &Ids::new(&Limits::default())).image;
        let set = image.sets.values().next().expect("a set");
        let got: Vec<_> = set
            .backends
            .iter()
            .map(|backend| IpAddr::from(backend.address).to_string().split_off("10.244.0.".len()))
            .collect();
        assert_eq!(got.join(" "), chosen, "{first}; {second}");
    }
}

#[test]
fn an_endpoint_that_is_published_although_it_ends_is_chosen() {
    check(
        "
services:
  demo/early:
    cluster_ips: [10.96.0.7]
    port: 80
    backends:
    - { address: 10.244.0.2, port: 80, ready: true, serving: true, terminating: true }
    - { address: 10.244.0.3, port: 80 }
",
        "
10.96.0.7:80/TCP demo/early: inside=cluster outside=-
demo/early: cluster: 10.244.0.2:80 10.244.0.3:80
",
    );
}

#[test]
fn nonsense_in_a_slice_or_a_service_leads_nowhere_and_the_rest_is_served() {
    check(
        "
node_addresses: [10.240.0.11]
services:
  demo/zero: { cluster_ips: [10.96.0.9], port: 0 }
  demo/odd:
    cluster_ips: [10.96.0.7]
    port: 80
    external_ips: [127.0.0.1, 0.0.0.0, 224.0.0.1, '::1']
    backends:
    - { address: 10.244.0.2, port: 0 }
    - { address: 127.0.0.1, port: 80 }
    - { address: 169.254.169.254, port: 80 }
    - { address: '::ffff:127.0.0.1', port: 80 }
    - { address: 0.0.0.0, port: 80 }
    - { address: 255.255.255.255, port: 80 }
    - { address: 224.0.0.1, port: 80 }
    - { address: 'fe80::1', port: 80 }
    - { address: 10.244.0.3, port: 80 }
    - { address: 10.244.0.3, port: 80, local: true }
",
        "
10.96.0.7:80/TCP demo/odd: inside=cluster outside=-
demo/odd: cluster: 10.244.0.3:80
",
    );
}
