//! The decision for one pod: which nodes can take it, and which of them is the best. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use penstock_informers::Meta;

use crate::cluster::{Cluster, NodeState};
use crate::filters::{FILTERS, Filter, Rejection};
use crate::scores::SCORES;

/// Below this many nodes all are looked at.
const NODES_ALWAYS: usize = 100;

/// Why no node can take the pod.
#[derive(Clone, Debug, Default)]
pub struct Misfit {
    /// Nodes there are.
    pub nodes: usize,
    /// What kept each node off.
    pub rejections: BTreeMap<String, Rejection>,
    /// Names of the filters that did.
    pub filters: BTreeSet<&'static str>,
    /// A reason that holds for every node.
    pub whole: Option<String>,
}

impl Misfit {
    /// The message people read, in the form upstream's tools know.
    pub fn message(&self) -> String {
        if self.nodes == 0 {
            return "no nodes available to schedule pods".to_owned();
        }
        let head = format!("0/{} nodes are available", self.nodes);
        if let Some(whole) = &self.whole {
            return format!("{head}: {whole}.");
        }
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for reason in self.rejections.values().flat_map(|r| &r.reasons) {
            *counts.entry(reason).or_default() += 1;
        }
        let mut parts: Vec<String> = counts.into_iter().map(|(reason, n)| format!("{n} {reason}")).collect();
        parts.sort();
        format!("{head}: {}.", parts.join(", "))
    }
}

/// Filters prepared for one pod.
pub struct Prepared {
    filters: Vec<(&'static str, Box<dyn Filter>)>,
}

impl Prepared {
    /// Prepares all filters; `Err` when no node can do.
    pub fn new(pod: &Arc<Pod>, cluster: &Cluster) -> Result<Self, Misfit> {
        let mut filters = Vec::with_capacity(FILTERS.len());
        for (name, prepare) in FILTERS {
            match prepare(pod, cluster) {
                Ok(Some(filter)) => filters.push((*name, filter)),
                Ok(None) => {}
                Err(reason) => {
                    return Err(Misfit {
                        nodes: cluster.nodes.len(),
                        filters: [*name].into(),
                        whole: Some(reason),
                        ..Default::default()
                    });
                }
            }
        }
        Ok(Self { filters })
    }

    /// Whether the node can take the pod; the name of the filter that says no.
    pub fn check(&self, node: &NodeState) -> Result<(), (&'static str, Rejection)> {
        self.filters.iter().try_for_each(|(name, filter)| filter.check(node).map_err(|r| (*name, r)))
    }
}

/// Chooses a node. `start` rotates the order in which nodes are looked at, and breaks ties.
pub fn choose(pod: &Arc<Pod>, cluster: &Cluster, start: usize) -> Result<String, Misfit> {
    let total = cluster.nodes.len();
    if total == 0 {
        return Err(Misfit::default());
    }
    let prepared = Prepared::new(pod, cluster)?;
    let enough = feasible_enough(total);
    let mut feasible = Vec::new();
    let mut misfit = Misfit { nodes: total, ..Default::default() };
    let nodes: Vec<&Arc<NodeState>> = cluster.nodes.values().collect();
    for at in 0..total {
        let node = nodes[(start + at) % total];
        match check_with_promises(pod, cluster, &prepared, node) {
            Ok(()) => {
                feasible.push(node.clone());
                if feasible.len() >= enough {
                    break;
                }
            }
            Err((filter, rejection)) => {
                misfit.filters.insert(filter);
                misfit.rejections.insert(node.name().to_owned(), rejection);
            }
        }
    }
    best(pod, cluster, &feasible).ok_or(misfit)
}

/// A node must fit the pod with what is there, and also with what has been promised to pods no less important.
fn check_with_promises(
    pod: &Arc<Pod>,
    cluster: &Cluster,
    prepared: &Prepared,
    node: &Arc<NodeState>,
) -> Result<(), (&'static str, Rejection)> {
    prepared.check(node)?;
    let promised = cluster.nominated.get(node.name()).into_iter().flatten();
    let mut promised =
        promised.filter(|p| p.pod.uid_str() != pod.uid_str() && priority(&p.pod) >= priority(pod)).peekable();
    if promised.peek().is_none() {
        return Ok(());
    }
    let mut crowded = node.as_ref().clone();
    promised.for_each(|p| crowded.put(p.clone()));
    prepared.check(&crowded)
}

/// The pod's priority.
pub fn priority(pod: &Pod) -> i32 {
    pod.spec.as_ref().and_then(|s| s.priority).unwrap_or(0)
}

/// How many feasible nodes are enough to choose from: all of few, a shrinking share of many.
fn feasible_enough(total: usize) -> usize {
    if total <= NODES_ALWAYS {
        return total;
    }
    let percent = 50usize.saturating_sub(total / 125).max(5);
    (total * percent / 100).max(NODES_ALWAYS)
}

fn best(pod: &Arc<Pod>, cluster: &Cluster, feasible: &[Arc<NodeState>]) -> Option<String> {
    if feasible.len() <= 1 {
        return feasible.first().map(|n| n.name().to_owned());
    }
    let mut totals = vec![0i64; feasible.len()];
    for (_, weight, score) in SCORES {
        for (total, points) in totals.iter_mut().zip(score(pod, cluster, feasible).into_iter().flatten()) {
            *total += weight * points;
        }
    }
    let top = totals.iter().max().copied()?;
    // The first of the best in rotated order: ties go round.
    let at = totals.iter().position(|t| *t == top)?;
    feasible.get(at).map(|n| n.name().to_owned())
}

#[cfg(test)]
mod tests;
