//! The programs at the interfaces, run on packets: one file a flow, the flow drawn above its tests.
//!
//! Every test has this node (10.240.0.11) and its surroundings for itself:
//!
//! ```text
//!   client 10.240.0.1 ── eth0 ┌ node 10.240.0.11 ┐ pod0 ── pod 10.244.1.2
//!   node   10.240.0.12 ─ eth0 └──────────────────┘         (this node's pods: 10.244.1.0/24)
//!     its pods 10.244.2.0/24
//! ```
//! Each test runs twice: on a node whose uplink has tc alone, and on one where XDP is before it; both decide the same.
//!
//! The same in IPv6, where fd00:240:: stands for 10.240.0, fd00:244:1:: for 10.244.1, and so on. Outside of both
//! clusters' ranges are 192.0.2.0/24 and 2001:db8::/32.

use penstock_dataplane::{Counters, Dataplane};
use penstock_tests::dataplane::{self, DROP, Early, Outcome, REDIRECT, Stand, desired};
use penstock_tests::netns::{Netns, ifindex, ip, isolated, sysctl};
use penstock_tests::packet::{Packet, STATION};

mod packet {
    mod affinity;
    mod announce_arp;
    mod announce_echo;
    mod announce_ndp;
    mod choice;
    mod cluster_ip_from_pod;
    mod direct;
    mod explained;
    mod former_flows;
    mod fragments;
    mod hops;
    mod host_network;
    mod icmp_errors;
    mod ipv6;
    mod malformed;
    mod martians;
    mod masquerade;
    mod no_backend;
    mod nodeport_addresses;
    mod nodeport_local;
    mod nodeport_remote;
    mod not_for_us;
    mod pod_drops;
    mod policy;
    mod policy_changes;
    mod random;
    mod sctp;
    mod settled;
    mod shared_backend;
    mod source_ports;
    mod source_ranges;
    mod told;
    mod too_big;
    mod udp;
    mod xdp;
}

/// The node's addresses as its desired state has them.
const NODE_ADDRESSES: &str = "[10.240.0.11, \"fd00:240::11\"]";

/// What the link addresses of the neighbours begin with.
const NEIGHBOURS: [u8; 5] = [2, 0, 0, 0, 1];

/// The node of a test.
struct Node {
    dataplane: Dataplane,
    /// Whether XDP is before tc on the uplink.
    early: bool,
    uplink: u32,
    pod: u32,
    _outside: Netns,
    _pod: Netns,
    stand: Stand,
}

/// Where a packet comes in.
#[derive(Clone, Copy)]
enum At {
    Uplink,
    Pod,
    /// Out of the node itself, by the uplink.
    Leaving,
    /// Into the pod, by the node's routing.
    Entering,
    /// From another node, through the overlay.
    Tunnel,
}

/// Runs a test on a node that serves these services; without what it needs the test is skipped.
fn on_node(services: &str, mut test: impl FnMut(&Node) + Send) {
    for early in [false, true] {
        on_node_that_meets(services, early, &mut test);
    }
}

