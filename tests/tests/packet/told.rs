//! Those who watch are told what becomes of packets; nobody else is.
//!
//! ```text
//!   client ── 10.240.0.1:40000 > 10.240.0.11:30080 ──> eth0 ── > 10.244.1.2:8080 ──> pod   told: translated
//!   client ── 10.240.0.1:40000 > 10.240.0.11:30081 ──> eth0 ── unchanged ─────────> node  told: refused
//!   pod    ── 10.244.1.2:40000 > 10.96.0.8:80      ──> pod0 ── dropped                    told: dropped
//!   pod    ── 10.244.1.2:40000 > 192.0.2.9:53      ──> eth0 ── 10.240.0.11:… > …          told: masqueraded
//! ```

use penstock_dataplane::{DataplaneError, Detail, Seen, Verdict, Watcher};
use penstock_tests::packet::{Packet, SYN, Transport};

use crate::{At, Node, on_node};

const SERVICES: &str = "
  demo/web:
    cluster_ips: [10.96.0.7]
    port: 80
    node_port: 30080
    backends: [{ address: 10.244.1.2, port: 8080, local: true }]
  demo/nobody:
    cluster_ips: [10.96.0.8]
    port: 80
    node_port: 30081
";

fn watch(node: &Node, detail: Detail) -> Watcher {
    Watcher::open(node.stand().bpffs(), detail).expect("a place to watch from")
}

fn told(watcher: &mut Watcher) -> Vec<Seen> {
    std::iter::from_fn(|| watcher.take()).collect()
}

fn verdicts(watcher: &mut Watcher) -> Vec<(Verdict, &'static str)> {
    told(watcher).into_iter().map(|seen| (seen.verdict, seen.what)).collect()
}

fn syn(from: &str, to: &str) -> Packet {
    Packet::new(Transport::Tcp(SYN), from, to)
}

#[test]
fn what_begins_is_refused_or_dropped_is_told_with_its_addresses() {
    on_node(SERVICES, |node| {
        let mut watcher = watch(node, Detail::Flows);
        let asked = syn("10.240.0.1:40000", "10.240.0.11:30080");
        for _ in 0..3 {
            node.run(At::Uplink, &asked);
        }
        let seen = told(&mut watcher);
        let [first] = &seen[..] else { panic!("one flow, told once: {seen:?}") };
        assert_eq!((first.verdict, first.what), (Verdict::Translated, "flow_created"));
        assert_eq!(first.source.map(|it| it.to_string()).as_deref(), Some("10.240.0.1:40000"));
        assert_eq!(first.destination.to_string(), "10.240.0.11:30080");
        assert_eq!(first.to_destination.map(|it| it.to_string()).as_deref(), Some("10.244.1.2:8080"));
        assert_eq!((first.protocol, first.netns, first.ifindex), (6, None, Some(node.uplink)));
        let service = first.service.and_then(|number| watcher.service(number));
        assert_eq!(service.as_deref(), Some("demo/web:"));

        node.run(At::Uplink, &syn("10.240.0.1:40000", "10.240.0.11:30081"));
        assert_eq!(verdicts(&mut watcher), [(Verdict::Refused, "uplink_refused")]);
        node.run(At::Pod, &syn("10.244.1.2:40000", "10.96.0.8:80"));
        assert_eq!(verdicts(&mut watcher), [(Verdict::Dropped, "no_backend")]);
        node.run(At::Leaving, &syn("10.244.1.2:40000", "192.0.2.9:53"));
        let seen = told(&mut watcher);
        assert_eq!((seen[0].verdict, seen[0].service), (Verdict::Masqueraded, None));
        assert_eq!(seen[0].to_source.map(|it| it.ip().to_string()).as_deref(), Some("10.240.0.11"));
        assert_eq!(watcher.missed().expect("a count"), 0);
    });
}

#[test]
fn every_packet_is_told_to_who_wants_them_and_not_to_others() {
    on_node(SERVICES, |node| {
        let (mut flows, mut packets) = (watch(node, Detail::Flows), watch(node, Detail::Packets));
        let asked = syn("10.240.0.1:40000", "10.240.0.11:30080");
        node.run(At::Uplink, &asked);
        node.run(At::Uplink, &asked);
        let (begun, told) = ((Verdict::Translated, "flow_created"), (Verdict::Translated, "uplink_to_local"));
        assert_eq!(verdicts(&mut flows), [begun]);
        assert_eq!(verdicts(&mut packets), [begun, told, told]);
    });
}

#[test]
fn a_watcher_that_leaves_makes_room_and_too_many_are_turned_away() {
    on_node(SERVICES, |node| {
        let renew = |watchers: &mut Vec<Watcher>| {
            watchers.iter_mut().for_each(|watcher| watcher.renew().expect("renewed"));
        };
        let mut watchers = Vec::new();
        for _ in 0..4 {
            renew(&mut watchers);
            watchers.push(watch(node, Detail::Flows));
        }
        renew(&mut watchers);
        let refused = Watcher::open(node.stand().bpffs(), Detail::Flows).map(drop);
        assert!(matches!(refused, Err(DataplaneError::Watched { watchers_max: 4 })), "{refused:?}");
        watchers.remove(1);
        watchers.push(watch(node, Detail::Flows));
        renew(&mut watchers);
        node.run(At::Uplink, &syn("10.240.0.1:40000", "10.240.0.11:30080"));
        for watcher in &mut watchers {
            assert_eq!(verdicts(watcher).len(), 1);
        }
    });
}

#[test]
fn what_finds_no_room_is_counted() {
    on_node(SERVICES, |node| {
        let watcher = watch(node, Detail::Packets);
        let dropped = syn("10.244.1.2:40000", "10.96.0.8:80");
        // Nobody reads: a megabyte holds fewer of them.
        for _ in 0..12_000 {
            node.run_frame(At::Pod, &dropped.bytes());
        }
        let missed = watcher.missed().expect("a count");
        assert!(missed > 0 && missed < 12_000, "{missed}");
        assert_eq!(node.counters().drops["no_backend"], 12_000, "counted all the same");
    });
}
