//! Cordoned nodes take no pods, but those that tolerate being cordoned.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, Taint};
use penstock_informers::placement::{tolerates, tolerations};

use super::{Filter, Rejection};
use crate::cluster::{Cluster, NodeState};

struct Unschedulable {
    tolerated: bool,
}

pub fn prepare(pod: &Arc<Pod>, _: &Cluster) -> Result<Option<Box<dyn Filter>>, String> {
    let taint = Taint {
        key: "node.kubernetes.io/unschedulable".into(),
        effect: "NoSchedule".into(),
        value: None,
        time_added: None,
    };
    let tolerated = tolerations(pod).iter().any(|t| tolerates(t, &taint));
    Ok(Some(Box::new(Unschedulable { tolerated })))
}

impl Filter for Unschedulable {
    fn check(&self, node: &NodeState) -> Result<(), Rejection> {
        let cordoned = node.node.spec.as_ref().is_some_and(|s| s.unschedulable == Some(true));
        if cordoned && !self.tolerated {
            return Err(Rejection::by_node("node(s) were unschedulable"));
        }
        Ok(())
    }
}
