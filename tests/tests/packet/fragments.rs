//! Datagrams in fragments: later ones have no ports, and follow the first.
//!
//! ```text
//!   client ── 1/3 192.0.2.1:40000 > 10.240.0.11:30053 ──> eth0 ── 1/3 10.240.0.11:P > 10.244.2.2:5353
//!   client ── 2/3 192.0.2.1       > 10.240.0.11       ──> eth0 ── 2/3 10.240.0.11   > 10.244.2.2
//! ```

use penstock_tests::dataplane::{DROP, NEXT, REDIRECT};
use penstock_tests::packet::{Packet, SYN, Transport, assemble, at, fragments};

use crate::{At, Node, on_node};

const TALK: &str = "
  demo/here:
    cluster_ips: [10.96.0.7, \"fd00:96::7\"]
    port: 53
    protocol: UDP
    node_port: 30052
    backends:
    - { address: 10.244.1.2, port: 5353, local: true }
    - { address: \"fd00:244:1::2\", port: 5353, local: true }
  demo/there:
    port: 53
    protocol: UDP
    node_port: 30053
    backends: [{ address: 10.244.2.2, port: 5353 }, { address: \"fd00:244:2::2\", port: 5353 }]
  demo/tcp:
    port: 80
    node_port: 30080
    backends: [{ address: 10.244.2.2, port: 8080 }, { address: \"fd00:244:2::2\", port: 8080 }]
";

fn long(transport: Transport, source: &str, destination: &str) -> Packet {
    Packet { payload: (0..=255).cycle().take(3000).collect(), ..Packet::new(transport, source, destination) }
}

/// Sends all fragments through; the verdicts are all the same.
fn through(node: &Node, place: At, frames: &[Vec<u8>]) -> (i32, Packet) {
    let outcomes: Vec<_> = frames.iter().map(|frame| node.run_frame(place, frame)).collect();
    let verdict = outcomes[0].verdict;
    assert!(
        outcomes.iter().all(|outcome| outcome.verdict == verdict),
        "{:?}",
        outcomes.iter().map(|it| it.verdict).collect::<Vec<_>>()
    );
    (verdict, assemble(&outcomes.into_iter().map(|outcome| outcome.frame).collect::<Vec<_>>()))
}

#[test]
fn a_datagram_in_fragments_arrives_whole_and_so_does_its_answer() {
    on_node(TALK, |node| {
        for (client, own) in [("192.0.2.1:40000", "10.240.0.11"), ("[2001:db8::1]:40000", "[fd00:240::11]")] {
            let asks = long(Transport::Udp, client, &format!("{own}:30053"));
            let (verdict, sent) = through(node, At::Uplink, &fragments(&asks, 7, 1400));
            assert_eq!((verdict, sent.destination.port(), &sent.payload), (REDIRECT, 5353, &asks.payload));
            let (verdict, answer) = through(node, At::Uplink, &fragments(&sent.reply(), 9, 1400));
            assert_eq!((verdict, answer), (REDIRECT, asks.reply()));

            let asks = long(Transport::Udp, client, &format!("{own}:30052"));
            let (verdict, sent) = through(node, At::Uplink, &fragments(&asks, 8, 1400));
            assert_eq!((verdict, sent.source), (NEXT, asks.source));
            let (verdict, answer) = through(node, At::Pod, &fragments(&sent.reply(), 9, 1400));
            assert_eq!((verdict, answer), (REDIRECT, asks.reply()));
        }
        assert_eq!(node.counters().events["fragment_followed"], 2 * 4 * 2);
        node.assert_drops(&[]);
    });
}

#[test]
fn tcp_in_fragments_arrives_too() {
    on_node(TALK, |node| {
        let syn = long(Transport::Tcp(SYN), "192.0.2.1:40000", "10.240.0.11:30080");
        let (verdict, sent) = through(node, At::Uplink, &fragments(&syn, 7, 1400));
        assert_eq!((verdict, sent.destination), (REDIRECT, at("10.244.2.2:8080")));
    });
}

#[test]
fn two_datagrams_under_way_at_once_do_not_mix() {
    on_node(TALK, |node| {
        let one = fragments(&long(Transport::Udp, "192.0.2.1:40000", "10.240.0.11:30053"), 7, 1400);
        let other = fragments(&long(Transport::Udp, "192.0.2.1:40001", "10.240.0.11:30052"), 8, 1400);
        let run = |frame: &Vec<u8>| node.run_frame(At::Uplink, frame).frame;
        let (mut to_one, mut to_other) = (Vec::new(), Vec::new());
        for (mine, its) in one.iter().zip(&other) {
            to_one.push(run(mine));
            to_other.push(run(its));
        }
        assert_eq!(assemble(&to_one).destination, at("10.244.2.2:5353"));
        assert_eq!(assemble(&to_other).destination, at("10.244.1.2:5353"));
    });
}

#[test]
fn a_later_fragment_before_the_first_is_dropped_by_name_where_only_services_are() {
    on_node(TALK, |node| {
        for (pod, service) in
            [("10.244.1.2:40000", "10.96.0.7:53"), ("[fd00:244:1::2]:40000", "[fd00:96::7]:53")]
        {
            let frames = fragments(&long(Transport::Udp, pod, service), 7, 1600);
            let outcome = node.run_frame(At::Pod, &frames[1]);
            assert_eq!((outcome.verdict, &outcome.frame), (DROP, &frames[1]));
        }
        node.assert_drops(&[("fragment", 2)]);
        // To the node itself it may be the node's own.
        let frames = fragments(&long(Transport::Udp, "192.0.2.1:40000", "10.240.0.11:30053"), 7, 1600);
        let outcome = node.run_frame(At::Uplink, &frames[1]);
        assert_eq!((outcome.verdict, &outcome.frame), (NEXT, &frames[1]));
    });
}
