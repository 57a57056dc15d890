//! Rules for nft with the shape that kube-proxy's nftables mode documents: one map from address, protocol and port to a
//! service's chain, which chooses an endpoint's chain by a random number and a verdict map.
//!
//! Written from KEP-3866 and the documentation of the mode. It stands in for kube-proxy and is called a rendering, not
//! kube-proxy.

use std::fmt::Write;

use crate::fleet::Port;
use crate::world::{NODE, PODS};

const MARK: &str = "0x4000";

/// The text for `nft -f`.
pub fn render(fleet: &[Port]) -> String {
    let (mut chains, mut by_address, mut by_node_port) = (String::new(), Vec::new(), Vec::new());
    for (index, port) in fleet.iter().enumerate() {
        let protocol = if port.udp { "udp" } else { "tcp" };
        by_address.push(format!("{} . {protocol} . {} : goto service-{index}", port.vip, port.port));
        if let Some(node_port) = port.node_port {
            by_node_port.push(format!("{protocol} . {node_port} : goto external-{index}"));
        }
        add(&mut chains, index, port, protocol);
    }
    let vips: std::collections::BTreeSet<String> = fleet.iter().map(|port| port.vip.to_string()).collect();
    let list = |items: Vec<String>| items.join(",\n");
    format!(
        "table ip kube-proxy {{
chain mark-for-masquerade {{ meta mark set meta mark or {MARK}; }}
{chains}
set cluster-ips {{ type ipv4_addr; elements = {{ {} }}; }}
set nodeport-ips {{ type ipv4_addr; elements = {{ {NODE} }}; }}
map service-ips {{ type ipv4_addr . inet_proto . inet_service : verdict; elements = {{ {} }}; }}
map service-nodeports {{ type inet_proto . inet_service : verdict; elements = {{ {} }}; }}
map no-endpoint-services {{ type ipv4_addr . inet_proto . inet_service : verdict; }}
map no-endpoint-nodeports {{ type inet_proto . inet_service : verdict; }}
map firewall-ips {{ type ipv4_addr . inet_proto . inet_service : verdict; }}
chain services {{
  ip daddr . meta l4proto . th dport vmap @service-ips
  ip daddr @nodeport-ips meta l4proto . th dport vmap @service-nodeports
}}
chain firewall-check {{ ip daddr . meta l4proto . th dport vmap @firewall-ips; }}
chain service-endpoints-check {{ ip daddr . meta l4proto . th dport vmap @no-endpoint-services; }}
chain nodeport-endpoints-check {{ ip daddr @nodeport-ips meta l4proto . th dport vmap @no-endpoint-nodeports; }}
chain cluster-ips-check {{ ip daddr @cluster-ips reject; }}
chain masquerading {{
  meta mark and {MARK} == 0 return
  meta mark set meta mark xor {MARK}
  masquerade fully-random
}}
chain nat-prerouting {{ type nat hook prerouting priority dstnat; jump services; }}
chain nat-output {{ type nat hook output priority -100; jump services; }}
chain nat-postrouting {{ type nat hook postrouting priority srcnat; jump masquerading; }}
chain filter-prerouting {{ type filter hook prerouting priority -110; ct state new jump firewall-check; }}
chain filter-input {{ type filter hook input priority -110; ct state new jump nodeport-endpoints-check; ct state new jump service-endpoints-check; }}
chain filter-forward {{ type filter hook forward priority -110; ct state new jump service-endpoints-check; ct state new jump cluster-ips-check; }}
chain filter-output {{ type filter hook output priority -110; ct state new jump service-endpoints-check; ct state new jump firewall-check; }}
chain filter-output-post-dnat {{ type filter hook output priority -90; ct state new jump cluster-ips-check; }}
}}
",
        list(vips.into_iter().collect()),
        list(by_address),
        list(by_node_port)
    )
}

fn add(chains: &mut String, index: usize, port: &Port, protocol: &str) {
    let mut choices = Vec::new();
    // Writing to a string does not fail.
    for (at, backend) in port.backends.iter().enumerate() {
        let _ = writeln!(
            chains,
            "chain endpoint-{index}-{at} {{ ip saddr {} jump mark-for-masquerade\nmeta l4proto {protocol} dnat to {backend}; }}",
            backend.ip()
        );
        choices.push(format!("{at} : goto endpoint-{index}-{at}"));
    }
    let _ = writeln!(
        chains,
        "chain service-{index} {{ ip daddr {} {protocol} dport {} ip saddr != {PODS} jump mark-for-masquerade\nnumgen random mod {} vmap {{ {} }}; }}",
        port.vip,
        port.port,
        port.backends.len(),
        choices.join(", ")
    );
    if port.node_port.is_some() {
        let _ =
            writeln!(chains, "chain external-{index} {{ jump mark-for-masquerade\ngoto service-{index}; }}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::fleet;

    #[test]
    fn every_service_is_an_element_and_every_backend_a_chain() {
        let rules = render(&fleet(3, 2));
        assert_eq!(rules.matches(": goto service-").count(), 6);
        assert_eq!(rules.matches("chain endpoint-").count(), 12);
        assert_eq!(rules.matches(": goto external-").count(), 4);
    }
}
