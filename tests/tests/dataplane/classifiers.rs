//! Programs at interfaces as classifiers, which kernels without tcx links have: also on kernels that have those, where a
//! test asks for it. In the world of [`super::nodeport`], and under the load of [`super::survival`].

use std::cell::RefCell;
use std::time::Instant;

use penstock_dataplane::{Dataplane, Lack, PodLink, Tc, TcKind, Xdp, observe_tc};
use penstock_tests::dataplane::desired;
use penstock_tests::netns::{ifindex, tc};

use super::nodeport::{SERVICES, World, in_world_with};
use super::survival::{larger, services, under_load, with_echo_by};
use crate::ask;

/// A filter that takes no packet, by which others show up.
const OTHERS: &str = "protocol all bpf bytecode \"1,6 0 0 0,\" flowid 1:1";

/// What ours are called there.
const OURS: &str = "penstock:";

fn load(world: &World, tc: Tc) -> Dataplane {
    let mut options = world.stand.options().clone();
    options.tc = tc;
    Dataplane::load(options).expect("loaded")
}

/// All filters of an interface.
fn filters(interface: &str) -> String {
    ["ingress", "egress"]
        .map(|side| tc(&format!("filter show dev {interface} {side}")).expect("filters"))
        .concat()
}

/// How many of ours an interface has.
fn ours(interface: &str) -> usize {
    filters(interface).matches(OURS).count()
}

fn has_clsact(interface: &str) -> bool {
    tc(&format!("qdisc show dev {interface}")).expect("disciplines").contains("clsact")
}

#[test]
fn traffic_goes_on_while_agents_die_restart_and_are_upgraded() {
    with_echo_by(Xdp::Generic, Tc::Classifiers, |world| {
        under_load(world, |_| {
            let limits = world.dataplane.limits();
            let started = Instant::now();
            let again = world.stand.load_with(limits);
            let whole = started.elapsed();
            assert_eq!(again.tc(), TcKind::Classifiers);
            assert_eq!(again.apply(&desired(&services())).expect("applied").operations, 0, "all was kept");
            drop(again);
            for part in 1..=4 {
                world.stand.load_and_kill(limits, whole.mul_f64(f64::from(part) / 4.0));
            }
            // Programs that know two sets of maps take the place of those that know one, and others the place of theirs.
            let again = world.stand.load_with(larger(limits, 2));
            assert_eq!(again.apply(&desired(&services())).expect("applied").operations, 0, "all was kept");
        });
        assert_eq!((ours("eth0"), ours("pod0")), (2, 2), "{}{}", filters("eth0"), filters("pod0"));
        assert!(world.event("uplink_to_local") > 0 && world.event("pod_replied") > 0, "they serve");
    });
}

#[test]
fn nothing_is_left_of_them_once_they_are_taken_off() {
    in_world_with(Xdp::Generic, Tc::Classifiers, |world| {
        assert_eq!(
            world.outside.run(|| ask("10.240.0.11:30080")).split(' ').nth(2),
            Some("10.240.0.11:30080")
        );
        assert_eq!(observe_tc(world.stand.bpffs()).expect("seen"), Some(TcKind::Classifiers));
        let pod = ifindex("pod0").expect("a pod's link");
        world.dataplane.detach_pod(pod).expect("detached");
        assert!(!has_clsact("pod0") && ours("pod0") == 0);
        world.dataplane.detach_pod(pod).expect("there is none");
        assert!(has_clsact("eth0"));
        assert!(penstock_dataplane::detach(world.stand.bpffs()).expect("detached") > 2);
        assert!(!has_clsact("eth0"));
        assert_eq!(observe_tc(world.stand.bpffs()).expect("seen"), None);
        assert_eq!(penstock_dataplane::detach(world.stand.bpffs()).expect("nothing to do"), 0);
    });
}

#[test]
fn filters_and_disciplines_of_others_are_left_alone() {
    in_world_with(Xdp::Off, Tc::Classifiers, |world| {
        // Beside ours, in what we have made.
        tc(&format!("filter add dev eth0 ingress prio 3 {OTHERS}")).expect("another's filter");
        // In what another has made.
        let pod = ifindex("pod0").expect("a pod's link");
        world.dataplane.detach_pod(pod).expect("detached");
        tc("qdisc add dev pod0 clsact").expect("another's discipline");
        let link = PodLink { ifindex: pod, addresses: vec![[10, 244, 1, 2].into()], pod_mac: [0; 6] };
        world.dataplane.attach_pod(&link).expect("attached");
        assert_eq!((ours("eth0"), ours("pod0")), (2, 2));

        let again = world.stand.load();
        assert_eq!(again.apply(&desired(SERVICES)).expect("applied").operations, 0);
        let answers: Vec<_> = world.outside.run(|| (0..32).map(|_| ask("10.240.0.11:30080")).collect());
        assert!(answers.iter().all(|answer| answer.ends_with("as 10.240.0.11:30080")), "{answers:?}");
        assert!(filters("eth0").contains("bytecode"), "{}", filters("eth0"));

        penstock_dataplane::detach(world.stand.bpffs()).expect("detached");
        assert_eq!((ours("eth0"), ours("pod0")), (0, 0));
        assert!(filters("eth0").contains("bytecode"), "it is still used");
        assert!(has_clsact("eth0") && has_clsact("pod0"), "somebody else's");
    });
}

