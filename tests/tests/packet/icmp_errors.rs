//! Errors about translated packets: they quote the packet as it was sent, and must reach who sent it before translation.
//!
//! ```text
//!   client <── router > client, quoting client > service ── eth0 <── router > node, quoting node:P > backend
//!   backend <── client > backend, quoting backend > node ── eth0 <── client > node, quoting service > client
//! ```
//! Echoes to a service's address belong to whoever has that address.

use std::net::IpAddr;

use penstock_tests::dataplane::{NEXT, REDIRECT};
use penstock_tests::packet::{Packet, SYN, Transport, error_about, read_error};

use crate::{At, Node, on_node};

const HELLO: &str = "
  demo/tcp:
    cluster_ips: [10.96.0.7, \"fd00:96::7\"]
    port: 80
    node_port: 30080
    backends: [{ address: 10.244.2.2, port: 8080 }, { address: \"fd00:244:2::2\", port: 8080 }]
  demo/udp:
    cluster_ips: [10.96.0.7, \"fd00:96::7\"]
    port: 53
    protocol: UDP
    node_port: 30053
    backends: [{ address: 10.244.2.2, port: 5353 }, { address: \"fd00:244:2::2\", port: 5353 }]
  demo/here:
    port: 81
    protocol: UDP
    node_port: 30081
    backends:
    - { address: 10.244.1.2, port: 5353, local: true }
    - { address: \"fd00:244:1::2\", port: 5353, local: true }
";

/// Of each family: a client, the node, a router on the way, the remote and the local pod, a ClusterIP.
const PLACES: [[&str; 6]; 2] = [
    ["192.0.2.1", "10.240.0.11", "10.240.0.12", "10.244.2.2", "10.244.1.2", "10.96.0.7"],
    [
        "[2001:db8::1]",
        "[fd00:240::11]",
        "[fd00:240::12]",
        "[fd00:244:2::2]",
        "[fd00:244:1::2]",
        "[fd00:96::7]",
    ],
];

fn ip(text: &str) -> IpAddr {
    text.trim_matches(['[', ']']).parse().expect("an address in the test")
}

/// An error about a packet, sent by somebody and met somewhere: what becomes of it.
fn met(node: &Node, place: At, about: &Packet, from: IpAddr) -> (i32, (IpAddr, IpAddr, Packet)) {
    let outcome = node.run_frame(place, &error_about(about, from));
    (outcome.verdict, read_error(&outcome.frame))
}

#[test]
fn an_error_about_a_client_s_packet_reaches_the_client_and_speaks_of_the_service() {
    on_node(HELLO, |node| {
        for [client, own, router, backend, ..] in PLACES {
            for (transport, port) in
                [(Transport::Tcp(SYN), 30080), (Transport::Udp, 30053), (Transport::UdpUnsummed, 30053)]
            {
                let asks = Packet::new(transport, &format!("{client}:40000"), &format!("{own}:{port}"));
                let (_, sent) = node.run(At::Uplink, &asks);
                // From a router it stays the router's, and the kernel can route it.
                let (verdict, error) = met(node, At::Uplink, &sent, ip(router));
                assert_eq!((verdict, error), (NEXT, (ip(router), ip(client), asks.clone())));
                // From the backend it comes from the service, which is the node: a martian to the kernel.
                let (verdict, error) = met(node, At::Uplink, &sent, ip(backend));
                assert_eq!((verdict, error), (REDIRECT, (ip(own), ip(client), asks)));
            }
        }
        assert_eq!(node.counters().events["error_translated"], 12);
        node.assert_drops(&[]);
    });
}

#[test]
fn an_error_about_an_answer_reaches_the_backend_and_speaks_of_its_packet() {
    on_node(HELLO, |node| {
        for [client, own, router, backend, ..] in PLACES {
            let asks = Packet::new(Transport::Udp, &format!("{client}:40000"), &format!("{own}:30053"));
            let (_, sent) = node.run(At::Uplink, &asks);
            let (_, answer) = node.run(At::Uplink, &sent.reply());
            let (verdict, error) = met(node, At::Uplink, &answer, ip(router));
            assert_eq!((verdict, error), (NEXT, (ip(router), ip(backend), sent.reply())));
            // The backend knows nobody but this node.
            let (verdict, error) = met(node, At::Uplink, &answer, ip(client));
            assert_eq!((verdict, error), (REDIRECT, (ip(own), ip(backend), sent.reply())));
        }
    });
}

#[test]
fn a_local_pod_that_refuses_is_heard_as_the_service() {
    on_node(HELLO, |node| {
        for [client, own, _, _, pod, _] in PLACES {
            let asks = Packet::new(Transport::Udp, &format!("{client}:40000"), &format!("{own}:30081"));
            let (_, delivered) = node.run(At::Uplink, &asks);
            let (verdict, error) = met(node, At::Pod, &delivered, ip(pod));
            assert_eq!((verdict, error), (REDIRECT, (ip(own), ip(client), asks)));
        }
    });
}

#[test]
fn an_error_about_a_pod_s_packet_to_a_service_speaks_of_the_service() {
    on_node(HELLO, |node| {
        for [_, _, router, backend, pod, service] in PLACES {
            let asks = Packet::new(Transport::Udp, &format!("{pod}:40000"), &format!("{service}:53"));
            let (_, sent) = node.run(At::Pod, &asks);
            assert_eq!(met(node, At::Uplink, &sent, ip(router)), (NEXT, (ip(router), ip(pod), asks.clone())));
            let (_, error) = met(node, At::Uplink, &sent, ip(backend));
            assert_eq!(error, (ip(service), ip(pod), asks));
        }
    });
}

#[test]
fn errors_and_echoes_that_are_not_about_our_flows_pass_untouched() {
    on_node(HELLO, |node| {
        for [client, own, router, _, pod, service] in PLACES {
            let stray = Packet::new(Transport::Udp, &format!("{own}:5000"), &format!("{client}:53"));
            let frame = error_about(&stray, ip(router));
            let echo = Packet::new(Transport::Echo, &format!("{client}:77"), &format!("{own}:0")).bytes();
            let ping = Packet::new(Transport::Echo, &format!("{pod}:77"), &format!("{service}:0")).bytes();
            for (place, frame) in
                [(At::Uplink, frame.clone()), (At::Pod, frame), (At::Uplink, echo), (At::Pod, ping)]
            {
                let outcome = node.run_frame(place, &frame);
                assert_eq!((outcome.verdict, outcome.frame), (NEXT, frame));
            }
        }
        node.assert_events(&[]);
        node.assert_drops(&[]);
    });
}

#[test]
fn an_error_cut_anywhere_is_passed_or_dropped_but_never_changed() {
    on_node(HELLO, |node| {
        for [client, own, router, ..] in PLACES {
            let asks = Packet::new(Transport::Udp, &format!("{client}:40000"), &format!("{own}:30053"));
            let (_, sent) = node.run(At::Uplink, &asks);
            let whole = error_about(&sent, ip(router));
            let header = if own.starts_with('[') { 54 } else { 34 };
            for length in header..whole.len() {
                let outcome = node.run_frame(At::Uplink, &whole[..length]);
                assert!([NEXT, 2].contains(&outcome.verdict), "{length}");
                assert_eq!(outcome.frame, whole[..length], "{length}");
            }
        }
    });
}
