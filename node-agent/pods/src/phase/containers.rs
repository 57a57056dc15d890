//! The status of one container: which of the runtime's containers of that name is meant, and how it reads. Pure.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use penstock_runtime::ContainerState as Runs;

use super::{Inputs, resize};
use crate::desired::{Role, Spec};
use crate::observed::Observed;

pub(super) fn compile(inputs: &Inputs<'_>, spec: &Spec) -> ContainerStatus {
    let name = &spec.container.name;
    let Inputs { seen, memory, plan, .. } = inputs;
    let newest = seen.newest(name);
    let before = previous_status(inputs, spec);
    let health = newest.and_then(|c| memory.health.get(&c.status.id)).copied().unwrap_or_default();
    let starting = memory.starting.contains(name);
    let mut status = ContainerStatus {
        name: name.clone(),
        image: spec.container.image.clone().unwrap_or_default(),
        restart_count: newest
            .map_or(0, |c| i32::try_from(c.restart_count()).unwrap_or(i32::MAX))
            .max(before.map_or(0, |b| b.restart_count)),
        started: Some(false),
        ..Default::default()
    };
    let last = newest.and_then(|c| seen.previous(name, &c.status.id));
    status.last_state = last.map(|c| ended(c, inputs.runtime_name));
    if let Some(c) = newest {
        status.container_id = Some(id(inputs.runtime_name, c));
        status.image_id = c.status.image_ref.clone();
        if !c.status.image.is_empty() && !c.status.image.starts_with("sha256:") {
            status.image = c.status.image.clone();
        }
    }
    status.state = Some(match newest {
        // Until the post-start hook is through, the container does not count as running.
        Some(c) if c.is_running() && !starting => {
            status.started = Some(health.started);
            status.ready = health.started && health.ready;
            ContainerState {
                running: Some(ContainerStateRunning { started_at: time(c.status.started_at) }),
                ..Default::default()
            }
        }
        Some(c) if c.is_over() => match waiting(inputs, spec, starting || will_start(inputs, name)) {
            Some(wait) if starting || will_start(inputs, name) || plan.waiting.contains_key(name) => {
                status.last_state = Some(ended(c, inputs.runtime_name));
                wait
            }
            _ => {
                // An init container that did its work is ready; so says the API.
                status.ready = spec.role == Role::Init && c.status.exit_code == 0;
                ended(c, inputs.runtime_name)
            }
        },
        Some(_) => default_waiting(inputs),
        None => match lost(inputs, before) {
            Some(state) => state,
            None => waiting(inputs, spec, true).unwrap_or_else(|| default_waiting(inputs)),
        },
    });
    resize::show(inputs, spec, newest, &mut status);
    if spec.role == Role::Ephemeral {
        // Nobody sends traffic to these: they are never ready, and have no start to wait for.
        status.started = None;
        status.ready = false;
    }
    // Upstream's is never absent, and clients look into it without asking.
    status.last_state.get_or_insert_default();
    status
}

fn will_start(inputs: &Inputs<'_>, name: &str) -> bool {
    inputs.plan.effects.iter().any(|e| matches!(e, crate::plan::Effect::Start { name: n, .. } if n == name))
}

fn previous_status<'a>(inputs: &'a Inputs<'_>, spec: &Spec) -> Option<&'a ContainerStatus> {
    let previous = inputs.previous;
    let all = [
        &previous.container_statuses,
        &previous.init_container_statuses,
        &previous.ephemeral_container_statuses,
    ];
    all.into_iter().flat_map(|list| list.iter().flatten()).find(|c| c.name == spec.container.name)
}

/// The runtime forgot a container that had been reported: keep what was known of its end, or say that it is unknown.
fn lost(inputs: &Inputs<'_>, before: Option<&ContainerStatus>) -> Option<ContainerState> {
    let before = before?.state.as_ref()?;
    if let Some(t) = &before.terminated {
        let over = inputs.ended || inputs.plan.finished || inputs.desired.is_terminal();
        return over.then(|| ContainerState { terminated: Some(t.clone()), ..Default::default() });
    }
    let over = inputs.ended && before.running.is_some();
    over.then(|| ContainerState {
        terminated: Some(ContainerStateTerminated {
            exit_code: 137,
            reason: Some("ContainerStatusUnknown".into()),
            message: Some("The container could not be located when the pod was terminated".into()),
            ..Default::default()
        }),
        ..Default::default()
    })
}

fn waiting(inputs: &Inputs<'_>, spec: &Spec, or_default: bool) -> Option<ContainerState> {
    let name = &spec.container.name;
    let wait = inputs.plan.waiting.get(name).cloned();
    let wait = wait.or_else(|| inputs.memory.failures.get(name).map(|f| f.waiting.clone()));
    match wait {
        Some(wait) => Some(ContainerState {
            waiting: Some(ContainerStateWaiting { reason: Some(wait.reason), message: Some(wait.message) }),
            ..Default::default()
        }),
        None => or_default.then(|| default_waiting(inputs)),
    }
}

fn default_waiting(inputs: &Inputs<'_>) -> ContainerState {
    let has_init = inputs.desired.specs.iter().any(|s| matches!(s.role, Role::Init | Role::Sidecar));
    let reason = if has_init { "PodInitializing" } else { "ContainerCreating" };
    ContainerState {
        waiting: Some(ContainerStateWaiting { reason: Some(reason.into()), message: None }),
        ..Default::default()
    }
}

fn id(runtime: &str, c: &Observed) -> String {
    format!("{runtime}://{}", c.status.id)
}

fn time(nanoseconds: i64) -> Option<Time> {
    // Times of the API have whole seconds.
    Timestamp::from_second(nanoseconds / 1_000_000_000).ok().filter(|_| nanoseconds > 0).map(Time)
}

fn ended(c: &Observed, runtime: &str) -> ContainerState {
    let status = &c.status;
    let known = status.state == Runs::Exited;
    let reason = match (known, status.reason.as_str(), status.exit_code) {
        (false, ..) => "ContainerStatusUnknown",
        (true, "", 0) => "Completed",
        (true, "", _) => "Error",
        (true, reason, _) => reason,
    };
    let message = if c.message.is_empty() { status.message.clone() } else { c.message.clone() };
    ContainerState {
        terminated: Some(ContainerStateTerminated {
            container_id: Some(id(runtime, c)),
            exit_code: if known { status.exit_code } else { 137 },
            reason: Some(reason.to_string()),
            message: (!message.is_empty()).then_some(message),
            signal: None,
            started_at: time(status.started_at),
            finished_at: time(status.finished_at),
        }),
        ..Default::default()
    }
}
