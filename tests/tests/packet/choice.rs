//! A load balancer's address whose backends are chosen by a Maglev table: whichever node a flow arrives at, and after
//! backends have changed.
//!
//! ```text
//!   client ── 192.0.2.9:P > 203.0.113.5:80 ──> node A ── > 10.244.2.N:8080
//!   client ── 192.0.2.9:P > 203.0.113.5:80 ──> node B ── > 10.244.2.N:8080      the same N
//! ```
//! The nodes gave their backends different numbers, and each calls others local.

use std::net::SocketAddr;

use penstock_tests::dataplane::REDIRECT;
use penstock_tests::packet::{Packet, SYN, Transport};

use crate::{At, on_node, on_node_that_meets};

const FLOWS: u16 = 600;

fn service(choice: &str, hosts: impl Iterator<Item = u8>) -> String {
    let backends: Vec<_> = hosts.map(|host| format!("{{ address: 10.244.2.{host}, port: 8080 }}")).collect();
    let backends = backends.join(", ");
    format!(
        "
  demo/balanced:
    cluster_ips: [10.96.0.7]
    load_balancer_ips: [203.0.113.5]
    port: 80
    choice: {choice}
    backends: [{backends}]
"
    )
}

/// Who gets each flow on a node that serves this, after services that are gone by then.
fn chosen(before: &str, services: &str) -> Vec<SocketAddr> {
    let mut chosen = Vec::new();
    on_node_that_meets(before, false, |node| {
        let applied = penstock_tests::dataplane::desired(&format!("services:\n{services}"));
        node.dataplane.apply(&applied).expect("applied");
        for flow in 0..FLOWS {
            let client = format!("192.0.2.9:{}", 40_000 + flow);
            let (verdict, sent) =
                node.run(At::Uplink, &Packet::new(Transport::Tcp(SYN), &client, "203.0.113.5:80"));
            assert_eq!(verdict, REDIRECT);
            chosen.push(sent.destination);
        }
    });
    chosen
}

const OTHER: &str = "
  demo/another:
    cluster_ips: [10.96.0.9]
    port: 80
    backends: [{ address: 10.244.2.7, port: 8080 }, { address: 10.244.2.3, port: 8080, local: true }]
";

#[test]
fn every_node_chooses_the_same_backend_for_a_flow() {
    let services = service("maglev", 1..=8);
    let (here, there) = (chosen("", &services), chosen(OTHER, &services));
    assert_eq!(here, there);
    let used: std::collections::BTreeSet<_> = here.iter().collect();
    assert!(here.is_empty() || used.len() == 8, "all are used: {used:?}");
}

#[test]
fn a_backend_that_goes_moves_its_own_flows_and_few_others() {
    let moved = |choice: &str| {
        let (before, after) = (chosen("", &service(choice, 1..=8)), chosen("", &service(choice, 1..=7)));
        let others = before.iter().zip(&after).filter(|(was, _)| !was.to_string().starts_with("10.244.2.8:"));
        others.filter(|(was, is)| was != is).count()
    };
    let (maglev, random) = (moved("maglev"), moved("random"));
    assert!(maglev <= usize::from(FLOWS) / 10, "{maglev} of {FLOWS} flows moved for nothing");
    // What it is for: the same number spread over one backend less moves most.
    assert!(random == 0 && maglev == 0 || random > usize::from(FLOWS) / 3, "{random} moved at random");
}

#[test]
fn an_agent_that_starts_again_finds_the_table_as_it_would_write_it() {
    on_node("", |node| {
        let desired = penstock_tests::dataplane::desired(&format!("services:\n{}", service("maglev", 1..=8)));
        assert!(node.dataplane.apply(&desired).expect("applied").operations > 0);
        let again = node.stand().load();
        assert_eq!(again.apply(&desired).expect("applied").operations, 0);
        let random = penstock_tests::dataplane::desired(&format!("services:\n{}", service("random", 1..=8)));
        assert_eq!(again.apply(&random).expect("applied").operations, 1, "its set");
    });
}
