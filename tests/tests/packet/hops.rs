//! Hops: who sends a packet on takes one off, and sends none on that has none left. What the kernel routes it counts
//! itself.
//!
//! ```text
//!   client ── 10.240.0.1:40000 > 10.240.0.11:30080, 64 hops ──> eth0 ── 10.240.0.11:P > 10.244.2.2:8080, 63 hops ──> eth0
//! ```

use penstock_tests::dataplane::{DROP, NEXT, REDIRECT};
use penstock_tests::packet::{HOPS, Packet, SYN, Transport, error_about, hops};

use crate::{At, on_node};

const HELLO: &str = "
  demo/there:
    port: 80
    node_port: 30080
    backends: [{ address: 10.244.2.2, port: 8080 }, { address: \"fd00:244:2::2\", port: 8080 }]
  demo/here:
    port: 81
    node_port: 30081
    backends:
    - { address: 10.244.1.2, port: 8080, local: true }
    - { address: \"fd00:244:1::2\", port: 8080, local: true }
";

#[test]
fn what_is_sent_on_loses_a_hop_and_what_the_kernel_routes_does_not() {
    on_node(HELLO, |node| {
        for (client, own) in [("192.0.2.1:40000", "10.240.0.11"), ("[2001:db8::1]:40000", "[fd00:240::11]")] {
            let syn = Packet::new(Transport::Tcp(SYN), client, &format!("{own}:30080"));
            let sent = node.run_frame(At::Uplink, &syn.bytes());
            assert_eq!((sent.verdict, hops(&sent.frame)), (REDIRECT, HOPS - 1));
            let sent = Packet::read(&sent.frame);
            let answer = node.run_frame(At::Uplink, &sent.reply().bytes());
            assert_eq!((answer.verdict, hops(&answer.frame)), (REDIRECT, HOPS - 1));
            let error = node.run_frame(At::Uplink, &error_about(&sent, sent.destination.ip()));
            assert_eq!((error.verdict, hops(&error.frame)), (REDIRECT, HOPS - 1));

            let syn = Packet::new(Transport::Tcp(SYN), client, &format!("{own}:30081"));
            let routed = node.run_frame(At::Uplink, &syn.bytes());
            assert_eq!((routed.verdict, hops(&routed.frame)), (NEXT, HOPS));
        }
    });
}

#[test]
fn a_packet_on_its_last_hop_is_not_sent_on() {
    on_node(HELLO, |node| {
        for (client, own) in [("192.0.2.1:40000", "10.240.0.11"), ("[2001:db8::1]:40000", "[fd00:240::11]")] {
            for left in [0, 1] {
                let frame =
                    Packet::new(Transport::Tcp(SYN), client, &format!("{own}:30080")).bytes_with_hops(left);
                let outcome = node.run_frame(At::Uplink, &frame);
                assert_eq!((outcome.verdict, outcome.frame), (DROP, frame));
            }
        }
        node.assert_drops(&[("hops_exceeded", 4)]);
    });
}
