//! Required pod affinity and anti-affinity, the incoming pod's own and that of pods already there.

use std::collections::HashSet;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

use super::affinity_terms::{Term, Terms};
use super::{Filter, Rejection};
use crate::cluster::{Cluster, NodeState};

/// Topology key and value.
type Domain = (String, String);

struct PodAffinity {
    affinity: Vec<Term>,
    anti_affinity: Vec<Term>,
    /// Per own affinity term: domains with a pod all terms mean.
    wanted: Vec<HashSet<Domain>>,
    /// Domains with a pod an own anti-affinity term means.
    shunned: HashSet<Domain>,
    /// Domains of pods whose anti-affinity means the incoming pod.
    refused: HashSet<Domain>,
    /// No pod anywhere matches the affinity, but the pod matches it itself: it may be the first.
    first_of_its_kind: bool,
}

pub fn prepare(pod: &Arc<Pod>, cluster: &Cluster) -> Result<Option<Box<dyn Filter>>, String> {
    let terms = Terms::of(pod);
    let names = &cluster.namespace_labels;
    let mut prepared = PodAffinity {
        wanted: vec![HashSet::new(); terms.affinity.len()],
        shunned: HashSet::new(),
        refused: HashSet::new(),
        first_of_its_kind: false,
        affinity: terms.affinity,
        anti_affinity: terms.anti_affinity,
    };
    let mut anyone_matches = false;
    for node in cluster.nodes.values() {
        for placed in node.pods.values() {
            let there = &placed.pod;
            if !prepared.affinity.is_empty() && prepared.affinity.iter().all(|t| t.means(there, names)) {
                for (term, domains) in prepared.affinity.iter().zip(&mut prepared.wanted) {
                    if let Some(domain) = domain(node, term) {
                        domains.insert(domain);
                        anyone_matches = true;
                    }
                }
            }
            for term in prepared.anti_affinity.iter().filter(|t| t.means(there, names)) {
                prepared.shunned.extend(domain(node, term));
            }
            if Terms::any(there) {
                for term in Terms::of(there).anti_affinity.iter().filter(|t| t.means(pod, names)) {
                    prepared.refused.extend(domain(node, term));
                }
            }
        }
    }
    prepared.first_of_its_kind = !anyone_matches && prepared.affinity.iter().all(|t| t.means(pod, names));
    let cares = !prepared.affinity.is_empty() || !prepared.shunned.is_empty() || !prepared.refused.is_empty();
    Ok(cares.then(|| Box::new(prepared) as Box<dyn Filter>))
}

fn domain(node: &NodeState, term: &Term) -> Option<Domain> {
    Some((term.topology_key.clone(), node.label(&term.topology_key)?.to_owned()))
}

impl Filter for PodAffinity {
    fn check(&self, node: &NodeState) -> Result<(), Rejection> {
        for (term, domains) in self.affinity.iter().zip(&self.wanted) {
            let here = domain(node, term);
            // A node without the label is in no domain and can never do.
            let fits = here.is_some_and(|d| self.first_of_its_kind || domains.contains(&d));
            if !fits {
                return Err(Rejection::by_node("node(s) didn't match pod affinity rules"));
            }
        }
        if self.anti_affinity.iter().filter_map(|t| domain(node, t)).any(|d| self.shunned.contains(&d)) {
            return Err(Rejection::by_pods("node(s) didn't match pod anti-affinity rules"));
        }
        let refuses = |(key, value): &Domain| node.label(key) == Some(value);
        if self.refused.iter().any(refuses) {
            return Err(Rejection::by_pods("node(s) didn't satisfy existing pods anti-affinity rules"));
        }
        Ok(())
    }
}
