//! Who reaches what, by which address, and who the backend sees.

use penstock_tests::eventually::until;
use penstock_tests::netns::without_forks;

use crate::*;

const BOTH: &str = r#"
  demo/web:http:
    cluster_ips: [10.96.0.5, "fd00:96::5"]
    external_ips: [203.0.113.9]
    port: 80
    node_port: 30080
    backends:
      - { address: 10.244.1.2, port: 8080, local: true }
      - { address: "fd00:244:1::2", port: 8080, local: true }
  demo/dns:dns:
    cluster_ips: [10.96.0.6, "fd00:96::6"]
    port: 53
    protocol: UDP
    node_port: 30053
    backends:
      - { address: 10.244.1.2, port: 5353, local: true }
      - { address: "fd00:244:1::2", port: 5353, local: true }
"#;

#[test]
fn a_pod_the_node_and_the_world_outside_reach_what_is_theirs_to_reach_over_tcp() {
    on_a_node(|node| {
        node.serve_tcp(&["10.244.1.2:8080", "[fd00:244:1::2]:8080"]);
        let _proxy = node.serving(BOTH);
        let (four, six) = ("10.244.1.2:8080 sees 10.244.1.1", "[fd00:244:1::2]:8080 sees fd00:244:1::1");
        for (address, expected) in [
            ("10.96.0.5:80", four),
            ("[fd00:96::5]:80", six),
            ("203.0.113.9:80", four),
            ("10.240.0.11:30080", four),
            ("[fd00:240::11]:30080", six),
        ] {
            assert_eq!(node.pods.run(|| ask(address)), expected, "a pod asks {address}");
            assert_eq!(ask(address), expected, "the node asks {address}");
        }
        assert_eq!(ask("127.0.0.1:30080"), four);
        assert_eq!(ask("[::1]:30080"), six);
        assert_eq!(node.outside.run(|| ask("10.240.0.11:30080")), four);
        assert_eq!(node.outside.run(|| ask("[fd00:240::11]:30080")), six);
        assert_eq!(node.outside.run(|| ask("203.0.113.9:80")), four);
        node.outside.run(|| ip("route add 10.96.0.0/16 via 10.240.0.11")).expect("a way in");
        assert_eq!(node.outside.run(|| ask("10.96.0.5:80")), "ConnectionReset", "a ClusterIP is for inside");
    });
}

#[test]
fn over_udp_the_answer_comes_from_the_address_that_was_asked() {
    on_a_node(|node| {
        node.serve_udp(&["10.244.1.2:5353", "[fd00:244:1::2]:5353"]);
        let _proxy = node.serving(BOTH);
        for (address, expected) in [
            ("10.96.0.6:53", "10.244.1.2:5353"),
            ("[fd00:96::6]:53", "[fd00:244:1::2]:5353"),
            ("10.240.0.11:30053", "10.244.1.2:5353"),
        ] {
            let asked = |client: &UdpSocket| until(PATIENCE, address, || ask_udp_briefly(client) == expected);
            node.pods.run(|| asked(&udp_client(address))).expect("a pod is answered");
            asked(&udp_client(address)).expect("the node is answered");
        }
        let client = node.outside.run(|| udp_client("10.240.0.11:30053"));
        until(PATIENCE, "outside is answered", || ask_udp_briefly(&client) == "10.244.1.2:5353").unwrap();
        // The first datagram of each session opens it and is not lost for that.
        for _ in 0..20 {
            assert_eq!(node.pods.run(|| ask_udp(&udp_client("10.96.0.6:53"))), "10.244.1.2:5353");
        }
    });
}

#[test]
fn a_megabyte_and_the_end_of_one_direction_pass_unchanged() {
    on_a_node(|node| {
        node.serve_tcp(&["10.244.1.2:8080"]);
        let _proxy = node.serving(BOTH);
        let mut stream = node.pods.run(|| TcpStream::connect("10.96.0.5:80")).expect("connected");
        said(&mut stream);
        let sent: Vec<u8> = (0..1_000_000_u32).map(|number| (number % 251) as u8).collect();
        let mut writing = stream.try_clone().expect("a stream");
        let (received, written) = std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                writing.write_all(&sent)?;
                writing.shutdown(Shutdown::Write)
            });
            let mut received = Vec::new();
            let read = stream.read_to_end(&mut received);
            (read.map(|_| received), writer.join().expect("a writer"))
        });
        written.expect("written");
        assert!(received.expect("read") == sent, "the echo is not what was sent");
    });
}

