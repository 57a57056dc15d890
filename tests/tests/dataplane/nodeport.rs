//! Traffic from outside, and from pods the socket hooks do not see, through real links, routes and neighbours; with tc alone
//! on the uplink, and with XDP before it. What a veth sends natively is lost, so that XDP is generic here.
//!
//! ```text
//!                    ┌ bridge 10.240.0.1 (client) ┐
//!   node 10.240.0.11 ┘                            └ node 10.240.0.12 (plain router)
//!      pod 10.244.1.2                                  pod 10.244.2.2
//! ```

use std::collections::BTreeSet;
use std::io::Read;
use std::net::{TcpListener, TcpStream, UdpSocket};

use penstock_dataplane::{Dataplane, PodLink, Tc, Xdp, XdpKind};
use penstock_tests::dataplane::{self, Stand, desired};
use penstock_tests::netns::{Netns, Offload, ifindex, ip, isolated, offload, sysctl};

use crate::{PATIENCE, ask, ask_udp, serve, serve_udp};

pub(super) const SERVICES: &str = "
node_addresses: [10.240.0.11]
services:
  demo/hello:
    cluster_ips: [10.96.0.7]
    port: 80
    node_port: 30080
    backends: &both
    - { address: 10.244.1.2, port: 8080, local: true }
    - { address: 10.244.2.2, port: 8080 }
  demo/talk:
    cluster_ips: [10.96.0.7]
    port: 53
    protocol: UDP
    node_port: 30053
    backends: *both
  demo/bulk:
    cluster_ips: [10.96.0.7]
    port: 81
    node_port: 30081
    backends:
    - { address: 10.244.1.2, port: 8081, local: true }
  demo/bulk-remote:
    cluster_ips: [10.96.0.7]
    port: 82
    node_port: 30082
    backends:
    - { address: 10.244.2.2, port: 8081 }
  demo/sink:
    cluster_ips: [10.96.0.7]
    port: 83
    node_port: 30083
    backends:
    - { address: 10.244.2.2, port: 8082 }
";
const BULK: usize = 4 << 20;

/// What a test looks at: the node it runs on, and its surroundings.
pub(super) struct World {
    xdp: Xdp,
    pub dataplane: Dataplane,
    pub outside: Netns,
    pub pod: Netns,
    pub other_node: Netns,
    pub other_pod: Netns,
    pub stand: Stand,
}

fn router() {
    sysctl("net.ipv4.ip_forward", "1").expect("forwarding");
    // As strict as distributions ship it: what we send on must not depend on a lax node.
    sysctl("net.ipv4.conf.all.rp_filter", "1").expect("strict reverse paths");
}

fn pod_serves(pod: &Netns, address: &'static str, gateway: &str, name: &'static str) {
    pod.run(|| ip(&format!("route add default via {gateway}")).map(drop)).expect("a route");
    pod.run(|| {
        serve(&format!("{address}:8080"), name);
        serve_udp(&format!("{address}:8080"), name);
        let listener = TcpListener::bind(format!("{address}:8082")).expect("a listener");
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let read = std::io::copy(&mut stream, &mut std::io::sink()).unwrap_or_default();
                let _ = std::io::Write::write_all(&mut stream, read.to_string().as_bytes());
            }
        });
        let listener = TcpListener::bind(format!("{address}:8081")).expect("a listener");
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let _ = std::io::Write::write_all(&mut stream, &vec![b'x'; BULK]);
            }
        });
    });
}

pub(super) fn in_world(mut test: impl FnMut(&World) + Send) {
    for xdp in [Xdp::Off, Xdp::Generic] {
        in_world_with(xdp, Tc::Auto, &mut test);
    }
}

