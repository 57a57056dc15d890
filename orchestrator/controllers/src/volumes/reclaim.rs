//! What is to be done about a volume: its phase follows its claim, and its reclaim policy what becomes of it. Pure.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use penstock_informers::Meta;
use penstock_informers::volumes::{BOUND_BY_CONTROLLER, volume_name};

/// On a volume: who made it, and deletes it.
const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";

/// What to do next about a volume.
#[derive(Debug, PartialEq)]
pub enum Step {
    /// Nothing but this phase.
    Phase(&'static str),
    /// Its claim has yet to be bound to it.
    AskClaim(&'static str),
    /// Its claim took another: it is free again.
    Unbind,
    /// It is `Failed` for this reason.
    Fail { reason: &'static str, message: String },
}

/// `claim`: the claim that the volume is kept for, of the same UID, as it is now.
pub fn plan_volume(volume: &PersistentVolume, claim: Option<&PersistentVolumeClaim>) -> Step {
    let spec = volume.spec.as_ref();
    let Some(kept) = spec.and_then(|s| s.claim_ref.as_ref()) else {
        return Step::Phase("Available");
    };
    if kept.uid.as_deref().is_none_or(str::is_empty) {
        return Step::AskClaim("Available");
    }
    let Some(claim) = claim else {
        return plan_released(volume, spec.and_then(|s| s.persistent_volume_reclaim_policy.as_deref()));
    };
    match volume_name(claim) {
        None => Step::AskClaim("Bound"),
        Some(name) if name == volume.name() => Step::Phase("Bound"),
        Some(_) if volume.annotation(BOUND_BY_CONTROLLER).is_some() => Step::Unbind,
        // Its author kept it for that claim: it stays kept.
        Some(_) => Step::Phase("Available"),
    }
}

fn plan_released(volume: &PersistentVolume, policy: Option<&str>) -> Step {
    match policy {
        // Its maker sees the phase and deletes it.
        Some("Delete") if volume.annotation(PROVISIONED_BY).is_some() => Step::Phase("Released"),
        Some("Delete") => Step::Fail {
            reason: "VolumeFailedDelete",
            message: "nobody here can delete what is on it; remove that and the volume, or its claimRef to use it again"
                .to_owned(),
        },
        Some("Recycle") => Step::Fail {
            reason: "VolumeFailedRecycle",
            message: "recycling is not supported; clean it and remove its claimRef to use it again".to_owned(),
        },
        _ => Step::Phase("Released"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn volume(claim_ref: Value, policy: &str, annotations: Value) -> PersistentVolume {
        serde_json::from_value(json!({
            "metadata": {"name": "v", "annotations": annotations},
            "spec": {"claimRef": claim_ref, "persistentVolumeReclaimPolicy": policy},
        }))
        .unwrap()
    }

    fn claim(volume: &str) -> PersistentVolumeClaim {
        serde_json::from_value(json!({"metadata": {"uid": "u"}, "spec": {"volumeName": volume}})).unwrap()
    }

    #[test]
    fn the_phase_follows_the_claim() {
        let kept = json!({"namespace": "n", "name": "c", "uid": "u"});
        let by_us = json!({BOUND_BY_CONTROLLER: "yes"});
        for (claim_ref, annotations, claim, expected) in [
            (Value::Null, json!({}), None, Step::Phase("Available")),
            (json!({"namespace": "n", "name": "c"}), json!({}), None, Step::AskClaim("Available")),
            (kept.clone(), json!({}), Some(claim("")), Step::AskClaim("Bound")),
            (kept.clone(), json!({}), Some(claim("v")), Step::Phase("Bound")),
            (kept.clone(), by_us, Some(claim("other")), Step::Unbind),
            (kept.clone(), json!({}), Some(claim("other")), Step::Phase("Available")),
            (kept, json!({}), None, Step::Phase("Released")),
        ] {
            let volume = volume(claim_ref, "Retain", annotations);
            assert_eq!(plan_volume(&volume, claim.as_ref()), expected, "{volume:?}");
        }
    }

    #[test]
    fn what_nobody_can_delete_or_recycle_fails_and_what_a_provisioner_made_is_left_to_it() {
        let kept = json!({"namespace": "n", "name": "c", "uid": "u"});
        let outcome = |policy, annotations| plan_volume(&volume(kept.clone(), policy, annotations), None);
        assert!(matches!(outcome("Delete", json!({})), Step::Fail { reason: "VolumeFailedDelete", .. }));
        assert!(matches!(outcome("Recycle", json!({})), Step::Fail { reason: "VolumeFailedRecycle", .. }));
        assert_eq!(outcome("Delete", json!({PROVISIONED_BY: "example.com/disks"})), Step::Phase("Released"));
    }
}