#[test]
fn a_backend_that_does_not_answer_is_passed_over() {
    on_a_node(|node| {
        node.serve_tcp(&["10.244.1.2:8080"]);
        let _proxy = node.serving(
            r#"
  demo/web:http:
    cluster_ips: [10.96.0.5]
    port: 80
    backends:
      - { address: 10.244.1.2, port: 8080, local: true }
      - { address: 10.244.1.3, port: 8080, local: true }
"#,
        );
        for _ in 0..20 {
            assert_eq!(node.pods.run(|| ask("10.96.0.5:80")), "10.244.1.2:8080 sees 10.244.1.1");
        }
    });
}

#[test]
fn a_client_keeps_its_backend_where_the_service_wants_that() {
    on_a_node(|node| {
        node.serve_tcp(&["10.244.1.2:8080", "10.244.1.3:8080"]);
        let services = |affinity: &str| {
            format!(
                r#"
  demo/web:http:
    cluster_ips: [10.96.0.5]
    port: 80
    {affinity}
    backends:
      - {{ address: 10.244.1.2, port: 8080, local: true }}
      - {{ address: 10.244.1.3, port: 8080, local: true }}
"#
            )
        };
        let proxy = node.serving(&services("affinity_seconds: 100"));
        let answers = || -> std::collections::BTreeSet<String> {
            (0..30).map(|_| node.pods.run(|| ask("10.96.0.5:80"))).collect()
        };
        assert_eq!(answers().len(), 1);
        node.apply(&proxy, &services(""));
        assert_eq!(answers().len(), 2);
    });
}

/// Connects from a port and returns what the backend says first. The port is free again at once.
fn ask_from(port: u16, to: &str) -> String {
    use nix::sys::socket::{
        AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, setsockopt, sockopt,
    };

    let to: SocketAddr = to.parse().expect("an address in the test");
    let (SocketAddr::V4(to), any) = (to, std::net::SocketAddrV4::new([0; 4].into(), port)) else {
        panic!("an IPv4 address")
    };
    let flags = SockFlag::SOCK_CLOEXEC;
    let socket = nix::sys::socket::socket(AddressFamily::Inet, SockType::Stream, flags, None);
    let socket = socket.expect("a socket");
    setsockopt(&socket, sockopt::Linger, &nix::libc::linger { l_onoff: 1, l_linger: 0 })
        .expect("no lingering");
    bind(std::os::fd::AsRawFd::as_raw_fd(&socket), &SockaddrIn::from(any)).expect("a port");
    connect(std::os::fd::AsRawFd::as_raw_fd(&socket), &SockaddrIn::from(to)).expect("a connection");
    said(&mut TcpStream::from(socket))
}

#[test]
fn backends_are_chosen_by_table_or_by_their_connections_where_the_service_wants_that() {
    on_a_node(|node| {
        node.serve_tcp(&["10.244.1.2:8080", "10.244.1.3:8080"]);
        let services = |choice: &str| {
            format!(
                r#"
  demo/web:http:
    cluster_ips: [10.96.0.5]
    port: 80
    choice: {choice}
    backends:
      - {{ address: 10.244.1.2, port: 8080, local: true }}
      - {{ address: 10.244.1.3, port: 8080, local: true }}
"#
            )
        };
        let proxy = node.serving(&services("least-connections"));
        // Held open, so that whoever has fewer gets the next.
        let (mut held, mut counts) = (Vec::new(), BTreeMap::<String, usize>::new());
        for _ in 0..20 {
            let mut stream = node.pods.run(|| TcpStream::connect("10.96.0.5:80").expect("a connection"));
            *counts.entry(said(&mut stream)).or_default() += 1;
            held.push(stream);
        }
        assert_eq!(counts.values().copied().collect::<Vec<_>>(), [10, 10], "{counts:?}");

        node.apply(&proxy, &services("maglev"));
        // The same port twice is the same connection to whoever chooses by it.
        let mut answers = std::collections::BTreeSet::new();
        for port in 20_000..20_020 {
            // Or the port would not be free at once.
            let _closed_is_closed = without_forks();
            let again: Vec<_> = (0..2).map(|_| node.pods.run(|| ask_from(port, "10.96.0.5:80"))).collect();
            assert_eq!(again[0], again[1], "{port}");
            answers.insert(again[0].clone());
        }
        assert_eq!(answers.len(), 2);
    });
}
