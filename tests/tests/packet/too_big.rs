//! A packet that does not fit the way to its backend: the node answers for it, with the packet as the client knows it.
//!
//! ```text
//!   client ── 192.0.2.1:40000 > 10.240.0.11:30080, 1,500 bytes ──> eth0        (the way to 10.244.2.2 takes 1,400)
//!   client <── ICMP from 10.240.0.11: fragmentation needed, 1,400: 192.0.2.1:40000 > 10.240.0.11:30080 ... ── eth0
//! ```

use penstock_tests::dataplane::{DROP, REDIRECT};
use penstock_tests::netns::ip;
use penstock_tests::packet::{Packet, SYN, Transport, at, read_too_big};

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
";

const ENDS: [(&str, &str); 2] =
    [("192.0.2.1:40000", "10.240.0.11"), ("[2001:db8::1]:40000", "[fd00:240::11]")];
const MTU: u32 = 1400;

fn on_narrow_node(test: impl FnMut(&Node) + Send) {
    let mut test = test;
    on_node(HELLO, |node| {
        ip(&format!("route replace 10.244.2.0/24 via 10.240.0.12 mtu lock {MTU}")).expect("a narrow way");
        ip(&format!("route replace fd00:244:2::/64 via fd00:240::12 mtu lock {MTU}")).expect("a narrow way");
        test(node);
    });
}

/// A packet of so many bytes from the IP header on.
fn of_length(transport: Transport, client: &str, own: &str, length: u32) -> Packet {
    let mut packet = Packet::new(transport, client, &format!("{own}:30080"));
    packet.payload.clear();
    let headers = packet.bytes().len() - 14;
    packet.payload = vec![7; length as usize - headers];
    packet
}

#[test]
fn what_fits_is_sent_on_and_what_does_not_is_answered_with_what_would() {
    on_narrow_node(|node| {
        for (client, own) in ENDS {
            for transport in [Transport::Tcp(SYN), Transport::Udp, Transport::UdpUnsummed] {
                let fits = of_length(transport, client, own, MTU);
                assert_eq!(node.run(At::Uplink, &fits).1.payload, fits.payload);
                for length in [MTU + 1, 1500] {
                    let packet = of_length(transport, client, own, length);
                    let frame = packet.bytes();
                    let outcome = node.run_frame(At::Uplink, &frame);
                    assert_eq!(outcome.verdict, REDIRECT);
                    let told = read_too_big(&outcome.frame);
                    assert_eq!((told.from, told.to), (at(&format!("{own}:0")).ip(), packet.source.ip()));
                    assert_eq!((told.mtu, &told.quoted[..]), (MTU, &frame[14..14 + told.quoted.len()]));
                    assert_eq!(outcome.frame[..6], frame[6..12], "to the neighbour it came from");
                    assert_eq!(outcome.frame[6..12], frame[..6]);
                }
            }
        }
        let counters = node.counters();
        assert_eq!(counters.events["too_big_answered"], 12);
        node.assert_drops(&[]);
    });
}

#[test]
fn a_flood_of_what_is_too_big_is_answered_so_often_and_dropped_by_name_beyond() {
    on_narrow_node(|node| {
        let frame = of_length(Transport::Udp, ENDS[0].0, ENDS[0].1, 1500).bytes();
        let dropped = (0..2_000).filter(|_| node.run_frame(At::Uplink, &frame).verdict == DROP).count();
        let counters = node.counters();
        assert!(dropped > 0 && counters.drops["too_big"] == dropped as u64, "{dropped} dropped");
        assert_eq!(counters.events["too_big_answered"] as usize, 2_000 - dropped);
    });
}
