//! The data plane on real sockets, in namespaces and cgroups of the test's own; what the kernel programs did is proven
//! by their counters.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use penstock_tests::dataplane::{Stand, object};
use penstock_tests::netns;

mod dataplane {
    mod affinity;
    mod announced;
    mod beside;
    mod choice;
    mod classifiers;
    mod connect;
    mod direct;
    mod families;
    mod former_peers;
    mod local_pods;
    mod nodeport;
    mod policy;
    mod removal;
    mod sight;
    mod survival;
    mod udp;
}

/// No step of a test takes as long, also where others have the processors for seconds.
const PATIENCE: Duration = Duration::from_secs(30);

/// Runs a test in namespaces of its own that hold a node's address and those of two backends, which `serve` starts.
/// Without an eBPF object there is nothing to test.
fn on_a_node(serve: impl FnOnce() + Send, test: impl FnOnce(&Stand) + Send) {
    let Some(object) = object() else { return };
    netns::isolated(|| {
        for address in ["10.240.0.11", "10.244.0.2", "10.244.0.3"] {
            netns::ip(&format!("address add {address}/32 dev lo")).expect("an address");
        }
        for address in ["fd00:10:240::11", "fd00:10:244::2", "fd00:10:244::3"] {
            netns::ip(&format!("address add {address}/128 dev lo nodad")).expect("an address");
        }
        serve();
        test(&Stand::new(&object, "10.240.0.11", None).expect("a stand"));
    });
}

/// Connects, says who answers and whom the socket believes to talk to.
fn ask(to: &str) -> String {
    let to: SocketAddr = to.parse().expect("an address in the test");
    match TcpStream::connect_timeout(&to, PATIENCE) {
        Ok(mut stream) => {
            let mut name = String::new();
            let peer = stream.peer_addr().map_or_else(|error| error.to_string(), |peer| peer.to_string());
            let _ = stream.set_read_timeout(Some(PATIENCE));
            let _ = stream.read_to_string(&mut name);
            format!("{name} as {peer}")
        }
        Err(error) => format!("{:?}", error.kind()),
    }
}

/// Answers every connection with a name, until the test's process ends.
fn serve(address: &str, name: &'static str) {
    let listener = TcpListener::bind(address).unwrap_or_else(|error| panic!("{address}: {error}"));
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut stream = stream;
            let _ = stream.write_all(name.as_bytes());
        }
    });
}

/// Answers every datagram with a name, until the test's process ends.
fn serve_udp(address: &str, name: &'static str) {
    let socket = UdpSocket::bind(address).unwrap_or_else(|error| panic!("{address}: {error}"));
    std::thread::spawn(move || {
        let mut datagram = [0; 64];
        while let Ok((_, from)) = socket.recv_from(&mut datagram) {
            let _ = socket.send_to(name.as_bytes(), from);
        }
    });
}

/// Sends a datagram and says who answers, and from which address.
fn ask_udp(socket: &UdpSocket, to: &str) -> String {
    let mut answer = [0; 64];
    let _ = socket.set_read_timeout(Some(PATIENCE));
    let exchange = socket.send_to(b"?", to).and_then(|_| socket.recv_from(&mut answer));
    match exchange {
        Ok((length, from)) => format!("{} from {from}", String::from_utf8_lossy(&answer[..length])),
        Err(error) => format!("{:?}", error.kind()),
    }
}

/// Waits until something holds.
fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        // What is waited for may need this processor.
        std::thread::sleep(Duration::from_millis(1));
    }
}
