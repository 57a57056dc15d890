//! Which volume suits which claim, as far as more than one loop must agree on it: the binder binds by it, the scheduler
//! chooses nodes by it. Pure.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{
    Node, PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimSpec, Pod, Volume,
};
use k8s_openapi::api::storage::v1::StorageClass;

use crate::Meta;
use crate::placement::node_selector_matches;
use crate::quantity::parse_milli;
use crate::selector::Selector;

/// On a claim: the binder has finished with it.
pub const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
/// On a claim or a volume: the other half was chosen by us, not by its author.
pub const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
/// On a claim whose class waits for its first consumer: the node that the scheduler chose.
pub const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
/// On a claim: who is to make a volume for it.
pub const STORAGE_PROVISIONER: &str = "volume.kubernetes.io/storage-provisioner";
/// The same, for provisioners that know the older name.
pub const STORAGE_PROVISIONER_BETA: &str = "volume.beta.kubernetes.io/storage-provisioner";
/// The provisioner of classes whose volumes people make.
pub const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";

const CLASS_BETA: &str = "volume.beta.kubernetes.io/storage-class";

/// Names of all claims a pod uses; those of ephemeral volumes are named after pod and volume.
pub fn claims_of_pod(pod: &Pod) -> impl Iterator<Item = String> {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    volumes.filter_map(|volume| match (&volume.persistent_volume_claim, &volume.ephemeral) {
        (Some(claim), _) => Some(claim.claim_name.clone()),
        (None, Some(_)) => Some(own_claim(pod, volume)),
        (None, None) => None,
    })
}

/// Name of the claim of an ephemeral volume.
pub fn own_claim(pod: &Pod, volume: &Volume) -> String {
    format!("{}-{}", pod.name(), volume.name)
}

/// The class a claim asks for; empty for volumes of no class.
pub fn class_of_claim(claim: &PersistentVolumeClaim) -> &str {
    let named = claim.spec.as_ref().and_then(|s| s.storage_class_name.as_deref());
    claim.annotation(CLASS_BETA).or(named).unwrap_or_default()
}

/// The class a volume is of; empty for none.
pub fn class_of_volume(volume: &PersistentVolume) -> &str {
    let named = volume.spec.as_ref().and_then(|s| s.storage_class_name.as_deref());
    volume.annotation(CLASS_BETA).or(named).unwrap_or_default()
}

/// Whether claims of the class are bound only when a pod that uses them has a node.
pub fn waits_for_consumer(class: Option<&StorageClass>) -> bool {
    class.and_then(|c| c.volume_binding_mode.as_deref()) == Some("WaitForFirstConsumer")
}

/// The volume that the claim names, if it names one.
pub fn volume_name(claim: &PersistentVolumeClaim) -> Option<&str> {
    claim.spec.as_ref().and_then(|s| s.volume_name.as_deref()).filter(|name| !name.is_empty())
}

/// Whether the volume is kept for this very claim: for its UID, or for its name by somebody who could not know the UID.
pub fn is_kept_for(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let Some(kept) = volume.spec.as_ref().and_then(|s| s.claim_ref.as_ref()) else { return false };
    let is_named =
        kept.name.as_deref() == Some(claim.name()) && kept.namespace.as_deref() == Some(claim.ns());
    is_named && kept.uid.as_deref().is_none_or(|uid| uid.is_empty() || uid == claim.uid_str())
}

/// Whether a volume that nobody chose by name can serve the claim; the reason if not.
pub fn check_volume(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> Result<(), String> {
    let (Some(wants), Some(has)) = (&claim.spec, &volume.spec) else {
        return Err("it has no spec".to_owned());
    };
    let mode = |mode: &Option<String>| mode.clone().unwrap_or_else(|| "Filesystem".to_owned());
    if mode(&wants.volume_mode) != mode(&has.volume_mode) {
        return Err(format!("its volumeMode is {}", mode(&has.volume_mode)));
    }
    let attributes = |class: &Option<String>| class.clone().unwrap_or_default();
    if attributes(&wants.volume_attributes_class_name) != attributes(&has.volume_attributes_class_name) {
        return Err("its volumeAttributesClassName is another".to_owned());
    }
    if capacity(volume) < requested(wants) {
        return Err("it is smaller than what is requested".to_owned());
    }
    if class_of_claim(claim) != class_of_volume(volume) {
        return Err(format!("its storageClassName is {:?}", class_of_volume(volume)));
    }
    let offers = has.access_modes.as_deref().unwrap_or_default();
    match wants.access_modes.iter().flatten().find(|mode| !offers.contains(mode)) {
        Some(missing) => Err(format!("it has no access mode {missing}")),
        None => Ok(()),
    }
}

/// The volume for a claim that names none: one that is kept for it, else the smallest that is free, fits, and can be
/// reached from the node if there is one.
pub fn choose_volume<'a>(
    claim: &PersistentVolumeClaim,
    volumes: impl IntoIterator<Item = &'a Arc<PersistentVolume>>,
    node: Option<&Node>,
) -> Option<&'a Arc<PersistentVolume>> {
    let selector = claim.spec.as_ref().and_then(|s| s.selector.as_ref());
    let selector = selector.map(|selector| Selector::from_label_selector(Some(selector)));
    let mut best: Option<&Arc<PersistentVolume>> = None;
    for volume in volumes {
        if volume.deleting() || !node.is_none_or(|node| is_reached_from(volume, node)) {
            continue;
        }
        if is_kept_for(volume, claim) {
            return Some(volume);
        }
        let is_free = volume.spec.as_ref().is_some_and(|s| s.claim_ref.is_none())
            && volume.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Available");
        let is_selected =
            selector.as_ref().is_none_or(|selector| selector.matches(volume.metadata.labels.as_ref()));
        if !is_free || !is_selected || check_volume(claim, volume).is_err() {
            continue;
        }
        let order = |volume: &PersistentVolume| (capacity(volume), volume.name().to_owned());
        if best.is_none_or(|best| order(volume) < order(best)) {
            best = Some(volume);
        }
    }
    best
}

