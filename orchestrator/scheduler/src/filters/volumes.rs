//! Volumes: claims must exist, bound volumes must be reachable from the node, and for claims that wait for their first
//! consumer there must be, on the node, a free volume for each or somebody who makes one.

use std::collections::HashSet;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, NodeSelector, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use penstock_informers::placement::node_selector_matches;
use penstock_informers::volumes::{
    NO_PROVISIONER, SELECTED_NODE, choose_volume, claims_of_pod, class_of_claim, is_kept_for, volume_name,
    waits_for_consumer,
};
use penstock_informers::{Key, Meta};

use super::{Filter, Rejection};
use crate::cluster::{Cluster, NodeState};

/// What a pod's claims ask of its node.
#[derive(Default)]
struct Volumes {
    /// Of volumes that are bound already.
    reach: Vec<NodeSelector>,
    waiting: Vec<Waiting>,
    /// Volumes that a waiting claim may get.
    free: Vec<Arc<PersistentVolume>>,
}

/// A claim that waits for its first consumer.
struct Waiting {
    claim: Arc<PersistentVolumeClaim>,
    class: Arc<StorageClass>,
}

/// How a waiting claim gets its volume.
#[derive(Debug, PartialEq)]
pub enum Source {
    /// This volume is to be kept for it.
    Volume(Arc<PersistentVolume>),
    /// The class's provisioner makes one that the node can reach.
    Provisioner,
}

pub fn prepare(pod: &Arc<Pod>, cluster: &Cluster) -> Result<Option<Box<dyn Filter>>, String> {
    let volumes = observe(pod, cluster)?;
    let cares = !volumes.reach.is_empty() || !volumes.waiting.is_empty();
    Ok(cares.then(|| Box::new(volumes) as Box<dyn Filter>))
}

/// What each waiting claim of the pod gets when it goes to this node; empty when nothing waits.
pub fn plan_sources(
    pod: &Arc<Pod>,
    cluster: &Cluster,
    node: &Node,
) -> Option<Vec<(Arc<PersistentVolumeClaim>, Source)>> {
    observe(pod, cluster).ok()?.sources(node)
}

fn observe(pod: &Pod, cluster: &Cluster) -> Result<Volumes, String> {
    let mut volumes = Volumes::default();
    for name in claims_of_pod(pod) {
        let Some(claim) = cluster.claims.get(&Key::new(pod.ns(), name.clone())) else {
            return Err(format!("persistentvolumeclaim \"{name}\" not found"));
        };
        if claim.deleting() {
            return Err(format!("persistentvolumeclaim \"{name}\" is being deleted"));
        }
        if let Some(volume) = volume_name(claim) {
            let volume = cluster.volumes.get(volume).and_then(|v| v.spec.as_ref());
            let affinity = volume.and_then(|s| s.node_affinity.as_ref()).and_then(|a| a.required.clone());
            volumes.reach.extend(affinity);
            continue;
        }
        let class = cluster.classes.get(class_of_claim(claim));
        let Some(class) = class.filter(|class| waits_for_consumer(Some(class))) else {
            return Err("pod has unbound immediate PersistentVolumeClaims".to_owned());
        };
        let is_on_its_way = claim.annotation(SELECTED_NODE).is_some()
            || cluster.volumes.values().any(|volume| is_kept_for(volume, claim));
        if is_on_its_way {
            return Err(format!("persistentvolumeclaim \"{name}\" is being bound"));
        }
        volumes.waiting.push(Waiting { claim: claim.clone(), class: class.clone() });
    }
    if !volumes.waiting.is_empty() {
        let is_free = |v: &&Arc<PersistentVolume>| v.spec.as_ref().is_some_and(|s| s.claim_ref.is_none());
        volumes.free = cluster.volumes.values().filter(is_free).cloned().collect();
    }
    Ok(volumes)
}

impl Volumes {
    /// A volume is given to one claim only; claims are served in the order of the pod's volumes.
    fn sources(&self, node: &Node) -> Option<Vec<(Arc<PersistentVolumeClaim>, Source)>> {
        let mut given: HashSet<&str> = HashSet::new();
        let mut sources = Vec::with_capacity(self.waiting.len());
        for Waiting { claim, class } in &self.waiting {
            let free = self.free.iter().filter(|volume| !given.contains(volume.name()));
            let source = match choose_volume(claim, free, Some(node)) {
                Some(volume) => {
                    given.insert(volume.name());
                    Source::Volume(volume.clone())
                }
                None if makes_for(class, node) => Source::Provisioner,
                None => return None,
            };
            sources.push((claim.clone(), source));
        }
        Some(sources)
    }
}

