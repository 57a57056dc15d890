//! Direct server return on real sockets: two nodes with a data plane each, in the world of [`super::nodeport`], by routes and by
//! an overlay. The client asks the first node; the pod of the second answers it past the first.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};

use penstock_dataplane::{Dataplane, PodLink};
use penstock_tests::dataplane::{Stand, desired, object};
use penstock_tests::netns::{ifindex, ip, run, sysctl};

use super::nodeport::{World, in_world};
use crate::{PATIENCE, wait_until};

const LENGTH: usize = 4 << 20;
const HTTP: &str = "10.240.0.11:30070";
const UDP: &str = "10.240.0.11:30071";

/// What the nodes serve; each answers by pods of the second node alone.
fn services(node: &str, local: bool) -> String {
    format!(
        "
node_addresses: [{node}]
services:
  demo/who:
    cluster_ips: [10.96.0.8]
    port: 80
    node_port: 30070
    forwarding: dsr
    backends: [{{ address: 10.244.2.2, port: 8070, local: {local} }}]
  demo/whom:
    cluster_ips: [10.96.0.8]
    port: 81
    protocol: UDP
    node_port: 30071
    forwarding: dsr
    backends: [{{ address: 10.244.2.2, port: 8071, local: {local} }}]
"
    )
}

/// Tells every client as whom it came, takes what it sends, and sends as much back.
fn serve() {
    let listener = TcpListener::bind("10.244.2.2:8070").expect("a listener");
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let peer = stream.peer_addr().expect("a peer").to_string();
                let mut taken = vec![0; LENGTH];
                let _ = stream.write_all(format!("{peer}\n").as_bytes());
                let _ = stream.read_exact(&mut taken).and_then(|()| stream.write_all(&taken));
            });
        }
    });
    let socket = UdpSocket::bind("10.244.2.2:8071").expect("a socket");
    std::thread::spawn(move || {
        let mut datagram = [0; 2048];
        while let Ok((length, from)) = socket.recv_from(&mut datagram) {
            let _ = socket.send_to(format!("{from} {length}").as_bytes(), from);
        }
    });
}

/// How the nodes reach each other's pods.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    Route,
    Overlay,
}

/// One end of a tunnel as an agent makes it: the node's end, the other's, and the link address that stands for each.
fn overlay(own: u8, other: u8) -> u32 {
    for words in [
        format!("link add vx type vxlan id 1 dev eth0 local 10.240.0.1{own} dstport 8472 nolearning"),
        format!("link set vx address 02:00:00:00:02:0{own} up"),
        format!("address add 10.244.{own}.0/32 dev vx"),
        format!("neighbour add 10.244.{other}.0 lladdr 02:00:00:00:02:0{other} dev vx"),
        format!("route replace 10.244.{other}.0/24 via 10.244.{other}.0 dev vx onlink"),
    ] {
        ip(&words).expect("a tunnel");
    }
    run(
        "bridge",
        &[
            "fdb",
            "append",
            &format!("02:00:00:00:02:0{other}"),
            "dev",
            "vx",
            "dst",
            &format!("10.240.0.1{other}"),
        ],
    )
    .expect("where the other end is");
    sysctl("net.ipv4.conf.vx.rp_filter", "2").expect("clients have another way back");
    ifindex("vx").expect("a tunnel")
}

