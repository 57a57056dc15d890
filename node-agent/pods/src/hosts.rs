//! The managed /etc/hosts of a pod. Pure.

use crate::desired::Desired;
use crate::sandbox;

const HEADER: &str = "# Kubernetes-managed hosts file.\n";
const HEADER_NODE: &str = "# Kubernetes-managed hosts file (host network).\n";

/// The file's text. `node_hosts` is the node's own file, for pods in the node's network.
pub fn compile(desired: &Desired, addresses: &[String], domain: &str, node_hosts: &str) -> String {
    let mut text = if desired.host_network() {
        format!("{HEADER_NODE}{node_hosts}")
    } else {
        let hostname = sandbox::hostname(desired, domain);
        let names = match sandbox::fqdn(desired, domain) {
            Some(full) if full != hostname => format!("{full}\t{hostname}"),
            _ => hostname,
        };
        let mut text = format!(
            "{HEADER}127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
             fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n"
        );
        for address in addresses {
            text.push_str(&format!("{address}\t{names}\n"));
        }
        text
    };
    let aliases = desired.spec().host_aliases.as_deref().unwrap_or_default();
    if !aliases.is_empty() {
        text.push_str("\n# Entries added by HostAliases.\n");
        for alias in aliases {
            let names = alias.hostnames.as_deref().unwrap_or_default().join("\t");
            text.push_str(&format!("{}\t{names}\n", alias.ip));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desired::Origin;

    #[test]
    fn a_pod_finds_itself_and_its_aliases() {
        let pod = serde_json::json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": {
            "containers": [], "subdomain": "sub", "hostAliases": [{"ip": "1.2.3.4", "hostnames": ["a", "b"]}]}});
        let desired = Desired::new(serde_json::from_value(pod).unwrap(), Origin::Api).unwrap();
        let text = compile(&desired, &["10.244.0.9".into()], "cluster.local", "");
        assert!(text.contains("10.244.0.9\tp.sub.n.svc.cluster.local\tp\n"), "{text}");
        assert!(text.ends_with("1.2.3.4\ta\tb\n"), "{text}");
    }
}
