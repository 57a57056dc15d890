//! A pod's sandbox as the runtime wants it: names, resolver, ports, namespaces. Pure.

use std::path::Path;

use penstock_runtime::{
    DnsConfig, IdMode, NamespaceOptions, PortMapping, Protocol, SandboxConfig, SeccompProfile,
};

use crate::config::PodsConfig;
use crate::desired::Desired;
use crate::names;

/// Limits of resolvers (glibc's, which everything else follows).
const NAMESERVERS_MAX: usize = 3;
const SEARCHES_MAX: usize = 32;

/// Builds the sandbox of a pod. `node_resolver` is the text of the node's resolv.conf.
pub fn compile(
    desired: &Desired,
    config: &PodsConfig,
    cgroup_parent: &str,
    node_resolver: &str,
    attempt: u32,
) -> SandboxConfig {
    let spec = desired.spec();
    let security = spec.security_context.clone().unwrap_or_default();
    let privileged = desired
        .specs
        .iter()
        .any(|s| s.container.security_context.as_ref().and_then(|c| c.privileged).unwrap_or(false));
    let seccomp = security.seccomp_profile.as_ref();
    SandboxConfig {
        name: desired.name.clone(),
        namespace: desired.namespace.clone(),
        uid: desired.uid.clone(),
        attempt,
        hostname: if desired.host_network() {
            String::new()
        } else {
            hostname(desired, &config.cluster_domain)
        },
        log_directory: log_directory(&config.pod_logs_dir, desired),
        dns: Some(resolver(desired, config, node_resolver)),
        port_mappings: port_mappings(desired),
        labels: labels(desired),
        annotations: annotations(desired),
        cgroup_parent: cgroup_parent.to_string(),
        namespaces: namespaces(desired),
        privileged,
        run_as_user: security.run_as_user,
        run_as_group: security.run_as_user.and(security.run_as_group),
        supplemental_groups: security
            .fs_group
            .into_iter()
            .chain(security.supplemental_groups.into_iter().flatten())
            .collect(),
        seccomp: seccomp
            .map_or(SeccompProfile::RuntimeDefault, |p| profile(&p.type_, p.localhost_profile.as_deref())),
        sysctls: security.sysctls.iter().flatten().map(|s| (s.name.clone(), s.value.clone())).collect(),
    }
}

/// A seccomp profile as the API writes it.
pub fn profile(kind: &str, localhost: Option<&str>) -> SeccompProfile {
    match kind {
        "RuntimeDefault" => SeccompProfile::RuntimeDefault,
        "Localhost" => SeccompProfile::Localhost(localhost.unwrap_or_default().to_string()),
        _ => SeccompProfile::Unconfined,
    }
}

/// `<dir>/<namespace>_<name>_<uid>`.
pub fn log_directory(dir: &Path, desired: &Desired) -> String {
    let name = format!("{}_{}_{}", desired.namespace, desired.name, desired.uid);
    dir.join(name).to_string_lossy().into_owned()
}

/// What sandboxes and containers of a pod carry.
pub fn labels(desired: &Desired) -> std::collections::BTreeMap<String, String> {
    let mut labels = desired.pod.metadata.labels.clone().unwrap_or_default();
    labels.insert(names::POD_NAME.into(), desired.name.clone());
    labels.insert(names::POD_NAMESPACE.into(), desired.namespace.clone());
    labels.insert(names::POD_UID.into(), desired.uid.clone());
    labels
}

fn annotations(desired: &Desired) -> std::collections::BTreeMap<String, String> {
    let mut annotations = desired.pod.metadata.annotations.clone().unwrap_or_default();
    annotations.insert(names::POD_GRACE.into(), desired.grace_seconds().to_string());
    annotations
}

/// Namespaces of the sandbox; containers differ only in the process namespace.
pub fn namespaces(desired: &Desired) -> NamespaceOptions {
    let spec = desired.spec();
    let node = |asked: Option<bool>| {
        if asked == Some(true) { IdMode::Node } else { IdMode::Pod }
    };
    let pid = match (spec.host_pid, spec.share_process_namespace) {
        (Some(true), _) => IdMode::Node,
        (_, Some(true)) => IdMode::Pod,
        _ => IdMode::Container,
    };
    NamespaceOptions { network: node(spec.host_network), pid, ipc: node(spec.host_ipc) }
}

/// The pod's host name; 63 characters at most.
pub fn hostname(desired: &Desired, domain: &str) -> String {
    let spec = desired.spec();
    if let Some(name) = spec.hostname_override.as_ref().filter(|n| !n.is_empty()) {
        return name.clone();
    }
    let short = spec.hostname.as_deref().filter(|h| !h.is_empty()).unwrap_or(&desired.name);
    let short: String = short.chars().take(63).collect();
    let short = short.trim_end_matches(['-', '.']).to_string();
    match fqdn(desired, domain) {
        Some(full) if spec.set_hostname_as_fqdn == Some(true) => full,
        _ => short,
    }
}

