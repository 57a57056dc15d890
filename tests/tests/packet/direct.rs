//! Direct server return: a backend on another node answers the client itself, from the address that the client asked.
//!
//! ```text
//!   client ── 192.0.2.1:40000 > 10.240.0.11:30080 ──> eth0 (the entry node)
//!       eth0 ── 192.0.2.1:40000 > 10.244.2.2:8080, "asked 10.240.0.11:30080 from 40000" ──> the backend's node
//!
//!   another entry node ── 192.0.2.1:40000 > 10.244.1.2:8080, "asked 10.240.0.12:30080 from 40000" ──> eth0
//!       ── 192.0.2.1:40000 > 10.244.1.2:8080 ──> pod0
//!   client <── 10.240.0.12:30080 > 192.0.2.1:40000 ── eth0 ── 10.244.1.2:8080 > 192.0.2.1:40000 ── pod0
//! ```
//! What opens a connection tells it, and every datagram; the rest of a connection is translated alone.

use penstock_tests::dataplane::{NEXT, Outcome, REDIRECT};
use penstock_tests::netns::ip;
use penstock_tests::packet::{ACK, FIN, Packet, SYN, Transport, at, read_asked, read_too_big, telling};

use crate::{At, Node, on_node};

/// Of each family: a client, what it asks here and at another node, and a backend there and here.
struct Family {
    client: &'static str,
    entry: &'static str,
    other_entry: &'static str,
    far: &'static str,
    near: &'static str,
}

const FAMILIES: [Family; 2] = [
    Family {
        client: "192.0.2.1:40000",
        entry: "10.240.0.11:30080",
        other_entry: "10.240.0.12:30080",
        far: "10.244.2.2:8080",
        near: "10.244.1.2:8080",
    },
    Family {
        client: "[2001:db8::1]:40000",
        entry: "[fd00:240::11]:30080",
        other_entry: "[fd00:240::12]:30080",
        far: "[fd00:244:2::2]:8080",
        near: "[fd00:244:1::2]:8080",
    },
];

