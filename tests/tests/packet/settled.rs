//! What was found out for a flow's earlier packets holds for the next ones, and no longer than it is true.
//!
//! ```text
//!   client ── 10.240.0.1:40000 > 10.240.0.11:30080 ──> eth0 ── 10.240.0.11:P > 10.244.2.2:8080 ──> the other node
//!             the service goes, or another service takes 10.240.0.11:P, or the way to 10.244.2.2 is another
//! ```

use std::time::Duration;

use penstock_tests::dataplane::{DROP, Early, NEXT, REDIRECT, desired, run_early};
use penstock_tests::eventually::until;
use penstock_tests::netns::ip;
use penstock_tests::packet::{ACK, Packet, SYN, Transport, at};

use crate::{At, NODE_ADDRESSES, Node, on_node, on_node_that_meets};

const PATIENCE: Duration = Duration::from_secs(30);

const HELLO: &str = "
  demo/hello:
    port: 80
    node_port: 30080
    backends: [{ address: 10.244.2.2, port: 8080 }]
";

fn serve(node: &Node, services: &str) {
    let services = format!("node_addresses: {NODE_ADDRESSES}\nservices:{services}");
    node.dataplane.apply(&desired(&services)).expect("applied");
}

/// A connection some packets old: one from its client as it arrives, and as it is sent on.
fn connection(node: &Node, to: &str) -> (Packet, Packet) {
    let syn = Packet::new(Transport::Tcp(SYN), "10.240.0.1:40000", to);
    let data = Packet { transport: Transport::Tcp(ACK), ..syn.clone() };
    assert_eq!(node.run(At::Uplink, &syn).0, REDIRECT);
    let (_, sent) = node.run(At::Uplink, &data);
    for _ in 0..3 {
        assert_eq!(node.run(At::Uplink, &data), (REDIRECT, sent.clone()));
        assert_eq!(node.run(At::Uplink, &sent.reply()), (REDIRECT, data.reply()));
    }
    (data, sent)
}

#[test]
fn a_service_that_is_gone_is_asked_in_vain_by_connections_too_and_at_once() {
    on_node(HELLO, |node| {
        let (data, _) = connection(node, "10.240.0.11:30080");
        serve(node, " {}\n");
        assert_eq!(node.run(At::Uplink, &data), (NEXT, data.clone()));
    });
}

#[test]
fn a_service_that_takes_the_port_of_a_flow_gets_the_packets_that_were_the_flow_s() {
    on_node(HELLO, |node| {
        let (_, sent) = connection(node, "10.240.0.11:30080");
        let port = sent.source.port();
        let other = format!(
            "{HELLO}
  demo/other:
    port: {port}
    external_ips: [10.240.0.11]
    backends: [{{ address: 10.244.1.2, port: 9000, local: true }}]
"
        );
        serve(node, &other);
        assert_eq!(node.run(At::Uplink, &sent.reply()).1.destination, at("10.244.1.2:9000"));
    });
}

#[test]
fn a_client_that_is_no_longer_allowed_is_dropped_in_the_middle_of_its_connection() {
    let limited = |ranges: &str| {
        format!("{HELLO}    load_balancer_ips: [10.240.0.11]\n    source_ranges: [{ranges}]\n")
    };
    on_node(&limited("10.240.0.0/16"), |node| {
        let (data, sent) = connection(node, "10.240.0.11:80");
        serve(node, &limited("10.241.0.0/16"));
        assert_eq!(node.run(At::Uplink, &data), (DROP, data.clone()));
        serve(node, &limited("10.240.0.0/16"));
        assert_eq!(node.run(At::Uplink, &data), (REDIRECT, sent));
    });
}

#[test]
fn xdp_follows_a_route_and_a_neighbour_that_change_under_a_connection() {
    on_node_that_meets(HELLO, true, |node| {
        let (data, _) = connection(node, "10.240.0.11:30080");
        let last_byte = || match run_early(&node.dataplane, node.uplink, &data.bytes()) {
            (Early::Send, frame) => frame[5],
            (verdict, _) => panic!("{verdict:?}"),
        };
        assert_eq!(last_byte(), 0x0c);
        ip("route replace 10.244.2.0/24 via 10.240.0.1").expect("another route");
        until(PATIENCE, "the new route", || last_byte() == 0x01).expect("packets take it");
        ip("neighbour replace 10.240.0.1 lladdr 02:00:00:00:01:07 dev eth0").expect("another neighbour");
        until(PATIENCE, "the new neighbour", || last_byte() == 0x07).expect("packets go there");
    });
}
