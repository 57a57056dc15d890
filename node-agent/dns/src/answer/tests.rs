//! The specification's names, one test a rule.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::zone::{Endpoint, Exposure, Port, ServiceName, ServiceRecord, ZoneConfig};

fn port(name: &str, number: u16) -> Port {
    Port { name: name.into(), protocol: "tcp", number }
}

fn service(namespace: &str, name: &str, exposure: Exposure) -> ServiceRecord {
    ServiceRecord {
        name: ServiceName { namespace: namespace.into(), name: name.into() },
        exposure,
        ports: vec![port("http", 80), port("", 81)],
    }
}

fn zone() -> Zone {
    let mut zone = Zone::new(ZoneConfig {
        domain: "cluster.local".into(),
        addresses: vec!["10.96.0.10".parse().unwrap()],
        reverse: vec!["10.96.0.0/16".parse().unwrap()],
    });
    let addresses = vec!["10.96.0.7".parse().unwrap(), "fd00::7".parse().unwrap()];
    zone.insert(service("shop", "web", Exposure::Cluster(addresses)));
    let ports: Arc<[Port]> = vec![port("http", 8080)].into();
    let endpoint = |address: &str, hostname: Option<&str>| Endpoint {
        address: address.parse().unwrap(),
        hostname: hostname.map(str::to_string),
        ports: ports.clone(),
    };
    let endpoints = vec![endpoint("10.244.0.2", Some("db-0")), endpoint("10.244.1.2", None)];
    zone.insert(service("shop", "db", Exposure::Headless(endpoints)));
    zone.insert(service("shop", "empty", Exposure::Headless(vec![])));
    zone.insert(service("shop", "away", Exposure::External("example.com".into())));
    zone.insert(service("shop", "near", Exposure::External("web.shop.svc.cluster.local".into())));
    zone.insert(service("shop", "loop", Exposure::External("loop.shop.svc.cluster.local".into())));
    zone
}

fn ask(name: &str, kind: RecordType) -> Answer {
    let question = Question { name: Name::from_ascii(name).unwrap(), kind, rotation: 0, aliases: 0 };
    answer(&zone(), &question)
}

fn texts(answer: &Answer) -> Vec<String> {
    match answer {
        Answer::Found { answers, .. } | Answer::Chase { answers, .. } => {
            answers.iter().map(|record| record.data.to_string()).collect()
        }
        _ => Vec::new(),
    }
}

#[test]
fn a_service_has_its_addresses_by_family() {
    assert_eq!(texts(&ask("web.shop.svc.cluster.local.", RecordType::A)), ["10.96.0.7"]);
    assert_eq!(texts(&ask("web.shop.svc.cluster.local.", RecordType::AAAA)), ["fd00::7"]);
}

#[test]
fn case_does_not_matter_and_is_repeated() {
    let Answer::Found { answers, .. } = ask("WEB.Shop.svc.Cluster.LOCAL.", RecordType::A) else { panic!() };
    assert_eq!(answers[0].name.to_ascii(), "WEB.Shop.svc.Cluster.LOCAL.");
    assert_eq!(answers[0].ttl, TTL_SECONDS);
}

#[test]
fn what_exists_without_data_is_told_from_what_does_not_exist() {
    for (name, kind) in [
        ("web.shop.svc.cluster.local.", RecordType::MX),
        ("empty.shop.svc.cluster.local.", RecordType::A),
        ("shop.svc.cluster.local.", RecordType::A),
        ("svc.cluster.local.", RecordType::A),
        ("cluster.local.", RecordType::A),
        ("_tcp.web.shop.svc.cluster.local.", RecordType::A),
        ("_http._tcp.web.shop.svc.cluster.local.", RecordType::A),
        ("db-0.db.shop.svc.cluster.local.", RecordType::AAAA),
    ] {
        assert_eq!(ask(name, kind), Answer::NoData, "{name} {kind}");
    }
    for name in [
        "none.shop.svc.cluster.local.",
        "web.none.svc.cluster.local.",
        "none.svc.cluster.local.",
        "x.web.shop.svc.cluster.local.",
        "db-1.db.shop.svc.cluster.local.",
        "_ftp._tcp.web.shop.svc.cluster.local.",
        "_http._udp.web.shop.svc.cluster.local.",
        "web.shop.cluster.local.",
        "x.pod.shop.pod.cluster.local.",
    ] {
        assert_eq!(ask(name, RecordType::A), Answer::NameError, "{name}");
    }
}

#[test]
fn a_headless_service_has_its_endpoints_and_each_endpoint_a_name() {
    let all = texts(&ask("db.shop.svc.cluster.local.", RecordType::A));
    assert_eq!(all, ["10.244.0.2", "10.244.1.2"]);
    assert_eq!(texts(&ask("db-0.db.shop.svc.cluster.local.", RecordType::A)), ["10.244.0.2"]);
    assert_eq!(texts(&ask("10-244-1-2.db.shop.svc.cluster.local.", RecordType::A)), ["10.244.1.2"]);
}

