//! Clients against a table: YAML in, who may have them out.

use penstock_dataplane::{Backend, Hint};

use super::*;

const CLUSTER_IP: &str = "10.96.0.5:80";
const NODE_PORT: &str = "10.240.0.11:30080";
const POD: &str = "10.244.1.7";
const OUTSIDE: &str = "192.0.2.1";
const NODE: &str = "the node itself";

fn facts() -> NodeFacts {
    NodeFacts { node_addresses: vec!["10.240.0.11".parse().unwrap()], never_translated: BTreeSet::new() }
}

fn table() -> Table {
    let mut table = Table::new(64);
    table.set_inside(vec!["10.244.1.0/24".parse().unwrap()]);
    table
}

fn web(backends: Vec<Backend>) -> Service {
    Service {
        cluster_ips: vec!["10.96.0.5".parse().unwrap()],
        port: 80,
        node_port: Some(30080),
        backends,
        ..Service::default()
    }
}

fn backend(address: &str, local: bool) -> Backend {
    Backend { address: address.parse().unwrap(), port: 8080, local, ..Backend::default() }
}

fn change(name: &str, service: Option<Service>) -> ServiceChange {
    let ports = service.into_iter().map(|service| ("http".to_string(), service)).collect();
    ServiceChange { namespace: "demo".into(), name: name.into(), ports }
}

fn vip(address: &str, protocol: u8) -> VipKey {
    let address: SocketAddr = address.parse().unwrap();
    VipKey { address: address.ip().into(), port: address.port().to_be(), protocol, zero: 0 }
}

fn ask(table: &Table, address: &str, client: &str) -> Result<Vec<String>, Refusal> {
    let (is_node, client) = match client {
        NODE => (true, "10.240.0.11"),
        client => (false, client),
    };
    let peer = SocketAddr::new(client.parse().unwrap(), 40_000);
    let found = table.candidates(&vip(address, PROTOCOL_TCP), peer, is_node)?;
    Ok(found.backends.iter().map(ToString::to_string).collect())
}

fn one(address: &str) -> Result<Vec<String>, Refusal> {
    Ok(vec![address.to_string()])
}

#[test]
fn pods_reach_the_cluster_ip_and_everybody_the_node_port() {
    let mut table = table();
    let changed = table.change(
        &[change("web", Some(web(vec![backend("10.244.2.1", false)])))],
        &facts(),
        Listing::Complete,
    );
    assert_eq!(changed.vips.len(), 3, "the cluster's, the node's and the loopback's: {changed:?}");
    assert_eq!(ask(&table, CLUSTER_IP, POD), one("10.244.2.1:8080"));
    assert_eq!(ask(&table, CLUSTER_IP, NODE), one("10.244.2.1:8080"));
    assert_eq!(ask(&table, CLUSTER_IP, OUTSIDE), Err(Refusal::NotServed));
    assert_eq!(ask(&table, NODE_PORT, OUTSIDE), one("10.244.2.1:8080"));
    assert_eq!(ask(&table, "127.0.0.1:30080", NODE), one("10.244.2.1:8080"));
    assert_eq!(ask(&table, "127.0.0.1:30080", POD), Err(Refusal::NotServed));
    assert_eq!(ask(&table, "10.96.0.6:80", POD), Err(Refusal::NotServed));
}

#[test]
fn traffic_policies_choose_between_all_backends_and_those_of_this_node() {
    let mut table = table();
    let remote = || vec![backend("10.244.2.1", false)];
    let both = vec![backend("10.244.1.1", true), backend("10.244.2.1", false)];
    let local = |backends| Service { external_local: true, internal_local: true, ..web(backends) };
    table.change(&[change("web", Some(local(both)))], &facts(), Listing::Complete);
    assert_eq!(ask(&table, CLUSTER_IP, POD), one("10.244.1.1:8080"));
    assert_eq!(ask(&table, NODE_PORT, OUTSIDE), one("10.244.1.1:8080"));
    assert_eq!(
        ask(&table, NODE_PORT, POD).map(|found| found.len()),
        Ok(2),
        "inside is not bound to the node"
    );
    table.change(&[change("web", Some(local(remote())))], &facts(), Listing::Unfinished);
    assert_eq!(ask(&table, NODE_PORT, OUTSIDE), Err(Refusal::NoBackend));
    assert!(!table.is_answered(&vip(CLUSTER_IP, PROTOCOL_TCP)), "nobody could be answered there");
    assert!(table.is_answered(&vip(NODE_PORT, PROTOCOL_TCP)), "pods could");
}

