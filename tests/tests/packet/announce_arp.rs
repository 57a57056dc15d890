//! A load balancer's IPv4 address that this node announces: on no interface, yet answered for.
//!
//! ```text
//!   host ── who has 10.240.0.200? ──> eth0 ┐ announced, lease runs
//!   host <── 10.240.0.200 is at MAC ─ eth0 ┘
//! ```

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use penstock_dataplane::{Announcements, Station};
use penstock_tests::dataplane::{DROP, NEXT, REDIRECT};
use penstock_tests::packet::neighbour::{Answer, HOST_MAC, arp, arp_request, read_arp_reply};

use crate::{At, Node, on_node};

const HOST: Ipv4Addr = Ipv4Addr::new(10, 240, 0, 1);
const VIP: Ipv4Addr = Ipv4Addr::new(10, 240, 0, 200);
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 0xaa];
const LEASE: Duration = Duration::from_secs(60);

/// A node that announces one address by its uplink.
fn announcing(mut test: impl FnMut(&Node, &mut Announcements) + Send) {
    on_node("  {}", |node| {
        let mut announced = node.dataplane.announcements().expect("the map");
        announced.put(VIP.into(), Station { ifindex: node.uplink, mac: MAC }).expect("announced");
        announced.renew(LEASE).expect("a lease");
        test(node, &mut announced);
    });
}

/// The frame passes as it is.
fn passes(node: &Node, at: At, frame: &[u8]) {
    let outcome = node.run_frame(at, frame);
    assert_eq!((outcome.verdict, outcome.frame.as_slice()), (NEXT, frame));
}

#[test]
fn a_request_is_answered_by_the_interface_it_came_by() {
    announcing(|node, _| {
        for sender in [HOST, Ipv4Addr::UNSPECIFIED] {
            let outcome = node.run_frame(At::Uplink, &arp_request(sender, VIP));
            assert_eq!(outcome.verdict, REDIRECT);
            let answer = Answer {
                to: HOST_MAC,
                from: MAC,
                asker: sender.into(),
                address: VIP.into(),
                mac: MAC,
                flags: 0,
            };
            assert_eq!(read_arp_reply(&outcome.frame), answer);
        }
        node.assert_events(&[("neighbour_answered", 2)]);
        node.assert_drops(&[]);
    });
}

#[test]
fn requests_for_other_addresses_and_at_other_interfaces_pass() {
    announcing(|node, announced| {
        passes(node, At::Uplink, &arp_request(HOST, [10, 240, 0, 11].into()));
        passes(node, At::Pod, &arp_request(HOST, VIP));
        passes(node, At::Leaving, &arp_request(HOST, VIP));
        announced.put(VIP.into(), Station { ifindex: node.pod, mac: MAC }).expect("announced elsewhere");
        passes(node, At::Uplink, &arp_request(HOST, VIP));
        node.assert_events(&[]);
    });
}

#[test]
fn a_node_falls_silent_with_its_lease_and_when_the_address_goes() {
    announcing(|node, announced| {
        announced.renew(Duration::ZERO).expect("run out");
        passes(node, At::Uplink, &arp_request(HOST, VIP));
        announced.renew(LEASE).expect("renewed");
        assert_eq!(node.run_frame(At::Uplink, &arp_request(HOST, VIP)).verdict, REDIRECT);
        assert_eq!(announced.list().expect("what is announced").len(), 1);
        announced.remove(VIP.into()).expect("removed");
        announced.remove(VIP.into()).expect("again");
        passes(node, At::Uplink, &arp_request(HOST, VIP));
    });
}

#[test]
fn the_key_of_the_lease_is_nobodys_address() {
    announcing(|node, announced| {
        passes(node, At::Uplink, &arp_request(HOST, Ipv4Addr::UNSPECIFIED));
        let listed = announced.list().expect("what is announced");
        assert_eq!(listed.iter().map(|it| it.0).collect::<Vec<_>>(), [IpAddr::from(VIP)]);
    });
}

#[test]
fn who_claims_the_address_is_counted_and_left_to_the_kernel() {
    announcing(|node, _| {
        passes(node, At::Uplink, &arp(1, VIP, VIP));
        passes(node, At::Uplink, &arp(2, VIP, HOST));
        node.assert_events(&[("address_contested", 2)]);
    });
}

#[test]
fn an_asker_that_is_no_station_is_dropped_by_name() {
    announcing(|node, _| {
        for mac in [[0xff; 6], [0x33, 0x33, 0, 0, 0, 1], [0; 6]] {
            let mut frame = arp_request(HOST, VIP);
            frame[22..28].copy_from_slice(&mac);
            assert_eq!(node.run_frame(At::Uplink, &frame).verdict, DROP);
        }
        node.assert_drops(&[("neighbour_malformed", 3)]);
    });
}

#[test]
fn a_request_cut_at_every_length_or_of_another_kind_passes() {
    announcing(|node, _| {
        let whole = arp_request(HOST, VIP);
        for length in 14..42 {
            passes(node, At::Uplink, &whole[..length]);
        }
        for at in 14..20 {
            let mut frame = whole.clone();
            frame[at] ^= 0x11;
            passes(node, At::Uplink, &frame);
        }
    });
}

#[test]
fn a_new_agent_keeps_what_is_announced() {
    announcing(|node, _| {
        let again = node.stand().load();
        let announced = again.announcements().expect("the map");
        assert_eq!(announced.list().expect("listed").len(), 1);
        assert_eq!(node.run_frame(At::Uplink, &arp_request(HOST, VIP)).verdict, REDIRECT);
    });
}