#[test]
fn ports_point_at_the_service_or_at_every_endpoint() {
    let cluster = ask("_http._tcp.web.shop.svc.cluster.local.", RecordType::SRV);
    assert_eq!(texts(&cluster), ["0 100 80 web.shop.svc.cluster.local."]);
    let Answer::Found { additionals, .. } = cluster else { panic!() };
    assert_eq!(additionals.len(), 2, "an address of each family");
    assert_eq!(
        texts(&ask("_http._tcp.db.shop.svc.cluster.local.", RecordType::SRV)),
        ["0 100 8080 db-0.db.shop.svc.cluster.local.", "0 100 8080 10-244-1-2.db.shop.svc.cluster.local.",]
    );
}

#[test]
fn an_external_name_is_an_alias_and_one_into_the_cluster_is_followed() {
    let Answer::Chase { answers, target } = ask("away.shop.svc.cluster.local.", RecordType::A) else {
        panic!()
    };
    assert_eq!(answers[0].data.to_string(), "example.com.");
    assert_eq!(target.to_ascii(), "example.com.");
    let near = texts(&ask("near.shop.svc.cluster.local.", RecordType::A));
    assert_eq!(near, ["web.shop.svc.cluster.local.", "10.96.0.7"]);
}

#[test]
fn an_alias_to_itself_ends() {
    assert!(texts(&ask("loop.shop.svc.cluster.local.", RecordType::A)).len() < 20);
}

#[test]
fn a_pod_s_name_spells_its_address() {
    assert_eq!(texts(&ask("10-244-0-9.any.pod.cluster.local.", RecordType::A)), ["10.244.0.9"]);
    assert_eq!(texts(&ask("fd00--9.any.pod.cluster.local.", RecordType::AAAA)), ["fd00::9"]);
    assert_eq!(ask("10-244-0-999.any.pod.cluster.local.", RecordType::A), Answer::NameError);
}

#[test]
fn addresses_lead_back_to_names() {
    let back = |name| texts(&ask(name, RecordType::PTR));
    assert_eq!(back("7.0.96.10.in-addr.arpa."), ["web.shop.svc.cluster.local."]);
    assert_eq!(back("2.0.244.10.in-addr.arpa."), ["db-0.db.shop.svc.cluster.local."]);
    assert_eq!(back("2.1.244.10.in-addr.arpa."), ["10-244-1-2.db.shop.svc.cluster.local."]);
    let six = "7.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa.";
    assert_eq!(back(six), ["web.shop.svc.cluster.local."]);
}

#[test]
fn only_strangers_names_are_for_upstream() {
    assert_eq!(ask("9.0.96.10.in-addr.arpa.", RecordType::PTR), Answer::NameError);
    assert_eq!(ask("8.8.8.8.in-addr.arpa.", RecordType::PTR), Answer::NotOurs);
    assert_eq!(ask("example.com.", RecordType::A), Answer::NotOurs);
    assert_eq!(ask("local.", RecordType::A), Answer::NotOurs);
    assert_eq!(ask("xcluster.local.", RecordType::A), Answer::NotOurs);
}

#[test]
fn the_zone_describes_itself() {
    assert_eq!(texts(&ask("dns-version.cluster.local.", RecordType::TXT)), ["1.1.0"]);
    assert_eq!(texts(&ask("cluster.local.", RecordType::SOA)).len(), 1);
    assert_eq!(texts(&ask("ns.dns.cluster.local.", RecordType::A)), ["10.96.0.10"]);
}

#[test]
fn rotation_moves_the_first_answer() {
    let name = Name::from_ascii("db.shop.svc.cluster.local.").unwrap();
    let question = Question { name, kind: RecordType::A, rotation: 1, aliases: 0 };
    assert_eq!(texts(&answer(&zone(), &question)), ["10.244.1.2", "10.244.0.2"]);
}

proptest! {
    #[test]
    fn no_name_makes_it_panic(
        labels in proptest::collection::vec("[a-z0-9_*-]{1,12}|svc|pod|shop|web|db|_tcp|_http|arpa|in-addr|ip6", 0..8),
        in_zone in any::<bool>(),
        kind in any::<u16>(),
    ) {
        let mut labels = labels;
        if in_zone {
            labels.extend(["cluster".to_string(), "local".to_string()]);
        }
        if let Ok(name) = Name::from_labels(labels.iter().map(|label| label.as_bytes())) {
            let question = Question { name, kind: RecordType::from(kind), rotation: 3, aliases: 0 };
            let answered = answer(&zone(), &question);
            if in_zone {
                prop_assert_ne!(answered, Answer::NotOurs);
            }
        }
    }
}