#[test]
fn terminating_endpoints_serve_when_there_are_no_others_and_hints_are_kept() {
    let mut table = table();
    let leaving = Backend { ready: false, terminating: true, ..backend("10.244.2.9", false) };
    let gone = Backend { serving: false, ..leaving.clone() };
    table.change(&[change("web", Some(web(vec![leaving.clone(), gone])))], &facts(), Listing::Complete);
    assert_eq!(ask(&table, CLUSTER_IP, POD), one("10.244.2.9:8080"));
    let near = Backend { zone_hint: Hint::Here, ..backend("10.244.2.1", false) };
    let far = Backend { zone_hint: Hint::Elsewhere, ..backend("10.244.3.1", false) };
    table.change(&[change("web", Some(web(vec![leaving, near, far])))], &facts(), Listing::Unfinished);
    assert_eq!(ask(&table, CLUSTER_IP, POD), one("10.244.2.1:8080"));
}

#[test]
fn source_ranges_let_in_whom_they_name_and_the_node() {
    let mut table = table();
    let service = Service {
        load_balancer_ips: vec!["203.0.113.9".parse().unwrap()],
        source_ranges: vec!["198.51.100.0/24".parse().unwrap()],
        ..web(vec![backend("10.244.2.1", false)])
    };
    table.change(&[change("web", Some(service))], &facts(), Listing::Complete);
    assert_eq!(ask(&table, "203.0.113.9:80", "198.51.100.200"), one("10.244.2.1:8080"));
    assert_eq!(ask(&table, "203.0.113.9:80", OUTSIDE), Err(Refusal::SourceNotAllowed));
    assert_eq!(ask(&table, "203.0.113.9:80", POD), Err(Refusal::SourceNotAllowed));
    assert_eq!(ask(&table, "203.0.113.9:80", NODE), one("10.244.2.1:8080"));
    assert_eq!(ask(&table, CLUSTER_IP, POD), one("10.244.2.1:8080"));
}

#[test]
fn an_endpoint_that_is_an_address_we_serve_is_left_out() {
    let mut table = table();
    let itself = Backend { port: 80, ..backend("10.96.0.5", false) };
    table.change(&[change("web", Some(web(vec![itself.clone()])))], &facts(), Listing::Complete);
    assert_eq!(ask(&table, CLUSTER_IP, POD), Err(Refusal::NoBackend));
    table.change(
        &[change("web", Some(web(vec![itself, backend("10.244.2.1", false)])))],
        &facts(),
        Listing::Unfinished,
    );
    assert_eq!(ask(&table, CLUSTER_IP, POD), one("10.244.2.1:8080"));
}

#[test]
fn a_backend_that_still_serves_keeps_its_tcp_connections_but_not_its_datagrams() {
    for (protocol, ended) in [(Protocol::Tcp, 0), (Protocol::Udp, 1)] {
        let mut table = table();
        let other = backend("10.244.2.2", false);
        let staying = backend("10.244.2.1", false);
        let service = |backends| Service { protocol, ..web(backends) };
        let before = service(vec![staying.clone(), other.clone()]);
        table.change(&[change("web", Some(before))], &facts(), Listing::Complete);
        let leaving = Backend { ready: false, terminating: true, ..staying };
        let after = service(vec![leaving, other.clone()]);
        let changed = table.change(&[change("web", Some(after))], &facts(), Listing::Unfinished);
        assert_eq!(changed.ended.len(), ended, "{protocol:?}");
        let changed = table.change(&[change("other", None)], &facts(), Listing::Unfinished);
        assert_eq!(changed.ended.len(), 0, "nothing was said of it");
        let changed =
            table.change(&[change("web", Some(service(vec![other])))], &facts(), Listing::Unfinished);
        assert_eq!(changed.ended.len(), 1 - ended, "what still served is gone by now");
        assert!(table.lingering.is_empty());
    }
}

