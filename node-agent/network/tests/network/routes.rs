//! Two nodes, each with a pod: direct on one L2, VXLAN otherwise, and nothing of other people's touched.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;

use crate::lab::{Namespace, Node, PATIENCE, is_root, reaches};
use arc_swap::ArcSwap;
use hickory_proto::op::{Message, MessageType, OpCode, Query};
use hickory_proto::rr::{Name, RecordType};
use penstock_dns::{Exposure, Forwarder, Listening, ServiceName, ServiceRecord, Zone, ZoneConfig};
use penstock_network::{Network, NoHooks, Overlay, Peer};
use tokio_util::sync::CancellationToken;

struct Pair {
    a: Node,
    b: Node,
    agents: [Arc<Network>; 2],
    peers: Vec<Peer>,
}

fn address(with_prefix: &str) -> String {
    with_prefix.split('/').next().unwrap().to_string()
}

/// Two nodes of two families joined by one cable.
async fn pair(at_a: &str, at_b: &str, overlay: Overlay) -> Pair {
    let a = Node::new("a", &address(at_a), "10.244.1.0/24", overlay);
    let b = Node::new("b", &address(at_b), "10.244.2.0/24", overlay);
    join(&a, &b, at_a, at_b);
    // The second family has the subnets of the first.
    let beside = |at: &str| {
        let [_, _, third, fourth] = address(at).parse::<Ipv4Addr>().unwrap().octets();
        format!("fd00:240:{third}::{fourth}/64")
    };
    start(a.with_v6(1, &beside(at_a)), b.with_v6(2, &beside(at_b))).await
}

/// The same of nodes that have IPv6 alone.
async fn pair_of_v6(at_a: &str, at_b: &str) -> Pair {
    let a = Node::new("a", &address(at_a), "fd00:244:0:1::/64", Overlay::Auto);
    let b = Node::new("b", &address(at_b), "fd00:244:0:2::/64", Overlay::Auto);
    join(&a, &b, at_a, at_b);
    start(a, b).await
}

fn join(a: &Node, b: &Node, at_a: &str, at_b: &str) {
    let far = b.namespace.path().display();
    a.namespace.ip(&format!("link add eth0 type veth peer name eth0 netns {far}"));
    a.up(at_a);
    b.up(at_b);
    // Without this the two only know each other when they share a subnet.
    a.namespace.ip(&format!("route replace {} dev eth0", address(at_b)));
    b.namespace.ip(&format!("route replace {} dev eth0", address(at_a)));
}

async fn start(mut a: Node, mut b: Node) -> Pair {
    let agents = [a.start(Arc::new(NoHooks)).await, b.start(Arc::new(NoHooks)).await];
    let peer = |node: &Node| Peer {
        node: node.config.node.clone(),
        addresses: node.config.node_ips.all().collect(),
        pod_cidrs: node.ranges().all().collect(),
    };
    let peers = vec![peer(&a), peer(&b)];
    for agent in &agents {
        agent.sync_routes(&peers).await.unwrap();
        assert_eq!(agent.sync_routes(&peers).await.unwrap(), 0, "a second sync has nothing to do");
    }
    Pair { a, b, agents, peers }
}

async fn assert_pods_meet(pair: &Pair) {
    let (here, there) = (Namespace::new(), Namespace::new());
    let at_here = pair.a.add("here", &here).await;
    let at_there = pair.b.add("there", &there).await;
    assert!(reaches(&here, &there, at_there), "pod to pod of another node");
    assert!(reaches(&there, &here, at_here), "and back");
    assert!(reaches(&pair.a.namespace, &there, at_there), "node to pod of another node");
    assert!(
        reaches(&here, &pair.b.namespace, pair.b.config.node_ips.first::<IpAddr>()),
        "pod to another node"
    );
    if pair.a.config.node_ips.second().is_none() {
        return;
    }
    let beside = |range: &str, address: IpAddr| -> Ipv6Addr {
        let IpAddr::V4(address) = address else { panic!("{address} is the first of two families") };
        format!("{range}::{:x}", address.octets()[3]).parse().unwrap()
    };
    let (v6_here, v6_there) = (beside("fd00:244:0:1", at_here), beside("fd00:244:0:2", at_there));
    assert!(reaches(&here, &there, v6_there), "pod to pod of another node over IPv6");
    assert!(reaches(&there, &here, v6_here), "and back");
    assert!(reaches(&pair.a.namespace, &there, v6_there), "node to pod of another node over IPv6");
}

#[tokio::test(flavor = "multi_thread")]
async fn on_one_l2_pods_meet_without_a_tunnel() {
    if !is_root() {
        return;
    }
    let pair = pair("10.240.0.11/24", "10.240.0.12/24", Overlay::Auto).await;
    assert_pods_meet(&pair).await;
    assert!(!pair.a.namespace.ip("link show").contains("penstock-vx"));
}

