//! The compiled image answers every question as the model does, however the cluster came to be what it is.

use std::net::IpAddr;

use penstock_dataplane::{Choice, Forwarding, Limits, MapImage, NodeFacts, Planner, Protocol};
use penstock_ebpf_common::{SET_EMPTY_IS_DROP, VIP_HOST_ONLY, VIP_SOURCE_RANGES, VipKey};
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

use super::*;
use crate::cluster::{Event, ObjectName, Seen, SliceView};
use crate::desired::Services;

const ADDRESSES: [&str; 14] = [
    "10.96.0.1",
    "10.96.0.2",
    "10.96.0.10",
    "192.0.2.1",
    "192.0.2.2",
    "10.240.0.11",
    "127.0.0.1",
    "0.0.0.0",
    "fd00:96::1",
    "2001:db8::1",
    "fd00:240::11",
    "::1",
    "10.244.0.1",
    "224.0.0.1",
];
const SOURCES: [&str; 3] = ["203.0.113.7", "198.51.100.7", "2001:db8:7::7"];

fn some<T: Clone + std::fmt::Debug + 'static>(
    of: &'static [T],
    most: usize,
) -> impl Strategy<Value = Vec<T>> {
    proptest::collection::vec(select(of), 0..=most)
}

fn words(of: &'static [&'static str]) -> impl Strategy<Value = Value> {
    select(of).prop_map(|word| if word.is_empty() { Value::Null } else { word.into() })
}

prop_compose! {
    fn service_port()(
        port in select(&[0, 80, 80, 81, 30_080, 70_000][..]),
        node_port in select(&[0, 30_080, 30_081, -1][..]),
        protocol in words(&["", "TCP", "UDP", "SCTP", "QUIC"]),
    ) -> Value {
        json!({"port": port, "nodePort": node_port, "protocol": protocol})
    }
}

prop_compose! {
    fn service()(
        kind in select(&["ClusterIP", "NodePort", "LoadBalancer", "LoadBalancer", "ExternalName"][..]),
        mut cluster_ips in some(&["10.96.0.1", "10.96.0.2", "10.96.0.10", "fd00:96::1", "192.0.2.1", "nobody", "0.0.0.0"], 2),
        headless in proptest::bool::weighted(0.1),
        foreign in proptest::bool::weighted(0.1),
        external_ips in some(&["192.0.2.1", "192.0.2.2", "10.96.0.1", "10.240.0.11", "127.0.0.1", "2001:db8::1", "224.0.0.1"], 2),
        ingress in proptest::collection::vec(
            (select(&["192.0.2.1", "192.0.2.2", "10.96.0.2", "2001:db8::1", "nobody"][..]), words(&["", "VIP", "Proxy"])), 0..3),
        ports in proptest::collection::vec(service_port(), 0..4),
        ranges in some(&["203.0.113.0/24", "2001:db8:7::/48", "everybody"], 1),
        (internal, external) in (words(&["", "Cluster", "Local"]), words(&["", "Cluster", "Local"])),
        distribution in words(&["", "PreferClose", "PreferSameNode", "PreferSameZone", "PreferFar"]),
    ) -> Value {
        if headless {
            cluster_ips = vec!["None"];
        }
        let labels = if foreign { json!({"service.kubernetes.io/service-proxy-name": "other"}) } else { json!({}) };
        let ingress: Vec<_> = ingress.into_iter().map(|(ip, mode)| json!({"ip": ip, "ipMode": mode})).collect();
        let mut ports = ports;
        for (number, port) in ports.iter_mut().enumerate() {
            port["name"] = format!("p{number}").into();
        }
        json!({
            "metadata": {"labels": labels},
            "spec": {
                "type": kind, "clusterIPs": cluster_ips, "externalIPs": external_ips, "ports": ports,
                "loadBalancerSourceRanges": ranges, "internalTrafficPolicy": internal,
                "externalTrafficPolicy": external, "trafficDistribution": distribution,
            },
            "status": {"loadBalancer": {"ingress": ingress}},
        })
    }
}

fn conditions() -> impl Strategy<Value = Value> {
    let three = || select(vec![Value::Null, true.into(), false.into()]);
    (three(), three(), three())
        .prop_map(|(ready, serving, terminating)| json!({"ready": ready, "serving": serving, "terminating": terminating}))
}

