//! Gives every node a range of pod addresses of each family, cut from the cluster's ranges.
//!
//! As upstream, a node keeps what it was given: its pods have addresses of it. One that was registered before the cluster had a
//! second family goes on with one, and is told what to do.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use k8s_openapi::api::core::v1::Node;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use penstock_informers::cache::{Cache, Delta};
use penstock_informers::failure::{During, gone_is_fine};
use penstock_informers::{EventType, Failure, Key, Meta, Next, Reconcile, Recorder, WorkQueue, run_workers};

use crate::NodeRanges;
use crate::context::Context;
use crate::ipnet::Cidr;

/// Runs the controller.
pub async fn run(context: Context) {
    let controller = Arc::new(Controller {
        client: context.client(),
        nodes: context.informers.cache(),
        cluster: context.config.cluster_cidrs.clone(),
        given: Mutex::new(vec![BTreeSet::new(); context.config.cluster_cidrs.len()]),
        told: Mutex::default(),
        recorder: context.recorder("cidrAllocator"),
    });
    let queue = Arc::new(WorkQueue::new());
    controller.nodes.wait_synced().await;
    let (adder, handler) = (queue.clone(), controller.clone());
    controller.nodes.subscribe(move |delta| {
        let node = delta.object();
        match delta {
            Delta::Deleted(_) => {
                handler.ranges().iter_mut().for_each(|given| given.retain(|(_, name)| name != node.name()));
                handler.told().remove(node.uid_str());
            }
            _ => handler.note(node),
        }
        adder.add(node.key());
    });
    // One worker: two nodes must not be offered the same range.
    run_workers(controller, queue, 1, context.shutdown).await;
}

/// Index of each range given out, and to whom; also those the cache does not show yet.
type Given = BTreeSet<(u64, String)>;

struct Controller {
    client: Client,
    nodes: Arc<Cache<Node>>,
    /// At most one a family.
    cluster: Vec<NodeRanges>,
    /// In the order of `cluster`.
    given: Mutex<Vec<Given>>,
    /// The uids of the nodes that were told once that they lack a family.
    told: Mutex<BTreeSet<String>>,
    recorder: Recorder,
}

impl Controller {
    fn ranges(&self) -> std::sync::MutexGuard<'_, Vec<Given>> {
        self.given.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn told(&self) -> std::sync::MutexGuard<'_, BTreeSet<String>> {
        self.told.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Tells a node once that it lacks the range of a family.
    fn tell_lack(&self, node: &Node) {
        let ranges = ranges_of(node);
        let Some(lacks) = lacking(&self.cluster, &ranges) else { return };
        if !self.told().insert(node.uid_str().to_owned()) {
            return;
        }
        let message = format!(
            "Node {} was given {} before the cluster had {lacks}, and keeps it: its pods have no address of that family. Drain \
             it, delete the Node and start its agent again for ranges of both",
            node.name(),
            ranges[0]
        );
        self.recorder.record(node, EventType::Warning, "PodRangeOfFamilyMissing", message);
    }

    fn note(&self, node: &Node) {
        let mut given = self.ranges();
        for range in ranges_of(node) {
            for (cluster, given) in self.cluster.iter().zip(given.iter_mut()) {
                if let Some(index) = cluster.range.index_of(&range) {
                    given.insert((index, node.name().to_owned()));
                }
            }
        }
    }
}

fn ranges_of(node: &Node) -> Vec<Cidr> {
    let Some(spec) = &node.spec else { return Vec::new() };
    let all = spec.pod_cidrs.iter().flatten().chain(&spec.pod_cidr);
    all.filter_map(|text| text.parse().ok()).collect()
}

/// The cluster's range of a family of which a node that has ranges has none.
fn lacking<'a>(cluster: &'a [NodeRanges], ranges: &[Cidr]) -> Option<&'a Cidr> {
    let has = |family: bool| ranges.iter().any(|range| range.address.is_ipv6() == family);
    let lacks = cluster.iter().map(|it| &it.range).find(|range| !has(range.address.is_ipv6()));
    lacks.filter(|_| !ranges.is_empty())
}

