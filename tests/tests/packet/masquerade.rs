//! What pods send out of the cluster leaves with the node's address.
//!
//! ```text
//!   pod ── 10.244.1.2:40000 > 192.0.2.1:443 ── routed ──> eth0 ── 10.240.0.11:P > 192.0.2.1:443 ──> outside
//!   pod <── 192.0.2.1:443 > 10.244.1.2:40000 ── routed <── eth0 <── 192.0.2.1:443 > 10.240.0.11:P ── outside
//! ```

use penstock_tests::dataplane::{NEXT, REDIRECT};
use penstock_tests::packet::{
    ACK, Packet, RST, SYN, Transport, assemble, at, error_about, fragments, read_error,
};

use crate::{At, on_node};

const ELSEWHERE: &str = "
  demo/elsewhere:
    cluster_ips: [10.96.0.9, \"fd00:96::9\"]
    port: 443
    backends: [{ address: 192.0.2.1, port: 8443 }, { address: \"2001:db8::1\", port: 8443 }]
";

/// Of each family: a pod, the node, somebody outside, a service that somebody outside answers.
const PLACES: [[&str; 4]; 2] = [
    ["10.244.1.2", "10.240.0.11", "192.0.2.1", "10.96.0.9"],
    ["[fd00:244:1::2]", "[fd00:240::11]", "[2001:db8::1]", "[fd00:96::9]"],
];

#[test]
fn a_pod_s_packet_leaves_with_the_node_s_address_and_its_answer_comes_back() {
    on_node(ELSEWHERE, |node| {
        for [pod, own, outside, _] in PLACES {
            for transport in [Transport::Tcp(SYN), Transport::Udp, Transport::UdpUnsummed, Transport::Sctp(1)]
            {
                let asks = Packet::new(transport, &format!("{pod}:40000"), &format!("{outside}:443"));
                let (verdict, sent) = node.run(At::Leaving, &asks);
                assert_eq!((verdict, sent.destination), (NEXT, asks.destination));
                assert_eq!(sent.source.ip(), at(&format!("{own}:0")).ip());
                assert!((1_024..30_000).contains(&sent.source.port()), "{}", sent.source);
                assert_eq!(node.run(At::Uplink, &sent.reply()), (NEXT, asks.reply()));
            }
        }
        let events = node.counters().events;
        assert_eq!((events["masqueraded"], events["masquerade_replied"]), (8, 8));
        node.assert_drops(&[]);
    });
}

#[test]
fn an_echo_leaves_and_its_reply_comes_back_by_its_identifier() {
    on_node(ELSEWHERE, |node| {
        for [pod, own, outside, _] in PLACES {
            let asks = Packet::new(Transport::Echo, &format!("{pod}:77"), &format!("{outside}:0"));
            let (verdict, sent) = node.run(At::Leaving, &asks);
            assert_eq!((verdict, sent.source.ip()), (NEXT, at(&format!("{own}:0")).ip()));
            assert_ne!(sent.source.port(), 77);
            assert_eq!(node.run(At::Uplink, &sent.reply()), (NEXT, asks.reply()));
            // Unreachable: the error quotes the echo as it left.
            let router = at(&format!("{outside}:0")).ip();
            let error = node.run_frame(At::Uplink, &error_about(&sent, router));
            assert_eq!(read_error(&error.frame), (router, asks.source.ip(), asks));
        }
        node.assert_drops(&[]);
    });
}

#[test]
fn two_pods_with_one_port_do_not_share_answers() {
    on_node(ELSEWHERE, |node| {
        let [one, other] = ["10.244.1.2:40000", "10.244.1.3:40000"]
            .map(|pod| Packet::new(Transport::Tcp(SYN), pod, "192.0.2.1:443"));
        let (first, second) = (node.run(At::Leaving, &one).1, node.run(At::Leaving, &other).1);
        assert_ne!(first.source, second.source);
        assert_eq!(node.run(At::Uplink, &first.reply()).1, one.reply());
        assert_eq!(node.run(At::Uplink, &second.reply()).1, other.reply());
    });
}

#[test]
fn what_stays_inside_and_what_is_no_pod_s_is_left_alone() {
    on_node(ELSEWHERE, |node| {
        for (source, destination) in [
            ("10.244.1.2:40000", "10.244.2.2:80"),
            ("10.244.1.2:40000", "10.240.0.12:80"),
            ("10.244.1.2:40000", "10.96.0.200:80"),
            ("10.240.0.11:40000", "192.0.2.1:443"),
            ("172.16.0.1:40000", "192.0.2.1:443"),
            ("[fd00:244:1::2]:40000", "[fd00:244:2::2]:80"),
            ("[fd00:240::11]:40000", "[2001:db8::1]:443"),
        ] {
            let packet = Packet::new(Transport::Tcp(SYN), source, destination);
            assert_eq!(node.run(At::Leaving, &packet), (NEXT, packet));
        }
        node.assert_events(&[]);
    });
}

#[test]
fn an_answer_to_who_came_to_the_pod_itself_keeps_its_address() {
    on_node(ELSEWHERE, |node| {
        for (pod, outside) in
            [("10.244.1.2:80", "198.51.100.1:40000"), ("[fd00:244:1::2]:80", "[2001:db9::1]:40000")]
        {
            for flags in [SYN | ACK, ACK, RST] {
                let answer = Packet::new(Transport::Tcp(flags), pod, outside);
                assert_eq!(node.run(At::Leaving, &answer), (NEXT, answer));
            }
        }
        node.assert_events(&[]);
    });
}

#[test]
fn what_goes_to_a_node_keeps_the_pod_s_address_once_the_nodes_are_known_and_after_a_restart() {
    on_node(ELSEWHERE, |node| {
        let nodes = ["198.51.100.7", "2001:db9::7"];
        let packets = nodes.map(|to| {
            let (from, to) = if to.contains(':') {
                ("[fd00:244:1::2]:53", format!("[{to}]:40000"))
            } else {
                ("10.244.1.2:53", format!("{to}:40000"))
            };
            Packet::new(Transport::Udp, from, &to)
        });
        node.dataplane.know_nodes(&nodes.map(|node| node.parse().expect("an address"))).expect("known");
        for packet in &packets {
            assert_eq!(node.run(At::Leaving, packet), (NEXT, packet.clone()));
        }
        let again = node.stand().load();
        for packet in &packets {
            let outcome =
                penstock_tests::dataplane::run(&again, "uplink_egress", node.uplink, &packet.bytes());
            assert_eq!((outcome.verdict, Packet::read(&outcome.frame)), (NEXT, packet.clone()));
        }
        again.know_nodes(&[]).expect("known");
        for packet in packets {
            assert_ne!(node.run(At::Leaving, &packet).1.source, packet.source);
        }
    });
}

#[test]
fn a_service_answered_from_outside_is_translated_and_masqueraded_and_both_are_undone() {
    on_node(ELSEWHERE, |node| {
        for [pod, own, outside, service] in PLACES {
            let asks = Packet::new(Transport::Tcp(SYN), &format!("{pod}:40000"), &format!("{service}:443"));
            let (_, routed) = node.run(At::Pod, &asks);
            assert_eq!(routed.destination, at(&format!("{outside}:8443")));
            let (_, sent) = node.run(At::Leaving, &routed);
            assert_eq!(sent.source.ip(), at(&format!("{own}:0")).ip());
            assert_eq!(node.run(At::Uplink, &sent.reply()), (REDIRECT, asks.reply()));
        }
    });
}

#[test]
fn fragments_leave_and_come_back_together() {
    on_node(ELSEWHERE, |node| {
        for [pod, _, outside, _] in PLACES {
            let mut asks = Packet::new(Transport::Udp, &format!("{pod}:40000"), &format!("{outside}:53"));
            asks.payload = vec![9; 3000];
            let through = |place, packet: &Packet, id| {
                let frames = fragments(packet, id, 1400);
                assemble(&frames.iter().map(|frame| node.run_frame(place, frame).frame).collect::<Vec<_>>())
            };
            let sent = through(At::Leaving, &asks, 7);
            assert_ne!(sent.source, asks.source);
            assert_eq!(through(At::Uplink, &sent.reply(), 8), asks.reply());
        }
        node.assert_drops(&[]);
    });
}

/// A client outside that knows a way to pods, and asks one.
#[test]
fn an_answer_to_a_datagram_that_asked_the_pod_itself_keeps_the_pod_s_address() {
    on_node(ELSEWHERE, |node| {
        for [pod, own, outside, _] in PLACES {
            let mut asks = Packet::new(Transport::Udp, &format!("{outside}:5000"), &format!("{pod}:53"));
            for _ in 0..2 {
                assert_eq!(node.run(At::Uplink, &asks), (NEXT, asks.clone()));
                assert_eq!(node.run(At::Leaving, &asks.reply()), (NEXT, asks.reply()));
            }
            // In pieces as well.
            asks.payload = (0..=255).collect();
            let pieces = fragments(&asks.reply(), 9, 64);
            let sent = pieces.iter().map(|piece| node.run_frame(At::Leaving, piece).frame);
            assert_eq!(assemble(&sent.collect::<Vec<_>>()), asks.reply());
            // What the pod asks the same client by itself is another matter.
            let own_question = Packet::new(Transport::Udp, &format!("{pod}:53"), &format!("{outside}:5001"));
            let (_, sent) = node.run(At::Leaving, &own_question);
            assert_eq!(sent.source.ip(), at(&format!("{own}:0")).ip());
            // Nor is who claims to be of the cluster noted.
            let inside = Packet::new(Transport::Udp, &format!("{own}:5000"), &format!("{pod}:53"));
            assert_eq!(node.run(At::Uplink, &inside), (NEXT, inside));
        }
        let events = node.counters().events;
        assert_eq!((events["masqueraded"], events["masquerade_replied"]), (2, 0));
        node.assert_drops(&[]);
    });
}
