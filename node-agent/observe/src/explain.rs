//! `node-agent explain`: what would become of a new connection, step by step, by what the maps hold; and which of the
//! client's are there already and go on as they began.
//!
//! Pure: a second reading of the rules that the programs follow (`ebpf/src/{socket,decide,masquerade}.rs`), kept honest by
//! tests that ask both. Must not know where a question came from.

mod answer;
mod history;
mod policy;
mod question;

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use penstock_dataplane::{Choice, Remembered, Set, Snapshot};
use penstock_ebpf_common::{
    Address, Backend, CONFIG_MASQUERADE, INSIDE_NEIGHBOURS, INSIDE_NODES, INSIDE_PODS, INSIDE_SERVICES,
    Reason, SET_EMPTY_IS_DROP, VIP_HOST_ONLY, VIP_NODE_PORT, VIP_SOURCE_RANGES, Verdict, VipKey, VipValue,
};

pub use answer::{Established, Explanation, Kept, Place, Step};
pub use question::{Destination, NoAnswer, Question, Source, find_service};

use answer::Explaining;

/// Says what would become of a connection. What is remembered is of the client and the address that are asked for.
pub fn explain(state: &Snapshot, remembered: &Remembered, question: &Question) -> Explanation {
    let mut told = Explaining::new(state, question);
    let asked = Asked { state, remembered, question };
    match question.source {
        Source::Outside(client) => uplink(&mut told, asked, client),
        Source::Host => socket(&mut told, asked, None),
        Source::Pod(address) => socket(&mut told, asked, Some(address)),
    }
    policy::judge(&mut told, asked);
    told.done()
}

/// The question, and all there is to answer it by.
#[derive(Clone, Copy)]
struct Asked<'a> {
    state: &'a Snapshot,
    remembered: &'a Remembered,
    question: &'a Question,
}

/// A socket of the node or of a pod: at connect() or sendmsg(), else by its packets.
fn socket(told: &mut Explaining<'_>, asked: Asked<'_>, pod: Option<IpAddr>) {
    let Asked { state, remembered, question } = asked;
    let listed = listed(question.address);
    let found = find(state, listed, question).filter(|(_, vip)| vip.inside != 0);
    let Some((key, vip)) = found else {
        told.step(
            "service",
            format!("{} is no address of a Service for clients on this node", question.end()),
        );
        return past_socket(told, state, question.address, pod);
    };
    told.service(&vip, &key);
    if vip.flags & VIP_HOST_ONLY != 0 && pod.is_some() {
        told.step("socket", "served to the node's own processes only: a pod's loopback is its own");
        return told.end(Verdict::Passed, None);
    }
    if vip.flags & VIP_SOURCE_RANGES != 0
        && let Some(client) = pod
    {
        told.step("socket", "left to its packets: the Service names its clients (loadBalancerSourceRanges)");
        return packet(told, asked, client, &vip, vip.inside, Place::Pod);
    }
    told.step("socket", "translated at connect() or sendmsg(): nothing is left to do for its packets");
    history::sockets(told, remembered, question);
    let Some(set) = set(told, state, vip.inside) else {
        return told.end(Verdict::Refused, None);
    };
    let carried: Vec<Backend> =
        set.backends.iter().filter(|it| !question.address.is_ipv4() || it.address.is_v4()).copied().collect();
    if carried.is_empty() {
        nobody(told, set);
        told.step("answer", "ECONNREFUSED at once");
        return told.end(Verdict::Refused, None);
    }
    let client = remembered.client.netns.map(Address::from_netns_cookie);
    match history::kept(told, remembered, (vip.inside, set), client) {
        Some(kept) => told.backends(&[kept], pod),
        None => told.backends(&carried, pod),
    }
    told.end(Verdict::Translated, None);
}

/// Nothing for the socket hook: what the packets meet.
fn past_socket(told: &mut Explaining<'_>, state: &Snapshot, to: IpAddr, pod: Option<IpAddr>) {
    if range(state, to) == Some(INSIDE_SERVICES) {
        told.suggest(format!(
            "{to} is in the range of Services, but none has it with this port: see `kubectl get services -A`"
        ));
    }
    let Some(client) = pod else {
        told.step("packets", "the node's own, to be routed by the kernel");
        return told.end(Verdict::Passed, None);
    };
    leaving(told, state, client, to);
}

