//! Network policy at a pod's link: what may come in, what may go out, and the answers of both.
//!
//! ```text
//!   friend   10.244.2.2 ── eth0 ─┐                 ┌ allowed:  straight into the pod
//!   stranger 10.244.2.3 ── eth0 ─┤ node ── pod0 ── ┤
//!   world    192.0.2.1  ── eth0 ─┘                 └ dropped: `policy`, counted for the pod
//!   the pod, 10.244.1.2 ── pod0 ── judged by the backend it is to reach, when that is known
//! ```
//! The same in IPv6.

use penstock_dataplane::PodLink;
use penstock_policy::{Planner, Pod, PodName, Policy};
use penstock_tests::dataplane::{DROP, NEXT, REDIRECT};
use penstock_tests::packet::{ACK, INIT, Packet, SYN, Transport, error_about, fragments};

use crate::{At, Node, on_node};

pub(super) const FAMILIES: [Family; 2] = [
    Family {
        pod: "10.244.1.2",
        friend: "10.244.2.2",
        stranger: "10.244.2.3",
        world: "192.0.2.1",
        node: "10.240.0.11",
        other_node: "10.240.0.12",
        service: "10.96.0.7",
    },
    Family {
        pod: "[fd00:244:1::2]",
        friend: "[fd00:244:2::2]",
        stranger: "[fd00:244:2::3]",
        world: "[2001:db8::1]",
        node: "[fd00:240::11]",
        other_node: "[fd00:240::12]",
        service: "[fd00:96::7]",
    },
];

pub(super) struct Family {
    pub pod: &'static str,
    pub friend: &'static str,
    pub stranger: &'static str,
    pub world: &'static str,
    pub node: &'static str,
    pub other_node: &'static str,
    pub service: &'static str,
}

