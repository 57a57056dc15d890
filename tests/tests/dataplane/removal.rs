//! A backend goes, and with it what its clients hold: connected sockets in every namespace of the node.
//!
//! ```text
//!   pod 10.244.1.2 ─┐
//!   pod 10.244.2.2 ─┴─ node: backends 10.244.0.2 and 10.244.0.3
//! ```

use std::io::Read;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use penstock_dataplane::PeerTable;
use penstock_ebpf_common::{Peer, map};
use penstock_tests::dataplane::{Stand, desired};
use penstock_tests::netns::{Netns, ip};

use crate::{PATIENCE, on_a_node, serve_udp, wait_until};

/// How long clients hold what they have: longer than what comes before the change takes, an emulated machine included.
const HELD: Duration = Duration::from_secs(120);

/// Services of both families and protocols with these backends, each given as the end of its address and its conditions.
fn services(backends: &[(&str, &str)]) -> String {
    let list = |prefix: &str, port: u16| {
        let one = |(last, conditions): &(&str, &str)| {
            format!("{{ address: '{prefix}{last}', port: {port}, local: true{conditions} }}")
        };
        backends.iter().map(one).collect::<Vec<_>>().join(", ")
    };
    format!(
        "
services:
  demo/hold:
    cluster_ips: [10.96.0.7]
    port: 80
    backends: [{hold}]
  demo/hold-six:
    cluster_ips: ['fd00:10:96::7']
    port: 80
    backends: [{six}]
  demo/talk:
    cluster_ips: [10.96.0.9]
    port: 53
    protocol: UDP
    backends: [{talk}]
",
        hold = list("10.244.0.", 8080),
        six = list("fd00:10:244::", 8080),
        talk = list("10.244.0.", 5353)
    )
}

/// Connections accepted by the backends of one test: tests of one process run side by side.
type Accepted = Arc<AtomicUsize>;

/// Accepts and holds.
fn hold(address: &str, accepted: &Accepted) {
    let listener = TcpListener::bind(address).unwrap_or_else(|error| panic!("{address}: {error}"));
    let accepted = accepted.clone();
    std::thread::spawn(move || {
        let mut held = Vec::new();
        for stream in listener.incoming().flatten() {
            held.push(stream);
            accepted.fetch_add(1, Ordering::Relaxed);
        }
    });
}

fn backends(accepted: &Accepted) {
    for address in ["10.244.0.2", "10.244.0.3", "[fd00:10:244::2]", "[fd00:10:244::3]"] {
        hold(&format!("{address}:8080"), accepted);
    }
    serve_udp("10.244.0.2:5353", "two");
    serve_udp("10.244.0.3:5353", "three");
}

fn pod(number: u8) -> Netns {
    let pod = Netns::new().expect("a pod's namespace");
    let (here, there) = (format!("10.244.{number}.1/24"), format!("10.244.{number}.2/24"));
    pod.join(&format!("pod{number}"), &here, "eth0", &there).expect("a link");
    ip(&format!("address add fd00:10:244:{number}::1/64 dev pod{number} nodad")).expect("an address");
    pod.run(|| {
        ip(&format!("address add fd00:10:244:{number}::2/64 dev eth0 nodad")).expect("an address");
        ip(&format!("route add default via 10.244.{number}.1")).expect("a route");
        ip(&format!("-6 route add default via fd00:10:244:{number}::1")).expect("a route");
    });
    pod
}

/// The time on a clock that all processes share.
fn now() -> Duration {
    read_clock(nix::libc::CLOCK_MONOTONIC)
}

/// The processor time of this process, in which the data plane and the backends are, and not the clients.
fn busy() -> Duration {
    read_clock(nix::libc::CLOCK_PROCESS_CPUTIME_ID)
}

