//! NetworkPolicies, and pods as peers of each other, cut down to what policies use. Pure.
//!
//! It exists so that defaults and odd values of the API are dealt with in one place. What cannot be read allows nothing: whoever wrote a
//! limit must not get none. It must not decide whom a policy is about.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::networking::v1 as networking;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::api::ObjectMeta;
use penstock_policy::{
    Block, Expression, NamedPort, Operator, Peer, Pod, Policy, Port, Ports, Protocol, Rule, Selector,
};
use serde::{Deserialize, Deserializer};

use super::seen::View;

/// What policies use of a pod; none of one in its node's network, which has no address of its own.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PeerView(pub Option<Pod>);

impl View<core::Pod> for PeerView {
    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(ObjectMeta, Self), D::Error> {
        let mut object = core::Pod::deserialize(deserializer)?;
        let meta = &mut object.metadata;
        let metadata = ObjectMeta {
            name: meta.name.take(),
            namespace: meta.namespace.take(),
            resource_version: meta.resource_version.take(),
            uid: meta.uid.take(),
            ..ObjectMeta::default()
        };
        Ok((metadata, object.into()))
    }
}

impl From<core::Pod> for PeerView {
    fn from(pod: core::Pod) -> Self {
        let spec = pod.spec.unwrap_or_default();
        if spec.host_network == Some(true) {
            return Self(None);
        }
        let status = pod.status.unwrap_or_default();
        let is_over = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
        let listed = status.pod_ips.unwrap_or_default().into_iter().map(|it| it.ip);
        let mut addresses: Vec<IpAddr> = Vec::new();
        for text in listed.chain(status.pod_ip).filter(|_| !is_over) {
            // The next pod may have the address of one that is over.
            if let Ok(address) = text.parse::<IpAddr>()
                && !addresses.contains(&address.to_canonical())
            {
                addresses.push(address.to_canonical());
            }
        }
        // Containers that run beside the others have ports as they do (sidecars are init containers that go on).
        let containers = spec.containers.into_iter().chain(spec.init_containers.unwrap_or_default());
        let ports = containers.flat_map(|it| it.ports.unwrap_or_default()).filter_map(named_port);
        Self(Some(Pod { labels: pod.metadata.labels.unwrap_or_default(), addresses, ports: ports.collect() }))
    }
}

/// What is enforced of a NetworkPolicy.
pub fn policy_view(policy: networking::NetworkPolicy) -> Policy {
    let spec = policy.spec.unwrap_or_default();
    let ingress = spec.ingress.unwrap_or_default().into_iter().map(|it| rule(it.from, it.ports)).collect();
    let egress: Vec<_> =
        spec.egress.unwrap_or_default().into_iter().map(|it| rule(it.to, it.ports)).collect();
    // An API server fills the types in; as it would where it did not.
    let types = spec.policy_types.filter(|it| !it.is_empty());
    let speaks_of = |kind: &str, default| types.as_ref().map_or(default, |it| it.iter().any(|it| it == kind));
    let (of_ingress, of_egress) = (speaks_of("Ingress", true), speaks_of("Egress", !egress.is_empty()));
    Policy {
        pods: spec.pod_selector.and_then(selector).unwrap_or_default(),
        ingress: of_ingress.then_some(ingress),
        egress: of_egress.then_some(egress),
    }
}

/// A rule whose peers or ports are there but cannot be read allows nothing, where an empty list would allow everything.
fn rule(
    peers: Option<Vec<networking::NetworkPolicyPeer>>,
    ports: Option<Vec<networking::NetworkPolicyPort>>,
) -> Rule {
    let peers = peers.unwrap_or_default().into_iter().map(|it| peer(it).unwrap_or_else(nobody)).collect();
    let ports = ports.unwrap_or_default().into_iter().map(|it| port(it).unwrap_or_else(no_port)).collect();
    Rule { peers, ports }
}

fn peer(peer: networking::NetworkPolicyPeer) -> Option<Peer> {
    let block = match peer.ip_block {
        Some(block) => {
            let except: Option<Vec<_>> =
                block.except.unwrap_or_default().iter().map(|it| it.parse::<IpNetwork>().ok()).collect();
            Some(Block { cidr: block.cidr.parse().ok()?, except: except? })
        }
        None => None,
    };
    let read = |it: Option<LabelSelector>| match it {
        Some(it) => selector(it).map(Some),
        None => Some(None),
    };
    let (namespaces, pods) = (read(peer.namespace_selector)?, read(peer.pod_selector)?);
    (block.is_some() || namespaces.is_some() || pods.is_some()).then_some(Peer { namespaces, pods, block })
}

fn port(port: networking::NetworkPolicyPort) -> Option<Port> {
    let protocol = protocol(port.protocol.as_deref())?;
    let number = |it: i32| u16::try_from(it).ok();
    let ports = match (port.port, port.end_port) {
        (None, _) => Ports::All,
        (Some(IntOrString::String(name)), _) => Ports::Named(name),
        (Some(IntOrString::Int(first)), None) => Ports::Range(number(first)?, number(first)?),
        (Some(IntOrString::Int(first)), Some(last)) => Ports::Range(number(first)?, number(last)?),
    };
    Some(Port { protocol, ports })
}