fn with_two_nodes(way: Way, mut test: impl FnMut(&World, &Dataplane) + Send) {
    in_world(|world| {
        if way == Way::Overlay {
            world.dataplane.know_tunnel(Some(overlay(1, 2))).expect("known");
        }
        world.other_pod.run(serve);
        world.dataplane.apply(&desired(&services("10.240.0.11", false))).expect("applied");
        let (second, _stand) = world.other_node.run(|| {
            let object = object().expect("there was one");
            let uplink = ifindex("eth0").expect("an uplink");
            let stand = Stand::new(&object, "10.240.0.12", Some(uplink)).expect("a stand");
            let plane = stand.load();
            plane.apply(&desired(&services("10.240.0.12", true))).expect("applied");
            let ifindex = ifindex("pod0").expect("a pod's link");
            let link = PodLink { ifindex, addresses: vec![[10, 244, 2, 2].into()], pod_mac: [0; 6] };
            plane.attach_pod(&link).expect("attached");
            if way == Way::Overlay {
                plane.know_tunnel(Some(overlay(2, 1))).expect("known");
            }
            (plane, stand)
        });
        test(world, &second);
        world.assert_no_drops();
        let drops = second.counters().expect("counters").drops;
        assert!(drops.values().all(|count| *count == 0), "{drops:?}");
    });
}

fn event(plane: &Dataplane, name: &str) -> u64 {
    plane.counters().expect("counters").events[name]
}

#[test]
fn connections_keep_the_client_s_address_and_are_answered_past_the_node_that_was_asked() {
    connections_keep_the_client_s_address(Way::Route);
}

#[test]
fn the_same_through_an_overlay() {
    connections_keep_the_client_s_address(Way::Overlay);
}

fn connections_keep_the_client_s_address(way: Way) {
    const CONNECTIONS: u64 = 20;
    with_two_nodes(way, |world, second| {
        world.outside.run(|| {
            for _ in 0..CONNECTIONS {
                let address: SocketAddr = HTTP.parse().expect("an address");
                let mut stream = TcpStream::connect_timeout(&address, PATIENCE).expect("connected");
                stream.set_read_timeout(Some(PATIENCE)).expect("a limit");
                let own = format!("{}\n", stream.local_addr().expect("an address"));
                let mut said = vec![0; own.len()];
                stream.read_exact(&mut said).expect("an answer");
                assert_eq!(String::from_utf8_lossy(&said), own);
                // Much in both directions, in segments that cards cut.
                let sent: Vec<u8> = (0..LENGTH).map(|at| (at * 31 % 251) as u8).collect();
                let mut back = vec![0; LENGTH];
                std::thread::scope(|scope| {
                    let mut writer = stream.try_clone().expect("the same stream");
                    scope.spawn({
                        let sent = &sent;
                        move || writer.write_all(sent).expect("sent")
                    });
                    stream.read_exact(&mut back).expect("all of it back");
                });
                assert!(sent == back, "what came back is what was sent");
            }
        });
        assert_eq!(event(second, "direct_received"), world.event("direct_told"));
        assert!(world.event("direct_told") >= CONNECTIONS, "each told it");
        assert!(event(second, "pod_replied") > 0, "answered there");
        assert_eq!(world.event("uplink_replied"), 0, "and not here");
    });
}

#[test]
fn datagrams_do_too_also_those_that_come_in_fragments() {
    with_two_nodes(Way::Route, |world, second| {
        world.outside.run(|| {
            let socket = UdpSocket::bind("10.240.0.1:0").expect("a socket");
            socket.set_read_timeout(Some(PATIENCE)).expect("a limit");
            let own = socket.local_addr().expect("an address");
            let mut answer = [0; 128];
            for length in [1, 1_000, 1_400, 1_900, 1] {
                if length > 1_500 {
                    // Of the first that is cut the client learns that its pieces are to be smaller by what is told.
                    socket.send_to(&vec![b'x'; length], UDP).expect("sent");
                    wait_until("it is told so", || world.event("too_big_answered") == 1);
                }
                socket.send_to(&vec![b'x'; length], UDP).expect("sent");
                let (got, from) = socket.recv_from(&mut answer).expect("an answer");
                assert_eq!(from, UDP.parse().expect("an address"));
                assert_eq!(String::from_utf8_lossy(&answer[..got]), format!("{own} {length}"));
            }
        });
        assert_eq!(event(second, "direct_received"), 5);
        assert_eq!(world.event("uplink_replied"), 0, "answered past this node");
    });
}
