//! A ClusterIP asked by a pod whose sockets the hooks do not see: a virtual machine, a sandbox with its own stack.
//!
//! ```text
//!   pod ── 10.244.1.2:40000 > 10.96.0.7:80 ──> pod0 ── 10.244.1.2:40000 > 10.244.2.2:8080 ──> routed
//!   pod <── 10.96.0.7:80 > 10.244.1.2:40000 ── pod0 <── eth0 ── 10.244.2.2:8080 > 10.244.1.2:40000
//! ```

use penstock_tests::dataplane::{NEXT, REDIRECT};
use penstock_tests::packet::{Packet, SYN, Transport, at};

use crate::{At, on_node};

fn hello(backend: &str, local: bool) -> String {
    format!(
        "
  demo/hello:
    cluster_ips: [10.96.0.7]
    port: 80
    backends: [{{ address: {backend}, port: 8080, local: {local} }}]
"
    )
}

#[test]
fn the_packet_is_routed_to_the_backend_and_the_answer_is_turned_round() {
    on_node(&hello("10.244.2.2", false), |node| {
        let syn = Packet::new(Transport::Tcp(SYN), "10.244.1.2:40000", "10.96.0.7:80");
        let (verdict, asked) = node.run(At::Pod, &syn);
        assert_eq!(verdict, NEXT);
        assert_eq!(asked, Packet { destination: at("10.244.2.2:8080"), ..syn.clone() });
        assert_eq!(node.run(At::Uplink, &asked.reply()), (REDIRECT, syn.reply()));
        node.assert_events(&[("flow_created", 1), ("pod_to_backend", 1), ("uplink_replied", 1)]);
    });
}

#[test]
fn a_pod_that_reaches_itself_talks_to_the_node_and_not_to_a_mirror() {
    on_node(&hello("10.244.1.2", true), |node| {
        let syn = Packet::new(Transport::Tcp(SYN), "10.244.1.2:40000", "10.96.0.7:80");
        let (verdict, asked) = node.run(At::Pod, &syn);
        assert_eq!(verdict, REDIRECT);
        assert_eq!(asked.destination, at("10.244.1.2:8080"));
        assert_eq!(asked.source.ip(), at("10.240.0.11:0").ip());
        assert_eq!(node.run(At::Pod, &asked.reply()), (REDIRECT, syn.reply()));
    });
}
