//! Packets that end anywhere, or lie about themselves.
//!
//! Without ports a packet belongs to no service and passes untouched; the kernel drops what is broken. With ports of a
//! service but without the rest of its header it is dropped by name.

use penstock_tests::dataplane::{DROP, NEXT};
use penstock_tests::packet::{Packet, SYN, Transport};

use crate::{At, on_node};

const HELLO: &str = "
  demo/hello:
    port: 80
    node_port: 30080
    backends: [{ address: 10.244.1.2, port: 8080, local: true }]
  demo/talk:
    port: 53
    protocol: UDP
    node_port: 30053
    backends: [{ address: 10.244.1.2, port: 5353, local: true }]
";

/// The kernel refuses to run programs on IPv4 frames without a whole IP header, as its receive path would.
const FRAME_MIN: usize = 14 + 20;
const PORTS_END: usize = 14 + 20 + 4;

#[test]
fn a_packet_cut_at_every_length_is_passed_or_dropped_but_never_changed() {
    on_node(HELLO, |node| {
        for (transport, port, header_end) in
            [(Transport::Tcp(SYN), 30080, 14 + 20 + 20), (Transport::Udp, 30053, 14 + 20 + 8)]
        {
            let whole = Packet::new(transport, "10.240.0.1:40000", &format!("10.240.0.11:{port}")).bytes();
            for length in FRAME_MIN..header_end {
                let frame = &whole[..length];
                let outcome = node.run_frame(At::Uplink, frame);
                let expected = if length < PORTS_END { NEXT } else { DROP };
                assert_eq!(
                    (outcome.verdict, outcome.frame.as_slice()),
                    (expected, frame),
                    "{transport:?} cut at {length}"
                );
            }
        }
        assert_eq!(node.counters().drops["malformed"], (20 - 4) + (8 - 4));
        node.assert_events(&[]);
    });
}

#[test]
fn every_value_of_every_header_byte_leads_to_a_verdict() {
    on_node(HELLO, |node| {
        let whole = Packet::new(Transport::Tcp(SYN), "10.240.0.1:40000", "10.240.0.11:30080").bytes();
        for at in 12..14 + 20 + 20 {
            for value in [0x00, 0x01, 0x0f, 0x20, 0x40, 0x44, 0x46, 0x4f, 0x60, 0x7f, 0x80, 0xff] {
                let mut frame = whole.clone();
                frame[at] = value;
                let outcome = node.run_frame(At::Uplink, &frame);
                assert!(
                    [-1, 2, 7].contains(&outcome.verdict),
                    "byte {at} as {value:#x}: {}",
                    outcome.verdict
                );
                assert_eq!(outcome.frame.len(), frame.len());
            }
        }
    });
}

#[test]
fn ip_options_move_the_ports_and_are_understood() {
    on_node(HELLO, |node| {
        let plain = Packet::new(Transport::Tcp(SYN), "10.240.0.1:40000", "10.240.0.11:30080").bytes();
        let mut frame = plain[..34].to_vec();
        frame.extend_from_slice(&[1, 1, 1, 0]);
        frame.extend_from_slice(&plain[34..]);
        frame[14] = 0x46;
        let outcome = node.run_frame(At::Uplink, &frame);
        assert_eq!(outcome.verdict, NEXT);
        assert_eq!(outcome.frame[30..34], [10, 244, 1, 2]);
        assert_eq!(outcome.frame[40..42], 8080_u16.to_be_bytes());
    });
}
