//! Everything that belongs to no service passes as it came, at every interface.

use penstock_tests::dataplane::NEXT;
use penstock_tests::packet::{ACK, Packet, SYN, Transport};

use crate::{At, on_node};

const HELLO: &str = "
  demo/hello:
    cluster_ips: [10.96.0.7]
    port: 80
    node_port: 30080
    backends: [{ address: 10.244.1.2, port: 8080, local: true }]
";

/// A switch that does not know a station sends what is for it to all; the kernel drops it, and so it must not be sent on.
#[test]
fn a_frame_to_another_station_is_untouched() {
    on_node(HELLO, |node| {
        let syn = Packet::new(Transport::Tcp(SYN), "10.240.0.1:40000", "10.240.0.11:30080");
        let own = syn.bytes();
        assert_ne!(node.run_frame(At::Uplink, &own).frame, own);
        let mut other = own.clone();
        other[5] = 9;
        let outcome = node.run_frame(At::Uplink, &other);
        assert_eq!((outcome.verdict, outcome.frame), (NEXT, other));
        node.assert_events(&[("flow_created", 1), ("uplink_to_local", 1)]);
    });
}

#[test]
fn traffic_between_pods_and_to_the_node_is_untouched() {
    on_node(HELLO, |node| {
        for (source, destination) in [
            ("10.244.2.2:40000", "10.244.1.2:8080"),
            ("10.240.0.1:40000", "10.240.0.11:22"),
            ("10.240.0.1:40000", "10.240.0.11:30081"),
            ("10.244.1.2:8080", "10.244.2.2:40000"),
            ("10.240.0.11:22", "10.240.0.1:40000"),
        ] {
            for transport in [Transport::Tcp(SYN), Transport::Tcp(ACK), Transport::Udp] {
                let packet = Packet::new(transport, source, destination);
                for at in [At::Uplink, At::Pod, At::Leaving] {
                    assert_eq!(node.run(at, &packet), (NEXT, packet.clone()));
                }
            }
        }
        node.assert_events(&[]);
        node.assert_drops(&[]);
    });
}

#[test]
fn a_cluster_ip_is_not_served_to_the_outside() {
    on_node(HELLO, |node| {
        let syn = Packet::new(Transport::Tcp(SYN), "10.240.0.1:40000", "10.96.0.7:80");
        assert_eq!(node.run(At::Uplink, &syn), (NEXT, syn));
    });
}

#[test]
fn the_same_port_of_another_protocol_is_not_the_service() {
    on_node(HELLO, |node| {
        let datagram = Packet::new(Transport::Udp, "10.240.0.1:40000", "10.240.0.11:30080");
        assert_eq!(node.run(At::Uplink, &datagram), (NEXT, datagram));
    });
}

#[test]
fn frames_that_are_not_ipv4_pass() {
    on_node(HELLO, |node| {
        for ethertype in [[0x08, 0x06], [0x86, 0xdd], [0x88, 0xcc]] {
            let mut frame = Packet::new(Transport::Tcp(SYN), "10.240.0.1:40000", "10.240.0.11:30080").bytes();
            frame[12..14].copy_from_slice(&ethertype);
            let outcome = node.run_frame(At::Uplink, &frame);
            assert_eq!((outcome.verdict, outcome.frame), (NEXT, frame));
        }
    });
}
