//! Everything of IPv6: the same ways, the same code, other checksums.
//!
//! ```text
//!   client ── [fd00:240::1]:40000 > [fd00:240::11]:30080 ──> eth0 ── > [fd00:244:1::2]:8080 ──> routed to pod0
//!   client ── [fd00:240::1]:40000 > [fd00:240::11]:30081 ──> eth0 ── [fd00:240::11]:P > [fd00:244:2::2]:8080 ──> eth0
//!   pod    ── [fd00:244:1::2]:40000 > [fd00:96::7]:80    ──> pod0 ── > [fd00:244:2::2]:8080 ──> routed
//! ```

use penstock_tests::dataplane::{NEXT, REDIRECT};
use penstock_tests::packet::{Packet, SYN, Transport, at};

use crate::{At, on_node};

const HELLO: &str = "
  demo/here:
    cluster_ips: [\"fd00:96::8\"]
    port: 80
    node_port: 30080
    backends: [{ address: \"fd00:244:1::2\", port: 8080, local: true }]
  demo/there:
    cluster_ips: [\"fd00:96::7\"]
    port: 80
    node_port: 30081
    backends: [{ address: \"fd00:244:2::2\", port: 8080 }]
  demo/talk:
    port: 53
    protocol: UDP
    node_port: 30053
    backends: [{ address: \"fd00:244:2::2\", port: 5353 }]
";

#[test]
fn a_node_port_leads_to_a_pod_of_this_node_and_its_answer_back() {
    on_node(HELLO, |node| {
        let syn = Packet::new(Transport::Tcp(SYN), "[fd00:240::1]:40000", "[fd00:240::11]:30080");
        let (verdict, asked) = node.run(At::Uplink, &syn);
        assert_eq!(
            (verdict, &asked),
            (NEXT, &Packet { destination: at("[fd00:244:1::2]:8080"), ..syn.clone() })
        );
        assert_eq!(node.run(At::Pod, &asked.reply()), (REDIRECT, syn.reply()));
        node.assert_events(&[("flow_created", 1), ("pod_replied", 1), ("uplink_to_local", 1)]);
        node.assert_drops(&[]);
    });
}

#[test]
fn a_node_port_leads_to_a_pod_of_another_node_and_its_answer_back() {
    on_node(HELLO, |node| {
        for (transport, port) in
            [(Transport::Tcp(SYN), 30081), (Transport::Udp, 30053), (Transport::UdpUnsummed, 30053)]
        {
            let asks = Packet::new(transport, "[2001:db8::1]:40000", &format!("[fd00:240::11]:{port}"));
            let (verdict, sent) = node.run(At::Uplink, &asks);
            assert_eq!(verdict, REDIRECT);
            assert_eq!(sent.destination.ip(), at("[fd00:244:2::2]:0").ip());
            assert_eq!(sent.source.ip(), at("[fd00:240::11]:0").ip());
            assert_eq!(node.run(At::Uplink, &sent.reply()), (REDIRECT, asks.reply()));
        }
        node.assert_drops(&[]);
    });
}

#[test]
fn a_cluster_ip_leads_a_pod_to_another_node_and_to_itself() {
    on_node(HELLO, |node| {
        let syn = Packet::new(Transport::Tcp(SYN), "[fd00:244:1::2]:40000", "[fd00:96::7]:80");
        let (verdict, asked) = node.run(At::Pod, &syn);
        assert_eq!(
            (verdict, &asked),
            (NEXT, &Packet { destination: at("[fd00:244:2::2]:8080"), ..syn.clone() })
        );
        assert_eq!(node.run(At::Uplink, &asked.reply()), (REDIRECT, syn.reply()));

        let syn = Packet { destination: at("[fd00:96::8]:80"), ..syn };
        let (verdict, asked) = node.run(At::Pod, &syn);
        assert_eq!((verdict, asked.destination), (REDIRECT, at("[fd00:244:1::2]:8080")));
        assert_eq!(asked.source.ip(), at("[fd00:240::11]:0").ip());
        assert_eq!(node.run(At::Pod, &asked.reply()), (REDIRECT, syn.reply()));
    });
}

#[test]
fn extension_headers_move_the_ports_and_are_understood() {
    on_node(HELLO, |node| {
        let plain = Packet::new(Transport::Tcp(SYN), "[fd00:240::1]:40000", "[fd00:240::11]:30080").bytes();
        let mut frame = plain[..54].to_vec();
        frame.extend([6, 0, 1, 4, 0, 0, 0, 0]);
        frame.extend(&plain[54..]);
        frame[20] = 60;
        frame[19] += 8;
        let outcome = node.run_frame(At::Uplink, &frame);
        assert_eq!(outcome.verdict, NEXT);
        assert_eq!(outcome.frame[38..54], [0xfd, 0, 2, 0x44, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
        assert_eq!(outcome.frame[64..66], 8080_u16.to_be_bytes());
    });
}

#[test]
fn a_packet_cut_at_every_length_is_passed_or_dropped_but_never_changed() {
    on_node(HELLO, |node| {
        let whole = Packet::new(Transport::Udp, "[fd00:240::1]:40000", "[fd00:240::11]:30053").bytes();
        for length in 14 + 40..whole.len() {
            let outcome = node.run_frame(At::Uplink, &whole[..length]);
            let expected = if length < 14 + 40 + 4 { NEXT } else { penstock_tests::dataplane::DROP };
            assert_eq!((outcome.verdict, outcome.frame.as_slice()), (expected, &whole[..length]), "{length}");
        }
        node.assert_events(&[]);
    });
}
