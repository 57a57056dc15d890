//! Session affinity of clients from outside: by their address, whatever their port.
//!
//! ```text
//!   client ── 10.240.0.1:* > 10.240.0.11:30080 ──> eth0 ── 10.240.0.1:* > always the same pod
//! ```

use std::collections::BTreeSet;

use penstock_tests::packet::{Packet, SYN, Transport};

use crate::{At, on_node};

#[test]
fn one_client_reaches_one_backend_and_many_clients_reach_all() {
    let services = "
  demo/sticky:
    port: 80
    node_port: 30080
    affinity_seconds: 60
    backends: [{ address: 10.244.1.2, port: 8080, local: true }, { address: 10.244.1.3, port: 8080, local: true }]
";
    on_node(services, |node| {
        let backend_of = |client: &str| {
            node.run(At::Uplink, &Packet::new(Transport::Tcp(SYN), client, "10.240.0.11:30080")).1.destination
        };
        let of_one: BTreeSet<_> =
            (0..32).map(|it| backend_of(&format!("10.240.0.1:{}", 40_000 + it))).collect();
        assert_eq!(of_one.len(), 1);
        let of_many: BTreeSet<_> = (1..=32).map(|it| backend_of(&format!("192.0.2.{it}:40000"))).collect();
        assert_eq!(of_many.len(), 2);
    });
}