prop_compose! {
    fn endpoint()(
        addresses in some(&["10.244.0.1", "10.244.0.2", "10.244.0.3", "fd00:244::1", "127.0.0.1", "169.254.0.1", "224.0.0.1", "nobody"], 2),
        conditions in conditions(),
        node in words(&["", NODE, "node-2"]),
        zone in words(&["", "east", "west"]),
        for_zones in some(&["east", "west"], 1),
        for_nodes in some(&[NODE, "node-2"], 1),
    ) -> Value {
        let named = |names: Vec<&str>| names.into_iter().map(|name| json!({"name": name})).collect::<Vec<_>>();
        json!({
            "addresses": addresses, "conditions": conditions, "nodeName": node, "zone": zone,
            "hints": {"forZones": named(for_zones), "forNodes": named(for_nodes)},
        })
    }
}

prop_compose! {
    fn slice()(
        service in select(&["a", "b", "c", "nobody"][..]),
        family in select(&["IPv4", "IPv4", "IPv6", "FQDN", "Token-Ring"][..]),
        ports in proptest::collection::vec(
            (select(&["p0", "p0", "p1", "p2"][..]), one_number(), words(&["", "TCP", "UDP", "QUIC"])), 0..3),
        endpoints in proptest::collection::vec(endpoint(), 0..4),
    ) -> Value {
        let ports: Vec<_> =
            ports.into_iter().map(|(name, port, protocol)| json!({"name": name, "port": port, "protocol": protocol})).collect();
        json!({
            "metadata": {"labels": {"kubernetes.io/service-name": service}},
            "addressType": family, "ports": ports, "endpoints": endpoints,
        })
    }
}

fn one_number() -> impl Strategy<Value = Value> {
    select(vec![json!(8080), json!(8080), json!(8081), json!(0), json!(70_000), Value::Null])
}

/// Objects by namespace and name.
type Objects = BTreeMap<(&'static str, &'static str), Value>;

fn objects(
    names: &'static [&'static str],
    object: impl Strategy<Value = Value> + 'static,
) -> impl Strategy<Value = Objects> {
    let names = (select(&["ns", "ns", "other"][..]), select(names));
    proptest::collection::btree_map(names, object, 0..6)
}

/// What is said to the agent.
#[derive(Debug, Clone)]
enum Said {
    Service(ObjectName, Option<Box<core::Service>>),
    Slice(ObjectName, Option<Box<Seen<discovery::EndpointSlice, SliceView>>>),
}

fn typed<T: serde::de::DeserializeOwned>(name: &ObjectName, object: &Value) -> T {
    let mut object = object.clone();
    object["metadata"]["namespace"] = name.namespace.as_str().into();
    object["metadata"]["name"] = name.name.as_str().into();
    serde_json::from_value(object).expect("an object of the API")
}

/// What is to be said so that `before` becomes `after`, whatever the order.
fn news(before: &[Objects; 2], after: &[Objects; 2]) -> Vec<Said> {
    let mut news = Vec::new();
    for (is_slice, (before, after)) in [false, true].into_iter().zip(before.iter().zip(after)) {
        for key in before.keys().chain(after.keys()).collect::<BTreeSet<_>>() {
            let name = ObjectName { namespace: key.0.to_owned(), name: key.1.to_owned() };
            let object = after.get(key);
            news.push(if is_slice {
                Said::Slice(name.clone(), object.map(|it| Box::new(typed(&name, it))))
            } else {
                Said::Service(name.clone(), object.map(|it| Box::new(typed(&name, it))))
            });
        }
    }
    news
}

fn say(services: &mut Services, planner: &mut Planner, news: Vec<Said>) {
    for said in news {
        match said {
            Said::Service(name, Some(object)) => services.see_service(Event::Is(name, (*object).into())),
            Said::Service(name, None) => services.see_service(Event::Gone(name)),
            Said::Slice(name, Some(slice)) => services.see_slice(Event::Is(name, slice.into_view())),
            Said::Slice(name, None) => services.see_slice(Event::Gone(name)),
        }
    }
    let ip = |text: &str| text.parse().expect("an address");
    let facts =
        NodeFacts { node_addresses: NODE_ADDRESSES.map(ip).to_vec(), never_translated: [ip(DNS)].into() };
    for name in services.take_dirty() {
        planner.change(&services.compile(&name, NODE), &facts);
    }
    planner.take();
}

