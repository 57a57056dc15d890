//! Taints keep pods off that do not tolerate them.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, Toleration};
use penstock_informers::placement::{taints, tolerations, untolerated};

use super::{Filter, Rejection};
use crate::cluster::{Cluster, NodeState};

struct Taints(Vec<Toleration>);

pub fn prepare(pod: &Arc<Pod>, _: &Cluster) -> Result<Option<Box<dyn Filter>>, String> {
    Ok(Some(Box::new(Taints(tolerations(pod).to_vec()))))
}

impl Filter for Taints {
    fn check(&self, node: &NodeState) -> Result<(), Rejection> {
        match untolerated(taints(&node.node), &self.0, &["NoSchedule", "NoExecute"]) {
            None => Ok(()),
            Some(taint) => {
                let value = taint.value.as_deref().unwrap_or_default();
                Err(Rejection::by_node(format!("node(s) had untolerated taint {{{}: {value}}}", taint.key)))
            }
        }
    }
}
