//! Any sequence of changes ends where compiling the whole ends, and passes through nothing that dangles.

use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::*;
use crate::image::Endpoint;
use crate::sink::{MapSink, MemoryMaps};
use crate::{Backend, Choice, Desired, Forwarding, Hint, Protocol, compile, diff};

fn address(last: u8) -> IpAddr {
    Ipv4Addr::new(10, 0, 0, last).into()
}

/// Of either family; the same number is the same host.
fn dual(last: u8, six: bool) -> IpAddr {
    let four = Ipv4Addr::new(10, 0, 0, last);
    if six { format!("fd00::{last}").parse().expect("an address") } else { four.into() }
}

fn hint() -> impl Strategy<Value = Hint> {
    prop_oneof![Just(Hint::None), Just(Hint::Here), Just(Hint::Elsewhere)]
}

prop_compose! {
    fn backend()(
        last in 1_u8..12, six: bool, port in 80_u16..83,
        (local, ready, terminating) in any::<(bool, bool, bool)>(),
        node_hint in hint(), zone_hint in hint(),
    ) -> Backend {
        let serving = ready || terminating;
        Backend { address: dual(last, six), port, local, ready, serving, terminating, node_hint, zone_hint }
    }
}

prop_compose! {
    fn service()(
        // Few addresses, so that services ask for the same ones.
        cluster_ips in proptest::collection::vec((100_u8..104, any::<bool>()), 0..3),
        external_ips in proptest::collection::vec((102_u8..107, any::<bool>()), 0..2),
        load_balancer_ips in proptest::collection::vec((104_u8..107, any::<bool>()), 0..2),
        udp: bool,
        node_port in proptest::option::of(30_000_u16..30_003),
        affinity_seconds in proptest::option::of(1_u32..3),
        (internal_local, external_local, limited) in any::<(bool, bool, bool)>(),
        choice in prop_oneof![Just(Choice::Random), Just(Choice::Maglev), Just(Choice::LeastConnections)],
        forwarding in prop_oneof![Just(Forwarding::Snat), Just(Forwarding::Dsr)],
        backends in proptest::collection::vec(backend(), 0..5),
    ) -> Service {
        let all = |addresses: Vec<(u8, bool)>| addresses.into_iter().map(|(last, six)| dual(last, six)).collect();
        Service {
            cluster_ips: all(cluster_ips),
            external_ips: all(external_ips),
            loopbacks: Vec::new(),
            load_balancer_ips: all(load_balancer_ips),
            source_ranges: if limited { vec!["192.0.2.0/24".parse().expect("a range")] } else { vec![] },
            port: 80,
            protocol: if udp { Protocol::Udp } else { Protocol::Tcp },
            node_port, affinity_seconds, internal_local, external_local, choice, forwarding, backends,
        }
    }
}

fn change() -> impl Strategy<Value = ServiceChange> {
    let ports = proptest::collection::btree_map("[xy]", service(), 0..3);
    ("[a-e]", ports).prop_map(|(name, ports)| ServiceChange { namespace: "ns".into(), name, ports })
}

fn facts() -> NodeFacts {
    NodeFacts { node_addresses: vec![address(200), dual(200, true)], never_translated: [address(100)].into() }
}

/// The whole, as it is after some changes.
fn note(desired: &mut Desired, change: &ServiceChange) {
    desired.services.retain(|key, _| key.name != change.name);
    for (key, service) in change.keys().zip(change.ports.values()) {
        desired.services.insert(key, service.clone());
    }
}

fn whole() -> Desired {
    let NodeFacts { node_addresses, never_translated } = facts();
    Desired { node_addresses, never_translated, ..Desired::default() }
}

