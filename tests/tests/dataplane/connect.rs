//! TCP connections translated at connect(), on real sockets, proven by the counters.

use std::net::TcpListener;

use penstock_dataplane::{Listing, ServiceChange};
use penstock_tests::dataplane::desired;
use penstock_tests::netns;

use crate::{ask, on_a_node, serve};

const HELLO: &str = "
node_addresses: [10.240.0.11]
services:
  demo/hello:http:
    cluster_ips: [10.96.0.7]
    port: 80
    node_port: 30080
    backends:
    - { address: 10.244.0.2, port: 8080, local: true }
    - { address: 10.244.0.3, port: 8080, local: true }
  demo/nobody:
    cluster_ips: [10.96.0.8]
    port: 80
";

fn backends() {
    serve("10.244.0.2:8080", "two");
    serve("10.244.0.3:8080", "three");
}

#[test]
fn a_connection_to_a_service_reaches_its_backends_and_believes_it_talks_to_the_service() {
    on_a_node(backends, |stand| {
        let dataplane = stand.load();
        let applied = dataplane.apply(&desired(HELLO)).expect("applied");
        assert_eq!(applied.services, 2);

        let answers = stand.in_cgroup(|| (0..32).map(|_| ask("10.96.0.7:80")).collect::<Vec<_>>().join("\n"));
        let answers: std::collections::BTreeSet<&str> = answers.lines().collect();
        assert_eq!(Vec::from_iter(answers), ["three as 10.96.0.7:80", "two as 10.96.0.7:80"]);

        let counters = dataplane.counters().expect("counters");
        assert_eq!(counters.events["connect_translated"], 32);
        assert_eq!(counters.events["peer_named"], 32);
        let hello = counters.services.iter().find(|it| it.service == "demo/hello:http").expect("counted");
        assert_eq!(hello.connects, 32);
    });
}

#[test]
fn node_ports_answer_on_the_node_at_its_address_and_the_loopback() {
    on_a_node(backends, |stand| {
        stand.load().apply(&desired(HELLO)).expect("applied");
        let answers = stand.in_cgroup(|| format!("{}\n{}", ask("10.240.0.11:30080"), ask("127.0.0.1:30080")));
        for (answer, address) in answers.lines().zip(["10.240.0.11", "127.0.0.1"]) {
            assert!(answer.ends_with(&format!("as {address}:30080")), "{answer}");
        }
    });
}

#[test]
fn a_pod_s_own_loopback_is_not_the_node_s() {
    on_a_node(backends, |stand| {
        stand.load().apply(&desired(HELLO)).expect("applied");
        let pod = netns::Netns::new().expect("a pod's namespace");
        let said = pod.run(|| stand.in_cgroup(|| ask("127.0.0.1:30080")));
        assert_eq!(said, "ConnectionRefused");
    });
}

#[test]
fn a_service_without_backends_refuses_and_is_counted() {
    on_a_node(backends, |stand| {
        let dataplane = stand.load();
        dataplane.apply(&desired(HELLO)).expect("applied");
        assert_eq!(stand.in_cgroup(|| ask("10.96.0.8:80")), "ConnectionRefused");
        let counters = dataplane.counters().expect("counters");
        assert_eq!(counters.events["connect_refused"], 1);
        let nobody = counters.services.iter().find(|it| it.service == "demo/nobody:").expect("counted");
        assert_eq!(nobody.refused, 1);
    });
}

#[test]
fn a_listener_may_not_take_a_node_port_on_the_node_but_in_a_pod() {
    on_a_node(backends, |stand| {
        stand.load().apply(&desired(HELLO)).expect("applied");
        let bind = || {
            TcpListener::bind("0.0.0.0:30080")
                .map_or_else(|error| format!("{:?}", error.kind()), |_| "bound".into())
        };
        assert_eq!(stand.in_cgroup(bind), "AddrInUse");
        let pod = netns::Netns::new().expect("a pod's namespace");
        assert_eq!(pod.run(|| stand.in_cgroup(bind)), "bound");
    });
}

#[test]
fn an_agent_that_starts_again_takes_over_without_a_change() {
    on_a_node(backends, |stand| {
        let first = stand.load();
        first.apply(&desired(HELLO)).expect("applied");
        assert!(stand.in_cgroup(|| ask("10.96.0.7:80")).ends_with("as 10.96.0.7:80"));
        drop(first);

        // Without an agent.
        assert!(stand.in_cgroup(|| ask("10.96.0.7:80")).ends_with("as 10.96.0.7:80"));

        let second = stand.load();
        assert!(stand.in_cgroup(|| ask("10.96.0.7:80")).ends_with("as 10.96.0.7:80"));
        assert_eq!(second.apply(&desired(HELLO)).expect("applied").operations, 0, "the maps were kept");
        assert_eq!(second.counters().expect("counters").events["connect_translated"], 3, "and the counters");
    });
}

