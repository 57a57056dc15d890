//! What is asked: from whom, to whom. Reads the words of a person, names nothing it does not find.

use std::net::{IpAddr, SocketAddr};

use penstock_dataplane::Snapshot;
use penstock_ebpf_common::{PROTOCOL_SCTP, PROTOCOL_TCP, PROTOCOL_UDP, VIP_HOST_ONLY, VIP_NODE_PORT, VipKey};

/// Who connects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// A process of the node itself.
    Host,
    /// A pod of this node, by its address.
    Pod(IpAddr),
    /// Somebody whose packets come in by the uplink.
    Outside(Option<IpAddr>),
}

/// A connection that is to be made, or that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// From whom.
    pub source: Source,
    /// From which port; none while it is open.
    pub source_port: Option<u16>,
    /// To which address.
    pub address: IpAddr,
    /// To which port.
    pub port: u16,
    /// IP protocol number.
    pub protocol: u8,
}

/// To whom, as it is written: `HOST:PORT[/PROTOCOL]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// An address, `namespace/name`, or a DNS name.
    pub host: String,
    /// A number, or a Service port's name.
    pub port: String,
    /// IP protocol number.
    pub protocol: u8,
}

/// Why a question cannot be asked.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoAnswer {
    /// The words.
    #[error(
        "{0:?} is no destination: write ADDRESS:PORT, NAMESPACE/SERVICE:PORT or DNS-NAME:PORT, and /tcp, /udp or /sctp behind it"
    )]
    Destination(String),
    /// The protocol.
    #[error("{0:?} is no protocol of Services: tcp, udp or sctp")]
    Protocol(String),
    /// Nothing is served under the name.
    #[error("no Service {name} with a port {port}/{protocol} is served on this node; {there}")]
    NoService {
        /// `namespace/name`.
        name: String,
        /// As asked.
        port: String,
        /// As asked.
        protocol: String,
        /// What is there instead.
        there: String,
    },
}

/// The number of a protocol of Services.
pub fn protocol_number(name: &str) -> Result<u8, NoAnswer> {
    match name.to_ascii_lowercase().as_str() {
        "tcp" => Ok(PROTOCOL_TCP),
        "udp" => Ok(PROTOCOL_UDP),
        "sctp" => Ok(PROTOCOL_SCTP),
        _ => Err(NoAnswer::Protocol(name.to_owned())),
    }
}

impl std::str::FromStr for Destination {
    type Err = NoAnswer;

    fn from_str(text: &str) -> Result<Self, NoAnswer> {
        let wrong = || NoAnswer::Destination(text.to_owned());
        let (at, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let (port, protocol) = match port.split_once('/') {
            Some((port, protocol)) => (port, protocol_number(protocol)?),
            None => (port, PROTOCOL_TCP),
        };
        let host = at.strip_prefix('[').and_then(|it| it.strip_suffix(']')).unwrap_or(at);
        if host.is_empty() || port.is_empty() || port.parse::<u16>() == Ok(0) {
            return Err(wrong());
        }
        Ok(Self { host: host.to_owned(), port: port.to_owned(), protocol })
    }
}

impl Destination {
    /// `namespace/name` of the Service it names: so written, or as DNS has it.
    pub fn service(&self) -> Option<String> {
        if self.host.parse::<IpAddr>().is_ok() {
            return None;
        }
        if self.host.contains('/') {
            return Some(self.host.clone());
        }
        let mut labels = self.host.trim_end_matches('.').split('.');
        match (labels.next(), labels.next(), labels.next()) {
            (Some(name), Some(namespace), Some("svc")) => Some(format!("{namespace}/{name}")),
            _ => None,
        }
    }

    /// The address and port it is, if it is one.
    pub fn address(&self) -> Option<SocketAddr> {
        Some(SocketAddr::new(self.host.parse().ok()?, self.port.parse().ok()?))
    }
}

/// The address and port by which clients in the cluster reach a Service: its ClusterIP, or what it has instead.
pub fn find_service(state: &Snapshot, name: &str, to: &Destination) -> Result<SocketAddr, NoAnswer> {
    let image = &state.image;
    let mut found: Vec<(bool, VipKey)> = Vec::new();
    let mut there = Vec::new();
    for (key, vip) in &image.vips {
        let Some(service) = image.names.get(&vip.service) else { continue };
        if format!("{}/{}", service.namespace, service.name) != name || vip.flags & VIP_HOST_ONLY != 0 {
            continue;
        }
        let port = u16::from_be(key.port);
        let called = service.port == to.port || to.port.parse() == Ok(port);
        if called && key.protocol == to.protocol {
            found.push((vip.flags & VIP_NODE_PORT != 0 || vip.outside != 0, *key));
        } else {
            let at = SocketAddr::new(key.address.into(), port);
            there.push(format!("{at}/{} ({service})", crate::protocol_name(key.protocol)));
        }
    }
    found.sort();
    match found.first() {
        Some((_, key)) => Ok(SocketAddr::new(key.address.into(), u16::from_be(key.port))),
        None => Err(NoAnswer::NoService {
            name: name.to_owned(),
            port: to.port.clone(),
            protocol: crate::protocol_name(to.protocol),
            there: if there.is_empty() {
                "it does not exist, is headless or an ExternalName, or has no address yet: see `kubectl get service`"
                    .to_owned()
            } else {
                there.truncate(8);
                format!("it has {}", there.join(", "))
            },
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_are_read_as_people_write_them() {
        let read = |text: &str| text.parse::<Destination>();
        let one = read("10.96.0.7:80").unwrap();
        assert_eq!((one.address().unwrap().to_string(), one.protocol), ("10.96.0.7:80".to_owned(), 6));
        assert_eq!(read("[fd00::1]:53/udp").unwrap().address().unwrap().to_string(), "[fd00::1]:53");
        let named = read("demo/hello:http/TCP").unwrap();
        assert_eq!((named.service().as_deref(), named.port.as_str()), (Some("demo/hello"), "http"));
        assert_eq!(read("hello.demo.svc.cluster.local:80").unwrap().service().as_deref(), Some("demo/hello"));
        assert_eq!(read("example.org:80").unwrap().service(), None);
        for wrong in ["10.96.0.7", "", ":80", "a/b:", "10.96.0.7:0"] {
            assert!(matches!(read(wrong), Err(NoAnswer::Destination(_))), "{wrong}");
        }
        assert_eq!(read("a/b:80/icmp"), Err(NoAnswer::Protocol("icmp".to_owned())));
    }
}
