//! Services nobody answers.
//!
//! ```text
//!   client ── 10.240.0.1:40000 > 10.240.0.11:30080 ──> eth0 ── unchanged ──> the node's stack: refused
//!   pod    ── 10.244.1.2:40000 > 10.96.0.7:80      ──> pod0 ── dropped, counted
//! ```

use penstock_tests::dataplane::{DROP, NEXT};
use penstock_tests::packet::{Packet, SYN, Transport};

use crate::{At, on_node};

const NOBODY: &str = "
  demo/nobody:
    cluster_ips: [10.96.0.7]
    port: 80
    node_port: 30080
";

#[test]
fn a_node_port_is_left_to_the_node_s_stack_which_refuses_it() {
    on_node(NOBODY, |node| {
        let syn = Packet::new(Transport::Tcp(SYN), "10.240.0.1:40000", "10.240.0.11:30080");
        assert_eq!(node.run(At::Uplink, &syn), (NEXT, syn));
        node.assert_events(&[("uplink_refused", 1)]);
        assert_eq!(node.counters().services[0].refused, 1);
    });
}

#[test]
fn a_cluster_ip_is_dropped_and_the_reason_is_counted() {
    on_node(NOBODY, |node| {
        let syn = Packet::new(Transport::Tcp(SYN), "10.244.1.2:40000", "10.96.0.7:80");
        assert_eq!(node.run(At::Pod, &syn), (DROP, syn));
        node.assert_drops(&[("no_backend", 1)]);
        assert_eq!(node.counters().services[0].drops, 1);
    });
}
