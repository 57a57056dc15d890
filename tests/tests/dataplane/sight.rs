//! What observers are told of socket calls, and `explain` beside real connections.

use penstock_dataplane::{
    Client, Observer, Remembered, Snapshot, Verdict, Wanted, monotonic_ns, netns_cookie,
};
use penstock_observe::{Clock, Established, Explanation, Names, Question, Sighting, Source, explain};
use penstock_tests::dataplane::{Stand, desired};

use crate::{ask, ask_udp, on_a_node, serve, serve_udp};

const SERVICES: &str = "
node_addresses: [10.240.0.11]
services:
  demo/hello:http:
    cluster_ips: [10.96.0.7]
    port: 80
    node_port: 30080
    backends: [{ address: 10.244.0.2, port: 8080, local: true }]
  demo/dns:
    protocol: UDP
    cluster_ips: [10.96.0.9]
    port: 53
    backends: [{ address: 10.244.0.3, port: 5353, local: true }]
  demo/nobody:
    cluster_ips: [10.96.0.8]
    port: 80
  demo/sticky:
    cluster_ips: [10.96.0.10]
    port: 80
    affinity_seconds: 90
    backends:
    - { address: 10.244.0.2, port: 8080, local: true }
    - { address: 10.244.0.3, port: 8080, local: true }
";

fn backends() {
    serve("10.244.0.2:8080", "two");
    serve("10.244.0.3:8080", "three");
    serve_udp("10.244.0.3:5353", "three");
}

fn observe(stand: &Stand) -> Observer {
    let wanted = Wanted { verdicts: Verdict::ALL.to_vec(), sample: 0 };
    Observer::open(stand.bpffs(), wanted).expect("an observer")
}

/// Everything told so far, readable.
fn seen(observer: &mut Observer) -> Vec<Sighting> {
    let clock = Clock::new(std::time::SystemTime::now(), monotonic_ns());
    let mut names = Names::new(netns_cookie().expect("a cookie"));
    names.insert_pod("10.244.0.2".parse().expect("an address"), "demo/two");
    std::iter::from_fn(|| observer.next_told())
        .map(|told| Sighting::new(&told, &clock, &names, |number| Some(number.to_string())))
        .collect()
}

/// What is said of the node's own connections.
fn explain_to(stand: &Stand, to: &str, protocol: u8) -> Explanation {
    let to: std::net::SocketAddr = to.parse().expect("an address");
    let question =
        Question { source: Source::Host, source_port: None, address: to.ip(), port: to.port(), protocol };
    let client = Client { address: None, netns: Some(netns_cookie().expect("a cookie")) };
    let end = (to.ip(), to.port());
    let remembered = Remembered::observe(stand.bpffs(), client, end, protocol).expect("readable");
    explain(&Snapshot::observe(stand.bpffs()).expect("readable"), &remembered, &question)
}

#[test]
fn calls_are_told_with_the_process_that_makes_them_and_the_backend_it_gets() {
    on_a_node(backends, |stand| {
        let dataplane = stand.load();
        dataplane.apply(&desired(SERVICES)).expect("applied");
        let mut observer = observe(stand);
        stand.in_cgroup(|| ask("10.96.0.7:80") + &ask("10.96.0.8:80"));
        let seen = seen(&mut observer);
        let calls: Vec<_> = seen.iter().map(|it| (it.point, it.verdict)).collect();
        assert_eq!(calls, [("connect", "translated"), ("connect", "refused")]);
        assert_eq!(seen[0].new_destination.as_ref().and_then(|end| end.pod.as_deref()), Some("demo/two"));
        assert!(seen[0].source.host && seen[0].source.process.is_some(), "{:?}", seen[0]);
        assert_eq!((seen[1].destination.port, seen[1].new_destination.as_ref()), (Some(80), None));
    });
}

#[test]
fn of_a_socket_s_datagrams_to_a_service_the_first_is_told() {
    on_a_node(backends, |stand| {
        stand.load().apply(&desired(SERVICES)).expect("applied");
        let mut observer = observe(stand);
        stand.in_cgroup(|| {
            let socket = std::net::UdpSocket::bind("0.0.0.0:0").expect("a socket");
            (0..3).map(|_| ask_udp(&socket, "10.96.0.9:53")).collect()
        });
        let calls: Vec<_> = seen(&mut observer).iter().map(|it| (it.point, it.verdict, it.first)).collect();
        assert_eq!(calls, [("send", "translated", true)]);
    });
}

#[test]
fn a_bind_onto_a_node_port_is_told_as_refused() {
    on_a_node(backends, |stand| {
        stand.load().apply(&desired(SERVICES)).expect("applied");
        let mut observer = observe(stand);
        stand.in_cgroup(|| format!("{:?}", std::net::TcpListener::bind("0.0.0.0:30080").is_err()));
        let calls: Vec<_> = seen(&mut observer).iter().map(|it| (it.point, it.verdict)).collect();
        assert_eq!(calls, [("bind", "refused")]);
    });
}

#[test]
fn connections_of_the_node_end_as_explained() {
    on_a_node(backends, |stand| {
        stand.load().apply(&desired(SERVICES)).expect("applied");
        for (to, verdict) in [
            ("10.96.0.7:80", "translated"),
            ("10.240.0.11:30080", "translated"),
            ("127.0.0.9:30080", "translated"),
            ("10.96.0.8:80", "refused"),
            ("10.244.0.2:8080", "passed"),
        ] {
            let explained = explain_to(stand, to, 6);
            assert_eq!(explained.verdict, verdict, "{}", explained.text());
            let said = stand.in_cgroup(|| ask(to));
            assert_eq!(said == "ConnectionRefused", verdict == "refused", "{to}: {said}");
        }
    });
}

#[test]
fn sockets_that_are_there_and_the_backend_a_namespace_is_held_to_are_told() {
    on_a_node(backends, |stand| {
        stand.load().apply(&desired(SERVICES)).expect("applied");
        let fresh = explain_to(stand, "10.96.0.10:80", 6);
        assert!(fresh.affinity.is_none() && fresh.established.is_empty(), "{}", fresh.text());
        // Asked in the process that holds the sockets: they go with it.
        let said = stand.in_cgroup(|| {
            let sockets: Vec<_> = (0..2)
                .map(|_| std::net::TcpStream::connect("10.96.0.10:80").expect("a connection"))
                .collect();
            let told = explain_to(stand, "10.96.0.10:80", 6);
            let held = told.affinity.map(|kept| (kept.backend, (80..=90).contains(&kept.seconds_left)));
            let (backend, soon) = held.expect("an affinity");
            assert!(soon && told.backends == [backend], "{}", told.text());
            assert_eq!(told.established, [Established { backend, connections: sockets.len() }]);
            let socket = std::net::UdpSocket::bind("0.0.0.0:0").expect("a socket");
            ask_udp(&socket, "10.96.0.9:53");
            explain_to(stand, "10.96.0.9:53", 17).text()
        });
        assert!(said.contains("1 socket of this node"), "{said}");
        let after = explain_to(stand, "10.96.0.10:80", 6);
        assert!(after.affinity.is_some() && after.established.is_empty(), "{}", after.text());
    });
}