/// The same with one kind of XDP, and one way at tc.
pub(super) fn in_world_with(xdp: Xdp, tc: Tc, test: impl FnOnce(&World) + Send) {
    let Some(object) = dataplane::object() else { return };
    isolated(|| {
        let outside = Netns::new().expect("the world outside");
        outside.plug("eth0", "port1").expect("an uplink");
        let other_node = Netns::new().expect("another node");
        other_node.run(|| outside.plug("eth0", "port2")).expect("an uplink");
        outside
            .run(|| -> anyhow::Result<()> {
                ip("link add br0 type bridge")?;
                ip("link set port1 master br0")?;
                ip("link set port2 master br0")?;
                ip("address add 10.240.0.1/24 dev br0")?;
                // As on a wire: sums are there, and the node's neighbour receives what XDP sends.
                offload("br0", Offload::Sums, false)?;
                offload("port1", Offload::Together, true)?;
                ip("link set br0 up").map(drop)
            })
            .expect("a bridge");
        ip("address add 10.240.0.11/24 dev eth0").expect("an address");
        let pod = Netns::new().expect("a pod");
        pod.join("pod0", "10.244.1.1/24", "eth0", "10.244.1.2/24").expect("a pod's link");
        ip("route add 10.244.2.0/24 via 10.240.0.12").expect("a route");
        router();
        let other_pod = Netns::new().expect("a pod");
        other_node.run(|| {
            ip("address add 10.240.0.12/24 dev eth0").expect("an address");
            other_pod.join("pod0", "10.244.2.1/24", "eth0", "10.244.2.2/24").expect("a pod's link");
            ip("route add 10.244.1.0/24 via 10.240.0.11").expect("a route");
            router();
        });
        pod_serves(&pod, "10.244.1.2", "10.244.1.1", "here");
        other_pod.run(|| offload("eth0", Offload::Sums, false)).expect("sums of its own");
        pod_serves(&other_pod, "10.244.2.2", "10.244.2.1", "there");

        let mut stand =
            Stand::new(&object, "10.240.0.11", Some(ifindex("eth0").expect("an uplink"))).expect("a stand");
        stand.set_xdp(xdp);
        stand.set_tc(tc);
        let dataplane = stand.load();
        let kind = dataplane.xdp().expect("a look at the uplink").map(|(kind, _)| kind);
        assert_eq!(
            kind,
            match xdp {
                Xdp::Native => Some(XdpKind::Native),
                Xdp::Generic => Some(XdpKind::Generic),
                _ => None,
            }
        );
        dataplane.apply(&desired(SERVICES)).expect("applied");
        let ifindex = ifindex("pod0").expect("a pod's link");
        let link = PodLink { ifindex, addresses: vec![[10, 244, 1, 2].into()], pod_mac: [0; 6] };
        dataplane.attach_pod(&link).expect("attached");
        test(&World { xdp, dataplane, outside, pod, other_node, other_pod, stand });
    });
}

impl World {
    pub fn event(&self, name: &str) -> u64 {
        self.dataplane.counters().expect("counters").events[name]
    }

    pub fn assert_no_drops(&self) {
        let drops = self.dataplane.counters().expect("counters").drops;
        assert!(drops.values().all(|count| *count == 0), "{drops:?}");
    }
}

fn fetch(address: &str) -> usize {
    let stream = TcpStream::connect(address)
        .and_then(|stream| stream.set_read_timeout(Some(PATIENCE)).map(|()| stream));
    let mut bulk = Vec::new();
    stream
        .and_then(|mut stream| stream.read_to_end(&mut bulk))
        .unwrap_or_else(|error| panic!("{address}: {error}"))
}

#[test]
fn connections_from_outside_reach_the_pods_of_both_nodes() {
    in_world(|world| {
        let answers: BTreeSet<_> = world.outside.run(|| (0..64).map(|_| ask("10.240.0.11:30080")).collect());
        assert_eq!(Vec::from_iter(answers), ["here as 10.240.0.11:30080", "there as 10.240.0.11:30080"]);
        for event in ["uplink_to_local", "uplink_to_remote", "uplink_replied", "pod_replied"] {
            assert!(world.event(event) > 0, "{event}");
        }
        assert_eq!(world.event("flow_created"), 64);
        assert_eq!(world.event("xdp_sent") > 0, world.xdp != Xdp::Off, "who met them");
        world.assert_no_drops();
    });
}

#[test]
fn what_a_pod_sends_to_pods_of_another_node_goes_straight_out() {
    in_world(|world| {
        let sent_on = || world.event("pod_sent_on");
        assert_eq!(world.pod.run(|| ask("10.244.2.2:8080")), "there as 10.244.2.2:8080");
        let by_address = sent_on();
        assert!(by_address > 0);
        assert_eq!(world.pod.run(|| fetch("10.244.2.2:8081")), BULK);
        assert_eq!(world.pod.run(|| fetch("10.96.0.7:82")), BULK, "by a Service");
        assert!(sent_on() > by_address);
        world.assert_no_drops();
    });
}

#[test]
fn datagrams_from_outside_reach_the_pods_of_both_nodes() {
    in_world(|world| {
        let answers: BTreeSet<_> = world.outside.run(|| {
            let socket = || UdpSocket::bind("0.0.0.0:0").expect("a socket");
            (0..64).map(|_| ask_udp(&socket(), "10.240.0.11:30053")).collect()
        });
        assert_eq!(Vec::from_iter(answers), ["here from 10.240.0.11:30053", "there from 10.240.0.11:30053"]);
        world.assert_no_drops();
    });
}