fn read_clock(clock: nix::libc::clockid_t) -> Duration {
    let mut now = nix::libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the structure is ours and lives through the call.
    let answer = unsafe { nix::libc::clock_gettime(clock, &mut now) };
    assert_eq!(answer, 0, "a clock");
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

/// A client that connects in every way, to the service and to the backend itself, and waits for its sockets to fail. Says
/// how they did, and when the last one.
fn client() -> String {
    let connect = |to: &str| {
        let stream = TcpStream::connect(to).unwrap_or_else(|error| panic!("{to}: {error}"));
        stream.set_read_timeout(Some(HELD)).expect("a limit");
        stream
    };
    let direct = connect("10.244.0.2:8080");
    let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
    socket.connect("10.96.0.9:53").expect("connected");
    socket.set_read_timeout(Some(HELD)).expect("a limit");
    socket.send(b"?").expect("sent");
    let mut answer = [0; 64];
    socket.recv(&mut answer).expect("an answer");
    // Last, for it is by these that one waits for clients.
    let held = ["10.96.0.7:80", "[::ffff:10.96.0.7]:80", "[fd00:10:96::7]:80"].map(connect);

    let mut ends = Vec::new();
    ends.push(socket.recv(&mut answer).map_err(|error| format!("{:?}", error.kind())));
    for mut stream in held {
        ends.push(stream.read(&mut answer).map_err(|error| format!("{:?}", error.kind())));
    }
    let at = now();
    direct.set_nonblocking(true).expect("a switch");
    let direct = (&direct).read(&mut answer).map_err(|error| format!("{:?}", error.kind()));
    let ends: Vec<_> =
        ends.into_iter().map(|end| end.map_or_else(|error| error, |_| "data".to_owned())).collect();
    format!("{} direct {direct:?} at {}", ends.join(" "), at.as_nanos())
}

const SOCKETS: usize = 4;

/// A node with backends, and what they accepted.
fn with_backends(test: impl FnOnce(&Stand, &Accepted) + Send) {
    let accepted = Accepted::default();
    on_a_node(|| backends(&accepted), |stand| test(stand, &accepted));
}

/// Has clients in two pods connected while `change` runs, and hands on what they say and how long they took from the
/// moment that `change` returns.
fn with_clients(stand: &Stand, accepted: &Accepted, change: impl FnOnce() -> Duration) -> Vec<String> {
    let pods = [pod(1), pod(2)];
    std::thread::scope(|scope| {
        let clients = pods.each_ref().map(|pod| scope.spawn(|| pod.run(|| stand.in_cgroup(client))));
        let peers = || {
            let maps = penstock_dataplane::observe_maps(stand.bpffs()).expect("maps");
            maps.iter().find(|map| map.name == map::PEERS).and_then(|map| map.entries)
        };
        // One accepted connection a client goes around the service.
        wait_until("the clients are connected", || {
            accepted.load(Ordering::Relaxed) == 2 * SOCKETS && peers() == Some(2 * SOCKETS as u64)
        });
        let started = change();
        clients.map(|client| tell(&client.join().expect("a client"), started)).into()
    })
}

/// Puts how long it took in the place of when it was.
fn tell(said: &str, started: Duration) -> String {
    let Some((ends, at)) = said.rsplit_once(" at ") else { return said.to_owned() };
    let took = Duration::from_nanos(at.parse().expect("a time")).saturating_sub(started);
    println!("the last socket failed {took:?} after the change was begun");
    assert!(took < HELD / 2, "by the change, not by patience: {took:?}");
    ends.to_owned()
}

const ALL_ABORTED: &str = "ConnectionAborted ConnectionAborted ConnectionAborted ConnectionAborted \
                           direct Err(\"WouldBlock\")";

#[test]
fn sockets_connected_to_a_removed_backend_fail_at_once_in_every_namespace_and_others_do_not() {
    with_backends(|stand, accepted| {
        let dataplane = stand.load();
        dataplane.apply(&desired(&services(&[("2", "")]))).expect("applied");
        let ends = with_clients(stand, accepted, || {
            let (started, busy_before) = (now(), busy());
            let applied = dataplane.apply(&desired(&services(&[("3", "")]))).expect("applied");
            println!("the change took {:?}, {:?} of a processor", now() - started, busy() - busy_before);
            assert_eq!(applied.sockets_destroyed, 2 * SOCKETS);
            started
        });
        assert_eq!(ends, [ALL_ABORTED, ALL_ABORTED]);
    });
}

/// Spoils what is known of where the kernel has the sockets: nothing of one of them, and of the others the place of another.
fn misplace(stand: &Stand) {
    let peers = PeerTable::open(stand.bpffs()).and_then(|table| table.memory()).expect("the peers");
    let mut known = Vec::new();
    peers.each(|cookie, peer| known.push((*cookie, *peer)));
    let places = std::iter::once(0).chain(known.iter().map(|(_, peer)| peer.place));
    for ((cookie, peer), place) in known.iter().zip(places) {
        assert!(peers.remove(cookie) && peers.insert_new(cookie, &Peer { place, ..*peer }, 0));
    }
}

#[test]
fn sockets_are_looked_for_in_a_list_when_it_is_not_known_where_the_kernel_has_them() {
    with_backends(|stand, accepted| {
        let dataplane = stand.load();
        dataplane.apply(&desired(&services(&[("2", "")]))).expect("applied");
        let ends = with_clients(stand, accepted, || {
            misplace(stand);
            let started = now();
            let applied = dataplane.apply(&desired(&services(&[("3", "")]))).expect("applied");
            assert_eq!(applied.sockets_destroyed, 2 * SOCKETS);
            started
        });
        assert_eq!(ends, [ALL_ABORTED, ALL_ABORTED]);
    });
}

#[test]
fn connections_to_a_backend_that_ends_live_on_while_it_serves_and_fail_when_it_is_gone() {
    with_backends(|stand, accepted| {
        let dataplane = stand.load();
        dataplane.apply(&desired(&services(&[("2", "")]))).expect("applied");
        let ends = with_clients(stand, accepted, || {
            let apply = |backends: &[(&str, &str)]| {
                dataplane.apply(&desired(&services(backends))).expect("applied").sockets_destroyed
            };
            let ending = ("2", ", ready: false, serving: true, terminating: true");
            let silent = ("2", ", ready: false, serving: false, terminating: true");
            assert_eq!(apply(&[ending, ("3", "")]), 0, "it ends, and serves");
            assert_eq!(apply(&[silent, ("3", "")]), 2, "datagrams go elsewhere");
            let started = now();
            assert_eq!(apply(&[("3", "")]), 2 * (SOCKETS - 1), "its endpoint is gone");
            started
        });
        assert_eq!(ends, [ALL_ABORTED, ALL_ABORTED]);
    });
}

#[test]
fn sockets_fail_when_a_service_is_scaled_to_zero_or_deleted() {
    for after in [services(&[]), "services: {}".to_owned()] {
        with_backends(|stand, accepted| {
            let dataplane = stand.load();
            dataplane.apply(&desired(&services(&[("2", "")]))).expect("applied");
            let ends = with_clients(stand, accepted, || {
                let started = now();
                assert_eq!(
                    dataplane.apply(&desired(&after)).expect("applied").sockets_destroyed,
                    2 * SOCKETS
                );
                started
            });
            assert_eq!(ends, [ALL_ABORTED, ALL_ABORTED]);
        });
    }
}

#[test]
fn a_backend_that_went_while_there_was_no_agent_is_acted_on_by_the_next() {
    with_backends(|stand, accepted| {
        let first = stand.load();
        first.apply(&desired(&services(&[("2", "")]))).expect("applied");
        let ends = with_clients(stand, accepted, || {
            // It had begun to end, which the first agent forgets with itself.
            let ending = ("2", ", ready: false, serving: true, terminating: true");
            first.apply(&desired(&services(&[ending, ("3", "")]))).expect("applied");
            drop(first);
            let started = now();
            let applied = stand.load().apply(&desired(&services(&[("3", "")]))).expect("applied");
            assert_eq!(applied.sockets_destroyed, 2 * SOCKETS);
            started
        });
        assert_eq!(ends, [ALL_ABORTED, ALL_ABORTED]);
    });
}

/// A client with one connection that leaves the node's cgroup and waits for its end.
fn deserter() -> String {
    let mut stream = TcpStream::connect("10.96.0.7:80").expect("connected");
    stream.set_read_timeout(Some(HELD)).expect("a limit");
    let root = penstock_tests::dataplane::cgroup_root().expect("a cgroup tree");
    std::fs::write(root.join("cgroup.procs"), "0").expect("leaving the cgroup");
    stream.read(&mut [0]).map_or_else(|error| format!("{:?}", error.kind()), |_| "data".to_owned())
}

#[test]
fn a_socket_whose_process_left_the_cgroup_is_found_in_a_namespace_without_a_name() {
    with_backends(|stand, accepted| {
        let dataplane = stand.load();
        dataplane.apply(&desired(&services(&[("2", "")]))).expect("applied");
        let pod = pod(1);
        std::thread::scope(|scope| {
            let client = scope.spawn(|| pod.run(|| stand.in_cgroup(deserter)));
            wait_until("the client is connected", || accepted.load(Ordering::Relaxed) == 1);
            let applied = dataplane.apply(&desired(&services(&[("3", "")]))).expect("applied");
            assert_eq!(
                (applied.sockets_destroyed, client.join().expect("a client")),
                (1, "ConnectionAborted".into())
            );
        });
    });
}

/// Connects so many sockets, says when by a file, and waits until the last of them failed. Says when that was, or what
/// went wrong; not longer than some multiple of what it should take.
fn crowd(connections: usize, ready: &std::path::Path) -> String {
    let streams: Result<Vec<_>, _> = (0..connections).map(|_| TcpStream::connect("10.96.0.7:80")).collect();
    let streams = match streams {
        Ok(streams) => streams,
        Err(error) => return format!("connecting: {error}"),
    };
    if let Err(error) = std::fs::write(ready, "") {
        return error.to_string();
    }
    let deadline = now() + 3 * PATIENCE;
    // None is closed before the last has failed: that is the client's own time.
    for mut stream in &streams {
        let left = deadline.saturating_sub(now()).max(Duration::from_millis(1));
        let end = stream.set_read_timeout(Some(left)).and_then(|()| stream.read(&mut [0]));
        match end.map_err(|error| error.kind()) {
            Err(std::io::ErrorKind::ConnectionAborted) => {}
            other => return format!("a socket ended with {other:?}"),
        }
    }
    now().as_nanos().to_string()
}

#[test]
fn thousands_of_sockets_in_many_namespaces_fail_when_their_backend_goes() {
    const NAMESPACES: usize = 20;
    const SOCKETS_EACH: usize = 100;
    with_backends(|stand, accepted| {
        let dataplane = stand.load_with(penstock_dataplane::Limits { peers_max: 65_536, ..stand.limits() });
        dataplane.apply(&desired(&services(&[("2", "")]))).expect("applied");
        let pods: Vec<_> = (1..=NAMESPACES).map(|number| pod(u8::try_from(number).expect("few"))).collect();
        let folder = tempfile::tempdir().expect("a folder");
        let ready = |number: usize| folder.path().join(number.to_string());
        std::thread::scope(|scope| {
            let clients: Vec<_> = pods
                .iter()
                .enumerate()
                .map(|(number, pod)| {
                    let ready = ready(number);
                    scope.spawn(move || pod.run(|| stand.in_cgroup(|| crowd(SOCKETS_EACH, &ready))))
                })
                .collect();
            let all = NAMESPACES * SOCKETS_EACH;
            wait_until("all are connected", || {
                accepted.load(Ordering::Relaxed) == all
                    && (0..NAMESPACES).all(|number| ready(number).exists())
            });
            let (began, busy_before) = (now(), busy());
            let applied = dataplane.apply(&desired(&services(&[("3", "")]))).expect("applied");
            let (applied_after, busy_for) = (now() - began, busy() - busy_before);
            let ends: Vec<String> =
                clients.into_iter().map(|client| client.join().expect("a client")).collect();
            let last = ends.iter().map(|end| end.parse().unwrap_or_else(|_| panic!("{end}"))).max();
            let last = Duration::from_nanos(last.expect("clients")).saturating_sub(began);
            println!(
                "applied after {applied_after:?}, {busy_for:?} of a processor; the last socket failed after {last:?}"
            );
            assert_eq!(applied.sockets_destroyed, all);
        });
    });
}
