//! What to do next for one pod: from what is wanted, what the runtime has and what the worker remembers to effects.
//!
//! Pure and level-triggered: the same inputs give the same plan, and a plan that was only half carried out is made
//! anew from what is then there. It must not do I/O, sleep, or look at a clock.

mod resize;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use penstock_runtime::{ContainerState, SandboxState};

use crate::desired::{Desired, Role, Spec};
use crate::memory::{Memory, Waiting};
use crate::names;
use crate::observed::{Observed, PodRuntime};

pub use resize::Resizing;

/// Something to be done; each is idempotent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Make cgroup, volumes and (if `sandbox`) a sandbox with this attempt.
    Prepare { attempt: u32, sandbox: bool },
    /// Stop a sandbox that is dead or no longer needed.
    StopSandbox { id: String },
    /// Forget a sandbox that was replaced.
    RemoveSandbox { id: String },
    /// Pull, create, start, run the post-start hook.
    Start { name: String, sandbox: String, attempt: u32 },
    /// Run the pre-stop hook and stop; with `replace`, in order to start it anew.
    Stop { id: String, name: String, grace_seconds: i64, why: String, replace: bool },
    /// Hold running containers, and the pod around them, to other limits.
    Resize(Resizing),
    /// Forget an ended container, log included.
    RemoveContainer { id: String },
}

/// What [`plan`] found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// To be done now.
    pub effects: Vec<Effect>,
    /// Look again no later than this.
    pub wake_after: Option<Duration>,
    /// Why containers wait, by name.
    pub waiting: BTreeMap<String, Waiting>,
    /// Nothing runs, nothing is to be started, the sandbox is down: the pod's work is over.
    pub finished: bool,
    /// What the pod was given is not in force everywhere.
    pub resizing: bool,
    /// Why it cannot be now.
    pub resize_blocked: Option<String>,
}

/// What ends a pod from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stop {
    /// Seconds between the polite and the final signal.
    pub grace_seconds: i64,
}

/// See the module. `stop` is set when the pod shall end whatever its restart policy says.
pub fn plan(
    desired: &Desired,
    seen: &PodRuntime,
    memory: &Memory,
    stop: Option<Stop>,
    now: Timestamp,
) -> Plan {
    let mut planner = Planner { desired, seen, memory, now, plan: Plan::default() };
    match stop {
        Some(stop) => planner.plan_end(stop),
        None => planner.plan_life(),
    }
    planner.plan_removals();
    planner.plan
}

struct Planner<'a> {
    desired: &'a Desired,
    seen: &'a PodRuntime,
    memory: &'a Memory,
    now: Timestamp,
    plan: Plan,
}