#[test]
fn deleting_a_service_leaves_its_address_untranslated_and_its_room_free() {
    on_a_node(backends, |stand| {
        let dataplane = stand.load();
        dataplane.apply(&desired(HELLO)).expect("applied");
        let entries = || {
            let maps = penstock_dataplane::observe_maps(stand.bpffs()).expect("maps");
            let of = |name: &str| maps.iter().find(|map| map.name == name).and_then(|map| map.entries);
            (of("vips_v2"), of("names_v1"))
        };
        assert_eq!(entries(), (Some(4), Some(2)), "two cluster addresses, a node port at two addresses");
        dataplane.apply(&desired("services: {}")).expect("applied");
        assert_eq!(entries(), (Some(0), Some(0)));
        assert_eq!(stand.in_cgroup(|| ask("10.96.0.7:80")), "NetworkUnreachable");

        // What is left of the sets in the kernel is not taken for sets by the next agent.
        let again = stand.load();
        assert_eq!(again.apply(&desired(HELLO)).expect("applied").services, 2);
        assert!(stand.in_cgroup(|| ask("10.96.0.7:80")).ends_with("as 10.96.0.7:80"));
    });
}

#[test]
fn more_addresses_than_fit_are_reported_and_the_rest_is_served() {
    on_a_node(backends, |stand| {
        let dataplane = stand.load();
        let many: String = (0..1100_u16)
            .map(|number| {
                format!(
                    "  zz/s{number:04}:\n    cluster_ips: [10.97.{}.{}]\n    port: 80\n",
                    number >> 8,
                    number & 255
                )
            })
            .collect();
        let applied = dataplane.apply(&desired(&format!("{HELLO}{many}"))).expect("applied, not refused");
        assert!(!applied.unplaced.is_empty());
        assert!(stand.in_cgroup(|| ask("10.96.0.7:80")).ends_with("as 10.96.0.7:80"));
        let applied = dataplane.apply(&desired(HELLO)).expect("applied");
        assert_eq!((applied.services, applied.unplaced.len()), (2, 0));
    });
}

#[test]
fn a_change_of_one_service_leaves_the_others_as_they_are() {
    on_a_node(backends, |stand| {
        let dataplane = stand.load();
        let whole = desired(HELLO);
        dataplane.apply(&whole).expect("applied");
        let gone = ServiceChange { namespace: "demo".into(), name: "nobody".into(), ports: [].into() };
        let applied = dataplane.apply_changes(&[gone], &whole.facts(), Listing::Unfinished).expect("applied");
        assert_eq!((applied.operations, applied.services), (3, 1), "its address, its set and its name");
        assert!(stand.in_cgroup(|| ask("10.96.0.7:80")).ends_with("as 10.96.0.7:80"));
    });
}

#[test]
fn a_backend_that_ends_gets_no_new_connection_while_another_is_ready() {
    on_a_node(backends, |stand| {
        let dataplane = stand.load();
        let ready = "{ address: 10.244.0.2, port: 8080, local: true }";
        let ends = "{ address: 10.244.0.2, port: 8080, local: true, ready: false, serving: true, terminating: true }";
        dataplane.apply(&desired(&HELLO.replace(ready, ends))).expect("applied");
        let answers = stand.in_cgroup(|| (0..64).map(|_| ask("10.96.0.7:80")).collect::<Vec<_>>().join("\n"));
        assert!(answers.lines().all(|answer| answer == "three as 10.96.0.7:80"), "{answers}");
    });
}

#[test]
fn services_that_did_not_fit_are_served_once_there_is_more_room() {
    on_a_node(backends, |stand| {
        let dataplane = stand.load();
        let many: String = (0..600_u16)
            .map(|number| {
                format!(
                    "  aa/s{number:04}:\n    cluster_ips: [10.97.{}.{}]\n    port: 80\n",
                    number >> 8,
                    number & 255
                )
            })
            .collect();
        let wanted = desired(&format!("{HELLO}{many}"));
        let applied = dataplane.apply(&wanted).expect("applied, not refused");
        assert!(applied.unplaced.iter().any(|key| key.name == "hello"), "the last by name do not fit");
        let fill = dataplane.fill().expect("a fill");
        let limits =
            penstock_dataplane::plan_growth(&dataplane.limits(), &fill, &penstock_dataplane::CEILING);
        dataplane.grow(&limits.expect("it is full")).expect("grown");
        let applied = dataplane.apply(&wanted).expect("applied");
        assert_eq!((applied.services, applied.unplaced.len()), (602, 0));
        assert!(stand.in_cgroup(|| ask("10.96.0.7:80")).ends_with("as 10.96.0.7:80"));
    });
}
