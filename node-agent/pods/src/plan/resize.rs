//! Bringing what a pod was given into force: which containers, in place or by a restart, and what cannot be yet.
//!
//! Compares what is meant with what the kernel says, so that it also ends what a dead agent began.

use jiff::SignedDuration;

use super::{Effect, Planner, Standing};
use crate::allocation::restarts_for;
use crate::desired::{Role, Spec};
use crate::in_force::{Bound, CpuShare, InForce};
use crate::observed::Observed;
use crate::resources::{Limits, compile_limits, compile_pod};

/// A limit that cannot be set now is tried again after this.
const BLOCKED_PAUSE: SignedDuration = SignedDuration::from_secs(5);

/// Limits to be set, in an order in which no container ever has more than its pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resizing {
    /// The pod before its containers change.
    pub before: Limits,
    /// Containers by id, with their names.
    pub containers: Vec<(String, String, Limits)>,
    /// The pod afterwards.
    pub after: Limits,
}

impl Planner<'_> {
    pub(super) fn plan_resize(&mut self, sandbox: &str) {
        let desired = self.desired;
        let mut containers = Vec::new();
        let resizable = desired.specs.iter().filter(|s| matches!(s.role, Role::App | Role::Sidecar));
        for spec in resizable {
            let Standing::Running(c) = self.standing(spec, sandbox) else {
                let last = self.seen.newest(&spec.container.name);
                self.plan.resizing |= last.is_some_and(|c| self.memory.restart_due.contains(&c.status.id));
                continue;
            };
            if self.memory.stopping.contains(&c.status.id) {
                self.plan.resizing |= self.memory.restart_due.contains(&c.status.id);
            } else if self.must_restart(spec, c) {
                self.plan.resizing = true;
                self.replace(c, &format!("Container {} is restarted to be resized", spec.container.name));
            } else if let Some(limits) = self.wanted_limits(spec, c) {
                containers.push((c.status.id.clone(), spec.container.name.clone(), limits));
            }
        }
        let meant = compile_pod(desired.spec());
        let pod = self.seen.in_force;
        // A limit that is kept back needs the pod to stay as wide as it is.
        let after = if self.plan.resize_blocked.is_some() { pod.widened(&meant) } else { meant };
        self.plan.resizing |= !containers.is_empty() || self.plan.resize_blocked.is_some();
        if self.plan.resize_blocked.is_some() {
            self.wake_in(BLOCKED_PAUSE);
        }
        if containers.is_empty() && !pod.difference(&after).any() || self.memory.resize.busy {
            return;
        }
        match self.memory.resize.retry_at {
            Some(at) if at > self.now => self.wake_in(at.duration_since(self.now)),
            _ => {
                let before = pod.widened(&meant);
                self.plan.effects.push(Effect::Resize(Resizing { before, containers, after }));
            }
        }
    }

    /// What a running container is to be held to, when it is not.
    fn wanted_limits(&mut self, spec: &Spec, container: &Observed) -> Option<Limits> {
        let Observed { status, in_force, .. } = container;
        let mut meant = compile_limits(&spec.container);
        if let (Some(limit), Some(used)) = (meant.memory_bytes, in_force.memory_used)
            && in_force.difference(&meant).memory
            && used > limit
        {
            self.plan.resize_blocked = Some(format!(
                "the memory limit of container {} cannot be {limit} bytes while it uses {used}",
                spec.container.name
            ));
            meant.memory_bytes = match in_force.memory {
                Some(Bound::At(bytes)) => Some(bytes),
                _ => None,
            };
        }
        // Told once is enough: what reads differently afterwards is a runtime with a way of its own.
        let told = self.memory.told.get(&status.id) == Some(&meant);
        (!told && differs(in_force, &meant)).then_some(meant)
    }

    /// Whether its policy is to restart for what has changed. After a restart of the agent only what reads exactly counts.
    fn must_restart(&self, spec: &Spec, container: &Observed) -> bool {
        let difference = container.in_force.difference(&compile_limits(&spec.container));
        let exact = matches!(container.in_force.cpu, Some(CpuShare::Shares(_)));
        let cpu = difference.cpu_quota || difference.cpu_share && exact;
        self.memory.restart_due.contains(&container.status.id)
            || cpu && restarts_for(&spec.container, "cpu")
            || difference.memory && restarts_for(&spec.container, "memory")
    }
}

/// A limit cannot be taken off a running container, so that its absence is no wish.
fn differs(in_force: &InForce, meant: &Limits) -> bool {
    let difference = in_force.difference(meant);
    difference.cpu_share
        || difference.cpu_quota && meant.cpu_quota_us.is_some()
        || difference.memory && meant.memory_bytes.is_some()
}

#[cfg(test)]
mod tests;