/// The same on one node, where XDP is before tc or is not.
fn on_node_that_meets(services: &str, early: bool, test: impl FnOnce(&Node) + Send) {
    let Some(object) = dataplane::object() else { return };
    isolated(|| {
        let outside = Netns::new().expect("the world outside");
        outside.join("eth0", "10.240.0.11/24", "eth0", "10.240.0.1/24").expect("an uplink");
        let pod = Netns::new().expect("a pod");
        pod.join("pod0", "10.244.1.1/24", "eth0", "10.244.1.2/24").expect("a pod's link");
        sysctl("net.ipv4.ip_forward", "1").expect("forwarding");
        sysctl("net.ipv6.conf.all.forwarding", "1").expect("forwarding");
        ip(&format!("link set eth0 address {STATION}")).expect("the station of all frames");
        for words in [
            "address add fd00:240::11/64 dev eth0 nodad",
            "address add fd00:244:1::1/64 dev pod0 nodad",
            "route add 10.244.2.0/24 via 10.240.0.12",
            "route add fd00:244:2::/64 via fd00:240::12",
            "route add 192.0.2.0/24 via 10.240.0.1",
            "route add 2001:db8::/32 via fd00:240::1",
            // XDP cannot ask for neighbours.
            "neighbour add 10.240.0.1 lladdr 02:00:00:00:01:01 dev eth0",
            "neighbour add 10.240.0.12 lladdr 02:00:00:00:01:0c dev eth0",
            "neighbour add fd00:240::1 lladdr 02:00:00:00:01:01 dev eth0",
            "neighbour add fd00:240::12 lladdr 02:00:00:00:01:0c dev eth0",
        ] {
            ip(words).expect("addresses and routes");
        }
        let uplink = ifindex("eth0").expect("an uplink");
        let stand = Stand::new(&object, "10.240.0.11,fd00:240::11", Some(uplink)).expect("a stand");
        let dataplane = stand.load();
        let services = format!("node_addresses: {NODE_ADDRESSES}\nservices:\n{services}");
        dataplane.apply(&desired(&services)).expect("applied");
        let pod_link = ifindex("pod0").expect("a pod's link");
        test(&Node { dataplane, early, uplink, pod: pod_link, _outside: outside, _pod: pod, stand });
    });
}

impl Node {
    fn run_frame(&self, at: At, frame: &[u8]) -> Outcome {
        // A frame of more than a page is in pieces, which the kernel keeps from a program that does not know of them.
        if self.early && matches!(at, At::Uplink) && frame.len() < 3000 {
            match self.run_early(frame) {
                (Early::Pass, _) => {}
                (Early::Drop, frame) => return Outcome { verdict: DROP, frame },
                (Early::Send, frame) => return Outcome { verdict: REDIRECT, frame },
            }
        }
        let (program, ifindex) = match at {
            At::Uplink => ("uplink_ingress", self.uplink),
            At::Pod => ("pod_ingress", self.pod),
            At::Leaving => ("uplink_egress", self.uplink),
            At::Entering => ("pod_egress", self.pod),
            // Any device will do that has the station's address.
            At::Tunnel => ("tunnel_ingress", self.uplink),
        };
        dataplane::run(&self.dataplane, program, ifindex, frame)
    }

    /// What XDP does with a frame that arrives. Of a frame that is sent on the link addresses are checked, and put back as
    /// they were: at tc they are the kernel's.
    fn run_early(&self, frame: &[u8]) -> (Early, Vec<u8>) {
        let (verdict, mut out) = dataplane::run_early(&self.dataplane, self.uplink, frame);
        if verdict == Early::Send {
            assert_eq!(out[..5], NEIGHBOURS, "to a neighbour");
            assert_eq!(out[6..12], frame[..6], "from the uplink");
            out[..12].copy_from_slice(&frame[..12]);
        } else {
            assert_eq!(out, frame, "{verdict:?}: what is not sent is not changed");
        }
        (verdict, out)
    }

    /// The verdict on a packet, and what became of it; its checksums are right.
    fn run(&self, at: At, packet: &Packet) -> (i32, Packet) {
        let outcome = self.run_frame(at, &packet.bytes());
        (outcome.verdict, Packet::read(&outcome.frame))
    }

    /// What another agent's data plane is loaded from.
    fn stand(&self) -> &Stand {
        &self.stand
    }

    fn counters(&self) -> Counters {
        self.dataplane.counters().expect("counters")
    }

    /// The only events, by name; everything else is zero.
    fn assert_events(&self, expected: &[(&str, u64)]) {
        let mut events = self.counters().events;
        // By which hook is not what these tests are about.
        events.retain(|name, count| *count != 0 && *name != "xdp_sent");
        assert_eq!(events.into_iter().collect::<Vec<_>>(), expected);
    }

    /// The only drops, by reason; everything else is zero.
    fn assert_drops(&self, expected: &[(&str, u64)]) {
        let mut drops = self.counters().drops;
        drops.retain(|_, count| *count != 0);
        assert_eq!(drops.into_iter().collect::<Vec<_>>(), expected);
    }
}
