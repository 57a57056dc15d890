//! What XDP sends on by itself, and what it leaves to tc as it came.
//!
//! ```text
//!   client ── 10.240.0.1:40000 > 10.240.0.11:30080 ──> eth0, XDP ── 10.240.0.11:P > 10.244.2.2:8080 ──> eth0
//!   client <── 10.240.0.11:30080 > 10.240.0.1:40000 ── XDP, eth0 <── 10.244.2.2:8080 > 10.240.0.11:P ── the other node
//!   client ── 10.240.0.1:40000 > 10.240.0.11:30081 ──> eth0, XDP ── the same ──> tc ── > 10.244.1.2:8080 ──> pod0
//! ```
//! Every other test of packets runs with XDP before tc as well; here is what only XDP can do or leave.

use penstock_tests::dataplane::{Early, REDIRECT};
use penstock_tests::netns::ip;
use penstock_tests::packet::{ACK, Packet, SYN, Transport, at, error_about, fragments};

use crate::{At, Node, on_node};

const HELLO: &str = "
  demo/there:
    port: 80
    node_port: 30080
    backends: [{ address: 10.244.2.2, port: 8080 }, { address: \"fd00:244:2::2\", port: 8080 }]
  demo/talk:
    port: 53
    protocol: UDP
    node_port: 30080
    backends: [{ address: 10.244.2.2, port: 53 }, { address: \"fd00:244:2::2\", port: 53 }]
  demo/here:
    port: 81
    node_port: 30081
    backends:
    - { address: 10.244.1.2, port: 8080, local: true }
    - { address: \"fd00:244:1::2\", port: 8080, local: true }
";

/// A client and the node, in each family.
const ENDS: [(&str, &str); 2] =
    [("192.0.2.1:40000", "10.240.0.11"), ("[2001:db8::1]:40000", "[fd00:240::11]")];

fn verdict(node: &Node, frame: &[u8]) -> Early {
    node.run_early(frame).0
}

#[test]
fn a_connection_to_another_node_s_pod_never_reaches_tc() {
    on_node(HELLO, |node| {
        for (client, own) in ENDS {
            for transport in
                [Transport::Tcp(SYN), Transport::Tcp(ACK), Transport::Udp, Transport::UdpUnsummed]
            {
                let asks = Packet::new(transport, client, &format!("{own}:30080"));
                let (verdict, sent) = node.run_early(&asks.bytes());
                let sent = Packet::read(&sent);
                assert_eq!((verdict, sent.source.ip()), (Early::Send, at(&format!("{own}:0")).ip()));
                let (verdict, answer) = node.run_early(&sent.reply().bytes());
                assert_eq!((verdict, Packet::read(&answer)), (Early::Send, asks.reply()));
            }
        }
        node.assert_drops(&[]);
    });
}

#[test]
fn what_needs_more_is_left_to_tc_as_it_came() {
    on_node(HELLO, |node| {
        for (client, own) in ENDS {
            let syn = Packet::new(Transport::Tcp(SYN), client, &format!("{own}:30080"));
            let local = Packet { destination: at(&format!("{own}:30081")), ..syn.clone() };
            let mut long = Packet { transport: Transport::Udp, ..syn.clone() };
            long.payload = vec![7; 2000];
            let stranger = Packet { destination: at(&format!("{own}:9")), ..syn.clone() };
            let mut frames = vec![local.bytes(), stranger.bytes(), error_about(&syn, syn.destination.ip())];
            frames.extend(fragments(&long, 7, 1400));
            for frame in frames {
                assert_eq!(verdict(node, &frame), Early::Pass);
            }
        }
        node.assert_drops(&[]);
    });
}

#[test]
fn a_frame_for_somebody_else_is_not_sent_on() {
    on_node(HELLO, |node| {
        let mut frame = Packet::new(Transport::Tcp(SYN), ENDS[0].0, "10.240.0.11:30080").bytes();
        for (at, value) in [(0, 1), (1, 9), (5, 0)] {
            let mut other = frame.clone();
            other[at] = value;
            assert_eq!(verdict(node, &other), Early::Pass);
        }
        node.assert_events(&[]);
        frame[6..12].fill(9);
        assert_eq!(verdict(node, &frame), Early::Send);
    });
}

#[test]
fn a_checksum_that_a_card_was_to_finish_is_left_to_tc() {
    on_node(HELLO, |node| {
        for (client, own) in ENDS {
            for (transport, place) in [(Transport::Tcp(SYN), 16), (Transport::Udp, 6)] {
                let asks = Packet::new(transport, client, &format!("{own}:30080"));
                let mut frame = asks.bytes();
                let start = if asks.source.is_ipv4() { 34 } else { 54 };
                let sum = pseudo_header(&frame, start);
                frame[start + place..start + place + 2].copy_from_slice(&sum.to_be_bytes());
                assert_eq!(verdict(node, &frame), Early::Pass, "{transport:?} from {client}");
            }
        }
    });
}

/// What a packet's checksum holds that is left to a card: addresses, protocol and length, summed up.
fn pseudo_header(frame: &[u8], start: usize) -> u16 {
    let (addresses, protocol) =
        if start == 34 { (&frame[26..34], frame[23]) } else { (&frame[22..54], frame[20]) };
    let words = addresses.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let mut sum = words.sum::<u32>() + u32::from(protocol) + (frame.len() - start) as u32;
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

#[test]
fn a_neighbour_whose_link_address_is_not_known_is_asked_for_by_tc() {
    on_node(HELLO, |node| {
        ip("neighbour del 10.240.0.12 dev eth0").expect("forgotten");
        let syn = Packet::new(Transport::Tcp(SYN), ENDS[0].0, "10.240.0.11:30080");
        assert_eq!(verdict(node, &syn.bytes()), Early::Pass);
        assert_eq!(node.run(At::Uplink, &syn).0, REDIRECT);
        node.assert_events(&[("flow_created", 1), ("uplink_to_remote", 1)]);
    });
}

#[test]
fn a_frame_cut_at_every_length_is_passed_or_dropped_but_never_sent() {
    on_node(HELLO, |node| {
        for (client, own) in ENDS {
            for (transport, header) in [(Transport::Tcp(SYN), 20), (Transport::Udp, 8)] {
                let whole = Packet::new(transport, client, &format!("{own}:30080")).bytes();
                let ports = if own.starts_with('[') { 54 } else { 34 };
                for length in 14..whole.len() {
                    let expected = if length < ports + 4 { Early::Pass } else { Early::Drop };
                    assert_eq!(
                        verdict(node, &whole[..length]),
                        expected,
                        "{transport:?} of {header} cut at {length}"
                    );
                }
            }
        }
        node.assert_events(&[]);
    });
}
