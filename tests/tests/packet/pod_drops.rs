//! Drops by pod: of what the pod sent, and of what was for it.
//!
//! ```text
//!   pod ── 10.244.1.2:40000 > 10.96.0.7:80 ──> pod0 ── dropped: no backend; of pod0
//!   backend ── 10.244.2.3:8080 > 10.244.1.2:40000, its last hop ──> eth0 ── dropped: no hop left; of pod0
//! ```

use penstock_dataplane::PodLink;
use penstock_tests::dataplane::{DROP, NEXT};
use penstock_tests::packet::{Packet, SYN, Transport};

use crate::{At, Node, on_node};

const SERVICES: &str = "
  demo/nobody:
    cluster_ips: [10.96.0.7]
    port: 80
    node_port: 30081
  demo/limited:
    load_balancer_ips: [203.0.113.5]
    source_ranges: [10.244.0.0/16]
    port: 80
    backends: [{ address: 10.244.2.3, port: 8080 }]
";

const POD: &str = "10.244.1.2:40000";

fn drops(node: &Node) -> Vec<(u32, &'static str, u64)> {
    node.counters().pods.iter().map(|it| (it.ifindex, it.reason, it.drops)).collect()
}

#[test]
fn a_drop_is_counted_for_the_pod_it_is_of_until_the_pod_goes() {
    on_node(SERVICES, |node| {
        let addresses = vec!["10.244.1.2".parse().expect("an address")];
        let link = PodLink { ifindex: node.pod, addresses, pod_mac: [0; 6] };
        node.dataplane.attach_pod(&link).expect("attached");
        for port in [80, 80, 81] {
            let syn = Packet::new(Transport::Tcp(SYN), POD, &format!("10.96.0.7:{port}"));
            let verdict = if port == 80 { DROP } else { NEXT };
            assert_eq!(node.run(At::Pod, &syn).0, verdict);
        }
        assert_eq!(drops(node), [(node.pod, "no_backend", 2)]);

        let asked = node.run(At::Pod, &Packet::new(Transport::Tcp(SYN), POD, "203.0.113.5:80")).1;
        let last_hop = asked.reply().bytes_with_hops(1);
        assert_eq!(node.run_frame(At::Uplink, &last_hop).verdict, DROP);
        assert_eq!(drops(node), [(node.pod, "hops_exceeded", 1), (node.pod, "no_backend", 2)]);

        // Nobody's on this node.
        let martian = Packet::new(Transport::Tcp(SYN), "127.0.0.1:40000", "203.0.113.5:80");
        node.run(At::Uplink, &martian);
        assert_eq!(drops(node).len(), 2);

        node.dataplane.detach_pod(node.pod).expect("detached");
        assert_eq!(drops(node), []);
    });
}