/// Whether the class's provisioner makes volumes that the node can reach.
fn makes_for(class: &StorageClass, node: &Node) -> bool {
    if class.provisioner == NO_PROVISIONER {
        return false;
    }
    let labels = node.metadata.labels.as_ref();
    let terms = class.allowed_topologies.as_deref().unwrap_or_default();
    let holds = |term: &k8s_openapi::api::core::v1::TopologySelectorTerm| {
        term.match_label_expressions
            .iter()
            .flatten()
            .all(|it| labels.and_then(|l| l.get(&it.key)).is_some_and(|value| it.values.contains(value)))
    };
    terms.is_empty() || terms.iter().any(holds)
}

impl Filter for Volumes {
    fn check(&self, node: &NodeState) -> Result<(), Rejection> {
        if !self.reach.iter().all(|s| node_selector_matches(s, &node.node)) {
            return Err(Rejection::by_node("node(s) had volume node affinity conflict"));
        }
        if self.waiting.is_empty() || self.sources(&node.node).is_some() {
            return Ok(());
        }
        Err(Rejection::by_node("node(s) didn't find available persistent volumes to bind"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn from<T: penstock_informers::cache::Cached>(value: Value) -> Arc<T> {
        Arc::new(serde_json::from_value(value).unwrap())
    }

    fn node(name: &str) -> Arc<Node> {
        from(json!({"metadata": {"name": name, "labels": {"host": name}}}))
    }

    fn pod(claims: &[&str]) -> Arc<Pod> {
        let volume = |claim: &&str| json!({"name": claim, "persistentVolumeClaim": {"claimName": claim}});
        let volumes: Vec<Value> = claims.iter().map(volume).collect();
        from(json!({"metadata": {"name": "p", "namespace": "n", "uid": "p"},
            "spec": {"containers": [], "volumes": volumes}}))
    }

    /// Two claims of a class that waits, and a local volume on each of the nodes named.
    fn cluster(provisioner: &str, local_on: &[&str]) -> Cluster {
        let mut cluster = Cluster::default();
        let class = json!({"metadata": {"name": "late"}, "provisioner": provisioner,
            "volumeBindingMode": "WaitForFirstConsumer"});
        cluster.classes.insert("late".into(), from(class));
        for name in ["a", "b"] {
            let claim = json!({"metadata": {"name": name, "namespace": "n", "uid": name},
                "spec": {"storageClassName": "late", "accessModes": ["ReadWriteOnce"],
                    "resources": {"requests": {"storage": "1Gi"}}}});
            cluster.claims.insert(Key::new("n", name), from(claim));
        }
        for (index, host) in local_on.iter().enumerate() {
            let required = json!({"nodeSelectorTerms": [{"matchExpressions": [
                {"key": "host", "operator": "In", "values": [host]}]}]});
            let volume = json!({"metadata": {"name": format!("v{index}")},
                "spec": {"storageClassName": "late", "accessModes": ["ReadWriteOnce"],
                    "capacity": {"storage": "1Gi"}, "nodeAffinity": {"required": required}},
                "status": {"phase": "Available"}});
            cluster.volumes.insert(format!("v{index}"), from(volume));
        }
        cluster
    }

    #[test]
    fn a_node_must_have_a_volume_for_each_claim() {
        let cluster = cluster(NO_PROVISIONER, &["x", "x", "y"]);
        let names = |sources: Option<Vec<(_, Source)>>| {
            sources.map(|all| {
                let volume = |(_, source): (Arc<PersistentVolumeClaim>, Source)| match source {
                    Source::Volume(volume) => volume.name().to_owned(),
                    Source::Provisioner => "made".to_owned(),
                };
                all.into_iter().map(volume).collect::<Vec<_>>()
            })
        };
        let both = pod(&["a", "b"]);
        assert_eq!(names(plan_sources(&both, &cluster, &node("x"))), Some(vec!["v0".into(), "v1".into()]));
        assert_eq!(names(plan_sources(&both, &cluster, &node("y"))), None);
        assert_eq!(names(plan_sources(&pod(&["b"]), &cluster, &node("y"))), Some(vec!["v2".into()]));
    }

    #[test]
    fn a_provisioner_makes_what_is_not_there() {
        let cluster = cluster("example.com/disks", &[]);
        let sources = plan_sources(&pod(&["a"]), &cluster, &node("x")).unwrap();
        assert_eq!(sources[0].1, Source::Provisioner);
    }

    #[test]
    fn a_claim_that_is_being_bound_is_waited_for() {
        let mut cluster = cluster("example.com/disks", &[]);
        let claim = json!({"metadata": {"name": "a", "namespace": "n", "annotations": {SELECTED_NODE: "x"}},
            "spec": {"storageClassName": "late"}});
        cluster.claims.insert(Key::new("n", "a"), from(claim));
        let refused = prepare(&pod(&["a"]), &cluster).err();
        assert_eq!(refused.as_deref(), Some("persistentvolumeclaim \"a\" is being bound"));
    }
}