#[test]
fn much_data_in_large_segments_arrives_whole() {
    in_world(|world| {
        assert_eq!(world.outside.run(|| fetch("10.240.0.11:30081")), BULK);
        assert_eq!(world.outside.run(|| fetch("10.240.0.11:30082")), BULK);
        world.assert_no_drops();
    });
}

#[test]
fn sums_that_a_card_was_to_finish_are_finished_whoever_meets_the_packets() {
    in_world(|world| {
        world.outside.run(|| offload("br0", Offload::Sums, true)).expect("sums left to the card");
        let answers: BTreeSet<_> = world.outside.run(|| (0..32).map(|_| ask("10.240.0.11:30080")).collect());
        assert_eq!(Vec::from_iter(answers), ["here as 10.240.0.11:30080", "there as 10.240.0.11:30080"]);
        assert_eq!(world.outside.run(|| fetch("10.240.0.11:30082")), BULK);
        world.assert_no_drops();
    });
}

#[test]
fn what_is_too_big_for_the_way_to_a_backend_is_answered_and_the_client_sends_less() {
    in_world(|world| {
        ip("route replace 10.244.2.0/24 via 10.240.0.12 mtu lock 1300").expect("a narrow way");
        for left_to_the_card in [false, true] {
            let said = world.outside.run(|| {
                offload("br0", Offload::Sums, left_to_the_card).expect("sums");
                ip("route flush cache").expect("nothing known of the way");
                let mut stream = TcpStream::connect("10.240.0.11:30083").expect("connected");
                stream.set_read_timeout(Some(PATIENCE)).expect("a limit");
                std::io::Write::write_all(&mut stream, &vec![b'x'; BULK]).expect("written");
                stream.shutdown(std::net::Shutdown::Write).expect("ended");
                let mut said = String::new();
                stream.read_to_string(&mut said).expect("an answer");
                said
            });
            assert_eq!(said, BULK.to_string());
        }
        assert!(world.event("too_big_answered") > 0);
        world.assert_no_drops();
    });
}

#[test]
fn another_kind_of_xdp_takes_the_place_of_the_former_and_none_leaves_tc() {
    in_world_with(Xdp::Generic, Tc::Auto, |world| {
        let load = |xdp| {
            let mut options = world.stand.options().clone();
            options.xdp = xdp;
            let again = Dataplane::load(options).expect("loaded");
            again.xdp().expect("a look at the uplink").map(|(kind, _)| kind)
        };
        let mut connection =
            world.outside.run(|| TcpStream::connect("10.240.0.11:30082")).expect("connected");
        connection.set_read_timeout(Some(PATIENCE)).expect("a limit");
        let mut read = 0;
        for (xdp, kind) in [(Xdp::Auto, None), (Xdp::Generic, Some(XdpKind::Generic)), (Xdp::Off, None)] {
            let mut part = vec![0; BULK / 8];
            connection.read_exact(&mut part).expect("a part");
            read += part.len();
            assert_eq!(load(xdp), kind, "{xdp:?}");
        }
        let mut rest = Vec::new();
        connection.read_to_end(&mut rest).expect("the rest");
        assert_eq!(read + rest.len(), BULK);
        assert_eq!(load(Xdp::Native), Some(XdpKind::Native));
        assert_eq!(load(Xdp::Off), None);
    });
}

#[test]
fn a_pod_the_socket_hooks_do_not_see_reaches_services_on_both_nodes_and_itself() {
    in_world(|world| {
        // This thread is in the pod's network, but no process of the test is in the node's cgroup.
        let answers: BTreeSet<_> = world.pod.run(|| (0..64).map(|_| ask("10.96.0.7:80")).collect());
        assert_eq!(Vec::from_iter(answers), ["here as 10.96.0.7:80", "there as 10.96.0.7:80"]);
        assert_eq!(world.pod.run(|| fetch("10.96.0.7:82")), BULK);
        assert_eq!(world.event("connect_translated"), 0);
        world.assert_no_drops();
    });
}

#[test]
fn a_transfer_outlives_the_agent_and_its_restart() {
    in_world(|world| {
        let stand = &world.stand;
        let mut stream = world.outside.run(|| TcpStream::connect("10.240.0.11:30082")).expect("connected");
        stream.set_read_timeout(Some(PATIENCE)).expect("a limit");
        let mut first = vec![0; BULK / 4];
        stream.read_exact(&mut first).expect("the first part");
        // The window is full by now: the rest can come only through the programs of the next agent.
        let again = stand.load();
        assert_eq!(again.apply(&desired(SERVICES)).expect("applied").operations, 0);
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).expect("the rest");
        assert_eq!(first.len() + rest.len(), BULK);
        world.assert_no_drops();
    });
}
