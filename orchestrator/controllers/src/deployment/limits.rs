//! The numbers a rollout may not cross, resolved once per pass.

use k8s_openapi::api::apps::v1::DeploymentSpec;

use crate::intstr::{Round, resolve};

/// Deadlines at or above this mean "none".
const NO_DEADLINE_SECONDS: i32 = i32::MAX;

/// See the module. All are counts of pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    pub replicas: i32,
    /// Pods above `replicas` that may exist.
    pub max_surge: i32,
    /// Pods below `replicas` that may be missing.
    pub max_unavailable: i32,
    pub rolling: bool,
}

impl Limits {
    pub(crate) fn of(spec: &DeploymentSpec) -> Self {
        let replicas = spec.replicas.unwrap_or(1).max(0);
        let strategy = spec.strategy.as_ref();
        let rolling = strategy.and_then(|s| s.type_.as_deref()) != Some("Recreate");
        if !rolling {
            return Self { replicas, max_surge: 0, max_unavailable: 0, rolling };
        }
        let update = strategy.and_then(|s| s.rolling_update.as_ref());
        let part = |value: Option<_>, round| match value {
            Some(value) => resolve(value, replicas, round).unwrap_or(0).max(0),
            None => resolve(
                &k8s_openapi::apimachinery::pkg::util::intstr::IntOrString::String("25%".into()),
                replicas,
                round,
            )
            .unwrap_or(0),
        };
        let max_surge = part(update.and_then(|u| u.max_surge.as_ref()), Round::Up);
        let mut max_unavailable = part(update.and_then(|u| u.max_unavailable.as_ref()), Round::Down);
        if max_surge == 0 && max_unavailable == 0 {
            // Both rounded to nothing: without one of them no rollout could move.
            max_unavailable = 1;
        }
        Self { replicas, max_surge, max_unavailable: max_unavailable.min(replicas), rolling }
    }

    /// Pods that must stay available.
    pub(crate) fn min_available(&self) -> i32 {
        self.replicas - self.max_unavailable
    }
}

/// Seconds a rollout may stand still before it is reported as failed.
pub(crate) fn progress_deadline_seconds(spec: &DeploymentSpec) -> Option<i32> {
    spec.progress_deadline_seconds.filter(|s| *s != NO_DEADLINE_SECONDS)
}
