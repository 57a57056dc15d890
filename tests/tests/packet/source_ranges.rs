//! A load balancer's address that only some clients may use.
//!
//! ```text
//!   client ── 10.240.0.1:40000 > 192.0.2.1:80 ──> eth0 ── in a listed range ──> 10.244.1.2:8080
//!   client ── 10.239.0.1:40000 > 192.0.2.1:80 ──> eth0 ── in none ──> dropped, and counted
//! ```

use penstock_tests::dataplane::{DROP, NEXT};
use penstock_tests::packet::{Packet, SYN, Transport, at};

use crate::{At, on_node};

const LIMITED: &str = "
  demo/hello:
    cluster_ips: [10.96.0.7]
    port: 80
    load_balancer_ips: [192.0.2.1]
    source_ranges: [10.240.0.0/16, 'fd00::/8', 10.239.7.7/32]
    backends: [{ address: 10.244.1.2, port: 8080, local: true }]
";

fn syn(from: &str, to: &str) -> Packet {
    Packet::new(Transport::Tcp(SYN), from, to)
}

#[test]
fn a_client_in_a_range_gets_through_and_any_other_is_dropped_by_name() {
    on_node(LIMITED, |node| {
        for from in ["10.240.0.1:40000", "10.239.7.7:40000"] {
            let (verdict, packet) = node.run(At::Uplink, &syn(from, "192.0.2.1:80"));
            assert_eq!((verdict, packet.destination), (NEXT, at("10.244.1.2:8080")), "{from}");
        }
        for from in ["10.239.0.1:40000", "10.239.7.6:40000"] {
            assert_eq!(node.run(At::Uplink, &syn(from, "192.0.2.1:80")).0, DROP, "{from}");
        }
        node.assert_drops(&[("source_not_allowed", 2)]);
    });
}

#[test]
fn a_pod_is_bound_by_the_ranges_too_and_free_at_the_cluster_address() {
    on_node(LIMITED, |node| {
        assert_eq!(node.run(At::Pod, &syn("10.244.1.2:40000", "192.0.2.1:80")).0, DROP);
        assert_ne!(node.run(At::Pod, &syn("10.244.1.2:40000", "10.96.0.7:80")).0, DROP);
        node.assert_drops(&[("source_not_allowed", 1)]);
    });
}
