//! The specification of NetworkPolicy, read plainly: for each question all policies are asked.
//!
//! It exists to be compared with, so it shares nothing with what is compiled but the words of the cluster.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::Step;
use crate::{Direction, Labels, Peer, Planner, Pod, PodName, Policy, Port, Ports};

/// All that is known.
#[derive(Debug, Clone, Default)]
pub struct Model {
    policies: BTreeMap<PodName, Policy>,
    namespaces: BTreeMap<String, Labels>,
    pods: BTreeMap<PodName, Pod>,
    /// With the pod as it was last known, for one that is deleted may still run.
    links: BTreeMap<u32, (PodName, Option<Pod>)>,
}

impl Model {
    pub fn take(&mut self, step: &Step) {
        match step.clone() {
            Step::Policy(name, Some(policy)) => drop(self.policies.insert(name, policy)),
            Step::Policy(name, None) => drop(self.policies.remove(&name)),
            Step::Namespace(name, Some(labels)) => drop(self.namespaces.insert(name, labels)),
            Step::Namespace(name, None) => drop(self.namespaces.remove(&name)),
            Step::Pod(name, None) => drop(self.pods.remove(&name)),
            Step::Pod(name, Some(pod)) => {
                for (of, known) in self.links.values_mut() {
                    if *of == name {
                        *known = Some(pod.clone());
                    }
                }
                self.pods.insert(name, pod);
            }
            Step::Link(link, None) => drop(self.links.remove(&link)),
            Step::Link(link, Some(name)) => {
                if self.links.get(&link).is_none_or(|(of, _)| *of != name) {
                    let known = self.pods.get(&name).cloned();
                    self.links.insert(link, (name, known));
                }
            }
            // Whoever is deleted is not known to another agent.
            Step::Restart => {
                for (name, known) in self.links.values_mut() {
                    *known = self.pods.get(name).cloned();
                }
            }
        }
    }

    /// Tells another planner all of it.
    pub fn tell(&self, planner: &mut Planner) {
        self.policies.iter().for_each(|(name, it)| planner.set_policy(name.clone(), Some(it.clone())));
        self.namespaces.iter().for_each(|(name, it)| planner.set_namespace(name.clone(), Some(it.clone())));
        self.pods.iter().for_each(|(name, it)| planner.set_pod(name.clone(), Some(it.clone())));
        self.links.iter().for_each(|(link, (name, _))| planner.set_link(*link, Some(name.clone())));
    }

    pub fn allows(&self, link: u32, direction: Direction, remote: IpAddr, protocol: u8, port: u16) -> bool {
        let Some((name, Some(pod))) = self.links.get(&link) else { return true };
        let about: Vec<_> = self
            .policies
            .iter()
            .filter(|(it, policy)| it.namespace == name.namespace && policy.pods.selects(&pod.labels))
            .filter_map(|(_, policy)| match direction {
                Direction::Ingress => policy.ingress.as_ref(),
                Direction::Egress => policy.egress.as_ref(),
            })
            .collect();
        if about.is_empty() {
            return true;
        }
        let there = self.pods.iter().find(|(_, it)| it.addresses.contains(&remote));
        let reached = match direction {
            Direction::Ingress => Some(pod),
            Direction::Egress => there.map(|(_, pod)| pod),
        };
        about.into_iter().flatten().any(|rule| {
            let peer = |peer: &Peer| self.is_peer(&name.namespace, peer, remote, there);
            let port = |it: &Port| is_port(it, reached, protocol, port);
            // By its name a port is only of pods, not of addresses in a block.
            let by = |it: Option<&Peer>| {
                let is_block = direction == Direction::Egress && it.is_some_and(|peer| peer.block.is_some());
                let is_meant = |it: &Port| !(is_block && matches!(it.ports, Ports::Named(_))) && port(it);
                rule.ports.is_empty() || rule.ports.iter().any(is_meant)
            };
            match &rule.peers[..] {
                [] => by(None),
                peers => peers.iter().any(|it| peer(it) && by(Some(it))),
            }
        })
    }

    fn is_peer(&self, own: &str, peer: &Peer, remote: IpAddr, there: Option<(&PodName, &Pod)>) -> bool {
        if let Some(block) = &peer.block {
            return block.cidr.contains(remote) && !block.except.iter().any(|it| it.contains(remote));
        }
        let Some((name, pod)) = there else { return false };
        let nothing = Labels::new();
        let labels = self.namespaces.get(&name.namespace).unwrap_or(&nothing);
        peer.namespaces.as_ref().map_or(name.namespace == own, |it| it.selects(labels))
            && peer.pods.as_ref().is_none_or(|it| it.selects(&pod.labels))
    }
}

fn is_port(meant: &Port, reached: Option<&Pod>, protocol: u8, port: u16) -> bool {
    meant.protocol.number() == protocol
        && match &meant.ports {
            Ports::All => true,
            Ports::Range(first, last) => (*first..=*last).contains(&port),
            Ports::Named(name) => reached.is_some_and(|pod| {
                pod.ports
                    .iter()
                    .any(|it| it.name == *name && it.protocol == meant.protocol && it.port == port)
            }),
        }
}
