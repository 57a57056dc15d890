//! Session affinity of sockets: a client, which is a network namespace, keeps its backend until that leaves.

use std::collections::BTreeSet;

use aya::maps::{HashMap, Map, MapData};
use penstock_dataplane::{Desired, Limits};
use penstock_ebpf_common::{AffinityKey, AffinityValue, map};
use penstock_tests::dataplane::{Stand, desired};
use penstock_tests::netns;

use crate::{ask, on_a_node, serve};

const SERVICE: &str = "10.96.0.7:80";
const BOTH: [&str; 2] = ["two", "three"];
const STICKY: &str = "affinity_seconds: 60";
const FREE: &str = "node_port: 30080";

fn backends() {
    serve("10.244.0.2:8080", "two");
    serve("10.244.0.3:8080", "three");
}

/// The Service with one more line of its own and these of its backends.
fn hello(line: &str, names: &[&str]) -> Desired {
    let backends = names.iter().map(|name| {
        let last = if *name == "two" { 2 } else { 3 };
        format!("    - {{ address: 10.244.0.{last}, port: 8080, local: true }}\n")
    });
    desired(&format!(
        "
node_addresses: [10.240.0.11]
services:
  demo/hello:http:
    cluster_ips: [10.96.0.7]
    port: 80
    {line}
    backends:
{}",
        backends.collect::<String>()
    ))
}

/// Who answers this client.
fn answers(stand: &Stand) -> BTreeSet<String> {
    let said = stand.in_cgroup(|| (0..16).map(|_| ask(SERVICE)).collect::<Vec<_>>().join("\n"));
    said.lines().map(|line| line.trim_end_matches(&format!(" as {SERVICE}")).to_owned()).collect()
}

/// The one backend that answers this client, and the other.
fn kept_and_other(stand: &Stand) -> (&'static str, &'static str) {
    let kept = answers(stand);
    assert_eq!(kept.len(), 1, "{kept:?}");
    if kept.contains("two") { ("two", "three") } else { ("three", "two") }
}

fn remembered(stand: &Stand) -> HashMap<MapData, AffinityKey, AffinityValue> {
    let pin = stand.bpffs().join("maps").join(map::AFFINITY);
    let data = Map::from_map_data(MapData::from_pin(pin).expect("the map of clients")).expect("a map");
    HashMap::try_from(data).expect("a map of clients")
}

#[test]
fn a_client_keeps_its_backend_until_that_leaves() {
    on_a_node(backends, |stand| {
        let dataplane = stand.load();
        dataplane.apply(&hello(STICKY, &BOTH)).expect("applied");
        let (kept, other) = kept_and_other(stand);
        assert_eq!(kept_and_other(stand).0, kept);

        dataplane.apply(&hello(STICKY, &[other])).expect("applied");
        assert_eq!(answers(stand), BTreeSet::from([other.to_owned()]));
    });
}

#[test]
fn a_backend_that_left_while_there_was_no_affinity_is_kept_by_nobody_when_there_is_again() {
    on_a_node(backends, |stand| {
        let dataplane = stand.load();
        dataplane.apply(&hello(STICKY, &BOTH)).expect("applied");
        let (kept, other) = kept_and_other(stand);

        dataplane.apply(&hello(FREE, &BOTH)).expect("applied");
        dataplane.apply(&hello(FREE, &[other])).expect("applied");
        dataplane.apply(&hello(STICKY, &[other])).expect("applied");
        assert_eq!(answers(stand), BTreeSet::from([other.to_owned()]), "and not {kept}");
    });
}

#[test]
fn what_an_agent_had_no_time_to_forget_the_next_one_does() {
    on_a_node(backends, |stand| {
        let first = stand.load();
        first.apply(&hello(STICKY, &BOTH)).expect("applied");
        let (kept, other) = kept_and_other(stand);
        let entries: Vec<_> = remembered(stand).iter().collect::<Result<_, _>>().expect("clients");
        assert_eq!(entries.len(), 1);
        first.apply(&hello(STICKY, &[other])).expect("applied");
        drop(first);
        // As if it had been ended between the two.
        for (key, value) in entries {
            remembered(stand).insert(key, value, 0).expect("written");
        }

        let second = stand.load();
        second.apply(&hello(STICKY, &[other])).expect("applied");
        assert_eq!(answers(stand), BTreeSet::from([other.to_owned()]), "and not {kept}");
    });
}

#[test]
fn a_client_keeps_its_backend_through_a_restart_and_larger_maps() {
    on_a_node(backends, |stand| {
        let first = stand.load();
        first.apply(&hello(STICKY, &BOTH)).expect("applied");
        // Each namespace is a client of its own.
        let pods: Vec<_> = (0..8).map(|_| netns::Netns::new().expect("a pod's namespace")).collect();
        for pod in &pods {
            pod.run(|| netns::ip("route add default dev lo")).expect("a route");
            pod.run(|| {
                for address in ["10.244.0.2", "10.244.0.3"] {
                    netns::ip(&format!("address add {address}/32 dev lo")).expect("an address");
                }
                backends();
            });
        }
        let answers = || -> Vec<String> {
            pods.iter().map(|pod| pod.run(|| stand.in_cgroup(|| ask("10.96.0.7:80")))).collect()
        };
        let kept = answers();
        assert!(kept.iter().all(|answer| answer.ends_with("as 10.96.0.7:80")), "{kept:?}");
        drop(first);
        let second = stand.load();
        assert_eq!(answers(), kept, "after a restart");
        second
            .grow(&Limits { affinity_max: 4 * stand.limits().affinity_max, ..stand.limits() })
            .expect("grown");
        assert_eq!(answers(), kept, "in larger maps");
    });
}
