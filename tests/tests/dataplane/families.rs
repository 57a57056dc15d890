//! IPv6 services, and IPv4 services asked by sockets of AF_INET6, which see IPv4 peers as mapped addresses.

use std::net::{TcpListener, UdpSocket};

use penstock_tests::dataplane::desired;
use penstock_tests::netns::Netns;

use crate::{PATIENCE, ask, ask_udp, on_a_node, serve, serve_udp};

const BOTH: &str = "
node_addresses: [10.240.0.11, 'fd00:10:240::11']
services:
  demo/four:
    cluster_ips: [10.96.0.7]
    port: 80
    node_port: 30080
    backends: [{ address: 10.244.0.2, port: 8080, local: true }]
  demo/six:
    cluster_ips: ['fd00:10:96::7']
    port: 80
    node_port: 30081
    backends: [{ address: 'fd00:10:244::2', port: 8080, local: true }]
  demo/talk-four:
    cluster_ips: [10.96.0.9]
    port: 53
    protocol: UDP
    backends: [{ address: 10.244.0.2, port: 5353, local: true }]
  demo/talk-six:
    cluster_ips: ['fd00:10:96::9']
    port: 53
    protocol: UDP
    backends: [{ address: 'fd00:10:244::2', port: 5353, local: true }]
  demo/nobody-six:
    cluster_ips: ['fd00:10:96::8']
    port: 80
";

fn backends() {
    serve("10.244.0.2:8080", "four");
    serve("[fd00:10:244::2]:8080", "six");
    serve_udp("10.244.0.2:5353", "four");
    serve_udp("[fd00:10:244::2]:5353", "six");
}

/// Asks by a connected datagram socket: who answers, from where, and whom the socket believes to be connected to.
fn ask_connected(bound: &str, to: &str) -> String {
    let socket = UdpSocket::bind(bound).expect("a socket");
    socket.connect(to).expect("connected");
    socket.set_read_timeout(Some(PATIENCE)).expect("a limit");
    socket.send(b"?").expect("sent");
    let mut answer = [0; 64];
    let (length, from) = socket.recv_from(&mut answer).expect("an answer");
    let peer = socket.peer_addr().expect("a peer");
    format!("{} from {from} as {peer}", String::from_utf8_lossy(&answer[..length]))
}

#[test]
fn connections_over_ipv6_are_translated_and_believe_to_talk_to_the_service() {
    on_a_node(backends, |stand| {
        let dataplane = stand.load();
        dataplane.apply(&desired(BOTH)).expect("applied");
        let said = stand.in_cgroup(|| ask("[fd00:10:96::7]:80"));
        assert_eq!(said, "six as [fd00:10:96::7]:80");
        assert_eq!(stand.in_cgroup(|| ask("[fd00:10:96::8]:80")), "ConnectionRefused");
        let events = dataplane.counters().expect("counters").events;
        assert_eq!(
            (events["connect_translated"], events["peer_named"], events["connect_refused"]),
            (1, 1, 1)
        );
    });
}

#[test]
fn a_dual_stack_socket_reaches_ipv4_services_by_mapped_addresses() {
    on_a_node(backends, |stand| {
        stand.load().apply(&desired(BOTH)).expect("applied");
        let said = stand.in_cgroup(|| ask("[::ffff:10.96.0.7]:80"));
        assert_eq!(said, "four as [::ffff:10.96.0.7]:80");
    });
}

#[test]
fn datagrams_over_ipv6_are_answered_by_the_service() {
    on_a_node(backends, |stand| {
        let dataplane = stand.load();
        dataplane.apply(&desired(BOTH)).expect("applied");
        let said =
            stand.in_cgroup(|| ask_udp(&UdpSocket::bind("[::]:0").expect("a socket"), "[fd00:10:96::9]:53"));
        assert_eq!(said, "six from [fd00:10:96::9]:53");
        let said = stand.in_cgroup(|| ask_connected("[::]:0", "[fd00:10:96::9]:53"));
        assert_eq!(said, "six from [fd00:10:96::9]:53 as [fd00:10:96::9]:53");
        let events = dataplane.counters().expect("counters").events;
        assert_eq!((events["send_translated"], events["receive_reversed"]), (1, 2));
    });
}

