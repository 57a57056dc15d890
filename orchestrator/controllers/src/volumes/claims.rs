//! What is to be done about a claim. Pure.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use penstock_informers::Meta;
use penstock_informers::volumes::{
    BIND_COMPLETED, NO_PROVISIONER, SELECTED_NODE, check_volume, choose_volume, class_of_claim, is_kept_for,
    volume_name, waits_for_consumer,
};

/// An event's type, reason and message.
#[derive(Debug, PartialEq)]
pub struct Said {
    pub is_warning: bool,
    pub reason: &'static str,
    pub message: String,
}

/// What to do next about a claim.
#[derive(Debug, PartialEq)]
pub enum Step {
    /// Bind it to this volume, or finish what was begun.
    Bind(Arc<PersistentVolume>),
    /// It waits, and why, if that is worth an event.
    Pend(Option<Said>),
    /// Somebody outside is to make a volume: who.
    Provision(String),
    /// Its volume is gone or another's.
    Lose(Said),
}

fn warning(reason: &'static str, message: String) -> Said {
    Said { is_warning: true, reason, message }
}

fn normal(reason: &'static str, message: String) -> Said {
    Said { is_warning: false, reason, message }
}

/// `named`: the volume that the claim names, as it is now; `class`: the class it asks for.
pub fn plan_claim(
    claim: &PersistentVolumeClaim,
    named: Option<&Arc<PersistentVolume>>,
    class: Option<&StorageClass>,
    volumes: &[Arc<PersistentVolume>],
) -> Step {
    if claim.annotation(BIND_COMPLETED).is_some() {
        return plan_bound(claim, named);
    }
    match volume_name(claim) {
        Some(name) => plan_named(claim, name, named),
        None => plan_unbound(claim, class, volumes),
    }
}

fn plan_bound(claim: &PersistentVolumeClaim, named: Option<&Arc<PersistentVolume>>) -> Step {
    let Some(name) = volume_name(claim) else {
        return Step::Lose(warning(
            "ClaimLost",
            "the claim was bound and names no volume any more".to_owned(),
        ));
    };
    let Some(volume) = named else {
        let message = format!("volume {name:?} is gone, and with it what was on it");
        return Step::Lose(warning("ClaimLost", message));
    };
    let is_free = volume.spec.as_ref().is_none_or(|s| s.claim_ref.is_none());
    if is_free || is_kept_for(volume, claim) {
        return Step::Bind(volume.clone());
    }
    Step::Lose(warning("ClaimMisbound", format!("volume {name:?} is bound to another claim")))
}

fn plan_named(claim: &PersistentVolumeClaim, name: &str, named: Option<&Arc<PersistentVolume>>) -> Step {
    // A volume may be made after the claim that names it.
    let Some(volume) = named else { return Step::Pend(None) };
    let is_free = volume.spec.as_ref().is_none_or(|s| s.claim_ref.is_none());
    if !is_free && !is_kept_for(volume, claim) {
        let message = format!("volume {name:?} is bound or kept for another claim");
        return Step::Pend(Some(warning("FailedBinding", message)));
    }
    match check_volume(claim, volume) {
        Ok(()) => Step::Bind(volume.clone()),
        Err(why) => {
            let message = format!("volume {name:?} cannot serve the claim: {why}");
            Step::Pend(Some(warning("VolumeMismatch", message)))
        }
    }
}

