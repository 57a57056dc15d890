//! What observers are told of packets: the right verdict for each thing that can become of one, and nothing when nobody
//! listens.
//!
//! ```text
//!   packet ──> program ── counted ──> told, if anybody observes ──> each observer's own ring buffer
//! ```

use std::time::Duration;

use penstock_dataplane::{OBSERVER_TIME, Observer, Verdict, Wanted, is_observed};
use penstock_ebpf_common::{Point, Reason, TOLD_FIRST, Told};
use penstock_tests::packet::{ACK, Packet, SYN, Transport, at};

use crate::{At, Node, on_node};

/// Of the client in every test.
const PORT: u16 = 40_000;

const SERVICES: &str = "
  demo/nobody:
    cluster_ips: [10.96.0.7]
    port: 80
    node_port: 30081
  demo/far:
    cluster_ips: [10.96.0.8]
    port: 80
    node_port: 30080
    backends: [{ address: 10.244.2.3, port: 8080 }]
  demo/near:
    cluster_ips: [10.96.0.9]
    port: 80
    backends: [{ address: 10.244.1.2, port: 8080, local: true }]
    node_port: 30090
";

fn observe(node: &Node, sample: u32) -> Observer {
    let wanted = Wanted { verdicts: Verdict::ALL.to_vec(), sample };
    Observer::open(node.stand().bpffs(), wanted).expect("an observer")
}

/// All that is told of the tests' packets; the kernel sends some of its own.
fn all_told(observer: &mut Observer) -> Vec<Told> {
    let is_ours = |told: &Told| {
        told.verdict == Verdict::Dropped as u8
            || [told.source_port, told.destination_port].contains(&PORT.to_be())
            || [told.new_source_port, told.new_destination_port].contains(&PORT.to_be())
    };
    std::iter::from_fn(|| observer.next_told()).filter(is_ours).collect()
}

/// The only thing told.
fn only(observer: &mut Observer) -> Told {
    let told = all_told(observer);
    assert_eq!(told.len(), 1, "one thing is told of one packet: {told:?}");
    told[0]
}

#[test]
fn each_verdict_is_told_with_where_it_was_met_and_what_it_became() {
    on_node(SERVICES, |node| {
        let mut observer = observe(node, 1);
        let tcp = |flags, from: &str, to: &str| Packet::new(Transport::Tcp(flags), from, to);
        let far = tcp(SYN, "10.240.0.1:40000", "10.240.0.11:30080");
        let cases = [
            (At::Pod, tcp(SYN, "10.244.1.2:40000", "10.96.0.8:80"), Verdict::Translated, Point::Pod),
            (At::Uplink, far.clone(), Verdict::Translated, Point::Uplink),
            (At::Uplink, tcp(SYN, "10.240.0.1:40000", "10.240.0.11:30081"), Verdict::Refused, Point::Uplink),
            (At::Pod, tcp(SYN, "10.244.1.2:40000", "10.96.0.7:80"), Verdict::Dropped, Point::Pod),
            (At::Leaving, tcp(SYN, "10.244.1.2:40000", "192.0.2.1:80"), Verdict::Masqueraded, Point::Leaving),
            (At::Pod, tcp(ACK, "10.244.1.2:40000", "10.244.2.3:80"), Verdict::Passed, Point::Pod),
        ];
        for (place, packet, verdict, point) in cases {
            let (_, becomes) = node.run(place, &packet);
            let told = only(&mut observer);
            assert_eq!((told.verdict, told.point), (verdict as u8, point as u8), "{packet:?}");
            assert_eq!(std::net::IpAddr::from(told.source), packet.source.ip());
            assert_eq!(u16::from_be(told.destination_port), packet.destination.port());
            if becomes != packet {
                assert_eq!(std::net::IpAddr::from(told.new_source), becomes.source.ip());
                assert_eq!(u16::from_be(told.new_source_port), becomes.source.port());
                assert_eq!(std::net::IpAddr::from(told.new_destination), becomes.destination.ip());
            }
            assert_eq!((told.netns, told.pid), (0, 0));
        }
        // The answer to what went far: by the address that the packet left with.
        let (_, sent) = node.run(At::Uplink, &far);
        let _ = only(&mut observer);
        node.run(At::Uplink, &sent.reply());
        let told = only(&mut observer);
        assert_eq!(told.verdict, Verdict::Replied as u8);
        assert_eq!(u16::from_be(told.new_destination_port), 40_000);
    });
}