/// A Service whose backends are the friend, and another whose backend is the stranger.
const SERVICES: &str = "
  demo/friend:
    cluster_ips: [10.96.0.7, \"fd00:96::7\"]
    port: 80
    backends:
    - { address: 10.244.2.2, port: 8080 }
    - { address: \"fd00:244:2::2\", port: 8080 }
  demo/stranger:
    cluster_ips: [10.96.0.7, \"fd00:96::7\"]
    port: 81
    backends:
    - { address: 10.244.2.3, port: 8080 }
    - { address: \"fd00:244:2::3\", port: 8080 }
  demo/self:
    cluster_ips: [10.96.0.7, \"fd00:96::7\"]
    port: 82
    backends:
    - { address: 10.244.1.2, port: 8080, local: true }
    - { address: \"fd00:244:1::2\", port: 8080, local: true }
";

/// Only the friend may come to 80 to 89, by TCP and SCTP, and only there the pod may go, to 8080; and with the world it talks of all but
/// a part of it.
const POLICY: &str = "
ingress:
- peers: [{ pods: { labels: { name: friend } } }]
  ports: [{ ports: !range [80, 89] }, { protocol: SCTP, ports: !range [80, 80] }]
- peers: [{ block: { cidr: 192.0.2.0/24, except: [192.0.2.128/25] } }, { block: { cidr: \"2001:db8::/32\" } }]
egress:
- peers: [{ pods: { labels: { name: friend } } }]
  ports: [{ ports: !named web }]
- peers: [{ block: { cidr: 192.0.2.0/24 } }, { block: { cidr: \"2001:db8::/32\" } }]
  ports: [{ protocol: UDP, ports: !range [53, 53] }]
";

pub(super) fn name(text: &str) -> PodName {
    PodName::new("demo", text)
}

/// A pod with an address of each family and its name for a label.
pub(super) fn pod(of: &str, addresses: [&str; 2]) -> Pod {
    let yaml = format!(
        "{{ labels: {{ name: {of} }}, addresses: [{}, \"{}\"], ports: [{{ name: web, port: 8080 }}] }}",
        addresses[0], addresses[1]
    );
    serde_yaml::from_str(&yaml).expect("the pod in the test")
}

pub(super) fn policy(yaml: &str) -> Policy {
    serde_yaml::from_str(yaml).expect("the policy in the test")
}

/// What is known of the cluster, with the node's pod at its link.
pub(super) fn planner(node: &Node) -> Planner {
    let addresses = vec!["10.244.1.2".parse().expect("one"), "fd00:244:1::2".parse().expect("one")];
    let link = PodLink { ifindex: node.pod, addresses, pod_mac: [0; 6] };
    node.dataplane.attach_pod(&link).expect("attached");
    let mut planner = Planner::default();
    planner.set_pod(name("pod"), Some(pod("pod", ["10.244.1.2", "fd00:244:1::2"])));
    planner.set_pod(name("friend"), Some(pod("friend", ["10.244.2.2", "fd00:244:2::2"])));
    planner.set_pod(name("stranger"), Some(pod("stranger", ["10.244.2.3", "fd00:244:2::3"])));
    planner.set_link(node.pod, Some(name("pod")));
    planner
}

/// Has the kernel know what is planned, all of it.
pub(super) fn write(node: &Node, planner: &mut Planner) {
    let written = node.dataplane.write_policies(&planner.plan()).expect("written");
    assert_eq!(written, penstock_dataplane::PoliciesWritten::default());
    assert_eq!(&node.dataplane.observe_policies().expect("read back"), planner.image());
}

fn with_policy(test: impl Fn(&Node, &Family) + Send + Sync) {
    on_node(SERVICES, |node| {
        let mut planner = planner(node);
        planner.set_policy(name("some"), Some(policy(POLICY)));
        write(node, &mut planner);
        FAMILIES.iter().for_each(|family| test(node, family));
    });
}

pub(super) fn packet(transport: Transport, source: &str, to: &str) -> Packet {
    Packet::new(transport, source, to)
}

fn at(host: &str, port: u16) -> String {
    format!("{host}:{port}")
}

#[test]
fn what_comes_in_is_who_may_and_by_what_it_may() {
    with_policy(|node, it| {
        let syn = |from: &str, port| packet(Transport::Tcp(SYN), &at(from, 40_000), &at(it.pod, port));
        for way in [At::Uplink, At::Entering] {
            let allowed = if matches!(way, At::Uplink) { REDIRECT } else { NEXT };
            for (from, port, verdict) in [
                (it.friend, 80, allowed),
                (it.friend, 89, allowed),
                (it.friend, 79, DROP),
                (it.friend, 90, DROP),
                (it.stranger, 80, DROP),
                (it.world, 1, allowed),
                (it.other_node, 80, DROP),
                (it.node, 1, allowed),
            ] {
                if from == it.node && allowed == REDIRECT {
                    continue;
                }
                assert_eq!(node.run(way, &syn(from, port)).0, verdict, "{from} to {port}");
            }
            let other = |transport| packet(transport, &at(it.friend, 40_000), &at(it.pod, 80));
            assert_eq!(node.run(way, &other(Transport::Udp)).0, DROP);
            assert_eq!(node.run(way, &other(Transport::Sctp(INIT))).0, allowed);
            let echo = |from| packet(Transport::Echo, &at(from, 7), &at(it.pod, 0));
            assert_eq!(node.run(way, &echo(it.friend)).0, DROP, "not among the ports");
            assert_eq!(node.run(way, &echo(it.world)).0, allowed, "all traffic");
        }
        let except = packet(Transport::Tcp(SYN), "192.0.2.128:40000", "10.244.1.2:1");
        assert_eq!(node.run(At::Uplink, &except).0, DROP);
    });
}

#[test]
fn what_goes_out_is_judged_by_whom_it_reaches() {
    with_policy(|node, it| {
        let syn = |to: &str, port| packet(Transport::Tcp(SYN), &at(it.pod, 40_000), &at(to, port));
        for (to, port, dropped) in [
            (it.friend, 8080, false),
            (it.friend, 80, true),
            (it.stranger, 8080, true),
            (it.world, 53, true),
            (it.node, 1, false),
            (it.other_node, 1, true),
            (it.service, 80, false),
            (it.service, 81, true),
            (it.service, 82, false),
        ] {
            assert_eq!(node.run(At::Pod, &syn(to, port)).0 == DROP, dropped, "{to}:{port}");
        }
        let ask = |port| packet(Transport::Udp, &at(it.pod, 40_000), &at(it.world, port));
        assert_eq!(node.run(At::Pod, &ask(53)).0, NEXT);
        assert_eq!(node.run(At::Pod, &ask(54)).0, DROP);
    });
}

#[test]
fn answers_pass_in_both_directions_and_nothing_else_does() {
    with_policy(|node, it| {
        let asked = packet(Transport::Tcp(SYN), &at(it.friend, 40_000), &at(it.pod, 80));
        let early = packet(Transport::Udp, &at(it.pod, 80), &at(it.friend, 40_000));
        assert_eq!(node.run(At::Pod, &early).0, DROP, "an answer to nothing");
        assert_eq!(node.run(At::Uplink, &asked).0, REDIRECT);
        assert_ne!(node.run(At::Pod, &asked.reply()).0, DROP);
        let back = packet(Transport::Tcp(SYN), &at(it.pod, 80), &at(it.friend, 40_000));
        assert_eq!(node.run(At::Pod, &back).0, DROP, "who opens is no answer");

        let ask = packet(Transport::Udp, &at(it.pod, 40_001), &at(it.world, 53));
        assert_eq!(node.run(At::Pod, &ask).0, NEXT);
        assert_eq!(node.run(At::Entering, &ask.reply()).0, NEXT);
    });
}

#[test]
fn the_answer_of_a_service_s_backend_passes_under_the_service_s_name() {
    with_policy(|node, it| {
        let asks = packet(Transport::Tcp(SYN), &at(it.pod, 40_000), &at(it.service, 80));
        let (_, sent) = node.run(At::Pod, &asks);
        assert_eq!(sent.destination.port(), 8080);
        assert_eq!(node.run(At::Uplink, &sent.reply()), (REDIRECT, asks.reply()));

        let itself = packet(Transport::Tcp(SYN), &at(it.pod, 40_001), &at(it.service, 82));
        let (verdict, sent) = node.run(At::Pod, &itself);
        assert_eq!((verdict, sent.destination.port()), (REDIRECT, 8080));
        assert_eq!(node.run(At::Pod, &sent.reply()), (REDIRECT, itself.reply()), "by way of the node");
    });
}

#[test]
fn fragments_follow_their_first_and_errors_what_they_are_about() {
    with_policy(|node, it| {
        let mut ask = packet(Transport::Udp, &at(it.pod, 40_000), &at(it.world, 53));
        ask.payload = vec![7; 400];
        let frames = fragments(&ask, 9, 200);
        assert_eq!(node.run_frame(At::Pod, &frames[1]).verdict, DROP, "before the first");
        for frame in &frames {
            assert_eq!(node.run_frame(At::Pod, frame).verdict, NEXT);
        }
        let router = it.other_node.trim_matches(['[', ']']).parse().expect("an address");
        let error = error_about(&packet(Transport::Udp, &at(it.pod, 40_000), &at(it.world, 53)), router);
        assert_ne!(node.run_frame(At::Uplink, &error).verdict, DROP);
    });
}

#[test]
fn a_drop_has_a_name_and_is_the_judged_pod_s() {
    with_policy(|node, it| {
        let syn = packet(Transport::Tcp(ACK), &at(it.stranger, 40_000), &at(it.pod, 80));
        let before = node.counters().drops["policy"];
        assert_eq!(node.run(At::Uplink, &syn).0, DROP);
        assert_eq!(node.counters().drops["policy"], before + 1);
        let of_pod =
            node.counters().pods.iter().map(|it| (it.ifindex, it.reason, it.drops)).collect::<Vec<_>>();
        assert_eq!(of_pod, [(node.pod, "policy", before + 1)]);
    });
}

#[test]
fn a_pod_without_policies_pays_and_notes_nothing() {
    on_node(SERVICES, |node| {
        let mut planner = planner(node);
        write(node, &mut planner);
        let syn = packet(Transport::Tcp(SYN), "10.244.2.3:40000", "10.244.1.2:80");
        assert_eq!(node.run(At::Uplink, &syn).0, REDIRECT);
        assert_ne!(node.run(At::Pod, &syn.reply()).0, DROP);
        let maps = penstock_dataplane::observe_maps(node.stand().bpffs()).expect("maps");
        let entries = |name| maps.iter().find(|map| map.name == name).and_then(|map| map.entries);
        assert_eq!(entries("policy_flows_v1"), Some(0));
        assert_eq!(entries("policy_links_v1"), Some(0));
    });
}