#[test]
fn what_cannot_be_shared_is_refused_and_named() {
    in_world_with(Xdp::Off, Tc::Classifiers, |world| {
        let refusal = || {
            let refused = Dataplane::load(world.stand.options().clone()).expect_err("refused");
            let text = anyhow::Error::from(refused);
            format!("{text:#}")
        };
        penstock_dataplane::detach(world.stand.bpffs()).expect("detached");
        tc("qdisc add dev eth0 ingress").expect("a discipline of one direction");
        assert!(refusal().contains("clsact"), "{}", refusal());
        tc("qdisc del dev eth0 ingress").expect("removed");

        tc("qdisc add dev eth0 clsact").expect("a discipline");
        tc(&format!("filter add dev eth0 egress prio 0x70 handle 0x7073 {OTHERS}"))
            .expect("a filter in our place");
        assert!(refusal().contains("somebody else"), "{}", refusal());
        assert!(filters("eth0").contains("bytecode"), "it was not replaced");
    });
}

#[test]
fn one_way_takes_the_place_of_the_other_and_nothing_is_lost() {
    with_echo_by(Xdp::Off, Tc::Classifiers, |world| {
        if world.dataplane.lacks().contains(&Lack::Links) {
            println!(
                "SKIPPED: this kernel has no tcx links (Linux 6.6) that classifiers could take turns with"
            );
            return;
        }
        // The discipline stays while its interface is in service: with it the kernel would lose what is being sent.
        under_load(world, |rounds| {
            for (tc, kind, left) in [
                (Tc::Auto, TcKind::Links, 0),
                (Tc::Classifiers, TcKind::Classifiers, 2),
                (Tc::Links, TcKind::Links, 0),
            ] {
                assert_eq!(load(world, tc).tc(), kind);
                assert_eq!(observe_tc(world.stand.bpffs()).expect("seen"), Some(kind));
                assert_eq!((ours("eth0"), ours("pod0")), (left, left), "{tc:?}");
                let then = rounds() + 5;
                crate::wait_until("there is more traffic", || rounds() > then);
            }
        });
        assert!(has_clsact("eth0") && has_clsact("pod0"));
        penstock_dataplane::detach(world.stand.bpffs()).expect("detached");
        assert!(!has_clsact("eth0") && !has_clsact("pod0"), "it goes with the rest");
    });
}

/// Takes everything off that the agent has put to interfaces and sockets, as by mistake.
fn take_off(world: &World) {
    for interface in ["eth0", "pod0"] {
        // Where there are links there is no discipline.
        let _ = tc(&format!("qdisc del dev {interface} clsact"));
    }
    // Links go with their last pin.
    for link in std::fs::read_dir(world.stand.bpffs().join("links")).expect("links").flatten() {
        std::fs::remove_file(link.path()).expect("removed");
    }
}

#[test]
fn what_somebody_took_off_is_put_back_and_told_once() {
    for kind in [Tc::Auto, Tc::Classifiers] {
        in_world_with(Xdp::Generic, kind, |world| {
            let served = |event: &str| {
                let before = world.event(event);
                let answer = world.outside.run(|| ask("10.240.0.11:30080"));
                answer.ends_with("as 10.240.0.11:30080") && world.event(event) > before
            };
            assert!(served("flow_created"));
            let none = world.dataplane.restore();
            assert!(none.back.is_empty() && none.missing.is_empty(), "{none:?}");

            take_off(world);
            // An XDP link that only lost its pin leaves its place a little later, and takes no other meanwhile.
            let back = RefCell::new(Vec::new());
            crate::wait_until("all of it is back", || {
                let restored = world.dataplane.restore();
                back.borrow_mut().extend(restored.back);
                restored.missing.is_empty()
            });
            let back = back.into_inner();
            for place in [
                "uplink_egress",
                "uplink_ingress",
                "pod_ingress",
                "pod_egress",
                "uplink_xdp",
                "connect4",
                "bind6",
            ] {
                assert_eq!(back.iter().filter(|it| it.starts_with(place)).count(), 1, "{place} in {back:?}");
            }
            assert_eq!(back.len(), 5 + 11, "{back:?}");
            assert!(world.dataplane.restore().back.is_empty(), "once");
            crate::wait_until("they serve again", || served("flow_created") && served("pod_replied"));
            let asked = world.stand.in_cgroup(|| ask("10.96.0.7:80"));
            assert!(asked.ends_with(" as 10.96.0.7:80"), "{asked}");

            // What was taken off by the agent itself stays off.
            world.dataplane.detach_pod(ifindex("pod0").expect("a pod's link")).expect("detached");
            assert!(world.dataplane.restore().back.is_empty());
        });
    }
}

#[test]
fn a_place_that_cannot_be_put_right_is_named_and_keeps_no_other_from_it() {
    in_world_with(Xdp::Off, Tc::Classifiers, |world| {
        tc("qdisc del dev eth0 clsact").expect("removed");
        tc("qdisc del dev pod0 clsact").expect("removed");
        tc("qdisc add dev eth0 ingress").expect("somebody else's");
        let restored = world.dataplane.restore();
        assert_eq!(restored.missing.len(), 1, "{restored:?}");
        assert!(restored.missing[0].0.starts_with("uplink_egress"), "{restored:?}");
        assert_eq!(restored.back.len(), 3, "{restored:?}");
        assert_eq!(ours("pod0"), 2);
        tc("qdisc del dev eth0 ingress").expect("removed");
        let restored = world.dataplane.restore();
        assert!(restored.missing.is_empty(), "{restored:?}");
        assert_eq!(ours("eth0"), 2);
    });
}
