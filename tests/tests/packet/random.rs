//! Anything at all, at every interface: a verdict, the same length, and nothing delivered that was not whole.

use penstock_tests::dataplane::{DROP, NEXT, REDIRECT};
use penstock_tests::packet::{Packet, SYN, Transport, error_about};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::{At, on_node};

const EVERYTHING: &str = "
  demo/tcp:
    cluster_ips: [10.96.0.7, \"fd00:96::7\"]
    port: 80
    node_port: 30080
    backends: [{ address: 10.244.2.2, port: 8080 }, { address: \"fd00:244:2::2\", port: 8080 }]
  demo/udp:
    cluster_ips: [10.96.0.7, \"fd00:96::7\"]
    port: 80
    protocol: UDP
    node_port: 30080
    backends:
    - { address: 10.244.1.2, port: 8080, local: true }
    - { address: \"fd00:244:1::2\", port: 8080, local: true }
";

/// A good packet to start from: bytes of chance alone never pass the first check.
fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for (client, own, service) in [
        ("192.0.2.1:40000", "10.240.0.11:30080", "10.96.0.7:80"),
        ("[2001:db8::1]:40000", "[fd00:240::11]:30080", "[fd00:96::7]:80"),
    ] {
        for transport in [Transport::Tcp(SYN), Transport::Udp, Transport::Sctp(1), Transport::Echo] {
            for to in [own, service] {
                let packet = Packet::new(transport, client, to);
                seeds.push(packet.bytes());
                seeds.push(error_about(&packet, packet.destination.ip()));
            }
        }
    }
    seeds
}

#[test]
fn whatever_arrives_gets_a_verdict_and_keeps_its_length() {
    on_node(EVERYTHING, |node| {
        let seeds = seeds();
        let strategy = (
            prop::sample::select(seeds),
            prop::collection::vec((12..120_usize, any::<u8>()), 0..12),
            prop::option::of(0..140_usize),
            prop::collection::vec(any::<u8>(), 0..64),
        );
        let mut runner =
            TestRunner::new(Config { cases: 20_000, failure_persistence: None, ..Config::default() });
        let ran = runner.run(&strategy, |(mut frame, changes, cut, more)| {
            for (at, value) in changes {
                if let Some(byte) = frame.get_mut(at) {
                    *byte = value;
                }
            }
            frame.extend(more);
            if let Some(cut) = cut {
                frame.truncate(cut);
            }
            // The kernel itself refuses to run programs on frames without a whole IP header.
            let header = if frame.get(12..14) == Some(&[0x08, 0x00]) { 34 } else { 54 };
            frame.resize(frame.len().max(header), 0);
            for place in [At::Uplink, At::Pod, At::Leaving, At::Tunnel] {
                let outcome = node.run_frame(place, &frame);
                prop_assert!([NEXT, DROP, REDIRECT].contains(&outcome.verdict), "{}", outcome.verdict);
                prop_assert_eq!(outcome.frame.len(), frame.len());
                if outcome.verdict == DROP {
                    continue;
                }
                prop_assert_eq!(&outcome.frame[..12], &frame[..12], "the link's addresses are the kernel's");
            }
            Ok(())
        });
        ran.unwrap_or_else(|error| panic!("{error}"));
    });
}
