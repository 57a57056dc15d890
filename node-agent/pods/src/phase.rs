//! The status of a pod, from what the runtime has and what the worker remembers.
//!
//! Pure. Rules for the phase follow kubernetes `pkg/kubelet/kubelet_pods.go` (`getPhase`), those for conditions
//! `pkg/kubelet/status/generate.go`; both are what controllers and users of every cluster rely on.

mod containers;
mod resize;

use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, HostIP, PodCondition, PodIP, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::desired::{Desired, Role};
use crate::memory::{Memory, Waiting};
use crate::observed::PodRuntime;
use crate::plan::Plan;
use crate::resources;

/// What a status is made of.
pub struct Inputs<'a> {
    /// The pod.
    pub desired: &'a Desired,
    /// The runtime's side.
    pub seen: &'a PodRuntime,
    /// The worker's.
    pub memory: &'a Memory,
    /// What is about to happen.
    pub plan: &'a Plan,
    /// The status last written.
    pub previous: &'a PodStatus,
    /// Addresses of the node.
    pub node_ips: &'a [IpAddr],
    /// For container ids: `containerd://…`.
    pub runtime_name: &'a str,
    /// The pod is being stopped from outside and nothing of it runs any more.
    pub ended: bool,
    /// Now.
    pub now: Timestamp,
}

/// The whole status; conditions of others are kept.
pub fn compile_status(inputs: &Inputs<'_>) -> PodStatus {
    let Inputs { desired, previous, now, .. } = *inputs;
    // One that ended before it began, refused by its node say, tells of no container.
    let never_ran = desired.is_terminal() && previous.container_statuses.is_none();
    let of = |roles: &[Role]| -> Option<Vec<ContainerStatus>> {
        let wanted = desired.specs.iter().filter(|s| roles.contains(&s.role));
        let statuses: Vec<_> = wanted.map(|spec| containers::compile(inputs, spec)).collect();
        (!statuses.is_empty() && !never_ran).then_some(statuses)
    };
    let over = desired.is_terminal().then_some(previous);
    let because = |said: fn(&Waiting) -> &String, before: fn(&PodStatus) -> &Option<String>| {
        inputs.memory.failed.as_ref().map(said).cloned().or_else(|| before(over?).clone())
    };
    let init = of(&[Role::Init, Role::Sidecar]);
    let apps = of(&[Role::App]);
    let ephemeral = of(&[Role::Ephemeral]);
    let phase = phase(inputs, init.as_deref().unwrap_or_default(), apps.as_deref().unwrap_or_default());
    let (hosts, addresses) = addresses(inputs);
    let mut status = PodStatus {
        phase: Some(phase.to_string()),
        reason: because(|failed| &failed.reason, |status| &status.reason),
        message: because(|failed| &failed.message, |status| &status.message),
        host_ip: hosts.first().cloned(),
        host_ips: Some(hosts.into_iter().map(|ip| HostIP { ip }).collect()),
        pod_ip: addresses.first().cloned(),
        pod_ips: (!addresses.is_empty()).then(|| addresses.into_iter().map(|ip| PodIP { ip }).collect()),
        start_time: previous.start_time.clone().or(Some(Time(now))),
        qos_class: previous
            .qos_class
            .clone()
            .or_else(|| Some(resources::qos(desired.spec()).name().to_string())),
        container_statuses: apps,
        init_container_statuses: init,
        ephemeral_container_statuses: ephemeral,
        observed_generation: desired.pod.metadata.generation,
        ..previous.clone()
    };
    status.conditions = Some(conditions(inputs, &status));
    status
}

fn addresses(inputs: &Inputs<'_>) -> (Vec<String>, Vec<String>) {
    let hosts: Vec<String> = inputs.node_ips.iter().map(ToString::to_string).collect();
    if inputs.desired.host_network() {
        return (hosts.clone(), hosts);
    }
    let current = inputs.seen.sandboxes.first().map(|s| s.addresses.clone()).unwrap_or_default();
    if !current.is_empty() {
        return (hosts, current);
    }
    // A pod whose work is over keeps the address it had; one that waits for a new sandbox has none.
    let kept = inputs.previous.pod_ips.iter().flatten().map(|p| p.ip.clone());
    (hosts, if inputs.seen.sandboxes.is_empty() && !inputs.ended { Vec::new() } else { kept.collect() })
}