/// The lowest range no one has; the one the node was promised before, if any.
fn plan_range(given: &Given, parts: u64, node: &str) -> Option<u64> {
    if let Some((index, _)) = given.iter().find(|(_, name)| name == node) {
        return Some(*index);
    }
    let mut next = 0;
    for (index, _) in given {
        if *index > next {
            break;
        }
        next = index + 1;
    }
    (next < parts).then_some(next)
}

impl Reconcile for Controller {
    type Key = Key;
    const NAME: &'static str = "node-ipam";

    async fn reconcile(&self, key: &Key) -> Result<Next, Failure> {
        let Some(node) = self.nodes.get(key) else {
            return Ok(Next::Done);
        };
        if node.deleting() {
            return Ok(Next::Done);
        }
        if node.spec.as_ref().is_some_and(|s| s.pod_cidr.is_some()) {
            self.tell_lack(&node);
            return Ok(Next::Done);
        }
        let mut chosen = Vec::new();
        {
            let mut given = self.ranges();
            for (cluster, given) in self.cluster.iter().zip(given.iter_mut()) {
                let index = plan_range(given, cluster.range.parts(cluster.node_prefix), node.name());
                if let Some(index) = index {
                    given.insert((index, node.name().to_owned()));
                }
                chosen.push(index.and_then(|index| cluster.range.part(cluster.node_prefix, index)));
            }
        }
        if let Some(full) = chosen.iter().position(Option::is_none) {
            let message = format!("Node {} status is now: CIDRNotAvailable", node.name());
            self.recorder.record(node.as_ref(), EventType::Normal, "CIDRNotAvailable", message);
            let reason = format!("{} has no range left for {key}", self.cluster[full].range);
            return Err(Failure::Wait { reason, after: std::time::Duration::from_secs(10) });
        }
        let ranges: Vec<String> = chosen.into_iter().flatten().map(|range| range.to_string()).collect();
        let patch = serde_json::json!({"metadata": {"uid": node.uid_str()},
            "spec": {"podCIDR": ranges.first(), "podCIDRs": ranges}});
        let api: Api<Node> = Api::all(self.client.clone());
        gone_is_fine(api.patch(node.name(), &PatchParams::default(), &Patch::Strategic(&patch)).await)
            .during(|| format!("giving {key} the ranges {}", ranges.join(", ")))?;
        Ok(Next::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_free_range_is_given_and_promises_are_kept() {
        let given =
            |pairs: &[(u64, &str)]| pairs.iter().map(|(i, n)| (*i, (*n).to_owned())).collect::<BTreeSet<_>>();
        assert_eq!(plan_range(&given(&[]), 4, "a"), Some(0));
        assert_eq!(plan_range(&given(&[(0, "a"), (2, "b")]), 4, "c"), Some(1));
        assert_eq!(plan_range(&given(&[(0, "a"), (2, "b")]), 4, "b"), Some(2));
        assert_eq!(plan_range(&given(&[(0, "a"), (1, "b")]), 2, "c"), None);
    }

    #[test]
    fn a_node_that_was_given_one_family_of_two_lacks_the_other() {
        let range = |text: &str| text.parse::<Cidr>().unwrap();
        let both = ["10.244.0.0/16", "fd00:244::/48"].map(|text| NodeRanges::new(range(text)));
        let (four, six) = (range("10.244.1.0/24"), range("fd00:244:0:1::/64"));
        assert_eq!(lacking(&both, &[four]), Some(&both[1].range));
        assert_eq!(lacking(&both, &[four, six]), None);
        assert_eq!(lacking(&both[..1], &[four]), None);
        assert_eq!(lacking(&both, &[]), None, "it is about to be given some");
    }
}
