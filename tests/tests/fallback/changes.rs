//! What changes while clients are there.

use std::os::fd::{BorrowedFd, OwnedFd, RawFd};

use nix::sys::socket::{SockaddrIn, SockaddrStorage, getpeername};
use penstock_tests::netns::without_forks;

use crate::*;

fn web(backends: &str) -> String {
    format!("\n  demo/web:http:\n    cluster_ips: [10.96.0.5]\n    port: 80\n    backends: [{backends}]\n")
}

fn dns(backends: &str) -> String {
    format!(
        "\n  demo/dns:dns:\n    cluster_ips: [10.96.0.6]\n    port: 53\n    protocol: UDP\n    backends: [{backends}]\n"
    )
}

const FIRST: &str = "{ address: 10.244.1.2, port: 8080, local: true }";
const SECOND: &str = "{ address: 10.244.1.3, port: 8080, local: true }";
const FIRST_LEAVING: &str =
    "{ address: 10.244.1.2, port: 8080, local: true, ready: false, serving: true, terminating: true }";

#[test]
fn a_service_without_backends_refuses_at_once_and_serves_when_it_has_one() {
    on_a_node(|node| {
        node.serve_tcp(&["10.244.1.2:8080"]);
        let proxy = node.serving(&web(""));
        assert_eq!(node.pods.run(|| ask("10.96.0.5:80")), "ConnectionRefused");
        node.apply(&proxy, &web(FIRST));
        assert_eq!(node.pods.run(|| ask("10.96.0.5:80")), "10.244.1.2:8080 sees 10.244.1.1");
        node.apply(&proxy, "  {}");
        assert_ne!(node.pods.run(|| ask("10.96.0.5:80")), "10.244.1.2:8080 sees 10.244.1.1");
    });
}

#[test]
fn a_connection_ends_with_its_backend_but_not_while_that_still_serves() {
    on_a_node(|node| {
        node.serve_tcp(&["10.244.1.2:8080", "10.244.1.3:8080"]);
        let proxy = node.serving(&web(FIRST));
        let mut stream = node.pods.run(|| TcpStream::connect("10.96.0.5:80")).expect("connected");
        assert_eq!(said(&mut stream), "10.244.1.2:8080 sees 10.244.1.1");

        node.apply(&proxy, &web(&format!("{FIRST_LEAVING}, {SECOND}")));
        stream.write_all(b"still there?\n").expect("sent");
        assert_eq!(said(&mut stream), "still there?");
        assert_eq!(node.pods.run(|| ask("10.96.0.5:80")), "10.244.1.3:8080 sees 10.244.1.1");

        node.apply(&proxy, &web(SECOND));
        assert_eq!(said(&mut stream), "ConnectionReset");
        let mut other = node.pods.run(|| TcpStream::connect("10.96.0.5:80")).expect("connected");
        assert_eq!(said(&mut other), "10.244.1.3:8080 sees 10.244.1.1");
        node.apply(&proxy, "  {}");
        assert_eq!(said(&mut other), "ConnectionReset", "a Service that is gone ends what is left of it");
    });
}

#[test]
fn an_address_that_is_closed_is_free_when_that_was_told_whoever_else_is_busy() {
    on_a_node(|node| {
        node.serve_tcp(&["10.244.1.2:8080"]);
        node.serve_udp(&["10.244.1.2:8080"]);
        let proxy = node.serving(&(web(FIRST) + &dns(FIRST)));
        assert_eq!(ask_udp(&node.pods.run(|| udp_client("10.96.0.6:53"))), "10.244.1.2:8080");
        // Without a look at routes, which would wait for a turn of others in any case.
        let tell = |services: &str| {
            let (changes, facts) = (grouped(services), all(services).facts());
            node.runtime.block_on(proxy.apply_changes(&changes, &facts, Listing::Unfinished))
        };
        let _closed_is_closed = without_forks();
        for _ in 0..3 {
            // Whoever has the sockets gets no turn for a while.
            for _ in 0..WORKERS {
                node.runtime.spawn(async { std::thread::sleep(SILENCE) });
            }
            tell(&(web("") + &dns("")));
            assert_eq!(node.pods.run(|| ask("10.96.0.5:80")), "ConnectionRefused");
            tell(&(web(FIRST) + &dns(FIRST)));
            let troubles = proxy.troubles().borrow().clone();
            assert!(troubles.is_empty(), "{troubles:?}");
            assert_eq!(node.pods.run(|| ask("10.96.0.5:80")), "10.244.1.2:8080 sees 10.244.1.1");
            assert_eq!(ask_udp(&node.pods.run(|| udp_client("10.96.0.6:53"))), "10.244.1.2:8080");
        }
    });
}

#[test]
fn a_reset_does_not_wait_for_others_who_have_the_descriptor_too() {
    on_a_node(|node| {
        node.serve_tcp(&["10.244.1.2:8080"]);
        let proxy = node.serving(&web(FIRST));
        let mut stream = node.pods.run(|| TcpStream::connect("10.96.0.5:80")).expect("connected");
        assert_eq!(said(&mut stream), "10.244.1.2:8080 sees 10.244.1.1");
        let inherited = descriptors_connected_to(stream.local_addr().expect("an address"));
        assert!(!inherited.is_empty(), "the proxy has the other end");
        node.apply(&proxy, "  {}");
        assert_eq!(said(&mut stream), "ConnectionReset");
    });
}

/// Copies of this process's descriptors with that peer, as a process has that was forked and runs nothing yet.
fn descriptors_connected_to(peer: SocketAddr) -> Vec<OwnedFd> {
    let ours = std::fs::read_dir("/proc/self/fd").expect("this process's descriptors");
    ours.flatten()
        .filter_map(|it| it.file_name().to_str()?.parse::<RawFd>().ok())
        .filter(|it| {
            getpeername::<SockaddrStorage>(*it).ok().and_then(|it| it.as_sockaddr_in().copied())
                == match peer {
                    SocketAddr::V4(it) => Some(SockaddrIn::from(it)),
                    SocketAddr::V6(_) => None,
                }
        })
        .map(|it| {
            // SAFETY: it was open a moment ago, and is borrowed for this call alone.
            unsafe { BorrowedFd::borrow_raw(it) }.try_clone_to_owned().expect("a copy")
        })
        .collect()
}

#[test]
fn a_connection_to_a_backend_that_vanishes_is_reset() {
    on_a_node(|node| {
        node.serve_tcp(&["10.244.1.2:8080", "10.244.1.3:8080"]);
        let proxy = node.serving(&web(FIRST));
        let mut stream = node.pods.run(|| TcpStream::connect("10.96.0.5:80")).expect("connected");
        said(&mut stream);
        node.apply(&proxy, &web(SECOND));
        assert_eq!(said(&mut stream), "ConnectionReset");
    });
}

#[test]
fn datagrams_of_a_client_go_to_another_backend_when_theirs_leaves() {
    on_a_node(|node| {
        node.serve_udp(&["10.244.1.2:8080", "10.244.1.3:8080"]);
        let proxy = node.serving(&dns(FIRST));
        let client = node.pods.run(|| udp_client("10.96.0.6:53"));
        assert_eq!(ask_udp(&client), "10.244.1.2:8080");
        node.apply(&proxy, &dns(&format!("{FIRST_LEAVING}, {SECOND}")));
        assert_eq!(ask_udp(&client), "10.244.1.3:8080", "the first datagram after the change already");
    });
}
