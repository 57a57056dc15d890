//! Topology spread constraints that must hold (`DoNotSchedule`).

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, TopologySpreadConstraint};
use penstock_informers::Meta;
use penstock_informers::placement::{node_affinity_holds, taints, tolerations, untolerated};
use penstock_informers::selector::{Operator, Requirement, Selector};

use super::{Filter, Rejection};
use crate::cluster::{Cluster, NodeState};

/// A constraint counted over the cluster.
pub struct Spread {
    pub key: String,
    max_skew: i64,
    /// Matching pods by topology value.
    pub counts: HashMap<String, i64>,
    least: i64,
    /// Whether the pod itself counts.
    itself: i64,
}

/// The selector of a constraint with `matchLabelKeys` filled in from the pod.
pub fn selector(pod: &Pod, constraint: &TopologySpreadConstraint) -> Selector {
    let selector = Selector::from_label_selector(constraint.label_selector.as_ref());
    let Selector::All(mut requirements) = selector else {
        return selector;
    };
    for key in constraint.match_label_keys.iter().flatten() {
        if let Some(value) = pod.label(key) {
            requirements
                .push(Requirement { key: key.clone(), operator: Operator::In(vec![value.to_owned()]) });
        }
    }
    Selector::All(requirements)
}

/// Whether the node takes part in the constraint's count.
fn counts_node(pod: &Pod, constraint: &TopologySpreadConstraint, node: &NodeState) -> bool {
    let honours_affinity = constraint.node_affinity_policy.as_deref() != Some("Ignore");
    let honours_taints = constraint.node_taints_policy.as_deref() == Some("Honor");
    let affine = pod.spec.as_ref().is_none_or(|s| node_affinity_holds(s, &node.node));
    let tainted = untolerated(taints(&node.node), tolerations(pod), &["NoSchedule", "NoExecute"]).is_some();
    (!honours_affinity || affine) && (!honours_taints || !tainted)
}

/// Counts a constraint over all nodes that have every key of the pod's constraints.
pub fn count(pod: &Pod, constraint: &TopologySpreadConstraint, keys: &[&str], cluster: &Cluster) -> Spread {
    let selector = selector(pod, constraint);
    let mut counts: HashMap<String, i64> = HashMap::new();
    for node in cluster.nodes.values() {
        let Some(value) = node.label(&constraint.topology_key) else {
            continue;
        };
        if keys.iter().any(|k| node.label(k).is_none()) || !counts_node(pod, constraint, node) {
            continue;
        }
        let matching = node.pods.values().filter(|p| {
            p.pod.ns() == pod.ns() && !p.pod.deleting() && selector.matches(p.pod.metadata.labels.as_ref())
        });
        *counts.entry(value.to_owned()).or_default() += matching.count() as i64;
    }
    let enough_domains = counts.len() as i64 >= i64::from(constraint.min_domains.unwrap_or(1));
    let least = if enough_domains { counts.values().min().copied().unwrap_or(0) } else { 0 };
    Spread {
        key: constraint.topology_key.clone(),
        max_skew: i64::from(constraint.max_skew),
        least,
        itself: i64::from(selector.matches(pod.metadata.labels.as_ref())),
        counts,
    }
}

struct TopologySpread(Vec<Spread>);

pub fn prepare(pod: &Arc<Pod>, cluster: &Cluster) -> Result<Option<Box<dyn Filter>>, String> {
    let constraints = pod.spec.iter().flat_map(|s| s.topology_spread_constraints.iter().flatten());
    let hard: Vec<_> = constraints.filter(|c| c.when_unsatisfiable == "DoNotSchedule").collect();
    if hard.is_empty() {
        return Ok(None);
    }
    let keys: Vec<&str> = hard.iter().map(|c| c.topology_key.as_str()).collect();
    let counted = hard.iter().map(|c| count(pod, c, &keys, cluster)).collect();
    Ok(Some(Box::new(TopologySpread(counted))))
}

impl Filter for TopologySpread {
    fn check(&self, node: &NodeState) -> Result<(), Rejection> {
        for spread in &self.0 {
            let Some(value) = node.label(&spread.key) else {
                return Err(Rejection::by_node(
                    "node(s) didn't match pod topology spread constraints (missing required label)",
                ));
            };
            let here = spread.counts.get(value).copied().unwrap_or(0);
            if here + spread.itself - spread.least > spread.max_skew {
                return Err(Rejection::by_pods("node(s) didn't match pod topology spread constraints"));
            }
        }
        Ok(())
    }
}
