//! Two NodePorts with one backend, asked by one client from one port.
//!
//! ```text
//!   client ── 10.240.0.1:40000 > 10.240.0.11:30080 ──> 10.240.0.1:40000 > 10.244.1.2:8080
//!   client ── 10.240.0.1:40000 > 10.240.0.11:30081 ──> 10.240.0.1:P     > 10.244.1.2:8080
//! ```
//! With the same ports towards the backend the answers could not be told apart, so the second flow gets another one.

use penstock_tests::packet::{Packet, SYN, Transport};

use crate::{At, on_node};

#[test]
fn each_answer_comes_from_the_port_that_was_asked() {
    let services = "
  demo/one:
    port: 80
    node_port: 30080
    backends: [{ address: 10.244.1.2, port: 8080, local: true }]
  demo/two:
    port: 80
    node_port: 30081
    backends: [{ address: 10.244.1.2, port: 8080, local: true }]
";
    on_node(services, |node| {
        let one = Packet::new(Transport::Tcp(SYN), "10.240.0.1:40000", "10.240.0.11:30080");
        let two = Packet::new(Transport::Tcp(SYN), "10.240.0.1:40000", "10.240.0.11:30081");
        let (asked_one, asked_two) = (node.run(At::Uplink, &one).1, node.run(At::Uplink, &two).1);
        assert_eq!(asked_one.source, one.source);
        assert_eq!(asked_two.source.ip(), two.source.ip(), "the client keeps its address");
        assert_ne!(asked_two.source.port(), one.source.port());
        assert_eq!(node.run(At::Pod, &asked_one.reply()).1, one.reply());
        assert_eq!(node.run(At::Pod, &asked_two.reply()).1, two.reply());
    });
}