#[test]
fn what_is_gone_ends_and_its_addresses_are_told() {
    let mut table = table();
    let service = web(vec![backend("10.244.2.1", false), backend("10.244.2.2", false)]);
    table.change(&[change("web", Some(service))], &facts(), Listing::Complete);
    let fewer = web(vec![backend("10.244.2.2", false)]);
    let changed = table.change(&[change("web", Some(fewer))], &facts(), Listing::Unfinished);
    let addresses: Vec<_> = changed.ended.iter().map(|(_, address)| address.to_string()).collect();
    assert_eq!(addresses, ["10.244.2.1:8080"]);
    let changed = table.change(&[change("web", None)], &facts(), Listing::Unfinished);
    assert_eq!((changed.ended.len(), changed.vips.len()), (1, 3));
    assert!(table.owners.is_empty() && table.vips.is_empty());
    assert_eq!(ask(&table, CLUSTER_IP, POD), Err(Refusal::NotServed));
}

#[test]
fn an_address_asked_for_twice_goes_to_the_first_by_name_and_back() {
    let mut table = table();
    let (a, b) = (backend("10.244.2.1", false), backend("10.244.2.2", false));
    table.change(&[change("b", Some(web(vec![b])))], &facts(), Listing::Complete);
    let changed = table.change(&[change("a", Some(web(vec![a])))], &facts(), Listing::Unfinished);
    assert_eq!(changed.vips.len(), 3, "each is looked at again");
    assert_eq!(ask(&table, CLUSTER_IP, POD), one("10.244.2.1:8080"));
    table.change(&[change("a", None)], &facts(), Listing::Unfinished);
    assert_eq!(ask(&table, CLUSTER_IP, POD), one("10.244.2.2:8080"));
}

#[test]
fn ranges_of_both_families_cover_what_they_should() {
    let within = |range: &str, client: &str| {
        let range: IpNetwork = range.parse().unwrap();
        let mapped = if range.is_ipv4() { 96 } else { 0 };
        covers(range.network().into(), range.prefix() + mapped, client.parse().unwrap())
    };
    assert!(within("0.0.0.0/0", "192.0.2.1") && within("10.0.0.0/8", "10.255.0.1"));
    assert!(!within("10.0.0.0/8", "11.0.0.0") && !within("0.0.0.0/0", "2001:db8::1"));
    assert!(within("::/0", "2001:db8::1") && within("2001:db8::/32", "2001:db8:ffff::"));
    assert!(within("192.0.2.1/32", "192.0.2.1") && !within("192.0.2.1/32", "192.0.2.0"));
}

#[test]
fn a_service_that_chooses_by_table_gives_a_connection_the_backend_that_the_programs_give_it() {
    let mut table = table();
    let backends = || ["10.244.2.1", "10.244.2.2", "10.244.2.3"].map(|it| backend(it, false)).to_vec();
    let by_table = |table: &Table, port| {
        let peer = SocketAddr::new(OUTSIDE.parse().unwrap(), port);
        table.candidates(&vip(NODE_PORT, PROTOCOL_TCP), peer, false).unwrap().by_table
    };
    let service = |choice| Service { choice, ..web(backends()) };
    table.change(&[change("web", Some(service(Choice::Maglev)))], &facts(), Listing::Complete);
    let image = table.planner.image();
    let value = image.vips[&vip(NODE_PORT, PROTOCOL_TCP)];
    let set = &image.sets[&value.outside];
    let places = set.compile_table();
    let mut seen = BTreeSet::new();
    for port in 40_000..40_100 {
        let flow = FlowKey {
            source: OUTSIDE.parse::<IpAddr>().unwrap().into(),
            destination: "10.240.0.11".parse::<IpAddr>().unwrap().into(),
            source_port: u16::to_be(port),
            destination_port: 30080_u16.to_be(),
            protocol: PROTOCOL_TCP,
            ..FlowKey::default()
        };
        let place = hash::reduce(hash::flow(&flow), places.len() as u32);
        let chosen = set.backends[usize::from(places[place as usize]) - 1];
        let chosen = socket_address((chosen.address, chosen.port));
        assert_eq!(by_table(&table, port), Some(chosen), "{port}");
        seen.insert(chosen);
    }
    assert_eq!(seen.len(), 3, "each has its share");
    table.change(&[change("web", Some(service(Choice::Random)))], &facts(), Listing::Complete);
    assert_eq!(by_table(&table, 40_000), None);
    assert!(table.places.is_empty());
}
