//! SCTP: its checksum is a CRC over everything but addresses, mended when a port changes.
//!
//! ```text
//!   client ── 192.0.2.1:40000 > 10.240.0.11:30132 ──> eth0 ── 10.240.0.11:P > 10.244.2.2:3868 ──> eth0
//! ```

use penstock_tests::dataplane::{DROP, REDIRECT};
use penstock_tests::packet::{INIT, Packet, Transport, at, fragments};

use crate::{At, on_node};

const DIAMETER: &str = "
  demo/diameter:
    port: 3868
    protocol: SCTP
    node_port: 30132
    backends: [{ address: 10.244.2.2, port: 3868 }, { address: \"fd00:244:2::2\", port: 3868 }]
";

#[test]
fn its_checksum_stays_right_and_one_left_to_the_card_stays_so() {
    on_node(DIAMETER, |node| {
        for (client, own, backend) in [
            ("192.0.2.1:40000", "10.240.0.11:30132", "10.244.2.2:3868"),
            ("[2001:db8::1]:40000", "[fd00:240::11]:30132", "[fd00:244:2::2]:3868"),
        ] {
            for transport in [Transport::Sctp(INIT), Transport::SctpUnsummed(INIT), Transport::Sctp(0)] {
                for length in [0, 1, 2, 3, 64, 255, 1300] {
                    let mut asks = Packet::new(transport, client, own);
                    asks.payload = (0..=u8::MAX).cycle().take(length).collect();
                    let (verdict, sent) = node.run(At::Uplink, &asks);
                    assert_eq!((verdict, sent.destination), (REDIRECT, at(backend)));
                    assert_eq!(node.run(At::Uplink, &sent.reply()), (REDIRECT, asks.reply()));
                }
            }
        }
        node.assert_drops(&[]);
    });
}

#[test]
fn in_fragments_it_cannot_be_mended_and_is_dropped_by_name() {
    on_node(DIAMETER, |node| {
        let mut asks = Packet::new(Transport::Sctp(INIT), "192.0.2.1:40000", "10.240.0.11:30132");
        asks.payload = vec![7; 200];
        let frames = fragments(&asks, 7, 104);
        assert_eq!(node.run_frame(At::Uplink, &frames[0]).verdict, DROP);
        node.assert_drops(&[("not_rewritten", 1)]);
    });
}
