//! Whether a load balancer's address is there: the node that announces it answers echoes, though no interface has it.
//!
//! ```text
//!   host ── echo request to 10.240.0.200 ──> eth0 ┐ announced, lease runs
//!   host <── echo reply ──────────────────── eth0 ┘
//! ```

use std::time::Duration;

use penstock_dataplane::Station;
use penstock_tests::dataplane::{NEXT, REDIRECT};
use penstock_tests::packet::{HOPS, Packet, Transport, at, hops};

use crate::{At, Node, on_node};

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 0xaa];
const VIPS: [&str; 2] = ["10.240.0.200", "fd00:240::c8"];

/// A node that announces an address of each family by its uplink.
fn announcing(mut test: impl FnMut(&Node) + Send) {
    on_node("  {}", |node| {
        let mut announced = node.dataplane.announcements().expect("the map");
        for vip in VIPS {
            let station = Station { ifindex: node.uplink, mac: MAC };
            announced.put(vip.parse().expect("an address"), station).expect("announced");
        }
        announced.renew(Duration::from_secs(60)).expect("a lease");
        test(node);
    });
}

fn echo(from: &str, to: &str) -> Packet {
    let mut packet = Packet::new(Transport::Echo, from, to);
    packet.destination.set_port(0);
    packet
}

const QUESTIONS: [(&str, &str); 2] =
    [("192.0.2.1:7", "10.240.0.200:0"), ("[2001:db8::1]:7", "[fd00:240::c8]:0")];

#[test]
fn an_echo_request_is_answered_to_who_sent_the_frame() {
    announcing(|node| {
        for (from, to) in QUESTIONS {
            let request = echo(from, to);
            for left in [HOPS, 1] {
                let frame = request.bytes_with_hops(left);
                let outcome = node.run_frame(At::Uplink, &frame);
                assert_eq!((outcome.verdict, Packet::read(&outcome.frame)), (REDIRECT, request.reply()));
                assert_eq!((&outcome.frame[..6], &outcome.frame[6..12]), (&frame[6..12], &MAC[..]));
                assert_eq!(hops(&outcome.frame), HOPS);
            }
        }
        node.assert_events(&[("echo_answered", 4)]);
        node.assert_drops(&[]);
    });
}

#[test]
fn replies_martians_and_echoes_to_others_or_elsewhere_pass() {
    announcing(|node| {
        let passes = |at: At, packet: Packet| {
            let frame = packet.bytes();
            let outcome = node.run_frame(at, &frame);
            assert_eq!((outcome.verdict, outcome.frame), (NEXT, frame));
        };
        for (from, to) in QUESTIONS {
            passes(At::Pod, echo(from, to));
            let mut reply = Packet::new(Transport::EchoReply, from, to);
            (reply.source, reply.destination) = (at(from), at(to));
            reply.source.set_port(0);
            reply.destination.set_port(7);
            passes(At::Uplink, reply);
        }
        passes(At::Uplink, echo("192.0.2.1:7", "10.240.0.11:0"));
        passes(At::Uplink, echo("127.0.0.1:7", "10.240.0.200:0"));
        passes(At::Uplink, echo("[ff02::1]:7", "[fd00:240::c8]:0"));
        node.assert_events(&[]);
    });
}
