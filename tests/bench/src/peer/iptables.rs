//! Rules for iptables-restore with the chains that kube-proxy's iptables mode documents: KUBE-SERVICES by address to
//! KUBE-SVC, by a random number to KUBE-SEP, which translates; KUBE-NODEPORTS by port to KUBE-EXT; marks for masquerade.
//!
//! Written from the documentation of these chains (kubernetes.io, "Virtual IPs and Service Proxies", and KEP-3866's
//! description of the iptables mode). It stands in for kube-proxy and is called a rendering, not kube-proxy.

use std::fmt::Write;

use crate::fleet::Port;
use crate::world::PODS;

const MARK: &str = "0x4000";

/// The text for iptables-restore.
pub fn render(fleet: &[Port]) -> String {
    let mut chains = String::new();
    let mut rules = String::new();
    for (index, port) in fleet.iter().enumerate() {
        add(&mut chains, &mut rules, index, port);
    }
    format!(
        "*filter
:KUBE-FORWARD - [0:0]
:KUBE-PROXY-FIREWALL - [0:0]
:KUBE-EXTERNAL-SERVICES - [0:0]
:KUBE-SERVICES - [0:0]
-A INPUT -m conntrack --ctstate NEW -j KUBE-PROXY-FIREWALL
-A INPUT -m conntrack --ctstate NEW -j KUBE-EXTERNAL-SERVICES
-A FORWARD -m conntrack --ctstate NEW -j KUBE-PROXY-FIREWALL
-A FORWARD -j KUBE-FORWARD
-A FORWARD -m conntrack --ctstate NEW -j KUBE-SERVICES
-A FORWARD -m conntrack --ctstate NEW -j KUBE-EXTERNAL-SERVICES
-A OUTPUT -m conntrack --ctstate NEW -j KUBE-PROXY-FIREWALL
-A OUTPUT -m conntrack --ctstate NEW -j KUBE-SERVICES
-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
-A KUBE-FORWARD -m mark --mark {MARK}/{MARK} -j ACCEPT
-A KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
COMMIT
*nat
:KUBE-SERVICES - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-POSTROUTING - [0:0]
:KUBE-MARK-MASQ - [0:0]
{chains}-A PREROUTING -j KUBE-SERVICES
-A OUTPUT -j KUBE-SERVICES
-A POSTROUTING -j KUBE-POSTROUTING
-A KUBE-MARK-MASQ -j MARK --or-mark {MARK}
-A KUBE-POSTROUTING -m mark ! --mark {MARK}/{MARK} -j RETURN
-A KUBE-POSTROUTING -j MARK --xor-mark {MARK}
-A KUBE-POSTROUTING -j MASQUERADE --random-fully
{rules}-A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS
COMMIT
"
    )
}

fn add(chains: &mut String, rules: &mut String, index: usize, port: &Port) {
    let Port { vip, port: number, backends, .. } = port;
    let protocol = if port.udp { "udp" } else { "tcp" };
    let to_port = |number: u16| format!("-p {protocol} -m {protocol} --dport {number}");
    let comment = format!("-m comment --comment bench/{}", port.name);
    let service = format!("KUBE-SVC-{index:08}");
    // Writing to a string does not fail.
    let _ = writeln!(chains, ":{service} - [0:0]");
    let _ = writeln!(rules, "-A KUBE-SERVICES -d {vip}/32 {comment} {} -j {service}", to_port(*number));
    if let Some(node_port) = port.node_port {
        let external = format!("KUBE-EXT-{index:08}");
        let _ = writeln!(chains, ":{external} - [0:0]");
        let _ = writeln!(rules, "-A KUBE-NODEPORTS {comment} {} -j {external}", to_port(node_port));
        let _ = writeln!(rules, "-A {external} {comment} -j KUBE-MARK-MASQ");
        let _ = writeln!(rules, "-A {external} -j {service}");
    }
    let outsiders = format!("! -s {PODS} -d {vip}/32 {comment} {}", to_port(*number));
    let _ = writeln!(rules, "-A {service} {outsiders} -j KUBE-MARK-MASQ");
    for (at, backend) in backends.iter().enumerate() {
        let endpoint = format!("KUBE-SEP-{index:08}-{at:04}");
        let _ = writeln!(chains, ":{endpoint} - [0:0]");
        let left = backends.len() - at;
        let chance = match left {
            1 => String::new(),
            _ => format!("-m statistic --mode random --probability {:.10} ", 1.0 / left as f64),
        };
        let _ = writeln!(rules, "-A {service} {comment} {chance}-j {endpoint}");
        let _ = writeln!(rules, "-A {endpoint} -s {}/32 {comment} -j KUBE-MARK-MASQ", backend.ip());
        let translate = format!("-p {protocol} {comment} -m {protocol} -j DNAT --to-destination {backend}");
        let _ = writeln!(rules, "-A {endpoint} {translate}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::fleet;

    #[test]
    fn every_service_has_a_rule_and_every_backend_a_chain() {
        let rules = render(&fleet(3, 2));
        let count = |text: &str| rules.lines().filter(|line| line.starts_with(text)).count();
        assert_eq!(count("-A KUBE-SERVICES -d"), 6);
        assert_eq!(count(":KUBE-SEP-"), 12);
        assert_eq!(count("-A KUBE-NODEPORTS"), 4);
        assert!(rules.contains("--probability 0.5000000000"));
    }
}
