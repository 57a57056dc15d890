//! The userspace proxy on real sockets: a node with a pod and the world outside, in namespaces of the test's own, and no
//! program anywhere.
//!
//! ```text
//!   client 10.240.0.1 ── eth0 ┌ node 10.240.0.11 ┐ pod0 ── pods 10.244.1.2, .3 (one namespace)
//!          fd00:240::1        └──────────────────┘         fd00:244:1::2, ::3
//! ```
//! Each backend says which it is and whom it sees.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use penstock_dataplane::{Desired, Listing, ServiceChange};
use penstock_fallback::{Fallback, Limits};
use penstock_tests::dataplane::desired;
use penstock_tests::netns::{Netns, ip, isolated, sysctl};

mod fallback {
    mod changes;
    mod limits;
    mod reach;
    mod routes;
}

/// No step of a test takes as long.
const PATIENCE: Duration = Duration::from_secs(30);
/// Bounds that fit whatever number of files a test may open.
const FEW: Limits =
    Limits { services_max: 64, listeners_max: 64, connections_max: 64, sessions_max: 64, affinity_max: 64 };
/// How long nobody may answer who shall not.
const SILENCE: Duration = Duration::from_millis(300);

/// Threads that serve in a test.
const WORKERS: usize = 2;

/// The node of a test.
struct Node {
    runtime: tokio::runtime::Runtime,
    outside: Netns,
    pods: Netns,
}

/// Runs a test on such a node; without root it is skipped.
fn on_a_node(test: impl FnOnce(&Node) + Send) {
    if !nix::unistd::Uid::effective().is_root() {
        println!("SKIPPED: namespaces need root");
        return;
    }
    isolated(|| {
        let (outside, pods) = (Netns::new().expect("the world outside"), Netns::new().expect("a pod"));
        outside.join("eth0", "10.240.0.11/24", "eth0", "10.240.0.1/24").expect("an uplink");
        pods.join("pod0", "10.244.1.1/24", "eth0", "10.244.1.2/24").expect("a pod's link");
        sysctl("net.ipv4.ip_forward", "1").expect("forwarding");
        ip("address add fd00:240::11/64 dev eth0 nodad").expect("an address");
        ip("address add fd00:244:1::1/64 dev pod0 nodad").expect("an address");
        outside.run(|| ip("address add fd00:240::1/64 dev eth0 nodad")).expect("an address");
        outside.run(|| ip("route add 203.0.113.0/24 via 10.240.0.11")).expect("a route");
        pods.run(|| {
            for words in [
                "address add 10.244.1.3/24 dev eth0",
                "address add fd00:244:1::2/64 dev eth0 nodad",
                "address add fd00:244:1::3/64 dev eth0 nodad",
                "route add default via 10.244.1.1",
                "route add default via fd00:244:1::1",
            ] {
                ip(words).expect("a pod's addresses and routes");
            }
        });
        // Its threads are made here, and so are in this namespace.
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(WORKERS).enable_all().build();
        test(&Node { runtime: runtime.expect("a runtime"), outside, pods });
    });
}

impl Node {
    fn start(&self, limits: Limits) -> Arc<Fallback> {
        let _guard = self.runtime.enter();
        let fallback = Fallback::start(limits).expect("a proxy");
        fallback.set_inside(vec!["10.244.1.0/24".parse().unwrap(), "fd00:244:1::/64".parse().unwrap()]);
        fallback
    }

    /// A proxy that serves these services.
    fn serving(&self, services: &str) -> Arc<Fallback> {
        let fallback = self.start(FEW);
        self.apply(&fallback, services);
        fallback
    }

    /// Has it serve these services and no others.
    fn apply(&self, fallback: &Fallback, services: &str) {
        let (mut said, desired) = (grouped(services), all(services));
        // What was said before and is not said now is gone.
        let names = said.iter().map(|it| it.name.clone()).collect::<Vec<_>>();
        for name in ["web", "other", "dns"].iter().filter(|name| !names.iter().any(|it| it == *name)) {
            said.push(ServiceChange {
                namespace: "demo".into(),
                name: (*name).into(),
                ports: BTreeMap::new(),
            });
        }
        self.runtime.block_on(fallback.apply_changes(&said, &desired.facts(), Listing::Complete));
    }