/// `host.subdomain.namespace.svc.domain`, for pods with a subdomain.
pub fn fqdn(desired: &Desired, domain: &str) -> Option<String> {
    let spec = desired.spec();
    let subdomain = spec.subdomain.as_deref().filter(|s| !s.is_empty())?;
    let host = spec.hostname.as_deref().filter(|h| !h.is_empty()).unwrap_or(&desired.name);
    Some(format!("{host}.{subdomain}.{}.svc.{domain}", desired.namespace))
}

fn port_mappings(desired: &Desired) -> Vec<PortMapping> {
    let all = desired.specs.iter().flat_map(|s| s.container.ports.iter().flatten());
    all.filter_map(|port| {
        Some(PortMapping {
            protocol: match port.protocol.as_deref() {
                Some("UDP") => Protocol::Udp,
                Some("SCTP") => Protocol::Sctp,
                _ => Protocol::Tcp,
            },
            container_port: u16::try_from(port.container_port).ok()?,
            host_port: port.host_port.map_or(Some(0), |p| u16::try_from(p).ok())?,
            host_ip: port.host_ip.clone().unwrap_or_default(),
        })
    })
    .collect()
}

// === resolver ===

fn resolver(desired: &Desired, config: &PodsConfig, node_resolver: &str) -> DnsConfig {
    let spec = desired.spec();
    let node = parse_resolv_conf(node_resolver);
    let policy = spec.dns_policy.as_deref().unwrap_or("ClusterFirst");
    let in_cluster = match policy {
        "ClusterFirstWithHostNet" => true,
        "ClusterFirst" => !desired.host_network(),
        _ => false,
    };
    let mut dns = if policy == "None" {
        DnsConfig::default()
    } else if in_cluster && !config.cluster_dns.is_empty() {
        let domain = &config.cluster_domain;
        let own = [format!("{}.svc.{domain}", desired.namespace), format!("svc.{domain}"), domain.clone()];
        DnsConfig {
            servers: config.cluster_dns.iter().map(ToString::to_string).collect(),
            searches: own.into_iter().chain(node.searches).collect(),
            options: vec!["ndots:5".to_string()],
        }
    } else {
        node
    };
    if let Some(more) = &spec.dns_config {
        dns.servers.extend(more.nameservers.iter().flatten().cloned());
        dns.searches.extend(more.searches.iter().flatten().cloned());
        for option in more.options.iter().flatten() {
            let Some(name) = &option.name else { continue };
            dns.options.retain(|o| o.split(':').next() != Some(name));
            dns.options.push(option.value.as_ref().map_or(name.clone(), |v| format!("{name}:{v}")));
        }
    }
    unique(&mut dns.servers);
    unique(&mut dns.searches);
    dns.servers.truncate(NAMESERVERS_MAX);
    dns.searches.truncate(SEARCHES_MAX);
    dns
}

fn unique(list: &mut Vec<String>) {
    let mut seen = std::collections::BTreeSet::new();
    list.retain(|item| seen.insert(item.clone()));
}

fn parse_resolv_conf(text: &str) -> DnsConfig {
    let mut dns = DnsConfig::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => dns.servers.extend(words.next().map(str::to_string)),
            Some("search" | "domain") => dns.searches = words.map(str::to_string).collect(),
            Some("options") => dns.options.extend(words.map(str::to_string)),
            _ => {}
        }
    }
    dns
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desired::Origin;

    fn sandbox(spec: serde_json::Value) -> SandboxConfig {
        let pod = serde_json::json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": spec});
        let desired = Desired::new(serde_json::from_value(pod).unwrap(), Origin::Api).unwrap();
        let config = PodsConfig::new("node", vec![[10, 240, 0, 11].into()], "/nonexistent");
        compile(&desired, &config, "/pods", "nameserver 9.9.9.9\nsearch example.org\n", 0)
    }

    #[test]
    fn a_pod_resolves_in_the_cluster_first() {
        let dns = sandbox(serde_json::json!({"containers": []})).dns.unwrap();
        assert_eq!(dns.servers, ["10.96.0.10"]);
        assert_eq!(
            dns.searches,
            ["n.svc.cluster.local", "svc.cluster.local", "cluster.local", "example.org"]
        );
        assert_eq!(dns.options, ["ndots:5"]);
    }

    #[test]
    fn a_pod_in_the_nodes_network_resolves_as_the_node_does() {
        let config = sandbox(serde_json::json!({"hostNetwork": true, "containers": []}));
        assert_eq!(config.dns.unwrap().servers, ["9.9.9.9"]);
        assert_eq!(config.namespaces.network, IdMode::Node);
        assert_eq!(config.hostname, "");
    }

    #[test]
    fn a_policy_of_none_uses_only_what_the_pod_says() {
        let spec = serde_json::json!({"dnsPolicy": "None", "containers": [], "dnsConfig":
            {"nameservers": ["1.1.1.1"], "searches": ["a.b"], "options": [{"name": "ndots", "value": "2"}]}});
        let dns = sandbox(spec).dns.unwrap();
        assert_eq!(
            (dns.servers, dns.searches, dns.options),
            (vec!["1.1.1.1".into()], vec!["a.b".into()], vec!["ndots:2".into()])
        );
    }
}
