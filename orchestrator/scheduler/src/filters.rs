//! Filters: each says of a node whether the pod can go there, and if not why, in words a person can act on.
//!
//! A filter is prepared once per pod against the whole cluster and then asked node by node. Adding one is one
//! file and one line in [`FILTERS`].

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

use crate::cluster::{Cluster, NodeState};

pub mod affinity_terms;
pub mod host_ports;
pub mod node_affinity;
pub mod node_name;
pub mod pod_affinity;
pub mod resources_fit;
pub mod taints;
pub mod topology_spread;
pub mod unschedulable;
pub mod volumes;

/// Why a node is not for this pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// Parts of the message, each counted over nodes.
    pub reasons: Vec<String>,
    /// Whether removing pods from the node could change it.
    pub resolvable: bool,
}

impl Rejection {
    /// Removing pods could help.
    pub fn by_pods(reason: impl Into<String>) -> Self {
        Self { reasons: vec![reason.into()], resolvable: true }
    }

    /// The node itself does not fit.
    pub fn by_node(reason: impl Into<String>) -> Self {
        Self { reasons: vec![reason.into()], resolvable: false }
    }
}

/// A filter prepared for one pod.
pub trait Filter: Send {
    /// Whether the pod can go on this node.
    fn check(&self, node: &NodeState) -> Result<(), Rejection>;
}

/// Prepares a filter; `Ok(None)` when the pod does not care, `Err` when no node can do.
pub type Prepare = fn(&Arc<Pod>, &Cluster) -> Result<Option<Box<dyn Filter>>, String>;

/// All filters with their names, cheap and decisive ones first.
pub const FILTERS: &[(&str, Prepare)] = &[
    ("NodeUnschedulable", unschedulable::prepare),
    ("NodeName", node_name::prepare),
    ("TaintToleration", taints::prepare),
    ("NodeAffinity", node_affinity::prepare),
    ("NodePorts", host_ports::prepare),
    ("NodeResourcesFit", resources_fit::prepare),
    ("VolumeBinding", volumes::prepare),
    ("PodTopologySpread", topology_spread::prepare),
    ("InterPodAffinity", pod_affinity::prepare),
];
