//! Host ports as services: the node's address and the pod's host port lead to that one pod. Pure.
//!
//! It exists because the data plane already knows how to do that; a second mechanism would need iptables. It must
//! not know where attachments come from.

use std::collections::BTreeSet;
use std::net::IpAddr;

use penstock_dataplane::{Backend, Desired, Protocol, Service, ServiceKey};
use penstock_network::Attachment;

/// Marks the entries of this file. No API object has a colon in its port's name.
const MARK: &str = "host-port:";

/// Brings the entries for host ports up to date. `node_ip` stands for "every address" of a mapping.
pub fn compile_host_ports(desired: &mut Desired, attachments: &[Attachment], node_ip: IpAddr) {
    let mut wanted = BTreeSet::new();
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
            let host = mapping.host_ip.parse().ok().filter(|ip: &IpAddr| !ip.is_unspecified());
            let host = host.unwrap_or(node_ip);
            let port = format!("{MARK}{host}:{}/{}", mapping.host_port, mapping.protocol);
            let key = ServiceKey::new(&attachment.pod.namespace, &attachment.pod.name, port);
            let service = Service {
                port: mapping.host_port,
                protocol,
                external_ips: vec![host],
                backends: vec![Backend {
                    address: IpAddr::V4(attachment.address),
                    port: mapping.container_port,
                    local: true,
                    ready: true,
                    serving: true,
                    ..Backend::default()
                }],
                ..Service::default()
            };
            desired.services.insert(key.clone(), service);
            wanted.insert(key);
        }
    }
    desired.services.retain(|key, _| !is_host_port(key) || wanted.contains(key));
}

/// Whether an entry is of this file.
pub(super) fn is_host_port(key: &ServiceKey) -> bool {
    key.port.starts_with(MARK)
}
