//! Rules of a pod as they are looked up: by whom they are about.
//!
//! What several policies allow is one list; who is meant is compared as a value, so that rules with the same peers share a
//! number. Must not know who the peers are.

use std::collections::{BTreeMap, BTreeSet};

use ipnetwork::IpNetwork;

use crate::desired::{Block, Peer, Pod, Policy, Port, Ports, Protocol, Rule};
use crate::image::Direction;
use crate::selector::Selector;

/// Whom a rule is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Whom {
    /// Everybody.
    Anybody,
    /// Pods.
    Pods(PodPeer),
    /// Addresses, their ranges in their shortest spelling.
    Block(Block),
}

/// Pods that are meant.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PodPeer {
    /// Of which namespaces.
    pub namespaces: Namespaces,
    /// With which labels.
    pub pods: Selector,
}

static EVERY_POD: PodPeer = PodPeer { namespaces: Namespaces::Labelled(EVERYTHING), pods: EVERYTHING };
const EVERYTHING: Selector = Selector { labels: BTreeMap::new(), expressions: Vec::new() };

/// Namespaces that are meant.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Namespaces {
    /// One.
    Named(String),
    /// Those with labels.
    Labelled(Selector),
}

/// Traffic that is meant.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    /// Any.
    All,
    /// Ports of a protocol, both ends included.
    Ports(Protocol, u16, u16),
    /// The port that a peer calls so.
    Named(PortName),
}

/// A port as pods call it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PortName {
    /// Of which protocol.
    pub protocol: Protocol,
    /// The name.
    pub name: String,
}

/// What the policies that select a pod allow together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules {
    /// The directions in which something needs to be allowed, `POLICY_*`.
    pub flags: u32,
    /// What is allowed.
    pub allowed: BTreeMap<Whom, BTreeSet<(Direction, What)>>,
}

/// What policies of a namespace say together of one of its pods that they select.
pub fn compile_rules<'a>(namespace: &str, pod: &Pod, policies: impl Iterator<Item = &'a Policy>) -> Rules {
    let mut rules = Rules::default();
    for policy in policies {
        for (direction, said) in [(Direction::Ingress, &policy.ingress), (Direction::Egress, &policy.egress)]
        {
            let Some(said) = said else { continue };
            rules.flags |= direction.bit();
            for rule in said {
                let what = traffic(direction, pod, rule);
                for whom in peers(namespace, rule) {
                    let allowed = rules.allowed.entry(whom.clone()).or_default();
                    allowed.extend(what.iter().map(|what| (direction, what.clone())));
                    // Only pods have names for ports.
                    if whom == Whom::Anybody && what.iter().any(|it| matches!(it, What::Named(_))) {
                        let allowed = rules.allowed.entry(Whom::Pods(EVERY_POD.clone())).or_default();
                        let named = what.iter().filter(|it| matches!(it, What::Named(_)));
                        allowed.extend(named.map(|what| (direction, what.clone())));
                    }
                }
            }
        }
    }
    rules
}

fn peers(namespace: &str, rule: &Rule) -> Vec<Whom> {
    if rule.peers.is_empty() {
        return vec![Whom::Anybody];
    }
    rule.peers.iter().map(|peer| whom(namespace, peer)).collect()
}

fn whom(namespace: &str, peer: &Peer) -> Whom {
    if let Some(block) = &peer.block {
        let mut except: Vec<_> = block.except.iter().map(shortest).collect();
        except.sort_unstable();
        except.dedup();
        return Whom::Block(Block { cidr: shortest(&block.cidr), except });
    }
    let namespaces = match &peer.namespaces {
        Some(labelled) => Namespaces::Labelled(labelled.clone()),
        None => Namespaces::Named(namespace.to_owned()),
    };
    Whom::Pods(PodPeer { namespaces, pods: peer.pods.clone().unwrap_or_default() })
}

/// A range without the bits behind its prefix.
pub fn shortest(range: &IpNetwork) -> IpNetwork {
    IpNetwork::new(range.network(), range.prefix()).unwrap_or(*range)
}

/// Names of ports are the reached pod's: of what comes in they are known here.
fn traffic(direction: Direction, pod: &Pod, rule: &Rule) -> Vec<What> {
    if rule.ports.is_empty() {
        return vec![What::All];
    }
    let each = rule.ports.iter().flat_map(|Port { protocol, ports }| match ports {
        Ports::All => vec![What::Ports(*protocol, 0, u16::MAX)],
        Ports::Range(first, last) => vec![What::Ports(*protocol, *first, *last)],
        Ports::Named(name) if direction == Direction::Egress => {
            vec![What::Named(PortName { protocol: *protocol, name: name.clone() })]
        }
        Ports::Named(name) => {
            ports_of(pod, *protocol, name).map(|port| What::Ports(*protocol, port, port)).collect()
        }
    });
    each.collect()
}

/// The ports that a pod calls so: containers may call several by one name.
pub fn ports_of<'a>(pod: &'a Pod, protocol: Protocol, name: &'a str) -> impl Iterator<Item = u16> + 'a {
    let named = pod.ports.iter().filter(move |it| it.protocol == protocol && it.name == name);
    named.map(|it| it.port)
}
