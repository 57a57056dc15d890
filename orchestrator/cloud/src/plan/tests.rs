//! Who gets which address: every rule of the plan by an example.

use super::*;

fn pool(name: &str, ranges: &[&str]) -> Pool {
    let ranges = ranges.iter().map(|text| Range::parse(text).unwrap()).collect();
    Pool { name: name.into(), ranges, auto_assign: true }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn request(service: &str) -> Request {
    let claim = Claim { ports: [("TCP".to_owned(), 80)].into(), ..Claim::default() };
    Request { service: service.into(), ipv4: true, claim, ..Request::default() }
}

/// Plans and notes, as the controller does.
fn give(pools: &[Pool], ledger: &mut Ledger, request: &Request) -> Result<Vec<IpAddr>, Refusal> {
    let addresses = plan_addresses(pools, ledger, request)?;
    ledger.set(&request.service, &addresses, &request.claim);
    Ok(addresses)
}

#[test]
fn addresses_are_given_once_kept_and_given_back() {
    let pools = [pool("a", &["192.0.2.1-192.0.2.2"])];
    let mut ledger = Ledger::default();
    assert_eq!(give(&pools, &mut ledger, &request("ns/a")).unwrap(), [ip("192.0.2.1")]);
    assert_eq!(give(&pools, &mut ledger, &request("ns/b")).unwrap(), [ip("192.0.2.2")]);
    let refusal = give(&pools, &mut ledger, &request("ns/c")).unwrap_err();
    assert_eq!(refusal.reason(), "AddressPoolExhausted");
    assert_eq!(refusal.to_string(), "all IPv4 addresses of address pool a are in use");
    assert!(ledger.release("ns/a"));
    assert!(!ledger.release("ns/a"));
    assert_eq!(give(&pools, &mut ledger, &request("ns/c")).unwrap(), [ip("192.0.2.1")]);
    assert_eq!(ledger.used(&pools[0].ranges), 2);
}

#[test]
fn after_a_restart_every_service_keeps_what_its_status_says() {
    let pools = [pool("a", &["192.0.2.0/28"])];
    let mut ledger = Ledger::default();
    let mut second = request("ns/b");
    second.has = vec![ip("192.0.2.9")];
    ledger.set("ns/b", &second.has, &second.claim);
    assert_eq!(plan_addresses(&pools, &ledger, &second).unwrap(), second.has);
    assert_eq!(plan_addresses(&pools, &ledger, &request("ns/a")).unwrap(), [ip("192.0.2.1")]);
}

#[test]
fn an_address_that_left_its_pool_is_replaced() {
    let mut moved = request("ns/a");
    moved.has = vec![ip("198.51.100.1")];
    let pools = [pool("a", &["192.0.2.0/28"])];
    assert_eq!(plan_addresses(&pools, &Ledger::default(), &moved).unwrap(), [ip("192.0.2.1")]);
}

#[test]
fn a_wanted_address_must_be_in_a_pool_and_free() {
    let pools = [pool("a", &["192.0.2.0/28"])];
    let mut ledger = Ledger::default();
    let mut wants = request("ns/a");
    wants.wanted = Some(ip("192.0.2.7"));
    assert_eq!(give(&pools, &mut ledger, &wants).unwrap(), [ip("192.0.2.7")]);
    wants.service = "ns/b".into();
    assert_eq!(give(&pools, &mut ledger, &wants).unwrap_err().reason(), "AddressInUse");
    wants.wanted = Some(ip("203.0.113.1"));
    assert_eq!(give(&pools, &mut ledger, &wants).unwrap_err().reason(), "AddressNotInPool");
}

#[test]
fn a_pool_is_used_by_name_or_given_by_itself() {
    let mut reserved = pool("reserved", &["198.51.100.0/30"]);
    reserved.auto_assign = false;
    let ledger = Ledger::default();
    let mut named = request("ns/a");
    named.pool = Some("reserved".into());
    let pools = [reserved.clone(), pool("z", &["192.0.2.0/28"])];
    assert_eq!(plan_addresses(&pools, &ledger, &named).unwrap(), [ip("198.51.100.1")]);
    assert_eq!(plan_addresses(&pools, &ledger, &request("ns/b")).unwrap(), [ip("192.0.2.1")]);
    let only = plan_addresses(&[reserved], &ledger, &request("ns/b")).unwrap_err();
    assert!(only.to_string().contains("autoAssign"), "{only}");
    let none = plan_addresses(&[], &ledger, &request("ns/b")).unwrap_err();
    assert_eq!(none.to_string(), "there is no address pool with IPv4 addresses; create an AddressPool");
    named.pool = Some("gone".into());
    assert_eq!(
        plan_addresses(&pools, &ledger, &named).unwrap_err().to_string(),
        "there is no address pool named gone"
    );
}

#[test]
fn both_families_are_given_or_none() {
    let mut both = request("ns/a");
    both.ipv6 = true;
    let ledger = Ledger::default();
    let pools = [pool("a", &["192.0.2.0/28", "2001:db8::10-2001:db8::1f"])];
    assert_eq!(plan_addresses(&pools, &ledger, &both).unwrap(), [ip("192.0.2.1"), ip("2001:db8::10")]);
    let refusal = plan_addresses(&[pool("a", &["192.0.2.0/28"])], &ledger, &both).unwrap_err();
    assert!(refusal.to_string().contains("IPv6"), "{refusal}");
}

#[test]
fn services_share_an_address_by_key_with_ports_of_their_own() {
    let pools = [pool("a", &["192.0.2.0/28"])];
    let mut ledger = Ledger::default();
    let sharing = |service: &str, port: i32| {
        let mut request = request(service);
        request.claim.sharing_key = Some("front".into());
        request.claim.ports = [("TCP".to_owned(), port)].into();
        request
    };
    let first = give(&pools, &mut ledger, &sharing("ns/web", 80)).unwrap();
    assert_eq!(give(&pools, &mut ledger, &sharing("ns/tls", 443)).unwrap(), first);
    assert_ne!(give(&pools, &mut ledger, &sharing("ns/web2", 80)).unwrap(), first, "the port is taken there");
    let mut wants = sharing("ns/web3", 80);
    wants.wanted = Some(first[0]);
    let refusal = give(&pools, &mut ledger, &wants).unwrap_err();
    assert!(refusal.to_string().contains("both use the same port"), "{refusal}");
    let mut local = sharing("ns/local", 8080);
    local.claim.local_only = true;
    assert_ne!(give(&pools, &mut ledger, &local).unwrap(), first);
    assert_eq!(ledger.used(&pools[0].ranges), 3, "a shared address is one address");
}