fn plan_unbound(
    claim: &PersistentVolumeClaim,
    class: Option<&StorageClass>,
    volumes: &[Arc<PersistentVolume>],
) -> Step {
    let waits = waits_for_consumer(class) && claim.annotation(SELECTED_NODE).is_none();
    match choose_volume(claim, volumes, None) {
        // Also while a consumer is waited for: the scheduler chose it, or the volume's author.
        Some(volume) if is_kept_for(volume, claim) => return Step::Bind(volume.clone()),
        Some(volume) if !waits_for_consumer(class) => return Step::Bind(volume.clone()),
        _ => {}
    }
    if waits {
        let message = "a volume is bound when a pod that uses the claim has a node".to_owned();
        return Step::Pend(Some(normal("WaitForFirstConsumer", message)));
    }
    let name = class_of_claim(claim);
    if name.is_empty() {
        let message =
            "no volume is free that fits, and the claim has no storage class to make one".to_owned();
        return Step::Pend(Some(normal("FailedBinding", message)));
    }
    match class {
        None => {
            Step::Pend(Some(warning("ProvisioningFailed", format!("there is no storage class {name:?}"))))
        }
        Some(class) if class.provisioner == NO_PROVISIONER => {
            let message = format!("no volume of class {name:?} is free that fits, and the class makes none");
            Step::Pend(Some(normal("FailedBinding", message)))
        }
        Some(class) => Step::Provision(class.provisioner.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn claim(volume: &str, class: &str, annotations: Value) -> PersistentVolumeClaim {
        serde_json::from_value(json!({
            "metadata": {"name": "data", "namespace": "n", "uid": "u", "annotations": annotations},
            "spec": {"volumeName": volume, "storageClassName": class, "accessModes": ["ReadWriteOnce"],
                "resources": {"requests": {"storage": "1Gi"}}},
        }))
        .unwrap()
    }

    fn volume(claim_ref: Value, class: &str) -> Arc<PersistentVolume> {
        let volume = json!({
            "metadata": {"name": "v"},
            "spec": {"claimRef": claim_ref, "storageClassName": class, "accessModes": ["ReadWriteOnce"],
                "capacity": {"storage": "1Gi"}},
            "status": {"phase": "Available"},
        });
        Arc::new(serde_json::from_value(volume).unwrap())
    }

    fn class(provisioner: &str, mode: &str) -> StorageClass {
        let class = json!({"metadata": {"name": "c"}, "provisioner": provisioner, "volumeBindingMode": mode});
        serde_json::from_value(class).unwrap()
    }

    fn reason(step: Step) -> String {
        match step {
            Step::Pend(Some(said)) | Step::Lose(said) => said.reason.to_owned(),
            Step::Pend(None) => "waits".to_owned(),
            Step::Bind(volume) => format!("binds {}", volume.name()),
            Step::Provision(who) => format!("asks {who}"),
        }
    }

    #[test]
    fn what_is_free_is_bound_and_what_is_not_there_is_asked_for() {
        let free = volume(Value::Null, "");
        let none = json!({});
        assert_eq!(reason(plan_claim(&claim("", "", none.clone()), None, None, &[free])), "binds v");
        assert_eq!(reason(plan_claim(&claim("", "", none.clone()), None, None, &[])), "FailedBinding");
        let made = class("example.com/disks", "Immediate");
        assert_eq!(
            reason(plan_claim(&claim("", "c", none.clone()), None, Some(&made), &[])),
            "asks example.com/disks"
        );
        assert_eq!(reason(plan_claim(&claim("", "c", none.clone()), None, None, &[])), "ProvisioningFailed");
        let by_hand = class(NO_PROVISIONER, "Immediate");
        assert_eq!(reason(plan_claim(&claim("", "c", none), None, Some(&by_hand), &[])), "FailedBinding");
    }

    #[test]
    fn a_claim_that_waits_for_its_consumer_is_bound_to_what_the_scheduler_kept_for_it() {
        let late = class(NO_PROVISIONER, "WaitForFirstConsumer");
        let unbound = claim("", "c", json!({}));
        let free = volume(Value::Null, "c");
        assert_eq!(reason(plan_claim(&unbound, None, Some(&late), &[free])), "WaitForFirstConsumer");
        let kept = volume(json!({"namespace": "n", "name": "data", "uid": "u"}), "c");
        assert_eq!(reason(plan_claim(&unbound, None, Some(&late), &[kept])), "binds v");
        let made_late = class("example.com/disks", "WaitForFirstConsumer");
        let selected = claim("", "c", json!({SELECTED_NODE: "node-1"}));
        assert_eq!(reason(plan_claim(&selected, None, Some(&made_late), &[])), "asks example.com/disks");
    }

    #[test]
    fn a_named_volume_is_waited_for_and_taken_when_it_is_free() {
        let named = claim("v", "", json!({}));
        assert_eq!(reason(plan_claim(&named, None, None, &[])), "waits");
        let taken = volume(json!({"namespace": "n", "name": "else", "uid": "x"}), "");
        assert_eq!(reason(plan_claim(&named, Some(&taken), None, &[])), "FailedBinding");
        assert_eq!(reason(plan_claim(&named, Some(&volume(Value::Null, "")), None, &[])), "binds v");
        assert_eq!(reason(plan_claim(&named, Some(&volume(Value::Null, "c")), None, &[])), "VolumeMismatch");
    }

    #[test]
    fn a_bound_claim_whose_volume_went_is_lost() {
        let bound = claim("v", "", json!({BIND_COMPLETED: "yes"}));
        assert_eq!(reason(plan_claim(&bound, None, None, &[])), "ClaimLost");
        let anothers = volume(json!({"namespace": "n", "name": "data", "uid": "another"}), "");
        assert_eq!(reason(plan_claim(&bound, Some(&anothers), None, &[])), "ClaimMisbound");
        let own = volume(json!({"namespace": "n", "name": "data", "uid": "u"}), "");
        assert_eq!(reason(plan_claim(&bound, Some(&own), None, &[])), "binds v");
    }
}