fn services(far: bool) -> String {
    let (four, six, local) =
        if far { ("10.244.2.2", "fd00:244:2::2", false) } else { ("10.244.1.2", "fd00:244:1::2", true) };
    let backends = format!(
        "[{{ address: {four}, port: 8080, local: {local} }}, {{ address: \"{six}\", port: 8080, local: {local} }}]"
    );
    format!(
        "
  demo/hello:
    cluster_ips: [10.96.0.7, \"fd00:96::7\"]
    port: 80
    node_port: 30080
    forwarding: dsr
    backends: {backends}
  demo/talk:
    cluster_ips: [10.96.0.7, \"fd00:96::7\"]
    port: 80
    protocol: UDP
    node_port: 30080
    forwarding: dsr
    backends: {backends}
  demo/plain:
    cluster_ips: [10.96.0.8, \"fd00:96::8\"]
    port: 80
    node_port: 30081
    backends: {backends}
"
    )
}

/// What the node made of a packet, and what that tells.
fn enter(node: &Node, packet: &Packet) -> (Packet, Option<(std::net::SocketAddr, u16)>) {
    let Outcome { verdict, frame } = node.run_frame(At::Uplink, &packet.bytes());
    assert_eq!(verdict, REDIRECT);
    (Packet::read(&frame), read_asked(&frame))
}

#[test]
fn the_entry_node_keeps_the_client_s_address_and_tells_what_was_asked_when_a_connection_opens() {
    on_node(&services(true), |node| {
        for Family { client, entry, far, .. } in FAMILIES {
            let of = |flags| Packet::new(Transport::Tcp(flags), client, entry);
            let sent = |flags| Packet::new(Transport::Tcp(flags), client, far);
            for _ in 0..2 {
                // Sent again, it tells it again: the first may have been lost.
                assert_eq!(enter(node, &of(SYN)), (sent(SYN), Some((at(entry), 40_000))));
            }
            for flags in [ACK, ACK, FIN | ACK] {
                assert_eq!(enter(node, &of(flags)), (sent(flags), None));
            }
        }
        node.assert_events(&[("direct_told", 4), ("flow_created", 2), ("uplink_to_remote", 10)]);
        node.assert_drops(&[]);
    });
}

#[test]
fn a_connection_that_the_entry_node_forgot_tells_it_with_its_next_packet() {
    on_node(&services(true), |node| {
        for Family { client, entry, far, .. } in FAMILIES {
            let ack = Packet::new(Transport::Tcp(ACK), client, entry);
            let sent = Packet::new(Transport::Tcp(ACK), client, far);
            assert_eq!(enter(node, &ack), (sent.clone(), Some((at(entry), 40_000))));
            assert_eq!(enter(node, &ack), (sent, None));
        }
    });
}

#[test]
fn every_datagram_tells_it() {
    on_node(&services(true), |node| {
        for Family { client, entry, far, .. } in FAMILIES {
            for transport in [Transport::Udp, Transport::UdpUnsummed, Transport::Udp] {
                let asked = Packet::new(transport, client, entry);
                let sent = Packet::new(transport, client, far);
                assert_eq!(enter(node, &asked), (sent, Some((at(entry), 40_000))));
            }
        }
    });
}

#[test]
fn two_services_with_one_backend_never_share_a_connection() {
    let other = "
  demo/other:
    cluster_ips: [10.96.0.9]
    port: 80
    node_port: 30082
    forwarding: dsr
    backends: [{ address: 10.244.2.2, port: 8080 }]
";
    on_node(&format!("{}{other}", services(true)), |node| {
        let syn = |to| Packet::new(Transport::Tcp(SYN), "192.0.2.1:40000", to);
        let (first, _) = enter(node, &syn("10.240.0.11:30080"));
        let (second, told) = enter(node, &syn("10.240.0.11:30082"));
        assert_eq!(first.source, at("192.0.2.1:40000"));
        assert_ne!(second.source.port(), 40_000, "it is the first one's towards this backend");
        assert_eq!(told, Some((at("10.240.0.11:30082"), 40_000)), "the client's own port");
    });
}

/// A datagram that fits its way, and does not with what it is to tell.
fn long(client: &str, entry: &str) -> Packet {
    let mut packet = Packet::new(Transport::Udp, client, entry);
    packet.payload = vec![b'x'; if at(client).is_ipv6() { 1_447 } else { 1_467 }];
    packet
}

#[test]
fn a_datagram_that_is_too_long_by_what_it_tells_is_answered_so() {
    on_node(&services(true), |node| {
        for (Family { client, entry, .. }, mtu) in FAMILIES.iter().zip([1_488, 1_476]) {
            enter(node, &Packet::new(Transport::Udp, client, entry));
            let outcome = node.run_frame(At::Uplink, &long(client, entry).bytes());
            assert_eq!(outcome.verdict, REDIRECT);
            assert_eq!(read_too_big(&outcome.frame).mtu, mtu);
        }
        node.assert_events(&[
            ("direct_told", 2),
            ("flow_created", 2),
            ("too_big_answered", 2),
            ("uplink_to_remote", 2),
        ]);
    });
}

#[test]
fn whose_first_datagram_is_too_long_for_it_is_answered_by_way_of_the_entry_node() {
    on_node(&services(true), |node| {
        for Family { client, entry, .. } in FAMILIES {
            let (sent, told) = enter(node, &long(client, entry));
            assert_eq!((sent.source.ip(), told), (at(entry).ip(), None));
        }
        node.assert_drops(&[]);
    });
}

#[test]
fn what_would_go_through_an_overlay_has_the_node_s_address() {
    on_node(&services(true), |node| {
        ip("route replace 10.244.2.0/24 via 10.244.1.9 dev pod0").expect("another way");
        let syn = Packet::new(Transport::Tcp(SYN), "192.0.2.1:40000", "10.240.0.11:30080");
        let (sent, told) = enter(node, &syn);
        assert_eq!((sent.source.ip(), told), (at("10.240.0.11:0").ip(), None));
        node.assert_drops(&[]);
    });
}

#[test]
fn through_an_overlay_whose_other_end_looks_for_it_it_is_told_too() {
    on_node(&services(true), |node| {
        ip("route replace 10.244.2.0/24 via 10.244.1.9 dev pod0").expect("another way");
        ip("route replace fd00:244:2::/64 via fd00:244:1::9 dev pod0").expect("another way");
        // Any device that is not the uplink is one to a program.
        node.dataplane.know_tunnel(Some(node.pod)).expect("known");
        for Family { client, entry, far, .. } in FAMILIES {
            let of = |flags| Packet::new(Transport::Tcp(flags), client, entry);
            let sent = |flags| Packet::new(Transport::Tcp(flags), client, far);
            assert_eq!(enter(node, &of(SYN)), (sent(SYN), Some((at(entry), 40_000))));
            assert_eq!(enter(node, &of(ACK)), (sent(ACK), None));
        }
        // Known until it is said otherwise, also to those who come after.
        let again = node.stand().load();
        let syn = Packet::new(Transport::Tcp(SYN), "192.0.2.1:40001", "10.240.0.11:30080");
        assert_eq!(enter(node, &syn).1, Some((at("10.240.0.11:30080"), 40_001)));
        again.know_tunnel(None).expect("known");
        let syn = Packet::new(Transport::Tcp(SYN), "192.0.2.1:40002", "10.240.0.11:30080");
        assert_eq!(enter(node, &syn).1, None, "the next connection has the node's address");
        node.assert_drops(&[]);
    });
}

#[test]
fn what_came_through_an_overlay_and_tells_nothing_is_left_alone() {
    on_node(&services(false), |node| {
        for Family { client, entry, near, .. } in FAMILIES {
            for to in [entry, near] {
                let packet = Packet::new(Transport::Tcp(SYN), client, to);
                assert_eq!(node.run(At::Tunnel, &packet), (NEXT, packet.clone()), "{to}");
            }
        }
        node.assert_events(&[]);
    });
}

#[test]
fn the_backend_s_node_takes_it_out_and_has_the_pod_answer_from_the_address_that_was_asked() {
    has_the_pod_answer(At::Uplink);
}

#[test]
fn the_backend_s_node_takes_it_out_of_what_came_through_an_overlay_too() {
    has_the_pod_answer(At::Tunnel);
}

fn has_the_pod_answer(by: At) {
    on_node(&services(false), |node| {
        for Family { client, other_entry, near, .. } in FAMILIES {
            for (transport, next) in
                [(Transport::Tcp(SYN), Transport::Tcp(ACK)), (Transport::Udp, Transport::Udp)]
            {
                let sent = Packet::new(transport, client, near);
                for _ in 0..2 {
                    let frame = telling(&sent, at(other_entry), 40_000);
                    let outcome = node.run_frame(by, &frame);
                    assert_eq!(outcome.verdict, NEXT, "no pod is known here: the kernel routes it");
                    assert_eq!(outcome.frame, sent.bytes(), "as it was before");
                }
                let answer = Packet::new(transport, client, other_entry).reply();
                assert_eq!(node.run(At::Pod, &sent.reply()), (REDIRECT, answer));
                // What comes later tells nothing, and is as it is to be.
                let later = Packet::new(next, client, near);
                assert_eq!(node.run(by, &later), (NEXT, later.clone()));
                let answer = Packet::new(next, client, other_entry).reply();
                assert_eq!(node.run(At::Pod, &later.reply()), (REDIRECT, answer));
            }
        }
        node.assert_events(&[("direct_received", 8), ("flow_created", 4), ("pod_replied", 8)]);
        node.assert_drops(&[]);
    });
}

#[test]
fn a_port_that_the_entry_node_gave_becomes_the_client_s_again() {
    on_node(&services(false), |node| {
        let sent = Packet::new(Transport::Tcp(SYN), "192.0.2.1:2000", "10.244.1.2:8080");
        node.run_frame(At::Uplink, &telling(&sent, at("10.240.0.12:30080"), 40_000));
        let (verdict, answer) = node.run(At::Pod, &sent.reply());
        assert_eq!(verdict, REDIRECT);
        assert_eq!((answer.source, answer.destination), (at("10.240.0.12:30080"), at("192.0.2.1:40000")));
        // Another connection to the pod by the same port, before that is over, would be answered as the first.
        node.run_frame(At::Uplink, &telling(&sent, at("10.240.0.12:30080"), 41_000));
        node.assert_drops(&[("no_source_port", 1)]);
    });
}

#[test]
fn nobody_has_a_pod_speak_for_an_address_that_is_no_such_service_s() {
    on_node(&services(false), |node| {
        for Family { client, near, .. } in FAMILIES {
            let six = at(client).is_ipv6();
            let hosts = if six { ["[2001:db8::9]", "[fd00:240::12]"] } else { ["192.0.2.9", "10.240.0.12"] };
            for asked in [
                // A stranger's address; a node's, with a port that is no NodePort; and a Service that does not ask for it.
                format!("{}:30080", hosts[0]),
                format!("{}:22", hosts[1]),
                format!("{}:30081", hosts[1]),
            ] {
                let sent = Packet::new(Transport::Tcp(SYN), client, near);
                let frame = telling(&sent, at(&asked), 40_000);
                let outcome = node.run_frame(At::Uplink, &frame);
                assert_eq!((outcome.verdict, outcome.frame), (NEXT, frame), "{asked}");
                let answer = sent.reply();
                assert_eq!(node.run(At::Pod, &answer), (NEXT, answer.clone()));
            }
        }
        node.assert_events(&[]);
    });
}

#[test]
fn a_pod_tells_nothing_that_is_listened_to() {
    on_node(&services(false), |node| {
        let sent = Packet::new(Transport::Tcp(SYN), "10.244.1.9:40000", "10.244.1.2:8080");
        let frame = telling(&sent, at("10.240.0.11:30080"), 40_000);
        let outcome = node.run_frame(At::Pod, &frame);
        assert_eq!((outcome.verdict, outcome.frame), (NEXT, frame));
        node.assert_events(&[]);
    });
}

/// A backend that is a process of the node itself answers by the uplink.
#[test]
fn a_host_s_own_backend_answers_from_the_address_that_was_asked() {
    let services = "
  demo/hello:
    port: 80
    node_port: 30080
    forwarding: dsr
    backends: [{ address: 10.240.0.11, port: 8080, local: true }, { address: \"fd00:240::11\", port: 8080, local: true }]
";
    on_node(services, |node| {
        for Family { client, entry, other_entry, .. } in FAMILIES {
            let mut sent = Packet::new(Transport::Tcp(SYN), client, entry);
            sent.destination.set_port(8080);
            let outcome = node.run_frame(At::Uplink, &telling(&sent, at(other_entry), 40_000));
            assert_eq!((outcome.verdict, outcome.frame), (NEXT, sent.bytes()));
            let answer = Packet::new(Transport::Tcp(SYN), client, other_entry).reply();
            assert_eq!(node.run(At::Leaving, &sent.reply()), (NEXT, answer));
        }
        node.assert_drops(&[]);
    });
}
