//! Traffic from outside, and from pods the socket hooks do not see, through real links, routes and neighbours.
//!
//! ```text
//!                    ┌ bridge 10.240.0.1 (client) ┐
//!   node 10.240.0.11 ┘                            └ node 10.240.0.12 (plain router)
//!      pod 10.244.1.2                                  pod 10.244.2.2
//! ```

use std::collections::BTreeSet;
use std::io::Read;
use std::net::{TcpListener, TcpStream, UdpSocket};

use penstock_dataplane::{Dataplane, PodLink};
use penstock_tests::dataplane::{self, Stand, desired};
use penstock_tests::netns::{Netns, ifindex, ip, isolated, sysctl};

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
";
const BULK: usize = 4 << 20;

/// What a test looks at: the node it runs on, and its surroundings.
pub(super) struct World {
    pub dataplane: Dataplane,
    pub outside: Netns,
    pub pod: Netns,
    _other_node: Netns,
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
        let listener = TcpListener::bind(format!("{address}:8081")).expect("a listener");
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let _ = std::io::Write::write_all(&mut stream, &vec![b'x'; BULK]);
            }
        });
    });
}

pub(super) fn in_world(test: impl FnOnce(&World) + Send) {
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
        pod_serves(&other_pod, "10.244.2.2", "10.244.2.1", "there");

        let stand =
            Stand::new(&object, "10.240.0.11", Some(ifindex("eth0").expect("an uplink"))).expect("a stand");
        let dataplane = stand.load();
        dataplane.apply(&desired(SERVICES)).expect("applied");
        let ifindex = ifindex("pod0").expect("a pod's link");
        let link = PodLink { ifindex, addresses: vec![[10, 244, 1, 2].into()] };
        dataplane.attach_pod(&link).expect("attached");
        test(&World { dataplane, outside, pod, _other_node: other_node, other_pod, stand });
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