/// Whether pods on the node can use the volume.
pub fn is_reached_from(volume: &PersistentVolume, node: &Node) -> bool {
    let affinity = volume.spec.as_ref().and_then(|s| s.node_affinity.as_ref());
    affinity.and_then(|a| a.required.as_ref()).is_none_or(|required| node_selector_matches(required, node))
}

fn capacity(volume: &PersistentVolume) -> i128 {
    let capacity = volume.spec.as_ref().and_then(|s| s.capacity.as_ref()?.get("storage"));
    capacity.and_then(|storage| parse_milli(&storage.0)).unwrap_or(0)
}

fn requested(claim: &PersistentVolumeClaimSpec) -> i128 {
    let requests = claim.resources.as_ref().and_then(|r| r.requests.as_ref());
    requests.and_then(|r| r.get("storage")).and_then(|storage| parse_milli(&storage.0)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn claim(spec: Value) -> PersistentVolumeClaim {
        let metadata = json!({"name": "data", "namespace": "n", "uid": "u"});
        serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap()
    }

    fn volume(name: &str, size: &str, more: Value) -> Arc<PersistentVolume> {
        let mut spec = json!({"capacity": {"storage": size}, "accessModes": ["ReadWriteOnce"]});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let labels = json!({"name": name});
        let volume = json!({"metadata": {"name": name, "labels": labels}, "spec": spec, "status": {"phase": "Available"}});
        Arc::new(serde_json::from_value(volume).unwrap())
    }

    fn chosen(spec: Value, volumes: &[Arc<PersistentVolume>]) -> Option<String> {
        choose_volume(&claim(spec), volumes, None).map(|volume| volume.name().to_owned())
    }

    fn asks(size: &str) -> Value {
        json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}})
    }

    #[test]
    fn the_smallest_that_is_large_enough_is_chosen() {
        let volumes = ["a=5Gi", "b=2Gi", "c=1Gi"].map(|it| {
            let (name, size) = it.split_once('=').unwrap();
            volume(name, size, json!({}))
        });
        assert_eq!(chosen(asks("1500Mi"), &volumes).as_deref(), Some("b"));
        assert_eq!(chosen(asks("6Gi"), &volumes), None);
    }

    #[test]
    fn class_mode_selector_and_access_must_fit() {
        let volumes = [
            volume("classed", "1Gi", json!({"storageClassName": "fast"})),
            volume("block", "1Gi", json!({"volumeMode": "Block"})),
            volume("many", "1Gi", json!({"accessModes": ["ReadWriteMany"]})),
            volume("plain", "2Gi", json!({})),
        ];
        assert_eq!(chosen(asks("1Gi"), &volumes).as_deref(), Some("plain"));
        let mut fast = asks("1Gi");
        fast["storageClassName"] = "fast".into();
        assert_eq!(chosen(fast, &volumes).as_deref(), Some("classed"));
        let mut selected = asks("1Gi");
        selected["selector"] = json!({"matchLabels": {"name": "many"}});
        assert_eq!(chosen(selected, &volumes), None);
    }

    #[test]
    fn a_volume_that_is_kept_goes_to_whom_it_is_kept_for_alone() {
        let kept = |name: &str, uid: &str| json!({"claimRef": {"namespace": "n", "name": name, "uid": uid}});
        let own = volume("own", "9Gi", kept("data", ""));
        let others = volume("others", "1Gi", kept("else", ""));
        let formers = volume("formers", "1Gi", kept("data", "former"));
        assert_eq!(chosen(asks("1Gi"), &[others.clone(), formers.clone(), own]).as_deref(), Some("own"));
        assert_eq!(chosen(asks("1Gi"), &[others, formers]), None);
    }

    #[test]
    fn a_volume_out_of_a_nodes_reach_is_not_chosen_for_it() {
        let node = |name: &str| -> Node {
            serde_json::from_value(json!({"metadata": {"name": name, "labels": {"host": name}}})).unwrap()
        };
        let required = json!({"nodeSelectorTerms": [{"matchExpressions": [
            {"key": "host", "operator": "In", "values": ["a"]}]}]});
        let local = [volume("local", "1Gi", json!({"nodeAffinity": {"required": required}}))];
        assert!(choose_volume(&claim(asks("1Gi")), &local, Some(&node("a"))).is_some());
        assert!(choose_volume(&claim(asks("1Gi")), &local, Some(&node("b"))).is_none());
    }
}
