//! The ports of this node that translated flows take: never one that somebody else would get the answers of.
//!
//! ```text
//!   client ── 192.0.2.1:40000 > 10.240.0.11:30080 ──> eth0 ── 10.240.0.11:P > 10.244.2.2:8080 ──> eth0
//! ```

use std::collections::BTreeSet;
use std::net::{TcpListener, UdpSocket};
use std::sync::atomic::Ordering;

use penstock_dataplane::{FlowMemory, FlowTable};
use penstock_ebpf_common::{Address, FLOW_CLOSING, FlowKey, FlowValue, HALF_REPLY};
use penstock_tests::dataplane::{REDIRECT, desired, run};
use penstock_tests::packet::{ACK, FIN, Packet, SYN, Transport, at};

use crate::{At, NODE_ADDRESSES, Node, on_node, on_node_that_meets};

const HELLO: &str = "
  demo/there:
    port: 80
    node_port: 30080
    backends: [{ address: 10.244.2.2, port: 8080 }, { address: \"fd00:244:2::2\", port: 8080 }]
  demo/talk:
    port: 53
    protocol: UDP
    node_port: 30053
    backends: [{ address: 10.244.2.2, port: 5353 }, { address: \"fd00:244:2::2\", port: 5353 }]
";

const KINDS: [(Transport, &str, &str); 4] = [
    (Transport::Tcp(SYN), "192.0.2.1:40000", "10.240.0.11:30080"),
    (Transport::Udp, "192.0.2.1:40000", "10.240.0.11:30053"),
    (Transport::Tcp(SYN), "[2001:db8::1]:40000", "[fd00:240::11]:30080"),
    (Transport::Udp, "[2001:db8::1]:40000", "[fd00:240::11]:30053"),
];

fn port_of(node: &Node, transport: Transport, client: &str, own: &str) -> u16 {
    let (verdict, sent) = node.run(At::Uplink, &Packet::new(transport, client, own));
    assert_eq!(verdict, REDIRECT);
    sent.source.port()
}

#[test]
fn a_port_that_a_socket_of_the_node_is_bound_to_is_left_alone() {
    // The same packet on two nodes is given the same port, unless a socket has it.
    let ports = std::sync::Mutex::new(Vec::new());
    on_node(HELLO, |node| {
        *ports.lock().expect("a lock") =
            KINDS.map(|(kind, client, own)| port_of(node, kind, client, own)).to_vec();
    });
    let ports = ports.into_inner().expect("a lock");
    if ports.is_empty() {
        return;
    }
    on_node(HELLO, |node| {
        let mut sockets: (Vec<TcpListener>, Vec<UdpSocket>) = Default::default();
        for ((transport, ..), port) in KINDS.iter().zip(&ports).skip(2) {
            match transport {
                Transport::Udp => sockets.1.push(UdpSocket::bind(("::", *port)).expect("a socket")),
                _ => sockets.0.push(TcpListener::bind(("::", *port)).expect("a socket")),
            }
        }
        for ((transport, client, own), port) in KINDS.into_iter().zip(&ports).take(2) {
            assert_eq!(port_of(node, transport, client, own), *port, "the choice repeats");
        }
        for ((transport, client, own), port) in KINDS.into_iter().zip(&ports).skip(2) {
            assert_ne!(port_of(node, transport, client, own), *port, "{transport:?}");
        }
        node.assert_drops(&[]);
    });
}

#[test]
fn a_port_that_a_service_has_at_the_node_s_address_is_left_alone_after_a_restart_too() {
    let (transport, client, own) = (Transport::Tcp(SYN), "192.0.2.1:40000", "10.240.0.11:30080");
    let free = std::sync::atomic::AtomicU16::new(0);
    on_node_that_meets(HELLO, false, |node| {
        free.store(port_of(node, transport, client, own), Ordering::Relaxed);
    });
    let port = free.into_inner();
    for restarts in [false, true] {
        on_node_that_meets(HELLO, false, |node| {
            let service = format!("port: {port}, external_ips: [10.240.0.11], backends: []");
            let services =
                format!("node_addresses: {NODE_ADDRESSES}\nservices:{HELLO}  demo/takes: {{ {service} }}\n");
            node.dataplane.apply(&desired(&services)).expect("applied");
            let again = restarts.then(|| node.stand().load());
            let packet = Packet::new(transport, client, own).bytes();
            let outcome =
                run(again.as_ref().unwrap_or(&node.dataplane), "uplink_ingress", node.uplink, &packet);
            assert_eq!(outcome.verdict, REDIRECT);
            assert_ne!(Packet::read(&outcome.frame).source.port(), port, "restarts: {restarts}");
        });
    }
}

#[test]
fn thousands_of_flows_to_one_backend_have_a_port_each() {
    on_node(HELLO, |node| {
        let mut seen = BTreeSet::new();
        for client in 0..1500 {
            let client = format!("192.0.{}.{}:40000", 2 + client / 250, 1 + client % 250);
            assert!(seen.insert(port_of(node, Transport::Tcp(SYN), &client, "10.240.0.11:30080")));
        }
        node.assert_drops(&[]);
    });
}

/// What the kernel holds of flows, to be looked at and changed.
fn flows(node: &Node) -> FlowMemory {
    FlowTable::open(node.stand().bpffs()).and_then(|table| table.memory()).expect("the flows")
}

#[test]
fn a_port_that_went_on_to_another_flow_is_neither_closed_nor_taken_back_by_the_one_that_had_it() {
    const OWN: &str = "10.240.0.11:30080";
    let (former, present) = ("192.0.2.1:40000", at("192.0.2.2:50000"));
    on_node_that_meets(HELLO, false, |node| {
        let port = port_of(node, Transport::Tcp(SYN), former, OWN);
        let answer = Packet::new(Transport::Tcp(ACK), "10.244.2.2:8080", &format!("10.240.0.11:{port}"));
        let flows = flows(node);
        let of_port = |key: &FlowKey| key.half == HALF_REPLY && key.destination_port == port.to_be();
        let mut found = None;
        flows.each(|key, _| found = found.or(of_port(key).then_some(*key)));
        let key = found.expect("the way back");
        // As after a long silence: the port is another client's, and the former one does not know.
        let held = flows.get(&key).expect("the way back");
        let (destination, destination_port) = (Address::from(present.ip()), present.port().to_be());
        assert!(flows.remove(&key), "taken away");
        let given = FlowValue { destination, destination_port, ..held };
        assert!(flows.insert_new(&key, &given, held.seen_ns), "given on");
        let goes_to_the_present_one = |flows: &FlowMemory| {
            assert_eq!(node.run(At::Uplink, &answer).1.destination, present);
            assert_eq!(flows.get(&key).expect("the way back").flags & FLOW_CLOSING, 0);
        };
        goes_to_the_present_one(&flows);

        node.run(At::Uplink, &Packet::new(Transport::Tcp(FIN | ACK), former, OWN));
        goes_to_the_present_one(&flows);

        assert_ne!(port_of(node, Transport::Tcp(SYN), former, OWN), port);
        goes_to_the_present_one(&flows);
    });
}