#[test]
fn a_dual_stack_socket_sends_datagrams_to_ipv4_services_by_mapped_addresses() {
    on_a_node(backends, |stand| {
        stand.load().apply(&desired(BOTH)).expect("applied");
        let said = stand
            .in_cgroup(|| ask_udp(&UdpSocket::bind("[::]:0").expect("a socket"), "[::ffff:10.96.0.9]:53"));
        assert_eq!(said, "four from [::ffff:10.96.0.9]:53");
        let said = stand.in_cgroup(|| ask_connected("[::]:0", "[::ffff:10.96.0.9]:53"));
        assert_eq!(said, "four from [::ffff:10.96.0.9]:53 as [::ffff:10.96.0.9]:53");
    });
}

#[test]
fn node_ports_answer_at_the_node_s_ipv6_address_and_at_no_address() {
    on_a_node(backends, |stand| {
        stand.load().apply(&desired(BOTH)).expect("applied");
        let said = stand.in_cgroup(|| ask("[fd00:10:240::11]:30081"));
        assert_eq!(said, "six as [fd00:10:240::11]:30081");
        let said = stand.in_cgroup(|| ask("[::ffff:127.0.0.1]:30080"));
        assert_eq!(said, "four as [::ffff:127.0.0.1]:30080");
        let said = stand.in_cgroup(|| ask("0.0.0.0:30080"));
        assert!(said.starts_with("four"), "{said}");
    });
}

#[test]
fn a_listener_for_every_address_of_both_families_may_not_take_a_node_port() {
    on_a_node(backends, |stand| {
        stand.load().apply(&desired(BOTH)).expect("applied");
        let bind = |address: &str| {
            TcpListener::bind(address).map_or_else(|error| format!("{:?}", error.kind()), |_| "bound".into())
        };
        for taken in ["[::]:30080", "[::]:30081", "[fd00:10:240::11]:30081", "[::ffff:0.0.0.0]:30080"] {
            assert_eq!(stand.in_cgroup(|| bind(taken)), "AddrInUse", "{taken}");
        }
        assert_eq!(stand.in_cgroup(|| bind("[::]:30082")), "bound");
        let pod = Netns::new().expect("a pod's namespace");
        assert_eq!(pod.run(|| stand.in_cgroup(|| bind("[::]:30080"))), "bound");
    });
}

#[test]
fn an_ipv4_socket_is_never_sent_to_an_ipv6_backend() {
    let mixed = "
services:
  demo/mixed:
    cluster_ips: [10.96.0.7]
    port: 80
    backends: [{ address: 'fd00:10:244::2', port: 8080, local: true }]
";
    on_a_node(backends, |stand| {
        stand.load().apply(&desired(mixed)).expect("applied");
        assert_eq!(stand.in_cgroup(|| ask("10.96.0.7:80")), "ConnectionRefused");
    });
}

#[test]
fn what_was_known_of_a_socket_s_peer_goes_with_the_socket() {
    on_a_node(backends, |stand| {
        stand.load().apply(&desired(BOTH)).expect("applied");
        let peers = || {
            let maps = penstock_dataplane::observe_maps(stand.bpffs()).expect("maps");
            maps.iter().find(|map| map.name == penstock_ebpf_common::map::PEERS).and_then(|map| map.entries)
        };
        let said = stand.in_cgroup(|| {
            let stream = std::net::TcpStream::connect("[fd00:10:96::7]:80").expect("connected");
            let during = peers();
            drop(stream);
            format!("{during:?}")
        });
        assert_eq!((said.as_str(), peers()), ("Some(1)", Some(0)));
    });
}
