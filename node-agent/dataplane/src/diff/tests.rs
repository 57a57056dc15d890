//! Which operations there are for which change.

use std::net::IpAddr;

use penstock_ebpf_common::Backend;

use super::*;
use crate::image::{Family, Scope, set_id};

fn backend(last: u8) -> Backend {
    Backend { address: IpAddr::from([10, 0, 0, last]).into(), port: 80, local: 0, id: last.into() }
}

fn image(backends: &[u8]) -> MapImage {
    let (service, id) = (1, set_id(1, Family::V4, Scope::Cluster));
    let set = Set { backends: backends.iter().map(|last| backend(*last)).collect(), ..Set::default() };
    MapImage {
        names: [(service, Arc::new(ServiceKey::new("ns", "a", "")))].into(),
        sets: [(id, set)].into(),
        vips: [(VipKey::default(), VipValue { service, inside: id, ..VipValue::default() })].into(),
        ..MapImage::default()
    }
}

#[test]
fn what_is_pointed_at_comes_first_and_goes_last() {
    use Operation::*;
    let (none, one) = (MapImage::default(), image(&[1]));
    assert!(matches!(diff(&none, &one)[..], [PutName(..), PutSet(..), PutVip(..)]));
    assert!(matches!(diff(&one, &none)[..], [DeleteVip(..), DeleteSet(..), DeleteName(..)]));
}

#[test]
fn other_backends_are_one_new_set() {
    assert!(matches!(diff(&image(&[1]), &image(&[2]))[..], [Operation::PutSet(..)]));
    assert_eq!(diff(&image(&[1]), &image(&[1])), []);
}

#[test]
fn a_backend_departs_when_no_set_of_its_service_has_it_any_more() {
    let (before, mut now) = (image(&[1, 2]), image(&[2]));
    let departed = |now: &MapImage| {
        let mut dirty = Dirty::default();
        dirty.touch_set(set_id(1, Family::V4, Scope::Cluster), &before);
        dirty.planned(now).left.departed
    };
    let gone = backend(1);
    assert_eq!(departed(&now), [(1, [(gone.address, gone.port)].into())].into());
    now.sets.insert(
        set_id(1, Family::V4, Scope::Local),
        Set { backends: vec![backend(1)], ..Set::default() },
    );
    assert_eq!(departed(&now), [].into());
}

#[test]
fn a_backend_is_unkept_when_its_set_loses_it_or_clients_keep_nothing_any_more() {
    let id = set_id(1, Family::V4, Scope::Cluster);
    let of = |backends: &[u8], affinity_seconds: u32| {
        let mut image = image(backends);
        image.sets.get_mut(&id).unwrap().affinity_seconds = affinity_seconds;
        image
    };
    let unkept = |before: &MapImage, now: &MapImage| {
        let mut dirty = Dirty::default();
        dirty.touch_set(id, before);
        let unkept = dirty.planned(now).left.unkept;
        assert!(unkept.keys().all(|set| *set == id));
        unkept.into_values().flatten().map(|(address, _)| address).collect::<Vec<_>>()
    };
    let at = |last| backend(last).address;
    assert_eq!(unkept(&of(&[1, 2], 60), &of(&[2, 3], 60)), [at(1)]);
    assert_eq!(unkept(&of(&[1, 2], 60), &of(&[1, 2], 90)), []);
    assert_eq!(unkept(&of(&[1, 2], 60), &of(&[2], 0)), [at(1), at(2)], "no affinity any more");
    assert_eq!(unkept(&of(&[1, 2], 60), &MapImage::default()), [at(1), at(2)], "no service any more");
    assert_eq!(unkept(&of(&[1, 2], 0), &of(&[2], 60)), [], "nobody kept any");
}
