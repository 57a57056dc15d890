//! A NodePort whose backend is a process of the node itself.
//!
//! ```text
//!   client ── 10.240.0.1:40000 > 10.240.0.11:30080 ──> eth0 ── 10.240.0.1:40000 > 10.240.0.11:9100 ──> the node's stack
//!   client <── 10.240.0.11:30080 > 10.240.0.1:40000 ── eth0 <── 10.240.0.11:9100 > 10.240.0.1:40000 ── the node's stack
//! ```

use penstock_tests::dataplane::NEXT;
use penstock_tests::packet::{Packet, SYN, Transport, at};

use crate::{At, on_node};

#[test]
fn the_answer_is_turned_round_as_it_leaves() {
    let services = "
  demo/exporter:
    port: 80
    node_port: 30080
    backends: [{ address: 10.240.0.11, port: 9100, local: true }]
";
    on_node(services, |node| {
        let syn = Packet::new(Transport::Tcp(SYN), "10.240.0.1:40000", "10.240.0.11:30080");
        let (verdict, asked) = node.run(At::Uplink, &syn);
        assert_eq!((verdict, asked.destination), (NEXT, at("10.240.0.11:9100")));
        assert_eq!(node.run(At::Leaving, &asked.reply()), (NEXT, syn.reply()));
        node.assert_events(&[("flow_created", 1), ("uplink_replied", 1), ("uplink_to_local", 1)]);
    });
}
