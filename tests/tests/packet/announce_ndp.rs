//! A load balancer's IPv6 address that this node announces: on no interface, yet answered for.
//!
//! ```text
//!   host ── who has fd00:240::c8? ─> ff02::1:ff00:c8 ──> eth0 ┐ announced, lease runs
//!   host <── fd00:240::c8 is at MAC ──────────────────── eth0 ┘
//!   host ── may I have fd00:240::c8? (from ::) ────────> eth0 ── no: it is at MAC ──> all nodes
//! ```

use std::net::Ipv6Addr;
use std::time::Duration;

use penstock_dataplane::Station;
use penstock_tests::dataplane::{DROP, NEXT, REDIRECT};
use penstock_tests::packet::neighbour::{Answer, HOST_MAC, neighbour, read_advertisement, solicitation};

use crate::{At, Node, on_node};

const HOST: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x240, 0, 0, 0, 0, 0, 1);
const VIP: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x240, 0, 0, 0, 0, 0, 0xc8);
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 0xaa];

/// A node that announces one address by its uplink.
fn announcing(mut test: impl FnMut(&Node) + Send) {
    on_node("  {}", |node| {
        let mut announced = node.dataplane.announcements().expect("the map");
        announced.put(VIP.into(), Station { ifindex: node.uplink, mac: MAC }).expect("announced");
        announced.renew(Duration::from_secs(60)).expect("a lease");
        test(node);
    });
}

fn answer(node: &Node, frame: &[u8]) -> Answer {
    let outcome = node.run_frame(At::Uplink, frame);
    assert_eq!(outcome.verdict, REDIRECT);
    read_advertisement(&outcome.frame)
}

#[test]
fn a_solicitation_is_answered_to_who_asks() {
    announcing(|node| {
        let to_asker = Answer {
            to: HOST_MAC,
            from: MAC,
            asker: HOST.into(),
            address: VIP.into(),
            mac: MAC,
            flags: 0b011,
        };
        assert_eq!(answer(node, &solicitation(HOST, VIP)), to_asker);
        let without_options = neighbour(135, HOST, VIP, &[]);
        assert_eq!(answer(node, &without_options), to_asker, "the frame tells who asks");
        let nonce = [1, 1, 2, 0, 0, 0, 0, 2, 14, 1, 1, 2, 3, 4, 5, 6];
        assert_eq!(answer(node, &neighbour(135, HOST, VIP, &nonce)), to_asker, "longer than its answer");
        node.assert_events(&[("neighbour_answered", 3)]);
        node.assert_drops(&[]);
    });
}

#[test]
fn who_wants_the_address_for_itself_is_refused_before_everybody() {
    announcing(|node| {
        let all: Ipv6Addr = "ff02::1".parse().expect("all nodes");
        let refusal = Answer {
            to: [0x33, 0x33, 0, 0, 0, 1],
            from: MAC,
            asker: all.into(),
            address: VIP.into(),
            mac: MAC,
            flags: 0b001,
        };
        assert_eq!(answer(node, &solicitation(Ipv6Addr::UNSPECIFIED, VIP)), refusal);
    });
}

#[test]
fn solicitations_for_other_addresses_and_at_other_interfaces_pass() {
    announcing(|node| {
        for (at, target) in [(At::Uplink, HOST), (At::Pod, VIP), (At::Leaving, VIP)] {
            let frame = solicitation(HOST, target);
            let outcome = node.run_frame(at, &frame);
            assert_eq!((outcome.verdict, outcome.frame), (NEXT, frame));
        }
        node.assert_events(&[]);
    });
}

#[test]
fn who_claims_the_address_is_counted_and_left_to_the_kernel() {
    announcing(|node| {
        let frame = neighbour(136, HOST, VIP, &[2, 1, 2, 0, 0, 0, 0, 2]);
        assert_eq!(node.run_frame(At::Uplink, &frame).verdict, NEXT);
        node.assert_events(&[("address_contested", 1)]);
    });
}

#[test]
fn what_no_neighbour_may_ask_so_is_dropped_by_name() {
    announcing(|node| {
        let good = solicitation(HOST, VIP);
        let mut bad: Vec<Vec<u8>> = [(21, 64), (55, 1), (57, good[57] ^ 1), (79, 0), (79, 9)]
            .into_iter()
            .map(|(at, value)| {
                let mut frame = good.clone();
                frame[at] = value;
                frame
            })
            .collect();
        bad.push(neighbour(135, Ipv6Addr::UNSPECIFIED, VIP, &[1, 1, 2, 0, 0, 0, 0, 2]));
        bad.push(neighbour(135, HOST, VIP, &[1, 1, 0x33, 0x33, 0, 0, 0, 2]));
        bad.push(neighbour(135, HOST, VIP, &[14, 1, 0, 0, 0, 0, 0, 0].repeat(40)));
        bad.push(good[..good.len() - 4].to_vec());
        let count = bad.len() as u64;
        for frame in bad {
            assert_eq!(node.run_frame(At::Uplink, &frame).verdict, DROP);
        }
        node.assert_drops(&[("neighbour_malformed", count)]);
    });
}
