//! Resizing a pod in place: the decision, which is made once, and the work, which is done until it is in force.

use std::error::Error;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::PodSpec;

use super::Worker;
use super::operations::{Done, Job};
use crate::allocation::Allocation;
use crate::desired::{Desired, Origin, Role};
use crate::ledger::{Amounts, Refusal};
use crate::memory::{Resize, Waiting};
use crate::observed::{self, PodRuntime};
use crate::plan::{Plan, Resizing};
use crate::resources::{self, Limits};

/// Between two tries to set limits.
const RETRY: SignedDuration = SignedDuration::from_secs(5);

/// What a pod that is new to this process was given. A manifest is always given what it asks for.
pub(super) fn remembered(asked: &Desired) -> Allocation {
    match asked.origin {
        Origin::Api => Allocation::remembered(&asked.pod),
        Origin::File => Allocation::asked(&asked.pod),
    }
}

/// The same, as amounts of the node.
pub(crate) fn given(asked: &Desired) -> Amounts {
    amounts(with(&Arc::new(asked.clone()), &remembered(asked)).spec())
}

/// A pod with what it was given in place of what it asks for.
pub(super) fn with(asked: &Arc<Desired>, allocation: &Allocation) -> Arc<Desired> {
    if *allocation == Allocation::asked(&asked.pod) {
        return asked.clone();
    }
    let given = Desired::new(allocation.given_to(&asked.pod), asked.origin);
    given.map_or_else(|| asked.clone(), Arc::new)
}

fn amounts(spec: &PodSpec) -> Amounts {
    Amounts {
        cpu_milli: resources::pod_request(spec, "cpu"),
        memory_bytes: resources::pod_request(spec, "memory"),
    }
}

impl Worker {
    pub(super) fn observe_limits(&mut self, seen: &mut PodRuntime) {
        let (qos, uid) = (resources::qos(self.desired.spec()), &self.desired.uid);
        observed::observe_limits(seen, |id| self.context.cgroups.read(qos, uid, id));
        let memory = &mut self.memory;
        let known = |id: &String| seen.containers.iter().any(|c| c.status.id == *id);
        memory.replaced.retain(known);
        memory.told.retain(|id, _| known(id));
        memory.restart_due.retain(|id| {
            let mine = seen.containers.iter().find(|c| c.status.id == *id);
            mine.is_some_and(|c| seen.newest(&c.status.name).is_some_and(|newest| newest.status.id == *id))
        });
    }

    /// Gives the pod what it asks for, or says why not.
    pub(super) fn consider_resize(&mut self, seen: &PodRuntime, stopping: bool) {
        let wanted = Allocation::asked(&self.asked.pod);
        if wanted.is_same(&self.allocation) {
            if self.memory.resize.pending.take().is_some() {
                self.context.ledger.withdraw(&self.asked.uid);
            }
            if wanted != self.allocation {
                self.allocation = wanted;
                self.desired = self.asked.clone();
            }
            return;
        }
        if stopping {
            return;
        }
        let resizable = |name: &str| {
            self.desired.container(name).is_some_and(|s| matches!(s.role, Role::App | Role::Sidecar))
        };
        let mut running = seen.containers.iter().filter(|c| c.is_running() && resizable(&c.status.name));
        let blind = running.find(|c| c.in_force.is_unknown());
        let outcome = match blind {
            Some(c) => Err(Refusal::Infeasible(format!(
                "neither the cgroup of container {} nor the runtime tells what it is held to",
                c.status.name
            ))),
            None => {
                let (spec, uid) = (self.asked.spec(), &self.asked.uid);
                self.context.ledger.exchange(uid, resources::qos(spec), amounts(spec))
            }
        };
        match outcome {
            Ok(others_wait) => {
                self.grant(wanted, seen);
                if others_wait {
                    self.context.routes.wake(None);
                }
            }
            Err(Refusal::TooEarly) => {}
            Err(Refusal::Deferred(message)) => self.put_off("Deferred", message),
            Err(Refusal::Infeasible(message)) => self.put_off("Infeasible", message),
        }
    }

    fn grant(&mut self, wanted: Allocation, seen: &PodRuntime) {
        for name in self.allocation.restarts(&wanted, &self.asked.pod) {
            let running = seen.newest(&name).filter(|c| c.is_running());
            self.memory.restart_due.extend(running.map(|c| c.status.id.clone()));
        }
        self.allocation = wanted;
        self.desired = self.asked.clone();
        let granted = self.asked.pod.metadata.generation.or(Some(0));
        self.memory.resize = Resize { granted, busy: self.memory.resize.busy, ..Resize::default() };
        self.context.events.normal(&self.desired, None, "ResizeStarted", "Pod resize started");
    }

    fn put_off(&mut self, reason: &str, message: String) {
        let known = self.memory.resize.pending.as_ref().is_some_and(|p| p.reason == reason);
        if !known {
            let event = format!("Resize{reason}");
            self.context.events.warning(&self.desired, None, &event, message.clone());
        }
        self.memory.resize.pending = Some(Waiting { reason: reason.to_string(), message });
    }

    /// Says when what was granted has come into force.
    pub(super) fn announce_resize(&mut self, plan: &Plan) {
        let resize = &mut self.memory.resize;
        if plan.resizing || resize.busy || resize.granted.take().is_none() {
            return;
        }
        resize.failure = None;
        self.context.events.normal(&self.desired, None, "ResizeCompleted", "Pod resize completed");
    }

    pub(super) fn absorb_resize(&mut self, told: Vec<(String, Limits)>, failure: Option<String>) {
        self.memory.told.extend(told);
        let resize = &mut self.memory.resize;
        resize.busy = false;
        resize.retry_at = failure.is_some().then(|| Timestamp::now() + RETRY);
        if let Some(message) = failure.as_ref().filter(|f| resize.failure.as_ref() != Some(f)) {
            if resize.granted.is_some() {
                self.context.events.warning(&self.desired, None, "ResizeError", message.as_str());
            } else {
                tracing::debug!(pod = self.desired.name, message, "limits of the pod not set; trying again");
            }
        }
        resize.failure = failure;
    }
}

impl Job {
    /// The pod is widened, then its containers change, then the pod is narrowed to what they need.
    pub(super) async fn resize(self, resizing: Resizing) -> Done {
        let mut told = Vec::new();
        let failure = self.try_resize(resizing, &mut told).await.err();
        Done::Resized { told, failure }
    }

    async fn try_resize(&self, resizing: Resizing, told: &mut Vec<(String, Limits)>) -> Result<(), String> {
        let (context, desired) = (&self.context, &self.desired);
        let set_pod = |limits: &Limits| {
            let set = context.cgroups.set(resources::qos(desired.spec()), limits, &desired.uid);
            set.map_err(|e| e.source().map_or(e.to_string(), |source| format!("{e}: {source}")))
        };
        set_pod(&resizing.before)?;
        for (id, name, limits) in resizing.containers {
            let score = desired.container(&name).map_or(0, |spec| {
                let (memory, min) = (context.node.memory_bytes, context.oom_score_adj_min);
                resources::oom_score_adj(desired.spec(), &spec.container, memory, min)
            });
            let update = context.runtime.update_resources(&id, &limits.for_runtime(score)).await;
            update.map_err(|error| format!("container {name} cannot be resized: {error}"))?;
            told.push((id, limits));
        }
        set_pod(&resizing.after)
    }
}
