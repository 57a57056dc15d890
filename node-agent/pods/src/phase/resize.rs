//! How a resize shows in the status of a pod: two conditions that are there only while they are true, and the
//! resources of each container as they are in force. Pure.

use k8s_openapi::api::core::v1::{ContainerStatus, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::Inputs;
use crate::desired::{Role, Spec};
use crate::in_force::{CpuShare, InForce};
use crate::observed::Observed;
use crate::resources::compile_limits;

/// The pod does not get what it asks for, now or ever.
pub(super) const PENDING: &str = "PodResizePending";
/// It was granted and is not in force yet.
pub(super) const IN_PROGRESS: &str = "PodResizeInProgress";

pub(super) fn conditions(inputs: &Inputs<'_>) -> Vec<PodCondition> {
    let resize = &inputs.memory.resize;
    let generation = inputs.desired.pod.metadata.generation;
    let mut conditions = Vec::new();
    if inputs.ended || inputs.plan.finished {
        return conditions;
    }
    if let Some(pending) = &resize.pending {
        let (reason, message) = (Some(pending.reason.clone()), Some(pending.message.clone()));
        conditions.push(condition(inputs, PENDING, reason, message, generation));
    }
    if inputs.plan.resizing {
        let message = inputs.plan.resize_blocked.clone().or_else(|| resize.failure.clone());
        let reason = message.is_some().then(|| "Error".to_string());
        conditions.push(condition(inputs, IN_PROGRESS, reason, message, resize.granted.or(generation)));
    }
    conditions
}

fn condition(
    inputs: &Inputs<'_>,
    kind: &str,
    reason: Option<String>,
    message: Option<String>,
    observed_generation: Option<i64>,
) -> PodCondition {
    let before = inputs.previous.conditions.iter().flatten().find(|c| c.type_ == kind);
    let since = before.filter(|c| c.status == "True").and_then(|c| c.last_transition_time.clone());
    PodCondition {
        type_: kind.to_string(),
        status: "True".to_string(),
        reason,
        message,
        last_transition_time: since.or(Some(Time(inputs.now))),
        last_probe_time: None,
        observed_generation,
    }
}

/// Tells what a container was given, and what of it is in force; all of it while nothing runs.
pub(super) fn show(
    inputs: &Inputs<'_>,
    spec: &Spec,
    newest: Option<&Observed>,
    status: &mut ContainerStatus,
) {
    let Some(given) = spec.container.resources.as_ref().filter(|_| spec.role != Role::Ephemeral) else {
        return;
    };
    status.allocated_resources = given.requests.clone();
    let running = newest.filter(|c| c.is_running());
    let is = running.map(|c| as_told(inputs, spec, c)).unwrap_or_default();
    status.resources = Some(is.shown(&spec.container, given));
}

/// A weight that was asked for as shares is what it came to.
fn as_told(inputs: &Inputs<'_>, spec: &Spec, container: &Observed) -> InForce {
    let told = inputs.memory.told.get(&container.status.id) == Some(&compile_limits(&spec.container));
    let is = container.in_force;
    let cpu = is.cpu.filter(|cpu| !told || matches!(cpu, CpuShare::Shares(_)));
    InForce { cpu, ..is }
}