#[test]
fn each_reason_that_a_packet_here_can_be_dropped_for_is_told() {
    on_node(SERVICES, |node| {
        let mut observer = observe(node, 0);
        let mut expect = |reason: Reason, place, frame: &[u8]| {
            node.run_frame(place, frame);
            let told = only(&mut observer);
            assert_eq!((told.verdict, told.reason), (Verdict::Dropped as u8, reason as u8), "{reason:?}");
        };
        let syn = |from: &str, to: &str| Packet::new(Transport::Tcp(SYN), from, to);
        expect(Reason::NoBackend, At::Pod, &syn("10.244.1.2:40000", "10.96.0.7:80").bytes());
        let martian = syn("127.0.0.1:40000", "10.240.0.11:30080");
        expect(Reason::MartianSource, At::Uplink, &martian.bytes());
        let far = syn("10.240.0.1:40000", "10.240.0.11:30080");
        expect(Reason::HopsExceeded, At::Uplink, &far.bytes_with_hops(1));
        let cut = Packet::new(Transport::Udp, "10.240.0.1:1", "10.96.0.9:80");
        let frames = penstock_tests::packet::fragments(&Packet { payload: vec![0; 3000], ..cut }, 7, 1400);
        expect(Reason::Fragment, At::Uplink, &frames[1]);
    });
}

#[test]
fn of_a_flow_the_first_packet_is_told_and_the_others_only_when_asked_for() {
    on_node(SERVICES, |node| {
        let (mut firsts, mut all) = (observe(node, 0), observe(node, 1));
        let syn = Packet::new(Transport::Tcp(SYN), "10.240.0.1:40000", "10.240.0.11:30090");
        node.run(At::Uplink, &syn);
        for _ in 0..3 {
            node.run(At::Uplink, &Packet { transport: Transport::Tcp(ACK), ..syn.clone() });
        }
        assert_eq!(only(&mut firsts).flags & TOLD_FIRST, TOLD_FIRST);
        // The first may have been seen by the program at XDP: to the one at tc its flow is not new.
        let flags: Vec<_> = all_told(&mut all).iter().map(|told| told.flags & TOLD_FIRST).collect();
        assert!(flags.len() == 4 && flags[1..] == [0, 0, 0], "{flags:?}");
        assert_eq!(at("10.240.0.11:30090"), syn.destination);
    });
}

#[test]
fn who_reads_too_slowly_is_told_how_much_was_lost_and_holds_nobody_up() {
    on_node(SERVICES, |node| {
        let (mut slow, mut fast) = (observe(node, 1), observe(node, 1));
        let syn = Packet::new(Transport::Tcp(SYN), "10.244.1.2:40000", "10.96.0.7:80").bytes();
        let mut read = 0;
        for _ in 0..9_000 {
            node.run_frame(At::Pod, &syn);
            read += u64::from(fast.next_told().is_some());
        }
        assert_eq!((read, fast.lost().expect("counted")), (9_000, 0));
        let kept = std::iter::from_fn(|| slow.next_told()).count() as u64;
        let lost = slow.lost().expect("counted");
        assert!(lost > 0 && kept + lost == 9_000, "{kept} kept and {lost} lost of 9000");
        node.assert_drops(&[("no_backend", 9_000)]);
    });
}

#[test]
fn nothing_is_told_when_nobody_observes_and_a_dead_observer_is_nobody() {
    on_node(SERVICES, |node| {
        let pins = node.stand().bpffs();
        let observed = || is_observed(pins).expect("readable");
        let syn = Packet::new(Transport::Tcp(SYN), "10.244.1.2:40000", "10.96.0.7:80");
        assert!(!observed());
        let first = observe(node, 0);
        assert!(observed());
        drop(first);
        // Nobody is left: the next packet turns it off.
        node.run(At::Pod, &syn);
        assert!(!observed());

        // One that is killed does not say so: its time runs out.
        let pins_of_child = pins.to_owned();
        node.stand().in_cgroup(move || {
            let wanted = Wanted { verdicts: Verdict::ALL.to_vec(), sample: 0 };
            std::mem::forget(Observer::open(&pins_of_child, wanted).expect("an observer"));
            String::new()
        });
        assert!(observed());
        let deadline = std::time::Instant::now() + OBSERVER_TIME + Duration::from_secs(30);
        while observed() {
            assert!(std::time::Instant::now() < deadline, "still told after {OBSERVER_TIME:?}");
            node.run(At::Pod, &syn);
        }
    });
}

#[test]
fn as_many_observe_as_there_are_places_and_the_next_is_told_so() {
    on_node(SERVICES, |node| {
        let wanted = || Wanted { verdicts: Verdict::ALL.to_vec(), sample: 0 };
        let observers: Vec<_> = (0..8).map(|_| observe(node, 0)).collect();
        let refused = Observer::open(node.stand().bpffs(), wanted()).expect_err("full").to_string();
        assert!(refused.contains("9 observers wanted, at most 8"), "{refused}");
        drop(observers);
        assert!(Observer::open(node.stand().bpffs(), wanted()).is_ok());
    });
}
