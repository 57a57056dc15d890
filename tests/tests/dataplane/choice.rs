//! Least connections: long-lived connections spread by how many are open, not by chance.

use std::net::TcpStream;

use std::io::Read;

use penstock_tests::dataplane::desired;

use crate::{PATIENCE, on_a_node, serve};

const HELLO: &str = "
services:
  demo/before:
    cluster_ips: [10.96.0.6]
    port: 80
  demo/hello:
    cluster_ips: [10.96.0.7]
    port: 80
    choice: least-connections
    backends:
    - { address: 10.244.0.2, port: 8080 }
    - { address: 10.244.0.3, port: 8080 }
";

fn backends() {
    serve("10.244.0.2:8080", "two");
    serve("10.244.0.3:8080", "thr");
}

fn connect() -> (String, TcpStream) {
    let mut stream = TcpStream::connect("10.96.0.7:80").expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let mut name = [0; 3];
    stream.read_exact(&mut name).expect("a name");
    (String::from_utf8_lossy(&name).into_owned(), stream)
}

fn named(name: &str, connections: &[(String, TcpStream)]) -> usize {
    connections.iter().filter(|(who, _)| who == name).count()
}

#[test]
fn open_connections_are_even_and_who_lost_some_gets_the_next() {
    on_a_node(backends, |stand| {
        let dataplane = stand.load();
        dataplane.apply(&desired(HELLO)).expect("applied");
        let said = stand.in_cgroup(|| {
            let mut open: Vec<_> = (0..20).map(|_| connect()).collect();
            let even = (named("two", &open), named("thr", &open));
            open.retain(|(who, _)| who == "two");
            let next: Vec<_> = (0..10).map(|_| connect()).collect();
            format!("{even:?} then {}", named("thr", &next))
        });
        assert_eq!(said, "(10, 10) then 10");
    });
}

#[test]
fn counts_of_backends_that_are_gone_are_given_back_when_nothing_is_open_any_more() {
    on_a_node(backends, |stand| {
        let dataplane = stand.load();
        dataplane.apply(&desired(HELLO)).expect("applied");
        let said = stand.in_cgroup(|| {
            let open: Vec<_> = (0..4).map(|_| connect()).collect();
            format!("{} {}", named("two", &open), named("thr", &open))
        });
        assert_eq!(said, "2 2", "both were counted");
        assert_eq!(dataplane.forget_idle_counts().expect("looked"), 0, "both may be chosen again");

        let gone = HELLO.replace("    - { address: 10.244.0.3, port: 8080 }\n", "");
        assert_ne!(gone, HELLO);
        dataplane.apply(&desired(&gone)).expect("applied");
        assert_eq!(dataplane.forget_idle_counts().expect("looked"), 1);
        assert_eq!(dataplane.forget_idle_counts().expect("looked"), 0);
    });
}
