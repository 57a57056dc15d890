//! Properties of the order of operations, on random clusters.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use proptest::prelude::*;

use super::*;
use crate::ids::Ids;
use crate::sink::{MapSink, MemoryMaps};
use crate::{Backend, Desired, Limits, Protocol, Service, ServiceKey, compile};

fn address(last: u8) -> IpAddr {
    Ipv4Addr::new(10, 0, 0, last).into()
}

prop_compose! {
    fn backend()(last in 1_u8..12, port in 80_u16..83, local: bool, ready: bool, terminating: bool) -> Backend {
        Backend { address: address(last), port, local, ready, serving: ready || terminating, terminating, node: None }
    }
}

prop_compose! {
    fn service()(
        vip in 100_u8..106,
        udp: bool,
        node_port in proptest::option::of(30_000_u16..30_003),
        affinity_seconds in proptest::option::of(1_u32..3),
        (internal_local, external_local) in any::<(bool, bool)>(),
        backends in proptest::collection::vec(backend(), 0..5),
    ) -> Service {
        let protocol = if udp { Protocol::Udp } else { Protocol::Tcp };
        let cluster_ips = vec![address(vip)];
        Service { cluster_ips, port: 80, protocol, node_port, affinity_seconds, internal_local, external_local, backends, ..Service::default() }
    }
}

fn desired() -> impl Strategy<Value = Desired> {
    proptest::collection::btree_map("[a-e]", service(), 0..5).prop_map(|services| Desired {
        services: services
            .into_iter()
            .map(|(name, service)| (ServiceKey::new("ns", name, ""), service))
            .collect::<BTreeMap<_, _>>(),
        node_addresses: vec![address(200)],
        ..Desired::default()
    })
}

proptest! {
    #[test]
    fn the_operations_lead_from_one_image_to_the_other_and_never_through_a_dangling_one(
        steps in proptest::collection::vec(desired(), 1..5),
    ) {
        // Few numbers, so that they are used again and again.
        let mut ids = Ids::new(&Limits { services_max: 8, ..Limits::default() });
        let mut maps = MemoryMaps::default();
        for step in steps {
            let compiled = compile(&step, &ids);
            prop_assert!(compiled.image.is_whole());
            for operation in diff(&maps.image, &compiled.image) {
                let before = maps.image.clone();
                let Ok(()) = maps.write(&operation);
                prop_assert!(maps.image.is_whole(), "{operation:?}");
                // A number may not lead an address of its former owner to its next one.
                for (key, vip) in &before.vips {
                    let (was, is) = (&before.names[&vip.service], maps.image.names.get(&vip.service));
                    if maps.image.vips.get(key) == Some(vip) {
                        prop_assert_eq!(Some(was), is, "{:?}", operation);
                    }
                }
            }
            prop_assert_eq!(&maps.image, &compiled.image);
            ids = compiled.ids;
        }
    }

    #[test]
    fn compiling_again_changes_nothing(step in desired()) {
        let first = compile(&step, &Ids::new(&Limits::default()));
        let second = compile(&step, &first.ids);
        prop_assert_eq!(diff(&first.image, &second.image), vec![]);
    }

    #[test]
    fn an_agent_that_starts_anew_finds_the_numbers_again(step in desired()) {
        let limits = Limits::default();
        let first = compile(&step, &Ids::new(&limits));
        let second = compile(&step, &Ids::recover(&first.image, &limits));
        prop_assert_eq!(diff(&first.image, &second.image), vec![]);
    }
}
