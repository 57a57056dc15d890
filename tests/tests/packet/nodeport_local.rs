//! A NodePort whose backend is on this node.
//!
//! ```text
//!   client ── 10.240.0.1:40000 > 10.240.0.11:30080 ──> eth0 ── 10.240.0.1:40000 > 10.244.1.2:8080 ──> routed to pod0
//!   client <── 10.240.0.11:30080 > 10.240.0.1:40000 ── eth0 <── 10.244.1.2:8080 > 10.240.0.1:40000 ── pod0
//! ```
//! The client keeps its address. The answer's new source is the node's own address, which the kernel would not accept
//! from outside, so the program sends it on itself.

use penstock_tests::dataplane::{NEXT, REDIRECT};
use penstock_tests::packet::{ACK, FIN, Packet, SYN, Transport, at};

use crate::{At, NODE_ADDRESSES, on_node};

const HELLO: &str = "
  demo/hello:
    port: 80
    node_port: 30080
    backends: [{ address: 10.244.1.2, port: 8080, local: true }]
";

#[test]
fn the_packet_goes_to_the_pod_with_the_client_s_address() {
    on_node(HELLO, |node| {
        let syn = Packet::new(Transport::Tcp(SYN), "10.240.0.1:40000", "10.240.0.11:30080");
        let (verdict, packet) = node.run(At::Uplink, &syn);
        assert_eq!(verdict, NEXT);
        assert_eq!(packet, Packet { destination: at("10.244.1.2:8080"), ..syn });
        node.assert_events(&[("flow_created", 1), ("uplink_to_local", 1)]);
    });
}

#[test]
fn the_answer_comes_from_the_address_the_client_asked() {
    on_node(HELLO, |node| {
        let syn = Packet::new(Transport::Tcp(SYN), "10.240.0.1:40000", "10.240.0.11:30080");
        let (_, asked) = node.run(At::Uplink, &syn);
        let (verdict, answer) = node.run(At::Pod, &asked.reply());
        assert_eq!(verdict, REDIRECT);
        assert_eq!(answer, syn.reply());
        node.assert_events(&[("flow_created", 1), ("pod_replied", 1), ("uplink_to_local", 1)]);
    });
}

#[test]
fn a_flow_stays_with_its_backend_while_that_ends_and_no_longer_and_a_new_connection_does_not() {
    on_node(HELLO, |node| {
        let syn = Packet::new(Transport::Tcp(SYN), "10.240.0.1:40000", "10.240.0.11:30080");
        node.run(At::Uplink, &syn);
        let other = "{ address: 10.244.1.3, port: 8080, local: true }";
        let serve = |backends: &str| {
            let (before, _) = HELLO.split_once("backends: ").expect("backends");
            let services =
                format!("node_addresses: {NODE_ADDRESSES}\nservices:\n{before}backends: {backends}\n");
            node.dataplane.apply(&penstock_tests::dataplane::desired(&services)).expect("applied");
        };
        let ends = "{ address: 10.244.1.2, port: 8080, local: true, ready: false, terminating: true }";
        serve(&format!("[{ends}, {other}]"));

        let data = Packet { transport: Transport::Tcp(ACK), ..syn.clone() };
        assert_eq!(node.run(At::Uplink, &data).1.destination, at("10.244.1.2:8080"));

        // The client closes, and comes again from the same port.
        node.run(At::Uplink, &Packet { transport: Transport::Tcp(FIN | ACK), ..syn.clone() });
        let (_, again) = node.run(At::Uplink, &syn);
        assert_eq!(again.destination, at("10.244.1.3:8080"));
        assert_eq!(node.run(At::Pod, &again.reply()).1, syn.reply());

        // Whoever is still connected to a backend that is gone is to hear so from another, which resets it.
        let late = Packet::new(Transport::Tcp(SYN), "10.240.0.1:40001", "10.240.0.11:30080");
        serve("[{ address: 10.244.1.2, port: 8080, local: true }]");
        node.run(At::Uplink, &late);
        serve(&format!("[{other}]"));
        let data = Packet { transport: Transport::Tcp(ACK), ..late };
        assert_eq!(node.run(At::Uplink, &data).1.destination, at("10.244.1.3:8080"));
    });
}

#[test]
fn many_connections_spread_over_all_backends() {
    let hello = HELLO.replace(
        "[{ address: 10.244.1.2, port: 8080, local: true }]",
        "[{ address: 10.244.1.2, port: 8080, local: true }, { address: 10.244.1.3, port: 8080, local: true }]",
    );
    on_node(&hello, |node| {
        let mut to_first = 0;
        for port in 0..200 {
            let syn = Packet::new(
                Transport::Tcp(SYN),
                &format!("10.240.0.1:{}", 40_000 + port),
                "10.240.0.11:30080",
            );
            let (_, packet) = node.run(At::Uplink, &syn);
            to_first += u32::from(packet.destination == at("10.244.1.2:8080"));
        }
        assert!((60..140).contains(&to_first), "{to_first} of 200 went to the first of two backends");
    });
}