/// What the programs do by an image; the words of `ebpf/src/decide.rs` and `socket.rs`.
fn done(image: &MapImage, question: Question<'_>) -> Answer {
    let protocol = match question.protocol {
        "TCP" => Protocol::Tcp,
        "UDP" => Protocol::Udp,
        _ => Protocol::Sctp,
    };
    let protocol = match protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
        Protocol::Sctp => 132,
    };
    let key = VipKey { address: question.address.into(), port: question.port.to_be(), protocol, zero: 0 };
    let Some(vip) = image.vips.get(&key) else { return Answer::NotTranslated };
    let set = if question.client == Client::Outside { vip.outside } else { vip.inside };
    if set == 0 || (vip.flags & VIP_HOST_ONLY != 0 && question.client != Client::Host) {
        return Answer::NotTranslated;
    }
    if vip.flags & VIP_SOURCE_RANGES != 0 {
        let lets_in = image.ranges_of(vip.service).any(|range| {
            let bits = if range.address.is_v4() { range.prefix - 96 } else { range.prefix };
            let network = IpNetwork::new(range.address.into(), bits).expect("a range");
            network.contains(question.source)
        });
        if !lets_in {
            return Answer::Dropped;
        }
    }
    let set = &image.sets[&set];
    if set.backends.is_empty() {
        return if set.flags & SET_EMPTY_IS_DROP != 0 { Answer::Dropped } else { Answer::Refused };
    }
    let backends = set.backends.iter();
    Answer::AnyOf(backends.map(|it| (IpAddr::from(it.address), u16::from_be(it.port))).collect())
}

fn world(objects: &[Objects; 2], zone: Option<&str>) -> World {
    let name = |key: &(&str, &str)| ObjectName { namespace: key.0.to_owned(), name: key.1.to_owned() };
    World {
        services: objects[0].iter().map(|(key, object)| typed(&name(key), object)).collect(),
        slices: objects[1].iter().map(|(key, object)| typed(&name(key), object)).collect(),
        zone: zone.map(str::to_owned),
    }
}

fn check(world: &World, image: &MapImage) -> Result<(), TestCaseError> {
    prop_assert!(image.is_whole());
    for (address, source) in ADDRESSES.iter().flat_map(|address| SOURCES.map(|source| (address, source))) {
        let (address, source): (IpAddr, IpAddr) =
            (address.parse().expect("an address"), source.parse().expect("an address"));
        if address.is_ipv4() != source.is_ipv4() {
            continue;
        }
        for client in [Client::Host, Client::Pod, Client::Outside] {
            for port in [0, 80, 81, 30_080, 30_081] {
                for protocol in ["TCP", "UDP", "SCTP"] {
                    let question = Question { client, source, address, port, protocol };
                    prop_assert_eq!(done(image, question), world.answer(question), "{:?}", question);
                }
            }
        }
    }
    Ok(())
}

const SERVICES: &[&str] = &["a", "b", "c"];
const SLICES: &[&str] = &["s0", "s1", "s2", "s3", "s4"];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn the_compiled_image_answers_every_question_as_a_service_means_it(
        first in (objects(SERVICES, service()), objects(SLICES, slice())),
        second in (objects(SERVICES, service()), objects(SLICES, slice())),
        zone in select(&[None, Some("east")][..]),
        order in any::<u64>(),
    ) {
        let (first, second) = ([first.0, first.1], [second.0, second.1]);
        let mut services = Services::new(Choice::Random, Forwarding::Snat);
        let own = crate::cluster::OwnNodeView { zone: zone.map(str::to_owned), leaving: false };
        services.see_own(Event::Is(ObjectName { namespace: String::new(), name: NODE.into() }, own));
        let mut planner = Planner::recover(MapImage::default(), &Limits::default());
        say(&mut services, &mut planner, shuffled(news(&[Objects::new(), Objects::new()], &first), order));
        check(&world(&first, zone), planner.image())?;
        // Change by change, each told to the planner at once.
        for said in shuffled(news(&first, &second), order.rotate_left(7)) {
            say(&mut services, &mut planner, vec![said]);
        }
        check(&world(&second, zone), planner.image())?;
    }
}

/// In an order that follows from a number.
fn shuffled<T>(mut all: Vec<T>, order: u64) -> Vec<T> {
    let mut state = order | 1;
    for last in (1..all.len()).rev() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        all.swap(last, (state >> 33) as usize % (last + 1));
    }
    all
}
