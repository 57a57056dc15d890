//! A NodePort whose backend is on another node.
//!
//! ```text
//!   client ── 10.240.0.1:40000 > 10.240.0.11:30080 ──> eth0
//!                                     eth0 ── 10.240.0.11:P > 10.244.2.2:8080 ──> the other node
//!                                     eth0 <── 10.244.2.2:8080 > 10.240.0.11:P ── the other node
//!   client <── 10.240.0.11:30080 > 10.240.0.1:40000 ── eth0
//! ```
//! The backend answers this node, because the client would not know an answer from the backend's address. P is a port
//! the node itself does not use.

use penstock_tests::dataplane::{NEXT, REDIRECT};
use penstock_tests::packet::{ACK, Packet, SYN, Transport, at};

use crate::{At, on_node};

const HELLO: &str = "
  demo/hello:
    port: 80
    node_port: 30080
    backends: [{ address: 10.244.2.2, port: 8080 }]
";

#[test]
fn the_packet_is_sent_on_with_the_node_s_address_and_the_answer_is_turned_round() {
    on_node(HELLO, |node| {
        let syn = Packet::new(Transport::Tcp(SYN), "10.240.0.1:40000", "10.240.0.11:30080");
        let (verdict, sent) = node.run(At::Uplink, &syn);
        assert_eq!(verdict, REDIRECT);
        assert_eq!(sent.destination, at("10.244.2.2:8080"));
        assert_eq!(sent.source.ip(), at("10.240.0.11:0").ip());
        assert!((1_024..30_000).contains(&sent.source.port()), "{}", sent.source.port());

        let (verdict, answer) = node.run(At::Uplink, &sent.reply());
        assert_eq!(verdict, REDIRECT);
        assert_eq!(answer, syn.reply());
        node.assert_events(&[("flow_created", 1), ("uplink_replied", 1), ("uplink_to_remote", 1)]);

        // The rest of the connection takes the same way.
        let (_, next) = node.run(At::Uplink, &Packet { transport: Transport::Tcp(ACK), ..syn });
        assert_eq!(next.source, sent.source);
    });
}

#[test]
fn two_clients_with_one_port_get_different_source_ports() {
    on_node(HELLO, |node| {
        let mut seen = std::collections::BTreeSet::new();
        for host in 1..=100 {
            let client = format!("192.0.2.{host}:40000");
            let syn = Packet::new(Transport::Tcp(SYN), &client, "10.240.0.11:30080");
            let (verdict, sent) = node.run(At::Uplink, &syn);
            assert_eq!(verdict, REDIRECT);
            assert!(seen.insert(sent.source.port()), "{} is used twice", sent.source);
            assert_eq!(node.run(At::Uplink, &sent.reply()).1, syn.reply());
        }
    });
}

#[test]
fn with_a_local_policy_the_packet_is_dropped_and_the_reason_is_counted() {
    on_node(&format!("{HELLO}    external_local: true\n"), |node| {
        let syn = Packet::new(Transport::Tcp(SYN), "10.240.0.1:40000", "10.240.0.11:30080");
        assert_eq!(node.run(At::Uplink, &syn), (penstock_tests::dataplane::DROP, syn));
        node.assert_drops(&[("no_local_backend", 1)]);
    });
}

#[test]
fn an_answer_nobody_asked_for_is_left_to_the_kernel() {
    on_node(HELLO, |node| {
        let stray = Packet::new(Transport::Tcp(ACK), "10.244.2.2:8080", "10.240.0.11:20000");
        assert_eq!(node.run(At::Uplink, &stray), (NEXT, stray));
    });
}