#[tokio::test(flavor = "multi_thread")]
async fn across_subnets_pods_meet_through_vxlan() {
    if !is_root() {
        return;
    }
    let pair = pair("10.240.1.11/24", "10.240.2.12/24", Overlay::Auto).await;
    assert!(pair.a.namespace.ip("route show 10.244.2.0/24").contains("penstock-vx"));
    assert_pods_meet(&pair).await;
    let pod = Namespace::new();
    pair.a.add("mtu", &pod).await;
    assert!(pod.ip("link show eth0").contains("mtu 1450"), "the tunnel's header fits");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_ipv4_pods_meet_on_one_l2_and_through_vxlan() {
    if !is_root() {
        return;
    }
    let near = pair_of_v6("fd00:240::11/64", "fd00:240::12/64").await;
    assert_pods_meet(&near).await;
    assert!(!near.a.namespace.ip("link show").contains("penstock-vx"));
    let far = pair_of_v6("fd00:240:1::11/64", "fd00:240:2::12/64").await;
    assert!(far.a.namespace.ip("-6 route show fd00:244:0:2::/64").contains("penstock-vx"));
    assert_pods_meet(&far).await;
    let pod = Namespace::new();
    assert_eq!(far.a.add("mtu", &pod).await.to_string(), "fd00:244:0:1::3");
    assert!(pod.ip("link show eth0").contains("mtu 1430"), "the tunnel's header fits");
    assert!(!pod.ip("addr show dev eth0").contains("inet "), "no address of IPv4");
    far.agents[0].sync_routes(&far.peers[..1]).await.unwrap();
    assert!(!far.a.namespace.ip("link show").contains("penstock-vx"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_can_be_asked_for_on_one_l2_and_goes_when_nobody_needs_it() {
    if !is_root() {
        return;
    }
    let mut pair = pair("10.240.0.11/24", "10.240.0.12/24", Overlay::Always).await;
    assert_pods_meet(&pair).await;
    pair.a.kill().await;
    pair.a.config.overlay = Overlay::Auto;
    let agent = pair.a.start(Arc::new(NoHooks)).await;
    agent.sync_routes(&pair.peers).await.unwrap();
    assert!(!pair.a.namespace.ip("link show").contains("penstock-vx"));
    assert!(pair.a.namespace.ip("route show 10.244.2.0/24").contains("via 10.240.0.12 dev eth0"));
}

#[tokio::test(flavor = "multi_thread")]
async fn routes_of_nodes_that_left_go_and_foreign_ones_stay() {
    if !is_root() {
        return;
    }
    let pair = pair("10.240.0.11/24", "10.240.0.12/24", Overlay::Auto).await;
    pair.a.namespace.ip("route add 10.250.0.0/24 via 10.240.0.12");
    pair.a.namespace.ip("route add 10.244.2.0/24 via 10.240.0.99 metric 7");
    pair.agents[0].sync_routes(&pair.peers[..1]).await.unwrap();
    let left = pair.a.namespace.ip("route show");
    assert!(left.contains("10.250.0.0/24 via 10.240.0.12"), "{left}");
    assert!(left.contains("10.244.2.0/24 via 10.240.0.99 dev eth0 metric 7"), "{left}");
    assert!(!left.contains("10.244.2.0/24 via 10.240.0.12"), "{left}");
    assert!(left.contains("unreachable 10.244.0.0/16"), "{left}");
    let left = pair.a.namespace.ip("-6 route show");
    assert!(left.contains("unreachable fd00:244::/48"), "{left}");
    assert!(!left.contains("fd00:244:0:2::/64"), "{left}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_asks_the_cluster_s_dns_on_its_own_node() {
    if !is_root() {
        return;
    }
    let mut node = Node::alone();
    let network = node.start(Arc::new(NoHooks)).await;
    let dns: Ipv4Addr = "10.96.0.10".parse().unwrap();
    for _ in 0..2 {
        network.ensure_local_address(dns.into()).await.unwrap();
    }
    let mut zone = Zone::new(ZoneConfig {
        domain: "cluster.local".into(),
        addresses: vec![dns.into()],
        reverse: Vec::new(),
    });
    zone.insert(ServiceRecord {
        name: ServiceName { namespace: "default".into(), name: "kubernetes".into() },
        exposure: Exposure::Cluster(vec!["10.96.0.1".parse().unwrap()]),
        ports: Vec::new(),
    });
    let listening = node.namespace.run(|| Listening::bind(SocketAddr::from((dns, 53)))).unwrap();
    let shutdown = CancellationToken::new();
    let zone = Arc::new(ArcSwap::from_pointee(zone));
    tokio::spawn(penstock_dns::serve(listening, zone, Arc::new(Forwarder::to(vec![])), shutdown.clone()));

    let pod = Namespace::new();
    let address = node.add("a", &pod).await;
    let socket = pod.run(|| UdpSocket::bind((address, 0))).unwrap();
    let answer = tokio::task::spawn_blocking(move || {
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut query = Message::new(1, MessageType::Query, OpCode::Query);
        let name = Name::from_ascii("kubernetes.default.svc.cluster.local.").unwrap();
        query.add_query(Query::query(name, RecordType::A));
        socket.send_to(&query.to_vec().unwrap(), (dns, 53)).unwrap();
        let mut buffer = [0; 512];
        let (length, from) = socket.recv_from(&mut buffer).unwrap();
        assert_eq!(from.ip(), dns, "the answer comes from the address that was asked");
        Message::from_vec(&buffer[..length]).unwrap()
    });
    assert_eq!(answer.await.unwrap().answers[0].data.to_string(), "10.96.0.1");
    shutdown.cancel();
}