/// A pod's packet to an address that is no Service's.
fn leaving(told: &mut Explaining<'_>, state: &Snapshot, client: IpAddr, to: IpAddr) {
    match range(state, to) {
        Some(of) => {
            let whose = match of {
                INSIDE_PODS => "pods",
                INSIDE_SERVICES => "Services",
                INSIDE_NODES => "nodes",
                INSIDE_NEIGHBOURS => "hosts that know the way to pods",
                _ => "the cluster",
            };
            told.step("masquerade", format!("not: {to} is in a range of {whose}"));
            told.end(Verdict::Passed, None);
        }
        None if state.config.flags & CONFIG_MASQUERADE == 0 => {
            told.step("masquerade", "off (--masquerade=false)");
            told.end(Verdict::Passed, None);
        }
        None if range(state, client) != Some(INSIDE_PODS) => {
            told.step("masquerade", format!("not: {client} is in no range of pods"));
            told.end(Verdict::Passed, None);
        }
        None => match node_address(state, client) {
            Some(own) => {
                told.step("masquerade", format!("{to} is outside the cluster: it leaves with {own}"));
                told.end(Verdict::Masqueraded, None);
            }
            None => drop_for(told, Reason::NoNodeAddress),
        },
    }
}

/// What comes in by the uplink.
fn uplink(told: &mut Explaining<'_>, asked: Asked<'_>, client: Option<IpAddr>) {
    let Asked { state, question, .. } = asked;
    let found = find(state, question.address, question);
    let Some((key, vip)) = found else {
        told.step("service", format!("{} is no address of a Service here", question.end()));
        if (30_000..=32_767).contains(&question.port) {
            told.suggest(
                "NodePorts are served on the addresses of --nodeport-addresses (by default --node-ip)"
                    .to_owned(),
            );
        }
        return told.end(Verdict::Passed, None);
    };
    told.service(&vip, &key);
    if vip.outside == 0 || vip.flags & VIP_HOST_ONLY != 0 {
        told.step("uplink", "not served to clients outside: a ClusterIP is for the cluster");
        told.suggest("from outside use a NodePort, a load balancer's address or an external IP".to_owned());
        return told.end(Verdict::Passed, None);
    }
    let client = client.unwrap_or(if question.address.is_ipv4() {
        IpAddr::from([192, 0, 2, 1])
    } else {
        IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1])
    });
    packet(told, asked, client, &vip, vip.outside, Place::Uplink);
}

/// A client's first packet to a Service at an interface.
fn packet(
    told: &mut Explaining<'_>,
    asked: Asked<'_>,
    client: IpAddr,
    vip: &VipValue,
    set_id: u32,
    place: Place,
) {
    let Asked { state, remembered, question } = asked;
    if vip.flags & VIP_SOURCE_RANGES != 0 {
        let allowed: Vec<IpNetwork> = state.image.ranges_of(vip.service).filter_map(network).collect();
        let list = allowed.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        if !allowed.iter().any(|range| range.contains(client)) {
            told.step("source ranges", format!("{client} is in none of {list}"));
            return drop_for(told, Reason::SourceNotAllowed);
        }
        told.step("source ranges", format!("{client} is in {list}"));
    }
    history::flows(told, remembered, question);
    if place == Place::Uplink && is_martian(state, client) {
        told.step("source", format!("no packet from outside may come from {client}"));
        return drop_for(told, Reason::MartianSource);
    }
    let Some(set) = set(told, state, set_id) else { return drop_for(told, Reason::NoSet) };
    if set.backends.is_empty() {
        nobody(told, set);
        if set.flags & SET_EMPTY_IS_DROP != 0 {
            return drop_for(told, Reason::NoLocalBackend);
        }
        if vip.flags & VIP_NODE_PORT != 0 {
            told.step("answer", "the node's own stack refuses it");
            return told.end(Verdict::Refused, None);
        }
        return drop_for(told, Reason::NoBackend);
    }
    if set.backends.iter().any(|backend| backend.address.is_v4() != client.is_ipv4()) {
        return drop_for(told, Reason::NotRewritten);
    }
    let kept = history::kept(told, remembered, (set_id, set), Some(client.into()));
    let eligible = kept.map_or_else(|| set.backends.clone(), |kept| vec![kept]);
    told.backends(&eligible, (place == Place::Pod).then_some(client));
    if place == Place::Uplink && eligible.iter().any(|backend| backend.local == 0) {
        match node_address(state, client) {
            Some(own) => told.step(
                "source address",
                format!("becomes {own} towards backends on other nodes, stays {client} towards those here"),
            ),
            None => return drop_for(told, Reason::NoNodeAddress),
        }
    }
    told.end(Verdict::Translated, None);
}

