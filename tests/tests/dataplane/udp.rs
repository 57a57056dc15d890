//! Datagrams to services from sockets of the node's cgroup: answers seem to come from the service, and a backend that
//! leaves is left at once.

use std::net::UdpSocket;

use penstock_tests::dataplane::desired;

use crate::{PATIENCE, ask_udp, on_a_node, serve_udp, wait_until};

fn talk(backend: &str) -> String {
    format!(
        "
services:
  demo/talk:
    cluster_ips: [10.96.0.9]
    port: 53
    protocol: UDP
    backends: [{{ address: {backend}, port: 5353, local: true }}]
"
    )
}

fn backends() {
    serve_udp("10.244.0.2:5353", "two");
    serve_udp("10.244.0.3:5353", "three");
}

#[test]
fn an_answer_seems_to_come_from_the_service() {
    on_a_node(backends, |stand| {
        let dataplane = stand.load();
        dataplane.apply(&desired(&talk("10.244.0.2"))).expect("applied");
        let said =
            stand.in_cgroup(|| ask_udp(&UdpSocket::bind("0.0.0.0:0").expect("a socket"), "10.96.0.9:53"));
        assert_eq!(said, "two from 10.96.0.9:53");
        let events = dataplane.counters().expect("counters").events;
        assert_eq!((events["send_translated"], events["receive_reversed"]), (1, 1));
    });
}

#[test]
fn a_connected_socket_sees_the_service_as_its_peer() {
    on_a_node(backends, |stand| {
        stand.load().apply(&desired(&talk("10.244.0.2"))).expect("applied");
        let said = stand.in_cgroup(|| {
            let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
            socket.connect("10.96.0.9:53").expect("connected");
            socket.set_read_timeout(Some(PATIENCE)).expect("a limit");
            socket.send(b"?").expect("sent");
            let mut answer = [0; 64];
            // Asks for the sender, so it goes through the hook.
            let (length, from) = socket.recv_from(&mut answer).expect("an answer");
            let peer = socket.peer_addr().expect("a peer");
            format!("{} from {from} as {peer}", String::from_utf8_lossy(&answer[..length]))
        });
        assert_eq!(said, "two from 10.96.0.9:53 as 10.96.0.9:53");
    });
}

#[test]
fn a_socket_that_stays_open_goes_to_the_next_backend_when_its_own_leaves() {
    on_a_node(backends, |stand| {
        let dataplane = stand.load();
        dataplane.apply(&desired(&talk("10.244.0.2"))).expect("applied");
        std::thread::scope(|scope| {
            let client = scope.spawn(|| {
                stand.in_cgroup(|| {
                    let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
                    let first = ask_udp(&socket, "10.96.0.9:53");
                    let deadline = std::time::Instant::now() + PATIENCE;
                    let mut last = first.clone();
                    while last == first && std::time::Instant::now() < deadline {
                        last = ask_udp(&socket, "10.96.0.9:53");
                    }
                    format!("{first}, {last}")
                })
            });
            wait_until("the client has a flow", || {
                dataplane.counters().expect("counters").events["send_translated"] > 0
            });
            let applied = dataplane.apply(&desired(&talk("10.244.0.3"))).expect("applied");
            assert_eq!(applied.flows_removed, 1, "the way to the backend; answers under way still come back");
            assert_eq!(client.join().expect("a client"), "two from 10.96.0.9:53, three from 10.96.0.9:53");
        });
    });
}

#[test]
fn a_service_without_backends_refuses_datagrams() {
    on_a_node(backends, |stand| {
        let dataplane = stand.load();
        let nobody = "services: { demo/talk: { cluster_ips: [10.96.0.9], port: 53, protocol: UDP } }";
        dataplane.apply(&desired(nobody)).expect("applied");
        let said =
            stand.in_cgroup(|| ask_udp(&UdpSocket::bind("0.0.0.0:0").expect("a socket"), "10.96.0.9:53"));
        assert_eq!(said, "ConnectionRefused");
        assert_eq!(dataplane.counters().expect("counters").events["send_refused"], 1);
    });
}