fn phase(inputs: &Inputs<'_>, init: &[ContainerStatus], apps: &[ContainerStatus]) -> &'static str {
    if inputs.memory.failed.is_some() {
        return if inputs.seen.any_running() && !inputs.ended { previous_phase(inputs) } else { "Failed" };
    }
    match inputs.previous.phase.as_deref() {
        Some("Succeeded") => return "Succeeded",
        Some("Failed") => return "Failed",
        _ => {}
    }
    // A pod that was told to end cannot restart anything, whatever its policy.
    let policy = if inputs.ended { "Never" } else { inputs.desired.restart_policy() };
    let (mut init_pending, mut init_failed) = (false, false);
    let roles = inputs.desired.specs.iter().filter(|s| matches!(s.role, Role::Init | Role::Sidecar));
    for (spec, status) in roles.zip(init) {
        let ended = terminated(status);
        match spec.role {
            Role::Sidecar => init_pending |= !status.started.unwrap_or(false) && ended.is_none(),
            _ => match ended {
                Some((0, _)) => {}
                Some((_, true)) => init_failed = true,
                Some((_, false)) | None => init_pending = true,
            },
        }
    }
    let (mut waiting, mut running, mut stopped, mut succeeded) = (0, 0, 0, 0);
    for status in apps {
        let state = status.state.as_ref();
        if state.is_some_and(|s| s.running.is_some()) {
            running += 1;
        } else if let Some((code, _)) = terminated(status) {
            stopped += 1;
            succeeded += usize::from(code == 0);
        } else {
            waiting += 1;
        }
    }
    if init_failed && policy == "Never" {
        return "Failed";
    }
    let started = running + stopped > 0;
    if init_pending && !started || waiting > 0 && !inputs.ended {
        return "Pending";
    }
    match (running, policy) {
        (0, _) if inputs.ended && waiting > 0 => "Failed",
        (0, "Always") => "Running",
        (0, _) if stopped == succeeded => "Succeeded",
        (0, "Never") => "Failed",
        _ => "Running",
    }
}

fn previous_phase(inputs: &Inputs<'_>) -> &'static str {
    if inputs.previous.phase.as_deref() == Some("Running") { "Running" } else { "Pending" }
}

/// Exit code of a container that ended, and whether it ended now (not only before a restart).
fn terminated(status: &ContainerStatus) -> Option<(i32, bool)> {
    let now = status.state.as_ref().and_then(|s| s.terminated.as_ref()).map(|t| (t.exit_code, true));
    now.or_else(|| {
        status.last_state.as_ref().and_then(|s| s.terminated.as_ref()).map(|t| (t.exit_code, false))
    })
}

// === conditions ===

struct Verdict {
    ok: bool,
    reason: Option<&'static str>,
    message: Option<String>,
}

impl Verdict {
    const YES: Self = Self { ok: true, reason: None, message: None };

    fn no(reason: &'static str, message: impl Into<Option<String>>) -> Self {
        Self { ok: false, reason: Some(reason), message: message.into() }
    }
}

fn conditions(inputs: &Inputs<'_>, status: &PodStatus) -> Vec<PodCondition> {
    let containers_ready = containers_ready(inputs, status);
    let ready = if containers_ready.ok {
        gates(inputs)
    } else {
        Verdict { message: containers_ready.message.clone(), ..containers_ready }
    };
    let sandbox_ready =
        inputs.seen.ready_sandbox().is_some_and(|s| inputs.desired.host_network() || !s.addresses.is_empty());
    let set = [
        ("PodReadyToStartContainers", Verdict { ok: sandbox_ready, ..Verdict::YES }),
        ("Initialized", initialized(inputs, status)),
        ("Ready", ready),
        ("ContainersReady", containers_ready),
        ("PodScheduled", Verdict::YES),
    ];
    let old: Vec<PodCondition> = inputs.previous.conditions.clone().unwrap_or_default();
    let mut conditions: Vec<PodCondition> = Vec::new();
    for (kind, verdict) in set {
        let value = if verdict.ok { "True" } else { "False" };
        let before = old.iter().find(|c| c.type_ == kind);
        let unchanged = before.filter(|c| c.status == value).and_then(|c| c.last_transition_time.clone());
        conditions.push(PodCondition {
            type_: kind.to_string(),
            status: value.to_string(),
            reason: verdict.reason.map(str::to_string),
            message: verdict.message,
            last_transition_time: unchanged.or(Some(Time(inputs.now))),
            last_probe_time: None,
            observed_generation: inputs.desired.pod.metadata.generation,
        });
    }
    conditions.extend(resize::conditions(inputs));
    let others = old.into_iter().filter(|c| set_by_others(&c.type_));
    conditions.extend(others);
    conditions
}

/// Whether a condition belongs to somebody else.
pub fn set_by_others(kind: &str) -> bool {
    !matches!(
        kind,
        "PodReadyToStartContainers"
            | "Initialized"
            | "Ready"
            | "ContainersReady"
            | "PodScheduled"
            | resize::PENDING
            | resize::IN_PROGRESS
    )
}

fn initialized(inputs: &Inputs<'_>, status: &PodStatus) -> Verdict {
    if status.phase.as_deref() == Some("Succeeded") {
        return Verdict { ok: true, reason: Some("PodCompleted"), message: None };
    }
    let any_app_started = status.container_statuses.iter().flatten().any(|c| {
        c.state.as_ref().is_some_and(|s| s.running.is_some() || s.terminated.is_some())
            || c.last_state.as_ref().is_some_and(|s| s.terminated.is_some())
    });
    if any_app_started {
        return Verdict::YES;
    }
    let roles = inputs.desired.specs.iter().filter(|s| matches!(s.role, Role::Init | Role::Sidecar));
    let incomplete: Vec<&str> = roles
        .zip(status.init_container_statuses.iter().flatten())
        .filter(|(spec, c)| match spec.role {
            Role::Sidecar => !c.started.unwrap_or(false),
            _ => !matches!(terminated(c), Some((0, true))),
        })
        .map(|(_, c)| c.name.as_str())
        .collect();
    if incomplete.is_empty() {
        return Verdict::YES;
    }
    let message = format!("containers with incomplete status: [{}]", incomplete.join(" "));
    Verdict::no("ContainersNotInitialized", message)
}

fn containers_ready(inputs: &Inputs<'_>, status: &PodStatus) -> Verdict {
    match status.phase.as_deref() {
        Some("Succeeded") => return Verdict::no("PodCompleted", None),
        Some("Failed") => return Verdict::no("PodFailed", None),
        _ => {}
    }
    let init = status.init_container_statuses.iter().flatten();
    let sidecar =
        |c: &&ContainerStatus| inputs.desired.container(&c.name).is_some_and(|s| s.role == Role::Sidecar);
    let all = init.filter(sidecar).chain(status.container_statuses.iter().flatten());
    let unready: Vec<&str> = all.filter(|c| !c.ready).map(|c| c.name.as_str()).collect();
    if unready.is_empty() {
        return Verdict::YES;
    }
    Verdict::no("ContainersNotReady", format!("containers with unready status: [{}]", unready.join(" ")))
}

fn gates(inputs: &Inputs<'_>) -> Verdict {
    // Gates are set by others, so their newest value is in the object, not in what we wrote.
    let current = inputs.desired.pod.status.as_ref().and_then(|s| s.conditions.as_ref());
    let open = |kind: &str| current.into_iter().flatten().any(|c| c.type_ == kind && c.status == "True");
    let known = |kind: &str| current.into_iter().flatten().any(|c| c.type_ == kind);
    let gates = inputs.desired.spec().readiness_gates.iter().flatten();
    let closed: Vec<String> = gates
        .filter(|g| !open(&g.condition_type))
        .map(|g| {
            if known(&g.condition_type) {
                format!(
                    "the status of pod readiness gate \"{}\" is not \"True\", but False",
                    g.condition_type
                )
            } else {
                format!(
                    "corresponding condition of pod readiness gate \"{}\" does not exist.",
                    g.condition_type
                )
            }
        })
        .collect();
    if closed.is_empty() { Verdict::YES } else { Verdict::no("ReadinessGatesNotReady", closed.join(", ")) }
}

#[cfg(test)]
mod tests;