// === What the maps say ===

fn find(state: &Snapshot, address: IpAddr, question: &Question) -> Option<(VipKey, VipValue)> {
    let key =
        VipKey { address: address.into(), port: question.port.to_be(), protocol: question.protocol, zero: 0 };
    state.image.vips.get(&key).map(|vip| (key, *vip))
}

/// The set, described.
fn set<'a>(told: &mut Explaining<'_>, state: &'a Snapshot, id: u32) -> Option<&'a Set> {
    let Some(set) = state.image.sets.get(&id) else {
        told.step("backends", format!("set {id} is missing: maps and programs disagree"));
        told.suggest("is the agent running? see `node-agent counters` for no_set".to_owned());
        return None;
    };
    let scope = if id % 2 == 1 { "on this node (traffic policy Local)" } else { "in the cluster" };
    told.step("backends", format!("{} eligible {scope}", set.backends.len()));
    if !set.backends.is_empty() {
        let how = match set.choice {
            Choice::Random => "any, at random",
            Choice::Maglev => "by the hash of the connection, the same on every node",
            Choice::LeastConnections => "of two at random the one with fewer connections from this node",
        };
        told.step("choice", how.to_owned());
    }
    if set.affinity_seconds != 0 {
        told.step(
            "affinity",
            format!("a client that came within {} s keeps its backend", set.affinity_seconds),
        );
    }
    Some(set)
}

fn nobody(told: &mut Explaining<'_>, set: &Set) {
    told.suggest(if set.flags & SET_EMPTY_IS_DROP != 0 {
        "no backend runs on this node, and the Service's traffic policy is Local: other nodes have some".to_owned()
    } else {
        format!(
            "the Service has 0 ready endpoints: see `kubectl get endpointslices -l kubernetes.io/service-name={}`",
            told.service_name().unwrap_or("NAME")
        )
    });
}

fn drop_for(told: &mut Explaining<'_>, reason: Reason) {
    told.end(Verdict::Dropped, Some(reason));
}

/// A node's own NodePorts are listed under one address of each family's loopback.
fn listed(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(v4) if v4.is_loopback() || v4.is_unspecified() => IpAddr::from([127, 0, 0, 1]),
        IpAddr::V6(v6) if v6.is_unspecified() => IpAddr::V6(std::net::Ipv6Addr::LOCALHOST),
        other => other,
    }
}

/// Whose range an address is in, by the longest prefix.
fn range(state: &Snapshot, address: IpAddr) -> Option<u32> {
    let bits = u128::from_be_bytes(Address::from(address).to_bytes());
    let within = |key: &penstock_ebpf_common::InsideKey| {
        let net = u128::from_be_bytes(key.address.to_bytes());
        key.prefix_len == 0 || (bits ^ net) >> (128 - key.prefix_len.min(128)) == 0
    };
    state
        .inside
        .iter()
        .filter(|(key, _)| within(key))
        .max_by_key(|(key, _)| key.prefix_len)
        .map(|(_, of)| *of)
}

fn network(range: &penstock_dataplane::SourceRange) -> Option<IpNetwork> {
    let prefix = if range.address.is_v4() { range.prefix.checked_sub(96)? } else { range.prefix };
    IpNetwork::new(range.address.into(), prefix).ok()
}

fn node_address(state: &Snapshot, like: IpAddr) -> Option<IpAddr> {
    let own = if like.is_ipv4() { state.config.node_address } else { state.config.node_address_v6 };
    (own != Address::default()).then(|| own.into())
}

fn is_martian(state: &Snapshot, client: IpAddr) -> bool {
    node_address(state, client) == Some(client)
        || match client {
            IpAddr::V4(v4) => v4.octets()[0] == 0 || v4.is_loopback() || v4.octets()[0] >= 224,
            IpAddr::V6(v6) => v6.is_unspecified() || v6.is_loopback() || v6.is_multicast(),
        }
}

#[cfg(test)]
mod tests {
    use super::*;
    use penstock_dataplane::{Connected, Desired, Limits, compile};
    use penstock_ebpf_common::Peer;

