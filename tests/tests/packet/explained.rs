//! `explain` beside the programs: for each connection both say the same, from the same maps.
//!
//! ```text
//!   first packet ──> program at the uplink or the pod's link ──> told        ┐
//!   the same question ──> explain, by what the maps hold       ──> explained ┴─ equal: verdict, reason, backend
//! ```
//!
//! And after it, which flow is there, and which backend the client is held to.

use std::net::SocketAddr;

use penstock_dataplane::{Client, Observer, Remembered, Snapshot, Verdict, Wanted};
use penstock_ebpf_common::{Reason, Told};
use penstock_observe::{Established, Explanation, Question, Source, explain};
use penstock_tests::packet::{Packet, SYN, Transport};

use crate::{At, Node, on_node};

const SERVICES: &str = "
  demo/near:
    cluster_ips: [10.96.0.9, \"fd00:96::9\"]
    port: 80
    node_port: 30090
    backends:
    - { address: 10.244.1.2, port: 8080, local: true }
    - { address: \"fd00:244:1::2\", port: 8080, local: true }
  demo/far:
    cluster_ips: [10.96.0.8, \"fd00:96::8\"]
    port: 80
    node_port: 30080
    backends:
    - { address: 10.244.2.3, port: 8080 }
    - { address: \"fd00:244:2::3\", port: 8080 }
  demo/nobody:
    cluster_ips: [10.96.0.7]
    port: 80
    node_port: 30081
  demo/elsewhere:
    cluster_ips: [10.96.0.6]
    port: 80
    node_port: 30082
    internal_local: true
    external_local: true
    backends: [{ address: 10.244.2.3, port: 8080 }]
  demo/limited:
    cluster_ips: [10.96.0.5]
    port: 80
    load_balancer_ips: [203.0.113.5]
    source_ranges: [10.240.0.0/24]
    backends: [{ address: 10.244.1.2, port: 8080, local: true }]
";

/// What a program told of the only packet.
fn told(node: &Node, place: At, packet: &Packet) -> Told {
    let wanted = Wanted { verdicts: Verdict::ALL.to_vec(), sample: 1 };
    let mut observer = Observer::open(node.stand().bpffs(), wanted).expect("an observer");
    node.run(place, packet);
    observer.next_told().expect("told")
}

/// What is said of a client's connection.
fn explain_to(node: &Node, source: Source, source_port: Option<u16>, to: SocketAddr) -> Explanation {
    let question = Question { source, source_port, address: to.ip(), port: to.port(), protocol: 6 };
    let address = match source {
        Source::Outside(address) => address,
        Source::Pod(address) => Some(address),
        Source::Host => None,
    };
    let client = Client { address, netns: None };
    let pins = node.stand().bpffs();
    let remembered = Remembered::observe(pins, client, (to.ip(), to.port()), 6).expect("readable");
    explain(&Snapshot::observe(pins).expect("readable"), &remembered, &question)
}

fn same(node: &Node, place: At, from: &str, to: &str) {
    let packet = Packet::new(Transport::Tcp(SYN), from, to);
    let told = told(node, place, &packet);
    let source = match place {
        At::Uplink | At::Entering | At::Tunnel => Source::Outside(Some(packet.source.ip())),
        At::Pod | At::Leaving => Source::Pod(packet.source.ip()),
    };
    let explained = explain_to(node, source, None, packet.destination);
    let verdict = Verdict::from_number(told.verdict).expect("a verdict").name();
    assert_eq!(explained.verdict, verdict, "{from} -> {to}\n{}", explained.text());
    let reason = (verdict == "dropped").then(|| Reason::ALL[usize::from(told.reason)].name());
    assert_eq!(explained.reason, reason, "{from} -> {to}\n{}", explained.text());
    if verdict == "translated" {
        let backend = SocketAddr::new(told.new_destination.into(), u16::from_be(told.new_destination_port));
        assert!(explained.backends.contains(&backend), "{backend}\n{}", explained.text());
    }
}

#[test]
fn what_comes_in_by_the_uplink_is_explained_as_it_is_done() {
    on_node(SERVICES, |node| {
        for port in [30090, 30080, 30081, 30082, 30999, 80] {
            same(node, At::Uplink, "10.240.0.1:40000", &format!("10.240.0.11:{port}"));
        }
        for port in [30090, 30080] {
            same(node, At::Uplink, "[fd00:240::1]:40000", &format!("[fd00:240::11]:{port}"));
        }
        for (from, to) in [
            ("127.0.0.9:40000", "10.240.0.11:30090"),
            ("224.0.0.1:40000", "10.240.0.11:30090"),
            ("10.240.0.11:40000", "10.240.0.11:30090"),
            ("10.240.0.1:40000", "10.96.0.9:80"),
            ("10.240.0.1:40000", "203.0.113.5:80"),
            ("198.51.100.1:40000", "203.0.113.5:80"),
        ] {
            same(node, At::Uplink, from, to);
        }
    });
}

#[test]
fn what_a_pod_sends_to_services_that_name_their_clients_is_explained_as_it_is_done() {
    // The only packets of a pod that its socket leaves to its link.
    on_node(SERVICES, |node| same(node, At::Pod, "10.244.1.2:40000", "203.0.113.5:80"));
}

#[test]
fn what_a_pod_sends_out_of_the_cluster_is_explained_as_it_is_done() {
    on_node(SERVICES, |node| {
        for to in ["192.0.2.1:443", "10.244.2.9:80", "10.240.0.1:80", "10.96.0.99:80"] {
            same(node, At::Leaving, "10.244.1.2:40000", to);
        }
        same(node, At::Leaving, "[fd00:244:1::2]:40000", "[2001:db8::1]:443");
    });
}

#[test]
fn flows_that_are_there_and_the_backend_a_client_is_held_to_are_told() {
    let services = "
  demo/sticky:
    port: 80
    node_port: 30080
    affinity_seconds: 60
    backends: [{ address: 10.244.1.2, port: 8080, local: true }, { address: 10.244.1.3, port: 8080, local: true }]
  demo/near:
    port: 80
    node_port: 30090
    backends: [{ address: 10.244.1.2, port: 8080, local: true }]
";
    on_node(services, |node| {
        let open = |from: &str, to: &str| node.run(At::Uplink, &Packet::new(Transport::Tcp(SYN), from, to)).1;
        let ask = |client: &str, port, to: &str| {
            let source = Source::Outside(Some(client.parse().expect("an address")));
            explain_to(node, source, port, to.parse().expect("an address and port"))
        };
        let (sticky, near) = ("10.240.0.11:30080", "10.240.0.11:30090");
        let backend = open("10.240.0.1:40000", sticky).destination;
        open("10.240.0.1:40001", sticky);
        open("10.240.0.1:40001", near);

        let told = ask("10.240.0.1", None, sticky);
        assert_eq!(told.established, [Established { backend, connections: 2 }], "{}", told.text());
        let kept = told.affinity.expect("an affinity");
        assert_eq!((kept.backend, told.backends.as_slice()), (backend, [backend].as_slice()));
        assert!((50..=60).contains(&kept.seconds_left), "{}", told.text());
        assert!(told.text().contains(&format!("held to {backend} for another")), "{}", told.text());
        assert!(told.json().contains("\"seconds_left\""), "{}", told.json());

        let one = ask("10.240.0.1", Some(40_001), near);
        let backend = "10.244.1.2:8080".parse().expect("an address and port");
        assert_eq!(one.established, [Established { backend, connections: 1 }], "{}", one.text());
        assert!(one.text().contains("this one, seen 0 s ago") && one.affinity.is_none(), "{}", one.text());
        let none = ask("10.240.0.1", Some(40_002), near);
        assert!(
            none.established.is_empty() && none.text().contains("none from port 40002"),
            "{}",
            none.text()
        );

        let other = ask("192.0.2.1", None, sticky);
        assert!(other.established.is_empty() && other.affinity.is_none(), "{}", other.text());
        assert_eq!(other.backends.len(), 2);
    });
}

#[test]
fn what_policies_stop_is_explained_as_they_stop_it() {
    use super::policy::{name, planner, policy, write};
    on_node(SERVICES, |node| {
        let mut planner = planner(node);
        let some = "
ingress:
- peers: [{ block: { cidr: 10.240.0.1/32 } }]
  ports: [{ ports: !range [8080, 8080] }]
egress:
- peers: [{ block: { cidr: 10.240.0.0/24 } }]
";
        planner.set_policy(name("some"), Some(policy(some)));
        write(node, &mut planner);
        for from in ["10.240.0.1:40000", "10.240.0.2:40000"] {
            for to in ["10.240.0.11:30090", "10.244.1.2:8080", "10.244.1.2:8081"] {
                same(node, At::Uplink, from, to);
            }
        }
        for to in ["10.240.0.5:443", "10.244.2.3:443"] {
            same(node, At::Pod, "10.244.1.2:40000", to);
        }
    });
}
