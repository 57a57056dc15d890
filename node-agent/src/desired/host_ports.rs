//! Host ports as services: the node's address and the pod's host port lead to that one pod. Pure.
//!
//! It exists because the data plane already knows how to do that; a second mechanism would need iptables. It must
//! not know where attachments come from.

use std::collections::BTreeMap;
use std::net::IpAddr;

use penstock_dataplane::{Backend, Protocol, Service, ServiceChange};
use penstock_network::Attachment;

/// What the host ports of each pod are to the data plane. They get a name no Service can have, `pod/` and the pod's,
/// because a pod may have a Service's name. `node_ips` stand for "every
/// address" of a mapping, and each leads to the pod's address of its family.
pub fn compile_host_ports(attachments: &[Attachment], node_ips: &[IpAddr]) -> Vec<ServiceChange> {
    let mut pods: BTreeMap<(&str, &str), ServiceChange> = BTreeMap::new();
    for attachment in attachments {
        for mapping in &attachment.port_mappings {
            let protocol = match mapping.protocol.to_ascii_lowercase().as_str() {
                "tcp" => Protocol::Tcp,
                "udp" => Protocol::Udp,
                "sctp" => Protocol::Sctp,
                _ => continue,
            };
            // Runtimes hand over every container port; those without a host port have 0.
            if mapping.host_port == 0 {
                continue;
            }
            let named: Option<IpAddr> = mapping.host_ip.parse().ok();
            let hosts = match named {
                Some(host) if !host.is_unspecified() => vec![host],
                // 0.0.0.0 and :: are every address of their family, nothing is every address.
                Some(every) => {
                    node_ips.iter().copied().filter(|ip| ip.is_ipv4() == every.is_ipv4()).collect()
                }
                None => node_ips.to_vec(),
            };
            for host in hosts {
                let Some(address) = attachment.addresses().find(|own| own.is_ipv4() == host.is_ipv4()) else {
                    continue;
                };
                let service = Service {
                    port: mapping.host_port,
                    protocol,
                    external_ips: if host.is_loopback() { Vec::new() } else { vec![host] },
                    loopbacks: if host.is_loopback() { vec![host] } else { Vec::new() },
                    backends: vec![Backend {
                        address,
                        port: mapping.container_port,
                        local: true,
                        ..Backend::default()
                    }],
                    ..Service::default()
                };
                let pod = &attachment.pod;
                let change = pods.entry((&pod.namespace, &pod.name)).or_insert_with(|| ServiceChange {
                    namespace: pod.namespace.clone(),
                    name: format!("pod/{}", pod.name),
                    ports: BTreeMap::new(),
                });
                change.ports.insert(format!("{host}:{}/{}", mapping.host_port, mapping.protocol), service);
            }
        }
    }
    pods.into_values().collect()
}