fn selector(from: LabelSelector) -> Option<Selector> {
    let expressions = from.match_expressions.unwrap_or_default().into_iter().map(|it| {
        let operator = match it.operator.as_str() {
            "In" => Operator::In,
            "NotIn" => Operator::NotIn,
            "Exists" => Operator::Exists,
            "DoesNotExist" => Operator::DoesNotExist,
            _ => return None,
        };
        Some(Expression {
            key: it.key,
            operator,
            values: it.values.unwrap_or_default().into_iter().collect(),
        })
    });
    Some(Selector {
        labels: from.match_labels.unwrap_or_default(),
        expressions: expressions.collect::<Option<_>>()?,
    })
}

/// A peer that nobody is.
fn nobody() -> Peer {
    let never = Expression { key: String::new(), operator: Operator::Exists, values: Default::default() };
    let pods = Selector { labels: Default::default(), expressions: vec![never] };
    Peer { namespaces: None, pods: Some(pods), block: None }
}

/// No port at all: nobody calls one by an empty name.
fn no_port() -> Port {
    Port { protocol: Protocol::Tcp, ports: Ports::Named(String::new()) }
}

fn named_port(port: core::ContainerPort) -> Option<NamedPort> {
    Some(NamedPort {
        name: port.name.filter(|it| !it.is_empty())?,
        protocol: protocol(port.protocol.as_deref())?,
        port: u16::try_from(port.container_port).ok()?,
    })
}

fn protocol(name: Option<&str>) -> Option<Protocol> {
    match name {
        None | Some("TCP") => Some(Protocol::Tcp),
        Some("UDP") => Some(Protocol::Udp),
        Some("SCTP") => Some(Protocol::Sctp),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn policy(spec: Value) -> Policy {
        policy_view(serde_json::from_value(json!({"metadata": {"name": "a"}, "spec": spec})).unwrap())
    }

    #[test]
    fn a_policy_speaks_of_ingress_unless_it_says_otherwise_and_of_egress_if_it_has_rules_for_it() {
        let spoken = |spec| {
            let policy = policy(spec);
            (policy.ingress.is_some(), policy.egress.is_some())
        };
        assert_eq!(spoken(json!({"podSelector": {}})), (true, false));
        assert_eq!(spoken(json!({"podSelector": {}, "egress": [{}]})), (true, true));
        assert_eq!(spoken(json!({"podSelector": {}, "policyTypes": ["Egress"]})), (false, true));
    }

    #[test]
    fn peers_and_ports_are_read_as_they_are_written() {
        let view = policy(json!({
            "podSelector": {"matchLabels": {"app": "web"}},
            "policyTypes": ["Ingress"],
            "ingress": [{
                "from": [
                    {"podSelector": {}, "namespaceSelector": {"matchExpressions": [{"key": "team", "operator": "In", "values": ["x"]}]}},
                    {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}},
                ],
                "ports": [{"port": 80, "endPort": 90}, {"protocol": "UDP", "port": "dns"}, {"protocol": "SCTP"}],
            }],
        }));
        let rule = &view.ingress.unwrap()[0];
        assert_eq!(rule.peers.len(), 2);
        assert!(rule.peers[0].pods.is_some() && rule.peers[0].namespaces.is_some());
        assert_eq!(rule.peers[1].block.as_ref().unwrap().except.len(), 1);
        let of = |protocol, ports| Port { protocol, ports };
        assert_eq!(
            rule.ports,
            [
                of(Protocol::Tcp, Ports::Range(80, 90)),
                of(Protocol::Udp, Ports::Named("dns".into())),
                of(Protocol::Sctp, Ports::All),
            ]
        );
        assert_eq!(view.egress, None);
    }

    #[test]
    fn what_cannot_be_read_is_nobody_and_not_everybody() {
        let view = policy(json!({
            "podSelector": {},
            "ingress": [{"from": [{"ipBlock": {"cidr": "nonsense"}}], "ports": [{"protocol": "ICMP"}]}, {"from": [{}]}],
        }));
        let rules = view.ingress.unwrap();
        assert!(rules.iter().all(|rule| rule.peers.len() == 1));
        assert_eq!(rules[0].ports.len(), 1);
        let labels = [("".to_owned(), "".to_owned())].into();
        assert!(!rules[0].peers[0].pods.as_ref().unwrap().selects(&Default::default()));
        assert!(rules[0].peers[0].pods.as_ref().unwrap().selects(&labels), "which no pod has");
    }

    #[test]
    fn a_pod_keeps_labels_addresses_and_names_of_ports_while_it_lives_in_its_own_network() {
        let pod = |spec: Value, status: Value| {
            let pod =
                json!({"metadata": {"name": "p", "labels": {"a": "b"}}, "spec": spec, "status": status});
            PeerView::from(serde_json::from_value::<core::Pod>(pod).unwrap()).0
        };
        let spec = json!({"containers": [{"name": "c", "ports": [{"name": "web", "containerPort": 80}, {"containerPort": 81}]}]});
        let status = json!({"phase": "Running", "podIP": "10.1.0.1", "podIPs": [{"ip": "10.1.0.1"}, {"ip": "fd00::1"}]});
        let view = pod(spec.clone(), status.clone()).unwrap();
        assert_eq!(view.addresses.len(), 2);
        assert_eq!(view.ports, [NamedPort { name: "web".into(), protocol: Protocol::Tcp, port: 80 }]);
        assert_eq!(view.labels.get("a").map(String::as_str), Some("b"));
        let over = pod(spec, json!({"phase": "Succeeded", "podIP": "10.1.0.1"})).unwrap();
        assert_eq!(over.addresses, Vec::<IpAddr>::new());
        assert_eq!(pod(json!({"containers": [], "hostNetwork": true}), status), None);
    }
}
