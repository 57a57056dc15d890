//! A NodePort at another address of the node than the one it is registered by.
//!
//! ```text
//!   client ── 192.0.2.9:P > 203.0.113.11:30080 ──> eth0 ── > 10.244.1.2:8080 ──> pod
//!   client <── 203.0.113.11:30080 > 192.0.2.9:P ── eth0 <── 10.244.1.2:8080 ── pod
//!   client ── 192.0.2.9:P > 203.0.113.11:30080 ──> eth0 ── 10.240.0.11:Q > 10.244.2.2:8080 ──> the other node
//! ```
//! Towards the other node the packet has the address by which nodes know each other; the client sees the one it asked.

use penstock_tests::dataplane::{REDIRECT, desired};
use penstock_tests::packet::{Packet, SYN, Transport, at};

use crate::{At, Node, on_node};

fn serve(node: &Node, backend: &str, local: bool) {
    let services = format!(
        "
node_addresses: [10.240.0.11, 203.0.113.11]
services:
  demo/hello:
    cluster_ips: [10.96.0.7]
    port: 80
    node_port: 30080
    backends: [{{ address: {backend}, port: 8080, local: {local} }}]
"
    );
    node.dataplane.apply(&desired(&services)).expect("applied");
}

#[test]
fn a_pod_answers_from_the_address_that_was_asked() {
    on_node("", |node| {
        serve(node, "10.244.1.2", true);
        let syn = Packet::new(Transport::Tcp(SYN), "192.0.2.9:40000", "203.0.113.11:30080");
        let (_, delivered) = node.run(At::Uplink, &syn);
        assert_eq!((delivered.source, delivered.destination), (at("192.0.2.9:40000"), at("10.244.1.2:8080")));
        let (verdict, answer) = node.run(At::Pod, &delivered.reply());
        assert_eq!((verdict, answer), (REDIRECT, syn.reply()));
    });
}

#[test]
fn another_node_is_asked_by_the_address_it_knows() {
    on_node("", |node| {
        serve(node, "10.244.2.2", false);
        let syn = Packet::new(Transport::Tcp(SYN), "192.0.2.9:40000", "203.0.113.11:30080");
        let (verdict, sent) = node.run(At::Uplink, &syn);
        assert_eq!((verdict, sent.destination), (REDIRECT, at("10.244.2.2:8080")));
        assert_eq!(sent.source.ip(), at("10.240.0.11:0").ip());
        assert_eq!(node.run(At::Uplink, &sent.reply()), (REDIRECT, syn.reply()));
    });
}

#[test]
fn an_address_that_went_is_the_kernel_s_again() {
    on_node("", |node| {
        serve(node, "10.244.1.2", true);
        let fewer = desired(
            "
node_addresses: [10.240.0.11]
services:
  demo/hello:
    cluster_ips: [10.96.0.7]
    port: 80
    node_port: 30080
    backends: [{ address: 10.244.1.2, port: 8080, local: true }]
",
        );
        node.dataplane.apply(&fewer).expect("applied");
        let syn = Packet::new(Transport::Tcp(SYN), "192.0.2.9:40001", "203.0.113.11:30080");
        assert_eq!(node.run(At::Uplink, &syn), (penstock_tests::dataplane::NEXT, syn));
    });
}
