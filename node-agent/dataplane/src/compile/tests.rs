//! Golden tests: a cluster in YAML in, the map image out, in a form one can read.

use std::fmt::Write;

use super::*;
use crate::Limits;

/// Writes an image the way `node-agent maps` would: names instead of numbers.
fn shown(compiled: &Compiled) -> String {
    let mut text = String::new();
    let image = &compiled.image;
    for (key, vip) in &image.vips {
        let scope = |set: u32| match set {
            0 => "-",
            set if set % 2 == 0 => "cluster",
            _ => "local",
        };
        let address = IpAddr::from(key.address);
        let flags = match vip.flags {
            0 => "",
            VIP_NODE_PORT => " nodeport",
            _ => " nodeport host-only",
        };
        let (inside, outside) = (scope(vip.inside), scope(vip.outside));
        let name = &image.names[&vip.service];
        let _ = writeln!(
            text,
            "{address}:{}/{} {name} inside={inside} outside={outside}{flags}",
            u16::from_be(key.port),
            key.protocol
        );
    }
    for (id, set) in &image.sets {
        let scope = if id % 2 == 0 { "cluster" } else { "local" };
        let _ = write!(
            text,
            "{} {scope} flags={} affinity={}s:",
            image.names[&(id / 2)],
            set.flags,
            set.affinity_seconds
        );
        for backend in &set.backends {
            let local = if backend.local == 1 { "*" } else { "" };
            let _ = write!(
                text,
                " {}:{}{local}#{}",
                IpAddr::from(backend.address),
                u16::from_be(backend.port),
                backend.id
            );
        }
        text.push('\n');
    }
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
10.96.0.7:80/6 demo/hello:http inside=cluster outside=-
10.240.0.11:30080/6 demo/hello:http inside=cluster outside=cluster nodeport
127.0.0.1:30080/6 demo/hello:http inside=cluster outside=- nodeport host-only
demo/hello:http cluster flags=0 affinity=0s: 10.244.0.2:8080#1 10.244.1.3:8080*#2
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
10.96.0.7:80/6 demo/both: inside=local outside=-
192.0.2.1:80/6 demo/both: inside=cluster outside=local
demo/both: cluster flags=0 affinity=0s: 10.244.0.2:8080#1
demo/both: local flags=1 affinity=0s:
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
10.96.0.7:53/17 demo/ending: inside=cluster outside=-
10.96.0.8:53/17 demo/mixed: inside=cluster outside=-
demo/ending: cluster flags=0 affinity=10800s: 10.244.0.2:53#1
demo/mixed: cluster flags=0 affinity=0s: 10.244.0.4:53#3
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
192.0.2.1:80/6 demo/a: inside=cluster outside=cluster
demo/a: cluster flags=0 affinity=0s:
demo/b: cluster flags=0 affinity=0s:
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
