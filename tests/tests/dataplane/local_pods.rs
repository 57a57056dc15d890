//! Pods of one node: what arrives for them, and what they send each other, goes from one end of a link to the other without
//! the node's routing in between.
//!
//! ```text
//!   client fd00:240::1, 10.240.0.1 ── eth0 ─┐
//!                                           ├ node ── pod1 ── pod fd00:244:1::2, 10.244.1.2
//!                                           └─────── pod2 ── pod fd00:244:1::3, 10.244.1.3
//! ```

use std::net::{TcpStream, UdpSocket};
use std::time::Duration;

use penstock_dataplane::{Dataplane, PodLink};
use penstock_tests::dataplane::{self, Stand};
use penstock_tests::netns::{Netns, ifindex, ip, isolated, sysctl};

use crate::{PATIENCE, ask, ask_udp, serve, serve_udp, wait_until};

pub(super) struct World {
    pub dataplane: Dataplane,
    pub outside: Netns,
    pub pods: [Netns; 2],
    pub links: [PodLink; 2],
    stand: Stand,
}

/// Somebody at each end of a path to a pod, in both families, and the pod there.
pub(super) const TARGETS: [&str; 2] = ["10.244.1.2:80", "[fd00:244:1::2]:80"];

pub(super) fn in_world(test: impl FnOnce(&World) + Send) {
    let Some(object) = dataplane::object() else { return };
    isolated(|| {
        let outside = Netns::new().expect("the world outside");
        outside.join("eth0", "10.240.0.11/24", "eth0", "10.240.0.1/24").expect("an uplink");
        ip("address add fd00:240::11/64 dev eth0 nodad").expect("an address");
        outside.run(|| {
            for words in [
                "address add fd00:240::1/64 dev eth0 nodad",
                "route add 10.244.1.0/24 via 10.240.0.11",
                "route add fd00:244:1::/64 via fd00:240::11",
            ] {
                ip(words).expect("a way to the pods");
            }
        });
        sysctl("net.ipv4.ip_forward", "1").expect("forwarding");
        sysctl("net.ipv6.conf.all.forwarding", "1").expect("forwarding");
        let stand =
            Stand::new(&object, "10.240.0.11,fd00:240::11", Some(ifindex("eth0").expect("an uplink")))
                .expect("a stand");
        let dataplane = stand.load();
        let mut links = Vec::new();
        let pods = [2_u8, 3].map(|host| {
            let pod = Netns::new().expect("a pod");
            let link = format!("pod{host}");
            pod.plug(&link, "eth0").expect("a pod's link");
            let mac = format!("02:00:00:00:44:0{host}");
            pod.run(|| {
                for words in [
                    format!("link set eth0 address {mac}"),
                    format!("address add 10.244.1.{host}/32 dev eth0"),
                    format!("address add fd00:244:1::{host}/128 dev eth0 nodad"),
                    "route add 169.254.1.1 dev eth0".into(),
                    "route add default via 169.254.1.1 onlink dev eth0".into(),
                    "route add default via fe80::1 dev eth0".into(),
                ] {
                    ip(&words).expect("a pod's end");
                }
                serve(&format!("10.244.1.{host}:80"), "a pod");
                serve(&format!("[fd00:244:1::{host}]:80"), "a pod");
                serve_udp(&format!("10.244.1.{host}:80"), "a pod");
                serve_udp(&format!("[fd00:244:1::{host}]:80"), "a pod");
            });
            for words in [
                format!("address add 169.254.1.1/32 dev {link} scope link"),
                format!("address add fe80::1/64 dev {link} nodad"),
                format!("route add 10.244.1.{host} dev {link}"),
                format!("route add fd00:244:1::{host} dev {link}"),
                format!("neighbour add 10.244.1.{host} lladdr {mac} dev {link}"),
                format!("neighbour add fd00:244:1::{host} lladdr {mac} dev {link}"),
            ] {
                ip(&words).expect("the node's end");
            }
            let link = PodLink {
                ifindex: ifindex(&link).expect("a link"),
                addresses: vec![
                    [10, 244, 1, host].into(),
                    format!("fd00:244:1::{host}").parse().expect("an address"),
                ],
                pod_mac: [2, 0, 0, 0, 0x44, host],
            };
            dataplane.attach_pod(&link).expect("attached");
            links.push(link);
            pod
        });
        let links = links.try_into().expect("two links");
        test(&World { dataplane, outside, pods, links, stand });
    });
}