/// Writes operations one by one; after each the image must be whole.
fn write(maps: &mut MemoryMaps, operations: &[Operation]) -> Result<(), TestCaseError> {
    for operation in operations {
        let before = maps.image.clone();
        let Ok(()) = maps.write(operation);
        prop_assert!(maps.image.is_whole(), "{operation:?}");
        // A number may not lead an address of its former owner to its next one.
        for (key, vip) in &before.vips {
            let (was, is) = (&before.names[&vip.service], maps.image.names.get(&vip.service));
            if maps.image.vips.get(key) == Some(vip) {
                prop_assert_eq!(Some(was), is, "{:?}", operation);
            }
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn changes_one_by_one_end_in_the_image_of_the_whole_and_never_pass_through_a_dangling_one(
        batches in proptest::collection::vec(proptest::collection::vec(change(), 1..4), 1..8),
    ) {
        // Few numbers, so that they are used again and again; enough for all.
        let limits = Limits { services_max: 32, ..Limits::default() };
        let mut planner = Planner::recover(MapImage::default(), &limits);
        let (mut maps, mut desired) = (MemoryMaps::default(), whole());
        for batch in &batches {
            for change in batch {
                planner.change(change, &facts());
                note(&mut desired, change);
            }
            let planned = planner.take();
            let expected = diff(&maps.image, planner.image());
            prop_assert_eq!(&planned.operations, &expected, "nothing is missed, nothing is written twice");
            for (service, gone) in &planned.left.departed {
                let of = |image: &MapImage| -> BTreeSet<Endpoint> {
                    image.sets.range(set_ids(*service)).flat_map(|(_, set)| set.endpoints()).collect()
                };
                let expected: BTreeSet<_> = of(&maps.image).difference(&of(planner.image())).copied().collect();
                prop_assert_eq!(gone, &expected);
            }
            write(&mut maps, &planned.operations)?;
            let compiled = compile(&desired, planner.ids());
            prop_assert_eq!(&maps.image, &compiled.image);
            let mut conflicts: Vec<_> = desired.services.keys().flat_map(|key| planner.conflicts(key)).collect();
            let mut expected = compiled.conflicts;
            conflicts.sort();
            expected.sort();
            prop_assert_eq!(conflicts, expected);
        }
        // When all goes, nothing is left: no number, no claim.
        for name in ["a", "b", "c", "d", "e"] {
            let gone = ServiceChange { namespace: "ns".into(), name: name.into(), ports: BTreeMap::new() };
            planner.change(&gone, &facts());
        }
        write(&mut maps, &planner.take().operations)?;
        prop_assert_eq!(&maps.image, &MapImage::default());
        prop_assert!(planner.claims == 0 && planner.losers.is_empty() && planner.ports.is_empty());
    }

    #[test]
    fn an_agent_that_starts_anew_changes_nothing_and_forgets_only_what_went_meanwhile(
        changes in proptest::collection::vec(change(), 1..6),
        later in proptest::collection::vec(change(), 0..3),
    ) {
        let limits = Limits::default();
        let mut first = Planner::recover(MapImage::default(), &limits);
        let (mut maps, mut desired) = (MemoryMaps::default(), whole());
        for change in &changes {
            first.change(change, &facts());
            note(&mut desired, change);
        }
        write(&mut maps, &first.take().operations)?;

        let say_all = |desired: &Desired, planner: &mut Planner| {
            let names: BTreeSet<_> = desired.services.keys().map(|key| key.name.clone()).collect();
            for name in names {
                let ports = desired.services.iter().filter(|(key, _)| key.name == name);
                let ports = ports.map(|(key, service)| (key.port.clone(), service.clone())).collect();
                planner.change(&ServiceChange { namespace: "ns".into(), name, ports }, &facts());
            }
            planner.drop_unconfirmed();
            planner.take().operations
        };
        let mut second = Planner::recover(maps.image.clone(), &limits);
        prop_assert_eq!(say_all(&desired, &mut second), vec![], "all is there");

        for change in &later {
            note(&mut desired, change);
        }
        let mut third = Planner::recover(maps.image.clone(), &limits);
        write(&mut maps, &say_all(&desired, &mut third))?;
        prop_assert_eq!(&maps.image, &compile(&desired, third.ids()).image);
    }

    #[test]
    fn full_maps_serve_what_fits_and_the_rest_when_there_is_room(
        changes in proptest::collection::vec(change(), 1..12),
        services_max in 2_u32..6,
        vips_max in 1_u32..9,
    ) {
        let limits = Limits { services_max, vips_max, ..Limits::default() };
        let mut planner = Planner::recover(MapImage::default(), &limits);
        let (mut maps, mut desired) = (MemoryMaps::default(), whole());
        for change in &changes {
            planner.change(change, &facts());
            note(&mut desired, change);
            write(&mut maps, &planner.take().operations)?;
            prop_assert!(maps.image.vips.len() <= vips_max as usize);
            prop_assert!(maps.image.names.len() < services_max as usize);
            prop_assert!(planner.waiting().iter().all(|key| desired.services.contains_key(key)));
        }
        // With room for everything the next agent serves everything, of which this one served a part.
        let all = compile(&desired, planner.ids());
        let served = planner.waiting().is_empty();
        prop_assert!(!served || maps.image == all.image);
    }
}

#[test]
fn the_loser_of_an_address_takes_over_when_the_winner_goes() {
    let mut planner = Planner::recover(MapImage::default(), &Limits::default());
    let service = Service { external_ips: vec![address(1)], port: 80, ..Service::default() };
    let change = |name: &str, ports: &[&str]| ServiceChange {
        namespace: "ns".into(),
        name: name.into(),
        ports: ports.iter().map(|port| ((*port).to_owned(), service.clone())).collect(),
    };
    let holder = |planner: &Planner| {
        let vip = planner.image().vips.values().next().expect("an address");
        planner.image().names[&vip.service].to_string()
    };
    planner.change(&change("b", &[""]), &facts());
    assert_eq!(holder(&planner), "ns/b:");
    planner.change(&change("a", &[""]), &facts());
    assert_eq!(holder(&planner), "ns/a:", "the first by name");
    assert_eq!(planner.conflicts(&ServiceKey::new("ns", "b", "")).len(), 1);
    assert_eq!(Vec::from_iter(planner.take_affected()), [Arc::new(ServiceKey::new("ns", "b", ""))]);
    planner.take();
    planner.change(&change("a", &[]), &facts());
    let taken = planner.take();
    assert!(matches!(taken.operations[0], Operation::PutVip(..)), "never unreachable: {taken:?}");
    assert_eq!(holder(&planner), "ns/b:");
    assert_eq!(planner.take_affected().len(), 1, "who got it back is told too");
}

#[test]
fn who_only_names_an_address_never_takes_it_from_whom_it_was_allocated_to() {
    let mut planner = Planner::recover(MapImage::default(), &Limits::default());
    let change = |name: &str, service: Service| ServiceChange {
        namespace: "ns".into(),
        name: name.into(),
        ports: [(String::new(), Service { port: 80, ..service })].into(),
    };
    let names = || Service { external_ips: vec![address(1)], ..Service::default() };
    let has = || Service { cluster_ips: vec![address(1)], ..Service::default() };
    let holder = |planner: &Planner| {
        let vip = planner.image().vips.values().next().expect("an address");
        planner.image().names[&vip.service].name.clone()
    };
    planner.change(&change("a", names()), &facts());
    planner.change(&change("b", has()), &facts());
    assert_eq!(holder(&planner), "b");
    assert_eq!(planner.conflicts(&ServiceKey::new("ns", "a", "")).len(), 1);
    assert_eq!(planner.take_affected().len(), 1, "who lost it without a change is told");
    planner.change(&change("b", names()), &facts());
    assert_eq!(holder(&planner), "a", "both name it: the first by name");
}

#[test]
fn what_waits_for_a_number_gets_it_when_it_is_said_again() {
    let limits = Limits { services_max: 2, ..Limits::default() };
    let mut planner = Planner::recover(MapImage::default(), &limits);
    let service = Service { cluster_ips: vec![address(1)], port: 80, ..Service::default() };
    let change = |name: &str, ports: &[&str]| ServiceChange {
        namespace: "ns".into(),
        name: name.into(),
        ports: ports.iter().map(|port| ((*port).to_owned(), service.clone())).collect(),
    };
    planner.change(&change("a", &[""]), &facts());
    planner.change(&change("b", &[""]), &facts());
    planner.take();
    assert!(!planner.has_room() && planner.waiting().len() == 1);
    planner.change(&change("a", &[]), &facts());
    planner.take();
    assert!(planner.has_room());
    planner.change(&change("b", &[""]), &facts());
    assert!(planner.waiting().is_empty() && planner.served() == 1);
}
