//! Datagrams to a NodePort, both ways.
//!
//! ```text
//!   client ── 10.240.0.1:40000 > 10.240.0.11:30053 ──> eth0 ── 10.240.0.1:40000 > 10.244.1.2:5353 ──> pod0
//! ```

use penstock_tests::dataplane::{NEXT, REDIRECT, desired};
use penstock_tests::packet::{Packet, Transport, at};

use crate::{At, on_node};

const TALK: &str = "
  demo/talk:
    port: 53
    protocol: UDP
    node_port: 30053
    backends: [{ address: 10.244.1.2, port: 5353, local: true }]
";

#[test]
fn checksums_stay_right_and_a_missing_one_stays_missing() {
    on_node(TALK, |node| {
        for transport in [Transport::Udp, Transport::UdpUnsummed] {
            let question = Packet::new(transport, "10.240.0.1:40000", "10.240.0.11:30053");
            let (verdict, asked) = node.run(At::Uplink, &question);
            assert_eq!(verdict, NEXT);
            assert_eq!(asked, Packet { destination: at("10.244.1.2:5353"), ..question.clone() });
            assert_eq!(node.run(At::Pod, &asked.reply()), (REDIRECT, question.reply()));
        }
    });
}

#[test]
fn checksums_stay_right_for_every_payload() {
    on_node(TALK, |node| {
        for word in 0..=u8::MAX {
            let mut question = Packet::new(Transport::Udp, "10.240.0.1:40000", "10.240.0.11:30053");
            question.payload = vec![word, 255 - word, word.wrapping_mul(7)];
            assert_eq!(node.run(At::Uplink, &question).1.payload, question.payload);
        }
    });
}

#[test]
fn a_flow_ends_with_its_backend() {
    on_node(TALK, |node| {
        let question = Packet::new(Transport::Udp, "10.240.0.1:40000", "10.240.0.11:30053");
        node.run(At::Uplink, &question);
        let changed = TALK.replace("10.244.1.2", "10.244.1.3");
        let services = format!("node_addresses: [10.240.0.11, \"fd00:240::11\"]\nservices:\n{changed}");
        let applied = node.dataplane.apply(&desired(&services)).expect("applied");
        assert_eq!(applied.flows_removed, 2, "both halves");
        assert_eq!(node.run(At::Uplink, &question).1.destination, at("10.244.1.3:5353"));
    });
}