    const SERVICES: &str = r#"{
        "node_addresses": ["10.240.0.11"],
        "services": {
            "demo/hello:http": { "cluster_ips": ["10.96.0.7"], "port": 80, "node_port": 30080,
                "backends": [{ "address": "10.244.1.2", "port": 8080, "local": true }] },
            "demo/nobody": { "cluster_ips": ["10.96.0.8"], "port": 80 }
        }
    }"#;

    fn state() -> Snapshot {
        let desired: Desired = serde_json::from_str(SERVICES).unwrap();
        let image = compile(&desired, &penstock_dataplane::Ids::new(&Limits::default())).image;
        Snapshot { image, ..Snapshot::default() }
    }

    fn ask(source: Source, to: &str) -> Explanation {
        let at: std::net::SocketAddr = to.parse().unwrap();
        let question = Question { source, source_port: None, address: at.ip(), port: at.port(), protocol: 6 };
        explain(&state(), &Remembered::default(), &question)
    }

    #[test]
    fn a_working_service_is_explained_down_to_its_backends() {
        let told = ask(Source::Host, "10.96.0.7:80");
        assert_eq!((told.verdict, told.service.as_deref()), ("translated", Some("demo/hello:http")));
        assert_eq!(told.backends, ["10.244.1.2:8080".parse().unwrap()]);
        let text = told.text();
        for part in
            ["host -> 10.96.0.7:80 TCP", "1 eligible in the cluster", "on this node", "verdict: translated"]
        {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
    }

    #[test]
    fn a_connected_socket_is_found_by_its_port() {
        let address = |text: &str| Address::from(text.parse::<IpAddr>().unwrap());
        let socket = |last: u8, port| Connected {
            peer: Peer {
                backend: address(&format!("10.244.1.{last}")),
                backend_port: 8080_u16.to_be(),
                ..Peer::default()
            },
            port,
            ..Connected::default()
        };
        let asked = |sockets: &[Connected]| {
            let remembered = Remembered { sockets: sockets.to_vec(), ..Remembered::default() };
            let question = Question {
                source: Source::Host,
                source_port: Some(40_000),
                address: "10.96.0.7".parse().unwrap(),
                port: 80,
                protocol: 6,
            };
            explain(&state(), &remembered, &question)
        };
        let told = asked(&[socket(2, Some(39_999)), socket(3, Some(40_000))]);
        let backends: Vec<_> = told.established.iter().map(|it| it.backend.to_string()).collect();
        assert_eq!(backends, ["10.244.1.3:8080"]);
        let told = asked(&[socket(2, Some(39_999))]);
        assert!(
            told.established.is_empty() && told.text().contains("none from port 40000"),
            "{}",
            told.text()
        );
        let told = asked(&[socket(2, None)]);
        assert!(told.established.is_empty() && told.suggestions[0].contains("ss"), "{}", told.text());
    }

    #[test]
    fn an_empty_service_is_refused_with_where_to_look() {
        let told = ask(Source::Pod("10.244.1.2".parse().unwrap()), "10.96.0.8:80");
        assert_eq!(told.verdict, "refused");
        assert!(told.suggestions[0].contains("0 ready endpoints") && told.suggestions[0].contains("=nobody"));
    }

    #[test]
    fn a_cluster_ip_is_not_for_clients_outside_and_a_wrong_node_port_is_nobody_s() {
        let told = ask(Source::Outside(None), "10.96.0.7:80");
        assert_eq!(told.verdict, "passed");
        assert!(told.suggestions[0].contains("NodePort"));
        let told = ask(Source::Outside(None), "10.240.0.11:30999");
        assert!(told.suggestions[0].contains("--nodeport-addresses"), "{}", told.text());
    }

    #[test]
    fn a_service_is_found_by_name_and_what_it_has_instead_is_told() {
        let find = |text: &str| {
            let to: Destination = text.parse().unwrap();
            find_service(&state(), &to.service().unwrap(), &to)
        };
        for name in ["demo/hello:80", "demo/hello:http", "hello.demo.svc:http"] {
            assert_eq!(find(name).unwrap().to_string(), "10.96.0.7:80");
        }
        assert_eq!(find("demo/hello:30080").unwrap().to_string(), "10.240.0.11:30080");
        let wrong = find("demo/hello:81").unwrap_err().to_string();
        assert!(wrong.contains("10.96.0.7:80/TCP"), "{wrong}");
        let none = find("demo/none:80").unwrap_err().to_string();
        assert!(none.contains("does not exist"), "{none}");
    }
}
