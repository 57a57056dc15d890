//! Clients that cannot be: what the program sends on itself the kernel's checks do not see.
//!
//! ```text
//!   ? ── 127.0.0.1:40000 > 10.240.0.11:30080 ──> eth0 ── dropped, counted
//! ```

use penstock_tests::dataplane::{DROP, NEXT};
use penstock_tests::packet::{Packet, SYN, Transport};

use crate::{At, on_node};

const HELLO: &str = "
  demo/there:
    port: 80
    node_port: 30080
    backends: [{ address: 10.244.2.2, port: 8080 }, { address: \"fd00:244:2::2\", port: 8080 }]
";

#[test]
fn a_packet_from_an_impossible_address_is_dropped_by_name() {
    on_node(HELLO, |node| {
        let mut count = 0;
        for (own, sources) in [
            (
                "10.240.0.11",
                &["0.0.0.0", "0.1.2.3", "127.0.0.1", "224.0.0.1", "255.255.255.255", "10.240.0.11"][..],
            ),
            ("[fd00:240::11]", &["[::]", "[::1]", "[ff02::1]", "[fd00:240::11]"][..]),
        ] {
            for source in sources {
                let syn =
                    Packet::new(Transport::Tcp(SYN), &format!("{source}:40000"), &format!("{own}:30080"));
                assert_eq!(node.run(At::Uplink, &syn), (DROP, syn), "{source}");
                count += 1;
            }
        }
        node.assert_drops(&[("martian_source", count)]);
    });
}

#[test]
fn an_ipv6_packet_with_ipv4_addresses_in_it_is_nobody_s() {
    on_node(HELLO, |node| {
        let mut frame =
            Packet::new(Transport::Tcp(SYN), "[fd00:240::1]:40000", "[fd00:240::11]:30080").bytes();
        frame[38..50].copy_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff]);
        frame[50..54].copy_from_slice(&[10, 240, 0, 11]);
        let outcome = node.run_frame(At::Uplink, &frame);
        assert_eq!((outcome.verdict, outcome.frame), (NEXT, frame));
    });
}

#[test]
fn port_zero_is_a_port_like_others_to_a_client_and_no_service_s() {
    on_node(HELLO, |node| {
        let syn = Packet::new(Transport::Tcp(SYN), "192.0.2.1:0", "10.240.0.11:30080");
        let (_, sent) = node.run(At::Uplink, &syn);
        assert_eq!(node.run(At::Uplink, &sent.reply()).1, syn.reply());
        let syn = Packet::new(Transport::Tcp(SYN), "192.0.2.1:40000", "10.240.0.11:0");
        assert_eq!(node.run(At::Uplink, &syn), (NEXT, syn));
    });
}
