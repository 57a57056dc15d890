//! `explain`: the words of a question turned into addresses, the answer shown.
//!
//! It exists to ask what only this node knows: which pod has which address, what a name stands for, which way a backend is.
//! Must not know the rules; `penstock_observe::explain` does.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs, UdpSocket};

use anyhow::{Context, bail};
use nix::sys::socket::{getsockopt, sockopt};
use penstock_dataplane::{Client, Remembered, Snapshot, netns_cookie, socket_ports};
use penstock_network::{Attachment, Netns, observe_attachments};
use penstock_observe::{Destination, Explanation, Question, Source, Step, explain as answer, find_service};

use super::{pins, print};
use crate::options::Explain;

/// Prints what would become of a connection.
pub fn explain(options: &Explain) -> anyhow::Result<()> {
    let pins = pins(&options.inspect)?;
    let state = Snapshot::observe(&pins)?;
    let destination: Destination = options.destination.parse()?;
    let to = resolve(&state, &destination)?;
    let (who, source_port) = split_port(&options.source);
    let pods = observe_attachments(&options.state_dir);
    let source = source(&pods, who, to.ip().to_canonical())?;
    let question = Question {
        source,
        source_port,
        address: to.ip().to_canonical(),
        port: to.port(),
        protocol: destination.protocol,
    };
    let (end, protocol) = ((question.address, question.port), question.protocol);
    let mut remembered = Remembered::observe(&pins, client(&state, &pods, source), end, protocol)?;
    if let Some(ports) = ports(&pods, source, protocol) {
        remembered.know_ports(&ports);
    }
    let mut explanation = answer(&state, &remembered, &question);
    add_ways(&mut explanation);
    print(&if options.inspect.json { explanation.json() } else { explanation.text() })
}

/// Who is asked for, and from which port.
fn split_port(words: &str) -> (&str, Option<u16>) {
    if words.parse::<IpAddr>().is_ok() {
        return (words, None);
    }
    match words.rsplit_once(':').map(|(who, port)| (who, port.parse())) {
        Some((who, Ok(port))) if port != 0 => {
            (who.strip_prefix('[').and_then(|it| it.strip_suffix(']')).unwrap_or(who), Some(port))
        }
        _ => (words, None),
    }
}

fn source(pods: &[Attachment], who: &str, to: IpAddr) -> anyhow::Result<Source> {
    match who {
        "host" => Ok(Source::Host),
        "outside" => Ok(Source::Outside(None)),
        _ => match who.parse::<IpAddr>() {
            Ok(address) if pods.iter().any(|pod| pod.addresses().any(|own| own == address)) => {
                Ok(Source::Pod(address))
            }
            Ok(address) => Ok(Source::Outside(Some(address))),
            Err(_) => {
                let found = pods.iter().find(|it| format!("{}/{}", it.pod.namespace, it.pod.name) == who);
                match found {
                    Some(pod) => match pod.addresses().find(|own| own.is_ipv4() == to.is_ipv4()) {
                        Some(own) => Ok(Source::Pod(own)),
                        None => bail!("{who} has no address of the family of {to}"),
                    },
                    None => bail!(
                        "{who:?} is no pod with a network of its own on this node: write NAMESPACE/NAME, an address, \
                         `host` or `outside`, and ask on the node where the pod runs (`kubectl get pod -o wide`)"
                    ),
                }
            }
        },
    }
}

/// By what the programs know the client. A pod whose namespace cannot be entered is ending.
fn client(state: &Snapshot, pods: &[Attachment], source: Source) -> Client {
    match source {
        Source::Host => Client { address: None, netns: Some(state.config.netns_cookie) },
        Source::Outside(address) => Client { address, netns: None },
        Source::Pod(address) => {
            let pod = pods.iter().find(|pod| pod.addresses().any(|own| own == address));
            let netns = pod.and_then(|pod| Netns::At((&pod.netns).into()).run(netns_cookie).ok()?.ok());
            Client { address: Some(address), netns }
        }
    }
}

/// The client's own ports by the numbers of its sockets, if they can be listed.
fn ports(pods: &[Attachment], source: Source, protocol: u8) -> Option<BTreeMap<u64, u16>> {
    match source {
        Source::Host => socket_ports(protocol).ok(),
        Source::Outside(_) => None,
        Source::Pod(address) => {
            let pod = pods.iter().find(|pod| pod.addresses().any(|own| own == address))?;
            Netns::At((&pod.netns).into()).run(|| socket_ports(protocol)).ok()?.ok()
        }
    }
}

fn resolve(state: &Snapshot, destination: &Destination) -> anyhow::Result<SocketAddr> {
    if let Some(address) = destination.address() {
        return Ok(address);
    }
    if let Some(service) = destination.service() {
        return Ok(find_service(state, &service, destination)?);
    }
    let (host, port) = (&destination.host, &destination.port);
    let port: u16 = port.parse().with_context(|| format!("{port:?} is no port: names are for Services"))?;
    let found = (host.as_str(), port).to_socket_addrs().with_context(|| format!("no address of {host}"))?;
    found.into_iter().next().with_context(|| format!("{host} has no address"))
}

/// Asks the kernel's routing table for the way to each backend, and how much goes through it.
fn add_ways(explanation: &mut Explanation) {
    for backend in explanation.backends.clone() {
        let own: SocketAddr = if backend.is_ipv4() { ([0_u8; 4], 0).into() } else { ([0_u16; 8], 0).into() };
        let socket = UdpSocket::bind(own);
        let way = socket.and_then(|socket| socket.connect(backend).map(|()| socket));
        let outcome = match way {
            Ok(socket) => {
                let from = socket.local_addr().map_or_else(|_| "?".to_owned(), |it| it.ip().to_string());
                let mtu = if backend.is_ipv4() { getsockopt(&socket, sockopt::IpMtu).ok() } else { None };
                let mtu = mtu.map_or_else(String::new, |mtu| format!(", MTU {mtu}"));
                format!("to {} from {from}{mtu}", backend.ip())
            }
            Err(error) => {
                explanation.suggestions.push(format!(
                    "no way to {}: is the backend's node there, and its route (`ip route get {}`)?",
                    backend.ip(),
                    backend.ip()
                ));
                format!("to {}: {error}", backend.ip())
            }
        };
        explanation.steps.push(Step { what: "route", outcome });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_may_have_a_port_and_an_address_of_colons_has_none() {
        for (words, who, port) in [
            ("demo/hello", "demo/hello", None),
            ("demo/hello:40000", "demo/hello", Some(40_000)),
            ("10.240.0.1:40000", "10.240.0.1", Some(40_000)),
            ("fd00::1", "fd00::1", None),
            ("[fd00::1]:40000", "fd00::1", Some(40_000)),
            ("host", "host", None),
            ("demo/hello:0", "demo/hello:0", None),
            ("demo/hello:http", "demo/hello:http", None),
        ] {
            assert_eq!(split_port(words), (who, port), "{words}");
        }
    }
}