/// How a container stands with respect to being started.
enum Standing<'a> {
    Absent,
    Busy,
    Running(&'a Observed),
    Over(&'a Observed),
}

impl<'a> Planner<'a> {
    fn plan_life(&mut self) {
        let Some(sandbox) = self.seen.ready_sandbox() else {
            return self.plan_sandbox();
        };
        let sandbox = sandbox.info.id.clone();
        if !self.memory.volumes_ready && !self.memory.sandbox_busy && self.may_retry_sandbox() {
            // After a restart of the agent: running containers stay, their volumes get served again.
            self.plan.effects.push(Effect::Prepare { attempt: 0, sandbox: false });
        }
        for stale in self.seen.sandboxes.iter().skip(1).filter(|s| s.info.state == SandboxState::Ready) {
            self.plan.effects.push(Effect::StopSandbox { id: stale.info.id.clone() });
        }
        self.plan_condemned();
        let initialized = self.plan_init(&sandbox);
        if initialized {
            self.plan_apps(&sandbox);
        }
        self.plan_ephemeral(&sandbox);
        self.plan_resize(&sandbox);
        if self.all_work_done(&sandbox) {
            self.plan_end(Stop { grace_seconds: self.desired.grace_seconds() });
        }
    }

    fn may_retry_sandbox(&mut self) -> bool {
        match self.memory.sandbox_retry_at {
            Some(at) if at > self.now => {
                self.wake_in(at.duration_since(self.now));
                false
            }
            _ => true,
        }
    }

    /// There is no sandbox to work in: stop what the old one left, then make a new one if there is work.
    fn plan_sandbox(&mut self) {
        for container in self.seen.containers.iter().filter(|c| c.is_running()) {
            self.stop(container, 0, "the pod sandbox is gone");
        }
        if self.seen.any_running() || self.memory.sandbox_busy {
            return;
        }
        if !self.seen.sandboxes.is_empty() && !self.wants_any_start() {
            self.plan.finished = true;
            return;
        }
        if self.may_retry_sandbox() {
            let newest = self.seen.sandboxes.first();
            if let Some(dead) = newest {
                self.plan.effects.push(Effect::StopSandbox { id: dead.info.id.clone() });
            }
            let attempt = newest.map_or(0, |s| s.info.attempt + 1);
            self.plan.effects.push(Effect::Prepare { attempt, sandbox: true });
        }
    }

    /// Whether a new sandbox would have anything to run.
    fn wants_any_start(&self) -> bool {
        let failed_init =
            self.desired.specs.iter().filter(|s| s.role == Role::Init).any(|s| self.has_failed_for_good(s));
        !failed_init
            && self.desired.specs.iter().filter(|s| s.role == Role::App).any(|spec| {
                match self.seen.newest(&spec.container.name) {
                    None => true,
                    Some(c) => self.restarts(spec, c),
                }
            })
    }

    fn has_failed_for_good(&self, spec: &Spec) -> bool {
        let last = self.seen.newest(&spec.container.name);
        last.is_some_and(|c| c.is_over() && c.status.exit_code != 0 && !self.restarts(spec, c))
    }

    /// Whether an ended container is started again.
    fn restarts(&self, spec: &Spec, ended: &Observed) -> bool {
        if ended.status.state == ContainerState::Created || self.memory.replaced.contains(&ended.status.id) {
            return true;
        }
        let policy = spec.container.restart_policy.as_deref().unwrap_or(self.desired.restart_policy());
        match spec.role {
            Role::Sidecar => true,
            Role::Ephemeral => false,
            Role::Init => ended.status.exit_code != 0 && policy != "Never",
            Role::App => match policy {
                "Never" => false,
                "OnFailure" => ended.status.exit_code != 0,
                _ => true,
            },
        }
    }

    fn standing(&self, spec: &Spec, sandbox: &str) -> Standing<'a> {
        if self.memory.starting.contains(&spec.container.name) {
            return Standing::Busy;
        }
        match self.seen.newest_in(&spec.container.name, sandbox) {
            None => Standing::Absent,
            Some(c) if c.is_running() => Standing::Running(c),
            // Created and never started: an agent died in between. It counts as ended and is made anew.
            Some(c) => Standing::Over(c),
        }
    }

    /// Returns whether app containers may start.
    fn plan_init(&mut self, sandbox: &str) -> bool {
        let desired = self.desired;
        let init: Vec<&Spec> =
            desired.specs.iter().filter(|s| matches!(s.role, Role::Init | Role::Sidecar)).collect();
        for (at, spec) in init.iter().enumerate() {
            // Whatever comes later in the pod's life proves that this one had been done.
            let passed =
                init[at + 1..].iter().copied().chain(desired.specs.iter().filter(|s| s.role == Role::App));
            let passed =
                passed.into_iter().any(|s| self.seen.newest_in(&s.container.name, sandbox).is_some());
            let done = match (spec.role, self.standing(spec, sandbox)) {
                (_, Standing::Busy) => false,
                (Role::Init, Standing::Absent) if passed => true,
                (_, Standing::Absent) => {
                    self.start(spec, sandbox);
                    false
                }
                (Role::Sidecar, Standing::Running(c)) => {
                    self.memory.health.get(&c.status.id).is_some_and(|h| h.started)
                }
                (_, Standing::Running(_)) => false,
                (Role::Init, Standing::Over(c))
                    if c.status.exit_code == 0 && c.status.state == ContainerState::Exited =>
                {
                    true
                }
                (_, Standing::Over(c)) => {
                    if self.restarts(spec, c) {
                        self.start(spec, sandbox);
                    }
                    false
                }
            };
            if !done && !passed {
                return false;
            }
        }
        true
    }

    fn plan_apps(&mut self, sandbox: &str) {
        let desired = self.desired;
        for spec in desired.specs.iter().filter(|s| s.role == Role::App) {
            let has_hook = spec.container.lifecycle.as_ref().is_some_and(|l| l.post_start.is_some());
            match self.standing(spec, sandbox) {
                Standing::Busy if has_hook => return,
                Standing::Busy => {}
                Standing::Absent => {
                    self.start(spec, sandbox);
                    // Containers after one with a post-start hook may count on the hook having run.
                    if has_hook {
                        return;
                    }
                }
                Standing::Running(c) => {
                    let hash = c.status.annotations.get(names::CONTAINER_HASH);
                    if hash.is_some_and(|h| *h != spec.hash) {
                        self.replace(c, "its definition changed");
                    }
                }
                Standing::Over(c) => {
                    if self.restarts(spec, c) {
                        self.start(spec, sandbox);
                    }
                }
            }
        }
    }

    fn plan_ephemeral(&mut self, sandbox: &str) {
        let desired = self.desired;
        for spec in desired.specs.iter().filter(|s| s.role == Role::Ephemeral) {
            if self.seen.newest(&spec.container.name).is_none()
                && matches!(self.standing(spec, sandbox), Standing::Absent)
            {
                self.start(spec, sandbox);
            }
        }
    }

    fn plan_condemned(&mut self) {
        for container in self.seen.containers.iter().filter(|c| c.is_running()) {
            if let Some(why) = self.memory.condemned.get(&container.status.id) {
                self.stop(container, self.probe_grace(container), why);
            }
        }
    }

    /// A failed probe may bring its own grace period.
    fn probe_grace(&self, container: &Observed) -> i64 {
        let spec = self.desired.container(&container.status.name).map(|s| &s.container);
        let probe = spec.and_then(|c| c.liveness_probe.as_ref().or(c.startup_probe.as_ref()));
        probe.and_then(|p| p.termination_grace_period_seconds).unwrap_or(self.desired.grace_seconds())
    }

    /// Every app container ended and none comes back, or an init container failed for good.
    fn all_work_done(&self, sandbox: &str) -> bool {
        let over_for_good = |spec: &Spec| match self.standing(spec, sandbox) {
            Standing::Over(c) => !self.restarts(spec, c),
            Standing::Absent | Standing::Busy | Standing::Running(_) => false,
        };
        let init_failed = |spec: &Spec| match self.standing(spec, sandbox) {
            Standing::Over(c) => c.status.exit_code != 0 && !self.restarts(spec, c),
            Standing::Absent | Standing::Busy | Standing::Running(_) => false,
        };
        let of = |role: Role| self.desired.specs.iter().filter(move |s| s.role == role);
        of(Role::Init).any(init_failed) || of(Role::App).all(over_for_good)
    }

    /// Stops apps, then sidecars from the last to the first, then the sandbox.
    fn plan_end(&mut self, stop: Stop) {
        self.plan.effects.retain(|e| !matches!(e, Effect::Start { .. } | Effect::Prepare { .. }));
        let role = |c: &Observed| self.desired.container(&c.status.name).map_or(Role::App, |s| s.role);
        let running: Vec<&Observed> = self.seen.containers.iter().filter(|c| c.is_running()).collect();
        let (sidecars, others): (Vec<&Observed>, Vec<&Observed>) =
            running.iter().partition(|c| role(c) == Role::Sidecar);
        if !others.is_empty()
            || self
                .memory
                .starting
                .iter()
                .any(|name| self.desired.container(name).is_none_or(|s| s.role != Role::Sidecar))
        {
            for container in others {
                self.stop(container, stop.grace_seconds, "the pod ends");
            }
            return;
        }
        if !sidecars.is_empty() {
            let last =
                |c: &&&Observed| self.desired.specs.iter().position(|s| s.container.name == c.status.name);
            if let Some(container) = sidecars.iter().max_by_key(last) {
                self.stop(container, stop.grace_seconds, "the pod ends");
            }
            return;
        }
        if !self.memory.starting.is_empty() || self.memory.sandbox_busy {
            return;
        }
        let up = self.seen.sandboxes.iter().filter(|s| s.info.state == SandboxState::Ready);
        let ids: Vec<String> = up.map(|s| s.info.id.clone()).collect();
        self.plan.finished = ids.is_empty();
        self.plan.effects.extend(ids.into_iter().map(|id| Effect::StopSandbox { id }));
    }

    /// Of each name the newest and the one before it stay (logs, last state); so does the newest sandbox.
    fn plan_removals(&mut self) {
        let mut kept: BTreeMap<&str, usize> = BTreeMap::new();
        for container in &self.seen.containers {
            let count = kept.entry(&container.status.name).or_default();
            *count += 1;
            if *count > 2 && !container.is_running() {
                self.plan.effects.push(Effect::RemoveContainer { id: container.status.id.clone() });
            }
        }
        for sandbox in self.seen.sandboxes.iter().skip(1) {
            let used = self.seen.containers.iter().any(|c| c.sandbox == sandbox.info.id);
            if !used && sandbox.info.state == SandboxState::NotReady {
                self.plan.effects.push(Effect::RemoveSandbox { id: sandbox.info.id.clone() });
            }
        }
    }

    fn stop(&mut self, container: &Observed, grace_seconds: i64, why: &str) {
        self.push_stop(container, grace_seconds, why, false);
    }

    /// Stops a container that is then started anew.
    fn replace(&mut self, container: &Observed, why: &str) {
        self.push_stop(container, self.desired.grace_seconds(), why, true);
    }

    fn push_stop(&mut self, container: &Observed, grace_seconds: i64, why: &str, replace: bool) {
        if self.memory.stopping.contains(&container.status.id) {
            return;
        }
        self.plan.effects.push(Effect::Stop {
            id: container.status.id.clone(),
            name: container.status.name.clone(),
            grace_seconds,
            why: why.to_string(),
            replace,
        });
    }

    /// Starts a container, unless a pause is in force.
    fn start(&mut self, spec: &Spec, sandbox: &str) {
        let name = &spec.container.name;
        if !self.memory.volumes_ready || self.memory.starting.contains(name) {
            return;
        }
        if let Some(failure) = self.memory.failures.get(name)
            && failure.retry_at > self.now
        {
            self.plan.waiting.insert(name.clone(), failure.waiting.clone());
            return self.wake_in(failure.retry_at.duration_since(self.now));
        }
        let last = self.seen.newest(name);
        if let Some(last) = last
            && last.status.state == ContainerState::Exited
            && !self.memory.replaced.contains(&last.status.id)
            && let Some(backoff) = self.memory.crashes.get(name)
        {
            let left =
                backoff.left(instant(last.status.started_at), instant(last.status.finished_at), self.now);
            if left > SignedDuration::ZERO {
                let Desired { name: pod, namespace, uid, .. } = self.desired;
                let message = format!(
                    "back-off {} restarting failed container={name} pod={pod}_{namespace}({uid})",
                    words(backoff.pause())
                );
                self.plan
                    .waiting
                    .insert(name.clone(), Waiting { reason: "CrashLoopBackOff".into(), message });
                return self.wake_in(left);
            }
        }
        let attempt = last.map_or(0, |l| l.restart_count() + 1);
        self.plan.effects.push(Effect::Start { name: name.clone(), sandbox: sandbox.to_string(), attempt });
    }

    fn wake_in(&mut self, left: SignedDuration) {
        let left = left.unsigned_abs();
        self.plan.wake_after = Some(self.plan.wake_after.map_or(left, |w| w.min(left)));
    }
}

fn instant(nanoseconds: i64) -> Timestamp {
    Timestamp::from_nanosecond(i128::from(nanoseconds)).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// A duration as users know it from other clusters: `1m20s`.
fn words(duration: SignedDuration) -> String {
    match (duration.as_secs() / 60, duration.as_secs() % 60) {
        (0, s) => format!("{s}s"),
        (m, s) => format!("{m}m{s}s"),
    }
}