impl World {
    fn reached(&self) -> u64 {
        self.dataplane.counters().expect("counters").events["pod_reached"]
    }
}

#[test]
fn what_arrives_for_a_pod_goes_straight_into_it_and_so_does_what_pods_send_each_other() {
    in_world(|world| {
        for from in [&world.outside, &world.pods[1]] {
            for target in TARGETS {
                let before = world.reached();
                assert_eq!(from.run(|| ask(target)), format!("a pod as {target}"));
                let own = if target.starts_with('[') { "[::]:0" } else { "0.0.0.0:0" };
                let said = from.run(|| ask_udp(&UdpSocket::bind(own).expect("a socket"), target));
                assert_eq!(said, format!("a pod from {target}"));
                assert!(world.reached() >= before + 4, "a handshake, its end and a datagram");
            }
        }
    });
}

#[test]
fn a_hop_is_taken_off_and_a_packet_without_one_left_is_the_kernel_s() {
    in_world(|world| {
        let datagram = |hops, patience| {
            let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
            socket.set_ttl(hops).expect("hops");
            socket.set_read_timeout(Some(patience)).expect("a limit");
            socket.send_to(b"?", TARGETS[0]).expect("sent");
            socket.recv_from(&mut [0; 64]).is_ok()
        };
        assert!(world.pods[1].run(|| datagram(2, PATIENCE)));
        let before = world.reached();
        let silence = Duration::from_millis(300);
        assert!(!world.pods[1].run(|| datagram(1, silence)), "the kernel drops what has no hop left");
        assert_eq!(world.reached(), before);
    });
}

#[test]
fn a_pod_that_goes_leaves_no_way_behind_and_whoever_has_its_address_next_is_reached() {
    in_world(|world| {
        world.dataplane.detach_pod(world.links[0].ifindex).expect("detached");
        let before = world.reached();
        let ask_it = || world.outside.run(|| ask(TARGETS[0]));
        // The kernel still knows the way.
        assert_eq!(ask_it(), format!("a pod as {}", TARGETS[0]));
        assert_eq!(world.reached(), before);
        world.dataplane.attach_pod(&world.links[0]).expect("attached again at once");
        assert_eq!(ask_it(), format!("a pod as {}", TARGETS[0]));
        assert!(world.reached() > before);
    });
}

#[test]
fn links_that_went_while_no_agent_was_there_are_forgotten_and_the_others_still_lead_to_their_pods() {
    in_world(|world| {
        ip("link del pod2").expect("gone");
        let again = world.stand.load();
        let pods = || {
            let maps = penstock_dataplane::observe_maps(world.stand.bpffs()).expect("maps");
            maps.iter().find(|map| map.name == "pods_v1").and_then(|map| map.entries)
        };
        assert_eq!(pods(), Some(2), "the other pod's two addresses");
        assert_eq!(world.outside.run(|| ask("10.244.1.3:80")), "a pod as 10.244.1.3:80");
        assert!(world.reached() > 0);
        drop(again);
    });
}

#[test]
fn a_connection_outlives_the_agent() {
    in_world(|world| {
        let stream =
            world.outside.run(|| TcpStream::connect_timeout(&TARGETS[0].parse().expect("one"), PATIENCE));
        let again = world.stand.load();
        assert!(stream.is_ok());
        wait_until("the next agent's programs carry", || {
            world.outside.run(|| ask(TARGETS[1])) == format!("a pod as {}", TARGETS[1])
        });
        drop(again);
    });
}
