//! Golden tests: a cluster in YAML in, what the maps hold out, in a form one can read.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Deserialize;

use crate::{Direction, Image, Labels, Planner, Pod, PodName, Policy};

/// A cluster as tests write it: names are `namespace/name`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(default)]
    policies: BTreeMap<String, Policy>,
    #[serde(default)]
    namespaces: BTreeMap<String, Labels>,
    #[serde(default)]
    pods: BTreeMap<String, Pod>,
    /// This node's pods by their links.
    links: BTreeMap<u32, String>,
}

fn name(text: &str) -> PodName {
    let (namespace, name) = text.split_once('/').expect("a namespace and a name");
    PodName::new(namespace, name)
}

fn planner(yaml: &str) -> Planner {
    let written: Written = serde_yaml::from_str(yaml).expect("the cluster in the test");
    let mut planner = Planner::default();
    for (it, policy) in written.policies {
        planner.set_policy(name(&it), Some(policy));
    }
    for (it, labels) in written.namespaces {
        planner.set_namespace(it, Some(labels));
    }
    for (it, pod) in written.pods {
        planner.set_pod(name(&it), Some(pod));
    }
    for (link, pod) in written.links {
        planner.set_link(link, Some(name(&pod)));
    }
    planner
}

fn shown(image: &Image) -> String {
    let mut text = String::new();
    for (address, peer) in &image.peers {
        let _ = writeln!(text, "{address} is {peer}");
    }
    for (range, peer) in &image.blocks {
        let _ = writeln!(text, "{range} is {peer}");
    }
    for (link, table) in &image.tables {
        for direction in Direction::ALL.into_iter().filter(|it| table.isolates(*it)) {
            let _ = write!(text, "link {link} {direction:?}:");
            let ranges = table.ranges.iter().filter(|it| it.first >> 56 == u64::from(direction.bit()));
            for range in ranges {
                let (peer, protocol) = ((range.first >> 24) as u32, (range.first >> 16) as u8);
                let whom = if peer == 0 { "anybody".to_owned() } else { peer.to_string() };
                let ports = (range.first as u16, range.last as u16);
                let _ = match (range.first as u32 & 0xff_ffff, range.last as u32 & 0xff_ffff) {
                    (0, 0xff_ffff) => write!(text, " {whom}"),
                    _ if ports.0 == ports.1 => write!(text, " {whom}:{protocol}/{}", ports.0),
                    _ => write!(text, " {whom}:{protocol}/{}-{}", ports.0, ports.1),
                };
            }
            text.push('\n');
        }
    }
    text
}

fn check(yaml: &str, expected: &str) {
    let mut planner = planner(yaml);
    planner.plan();
    assert_eq!(shown(planner.image()), expected.trim_start_matches('\n'));
    assert_eq!(planner.plan(), [], "nothing is left to be written");
}

#[test]
fn a_pod_that_no_policy_selects_takes_no_room() {
    check(
        "
policies:
  demo/other: { pods: { labels: { app: other } }, ingress: [] }
pods:
  demo/web: { labels: { app: web }, addresses: [10.244.1.2] }
links: { 7: demo/web }
",
        "",
    );
}

#[test]
fn a_policy_without_rules_lets_nothing_through_in_its_directions() {
    check(
        "
policies:
  demo/shut: { ingress: [] }
  other/shut: { egress: [] }
pods:
  demo/web: { addresses: [10.244.1.2] }
  other/web: { addresses: [10.244.1.3] }
links: { 7: demo/web, 8: other/web }
",
        "
link 7 Ingress:
link 8 Egress:
",
    );
}

#[test]
fn peers_are_told_apart_as_far_as_rules_do() {
    check(
        "
policies:
  demo/web:
    pods: { labels: { app: web } }
    ingress:
    - peers: [{ pods: { labels: { app: client } } }]
      ports: [{ ports: !range [80, 81] }, { protocol: UDP, ports: !named dns }]
    - peers: [{ namespaces: { labels: { team: x } } }]
namespaces:
  demo: {}
  x: { team: x }
pods:
  demo/web: { labels: { app: web }, addresses: [10.244.1.2], ports: [{ name: dns, protocol: UDP, port: 5353 }] }
  demo/client-1: { labels: { app: client, role: a }, addresses: [10.244.1.3] }
  demo/client-2: { labels: { app: client, role: b }, addresses: [10.244.2.3, \"fd00::3\"] }
  demo/other: { labels: { app: other }, addresses: [10.244.1.4] }
  x/any: { labels: { app: client }, addresses: [10.244.1.5] }
links: { 7: demo/web }
",
        "
10.244.1.3 is 1
10.244.1.5 is 2
10.244.2.3 is 1
fd00::3 is 1
link 7 Ingress: 1:6/80-81 1:17/5353 2
",
    );
}

#[test]
fn a_block_is_a_range_without_its_exceptions() {
    check(
        "
policies:
  demo/web:
    egress:
    - peers: [{ block: { cidr: 10.0.0.0/8, except: [10.1.0.0/16] } }, { block: { cidr: 10.1.2.0/24 } }]
      ports: [{ ports: !range [443, 443] }]
    - ports: [{ protocol: UDP, ports: !range [53, 53] }]
pods:
  demo/web: { addresses: [10.244.1.2] }
links: { 7: demo/web }
",
        "
10.0.0.0/8 is 2
10.1.0.0/16 is 1
10.1.2.0/24 is 3
link 7 Egress: anybody:17/53 2:6/443 3:6/443
",
    );
}

#[test]
fn a_port_s_name_is_the_reached_pod_s() {
    check(
        "
policies:
  demo/client:
    pods: { labels: { app: client } }
    egress: [{ peers: [{ pods: {} }], ports: [{ ports: !named web }] }]
pods:
  demo/client: { labels: { app: client }, addresses: [10.244.1.2] }
  demo/old: { addresses: [10.244.1.3], ports: [{ name: web, port: 80 }] }
  demo/new: { addresses: [10.244.1.4], ports: [{ name: web, port: 8080 }] }
  demo/none: { addresses: [10.244.1.5], ports: [{ name: web, protocol: UDP, port: 80 }] }
links: { 7: demo/client }
",
        "
10.244.1.2 is 1
10.244.1.3 is 2
10.244.1.4 is 3
10.244.1.5 is 1
link 7 Egress: 2:6/80 3:6/8080
",
    );
}

#[test]
fn a_pod_that_comes_is_one_entry_and_no_table() {
    let mut planner = planner(
        "
policies:
  demo/web: { ingress: [{ peers: [{ pods: {} }] }] }
pods:
  demo/web: { addresses: [10.244.1.2] }
links: { 7: demo/web }
",
    );
    planner.plan();
    let address = "10.244.2.9".parse().expect("an address");
    planner.set_pod(name("demo/new"), Some(Pod { addresses: vec![address], ..Pod::default() }));
    assert_eq!(planner.plan(), [crate::Operation::PutPeer(address, 1)]);
    planner.set_pod(name("demo/new"), None);
    assert_eq!(planner.plan(), [crate::Operation::DeletePeer(address), crate::Operation::Bump]);
}