    /// TCP backends of one namespace, each at its address.
    fn serve_tcp(&self, addresses: &[&'static str]) {
        for address in addresses.iter().copied() {
            let listener = self.pods.run(|| TcpListener::bind(address).expect("a backend"));
            std::thread::spawn(move || {
                for mut stream in listener.incoming().flatten() {
                    std::thread::spawn(move || {
                        let client = stream.peer_addr().map(|it| it.ip());
                        let _ = writeln!(stream, "{address} sees {}", client.expect("a client"));
                        let _ = std::io::copy(&mut stream.try_clone().expect("a stream"), &mut stream);
                        let _ = stream.shutdown(Shutdown::Write);
                    });
                }
            });
        }
    }

    /// UDP backends of one namespace, each at its address.
    fn serve_udp(&self, addresses: &[&'static str]) {
        for address in addresses.iter().copied() {
            let socket = self.pods.run(|| UdpSocket::bind(address).expect("a backend"));
            std::thread::spawn(move || {
                let mut datagram = [0; 64];
                while let Ok((_, client)) = socket.recv_from(&mut datagram) {
                    let _ = socket.send_to(address.as_bytes(), client);
                }
            });
        }
    }
}

/// A desired state with the node's addresses.
fn all(services: &str) -> Desired {
    desired(&format!("node_addresses: [10.240.0.11, \"fd00:240::11\"]\nservices:\n{services}"))
}

fn grouped(services: &str) -> Vec<ServiceChange> {
    let mut changes: BTreeMap<String, ServiceChange> = BTreeMap::new();
    for (key, service) in all(services).services {
        let change = changes.entry(key.name.clone()).or_insert_with(|| ServiceChange {
            namespace: key.namespace.clone(),
            name: key.name.clone(),
            ports: BTreeMap::new(),
        });
        change.ports.insert(key.port.clone(), service);
    }
    changes.into_values().collect()
}

/// Connects and returns what the backend says first, or how that failed.
fn ask(to: &str) -> String {
    let to: SocketAddr = to.parse().expect("an address in the test");
    let mut stream = match TcpStream::connect_timeout(&to, PATIENCE) {
        Ok(stream) => stream,
        Err(error) => return format!("{:?}", error.kind()),
    };
    said(&mut stream)
}

/// One line from a connection, without its end; how that failed otherwise.
fn said(stream: &mut TcpStream) -> String {
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let (mut line, mut byte) = (Vec::new(), [0]);
    loop {
        match stream.read(&mut byte) {
            Ok(0) => return "end".into(),
            Ok(_) if byte == *b"\n" => return String::from_utf8_lossy(&line).into_owned(),
            Ok(_) => line.push(byte[0]),
            Err(error) => return format!("{:?}", error.kind()),
        }
    }
}

/// Asks by UDP and returns who answers; only an answer from the address that was asked is seen.
fn ask_udp(socket: &UdpSocket) -> String {
    ask_udp_for(socket, PATIENCE)
}

/// The same of somebody who may not answer: it is asked again, or silence is what is expected.
fn ask_udp_briefly(socket: &UdpSocket) -> String {
    ask_udp_for(socket, SILENCE)
}

fn ask_udp_for(socket: &UdpSocket, patience: Duration) -> String {
    let mut answer = [0; 64];
    socket.set_read_timeout(Some(patience)).expect("a timeout");
    let _ = socket.send(b"who");
    match socket.recv(&mut answer) {
        Ok(length) => String::from_utf8_lossy(&answer[..length]).into_owned(),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => "silence".into(),
        Err(error) => format!("{:?}", error.kind()),
    }
}

/// A UDP client that talks to an address and nobody else.
fn udp_client(to: &str) -> UdpSocket {
    let to: SocketAddr = to.parse().expect("an address in the test");
    let any: IpAddr = if to.is_ipv4() { [0; 4].into() } else { [0_u16; 8].into() };
    let socket = UdpSocket::bind((any, 0)).expect("a client");
    socket.connect(to).expect("a client");
    socket
}
