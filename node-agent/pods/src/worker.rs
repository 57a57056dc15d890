//! The life of one pod: look, plan, tell the API, do; again whenever something happened.
//!
//! Long work (sandbox, pull, start, stop with its grace period) runs in tasks beside the loop, so that an order to
//! stop is heard while an image is being pulled. The worker itself waits only for the runtime's short answers.
//! Containers outlive it: dropping a worker stops nothing.

mod operations;
mod resize;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::Api;
use kube::api::{DeleteParams, Preconditions};
use penstock_runtime::{RuntimeError, RuntimeEventKind, SandboxConfig};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;

use crate::allocation::Allocation;
use crate::context::Context;
use crate::desired::{Desired, Origin, Role};
use crate::memory::{Health, Memory, StartFailure, Waiting};
use crate::observed::{Ended, PodRuntime, observe};
use crate::plan::{Effect, Plan, Stop, plan};
use crate::probes::{self, Kind, Verdict, check::Checker};
use crate::rotation::Leaving;
use crate::status_writer::StatusWriter;
use crate::volumes::Volumes;
use crate::{last_words, mirror, phase, resources, sandbox};
use operations::Done;
pub(crate) use operations::remove_from_runtime;
pub(crate) use resize::given;

/// Look at least this often.
const RESYNC: Duration = Duration::from_secs(10);
/// Look this often when the runtime sends no events.
const POLL: Duration = Duration::from_secs(1);
/// Volumes show changes of what they are made from within this time.
const REFRESH: Duration = Duration::from_secs(20);
/// News of operations and probes waiting for the worker.
const NEWS_MAX: usize = 64;

/// What a worker is told.
#[derive(Clone)]
pub struct Order {
    /// The pod.
    pub desired: Arc<Desired>,
    /// Its object is gone from its source: stop it and clean up, with nobody to report to.
    pub gone: bool,
}

/// Runs until the pod is gone and cleaned up, or shutdown.
pub async fn run(
    context: Arc<Context>,
    orders: watch::Receiver<Order>,
    wake: Arc<Notify>,
    shutdown: CancellationToken,
) {
    let asked = orders.borrow().desired.clone();
    let allocation = resize::remembered(&asked);
    let desired = resize::with(&asked, &allocation);
    let status = desired.pod.status.clone().unwrap_or_default();
    let (news, inbox) = mpsc::channel(NEWS_MAX);
    let (verdicts, verdict_inbox) = mpsc::channel(NEWS_MAX);
    let writer = StatusWriter::start(context.clone(), desired.clone(), status.clone());
    let mut worker = Worker {
        context,
        asked,
        allocation,
        desired,
        gone: false,
        wake,
        news,
        verdicts,
        memory: Memory::default(),
        ended: Ended::default(),
        adopted: status.clone(),
        status,
        writer,
        probing: HashMap::new(),
        pending_stops: HashMap::new(),
        leaving: Arc::default(),
        operations: tokio::task::JoinSet::new(),
        refreshed_at: tokio::time::Instant::now(),
        cleaned: false,
        deleted: false,
    };
    worker.life(orders, inbox, verdict_inbox, shutdown).await;
    worker.context.routes.remove(&worker.wake);
}

struct Worker {
    context: Arc<Context>,
    /// The pod as the source has it.
    asked: Arc<Desired>,
    /// What its containers were given, which may be less or more than they ask for.
    allocation: Allocation,
    /// The pod with what it was given; all but the decision about resizes goes by it.
    desired: Arc<Desired>,
    gone: bool,
    wake: Arc<Notify>,
    news: mpsc::Sender<Done>,
    verdicts: mpsc::Sender<Verdict>,
    memory: Memory,
    ended: Ended,
    /// The status found at the start: containers that were ready stay ready.
    adopted: PodStatus,
    status: PodStatus,
    writer: StatusWriter,
    probing: HashMap<String, AbortHandle>,
    /// Grace of stops under way, by container id.
    pending_stops: HashMap<String, i64>,
    /// How far it is when it ends.
    leaving: Arc<Leaving>,
    operations: tokio::task::JoinSet<()>,
    refreshed_at: tokio::time::Instant,
    cleaned: bool,
    deleted: bool,
}

impl Worker {
    async fn life(
        &mut self,
        mut orders: watch::Receiver<Order>,
        mut inbox: mpsc::Receiver<Done>,
        mut verdicts: mpsc::Receiver<Verdict>,
        shutdown: CancellationToken,
    ) {
        loop {
            let order = orders.borrow_and_update().clone();
            self.accept(order);
            let pause = match self.turn().await {
                Ok(Some(pause)) => pause,
                Ok(None) => return,
                Err(error) => {
                    tracing::debug!(pod = %self.title(), %error, "cannot look at the pod; trying again");
                    Duration::from_millis(500)
                }
            };
            while self.operations.try_join_next().is_some() {}
            tokio::select! {
                () = shutdown.cancelled() => return,
                changed = orders.changed() => if changed.is_err() { return },
                () = self.wake.notified() => {}
                Some(done) = inbox.recv() => self.absorb(done),
                Some(verdict) = verdicts.recv() => self.judge(verdict),
                () = self.writer.progress(), if self.desired.is_deleting() => {}
                () = tokio::time::sleep(pause) => {}
            }
            while let Ok(done) = inbox.try_recv() {
                self.absorb(done);
            }
            while let Ok(verdict) = verdicts.try_recv() {
                self.judge(verdict);
            }
        }
    }

    fn title(&self) -> String {
        format!("{}/{}", self.desired.namespace, self.desired.name)
    }

    fn accept(&mut self, order: Order) {
        let labels = |d: &Desired| (d.pod.metadata.labels.clone(), d.pod.metadata.annotations.clone());
        if labels(&order.desired) != labels(&self.desired) {
            self.refreshed_at = tokio::time::Instant::now() - REFRESH;
        }
        let shorter = order.desired.grace_seconds() < self.desired.grace_seconds();
        if order.desired.is_deleting() && shorter {
            // A second delete with less patience: stops under way are repeated with it.
            let grace = order.desired.grace_seconds();
            for id in self.pending_stops.iter().filter(|(_, g)| **g > grace).map(|(id, _)| id) {
                self.memory.stopping.remove(id);
            }
        }
        if !Arc::ptr_eq(&self.asked, &order.desired) {
            self.desired = resize::with(&order.desired, &self.allocation);
            self.asked = order.desired;
        }
        self.gone = order.gone;
    }

    /// One round. `None` when there is nothing left to do, ever; else how long to wait at most.
    async fn turn(&mut self) -> Result<Option<Duration>, RuntimeError> {
        let now = Timestamp::now();
        let context = self.context.clone();
        let words = |status: &penstock_runtime::ContainerStatus| {
            last_words::read(&context, &self.desired.uid, status)
        };
        let mut seen = observe(&*context.runtime, &self.desired.uid, &mut self.ended, words).await?;
        self.observe_limits(&mut seen);
        let ids = seen.containers.iter().map(|c| c.status.id.as_str());
        context.routes.set(&self.wake, ids.chain(seen.sandboxes.iter().map(|s| s.info.id.as_str())));
        let deadline_left = self.check_deadline(now);
        let stop = self.stop_order();
        self.supervise_probes(&seen, now, stop.is_some());
        self.consider_resize(&seen, stop.is_some());
        let plan = plan(&self.desired, &seen, &self.memory, stop, now);
        let over = stop.is_some() && !seen.any_running() && self.memory.starting.is_empty();
        self.report(&seen, &plan, over, now);
        self.announce_resize(&plan);
        if plan.finished && (self.gone || self.desired.is_deleting()) {
            return self.finish().await;
        }
        let finished = plan.finished;
        if finished && context.ledger.leave(&self.desired.uid) {
            context.routes.wake(None);
        }
        let wake_after = plan.wake_after;
        for effect in plan.effects {
            self.apply(effect, &seen);
        }
        self.refresh_volumes(&seen, finished);
        // What has just begun is looked at again soon: its end may have come before its beginning was seen.
        let young = seen.containers.iter().any(|c| c.is_running() && is_young(c.status.started_at, now));
        let eventful = context.runtime.has_events() && !young;
        let pause = if eventful || finished { RESYNC } else { POLL };
        let pause = wake_after.map_or(pause, |w| pause.min(w + Duration::from_millis(5)));
        let pause = deadline_left.map_or(pause, |d| pause.min(d + Duration::from_millis(5)));
        let live = Volumes::is_live(&self.desired) && !finished;
        Ok(Some(if live { pause.min(REFRESH) } else { pause }))
    }

    /// Fails the pod when it outlived its deadline; else the time left.
    fn check_deadline(&mut self, now: Timestamp) -> Option<Duration> {
        let seconds = self.desired.spec().active_deadline_seconds?;
        let start = self.status.start_time.as_ref()?.0;
        let left = SignedDuration::from_secs(seconds) - now.duration_since(start);
        if left > SignedDuration::ZERO {
            return Some(left.unsigned_abs());
        }
        if self.memory.failed.is_none() && !self.desired.is_terminal() {
            let message = "Pod was active on the node longer than the specified deadline";
            self.context.events.normal(&self.desired, None, "DeadlineExceeded", message);
            self.memory.failed = Some(Waiting { reason: "DeadlineExceeded".into(), message: message.into() });
        }
        None
    }

    fn stop_order(&self) -> Option<Stop> {
        let stop = self.gone
            || self.desired.is_deleting()
            || self.memory.failed.is_some()
            || self.desired.is_terminal();
        stop.then(|| Stop { grace_seconds: self.desired.grace_seconds() })
    }

    fn report(&mut self, seen: &PodRuntime, plan: &Plan, ended: bool, now: Timestamp) {
        if self.gone || self.cleaned {
            return;
        }
        let mut previous = self.status.clone();
        // Conditions others set are in the object only.
        if let Some(theirs) = self.desired.pod.status.as_ref().and_then(|s| s.conditions.clone()) {
            let ours = previous.conditions.take().unwrap_or_default();
            let foreign = theirs
                .into_iter()
                .filter(|t| !ours.iter().any(|o| o.type_ == t.type_) || phase::set_by_others(&t.type_));
            let kept = ours.iter().filter(|c| !phase::set_by_others(&c.type_)).cloned();
            previous.conditions = Some(kept.chain(foreign).collect());
        }
        self.status = phase::compile_status(&phase::Inputs {
            desired: &self.desired,
            seen,
            memory: &self.memory,
            plan,
            previous: &previous,
            node_ips: &self.context.config.node_ips,
            runtime_name: &self.context.runtime_name,
            ended,
            now,
        });
        self.writer.set(self.status.clone());
    }

    /// Everything has ended: clean up, then let the API object go.
    async fn finish(&mut self) -> Result<Option<Duration>, RuntimeError> {
        if !self.cleaned {
            // The final status is what controllers count by; it must be there before the object goes.
            if !self.gone && !self.writer.is_written() {
                return Ok(Some(RESYNC));
            }
            self.probing.drain().for_each(|(_, task)| task.abort());
            let (context, uid) = (self.context.clone(), self.desired.uid.clone());
            operations::remove_everything(&context, &self.desired).await?;
            tracing::debug!(pod = %self.title(), uid, "cleaned up");
            self.cleaned = true;
        }
        if self.gone {
            return Ok(self.finish_mirror().await);
        }
        if self.desired.origin == Origin::Api && !self.deleted {
            let api: Api<Pod> = Api::namespaced(self.context.client.clone(), &self.desired.namespace);
            let exactly = Preconditions { uid: Some(self.desired.uid.clone()), resource_version: None };
            let params =
                DeleteParams { preconditions: Some(exactly), ..DeleteParams::default().grace_period(0) };
            match api.delete(&self.desired.name, &params).await {
                Ok(_) => self.deleted = true,
                Err(kube::Error::Api(e)) if e.code == 404 || e.code == 409 => self.deleted = true,
                Err(error) => {
                    tracing::warn!(pod = %self.title(), %error, "cannot delete the pod object; trying again");
                    return Ok(Some(Duration::from_secs(1)));
                }
            }
        }
        // The source tells when it is gone.
        Ok(Some(RESYNC))
    }

    /// A pod from a manifest that is gone takes its mirror along.
    async fn finish_mirror(&self) -> Option<Duration> {
        if self.desired.origin != Origin::File {
            return None;
        }
        let error = mirror::remove_of(&self.context, &self.desired).await.err()?;
        tracing::warn!(pod = %self.title(), %error, "mirror not removed; trying again");
        Some(Duration::from_secs(1))
    }

    // === probes ===

    fn supervise_probes(&mut self, seen: &PodRuntime, now: Timestamp, stopping: bool) {
        let running = |id: &str| seen.containers.iter().any(|c| c.status.id == id && c.is_running());
        self.probing.retain(|id, task| {
            let keep = running(id);
            if !keep {
                task.abort();
            }
            keep
        });
        self.memory.health.retain(|id, _| running(id));
        self.memory.condemned.retain(|id, _| running(id));
        let address = match self.desired.host_network() {
            true => Some(self.context.config.node_ip_text()),
            false => seen.sandboxes.first().and_then(|s| s.addresses.first().cloned()),
        };
        for c in seen.containers.iter().filter(|c| c.is_running()) {
            let id = &c.status.id;
            let Some(spec) = self.desired.container(&c.status.name) else {
                continue;
            };
            if self.memory.starting.contains(&spec.container.name) || self.memory.health.contains_key(id) {
                continue;
            }
            let before = self.adopted_health(id);
            let health = Health {
                started: spec.container.startup_probe.is_none() || before.started,
                ready: spec.container.readiness_probe.is_none() || before.ready,
            };
            self.memory.health.insert(id.clone(), health);
            if !probes::needed(&spec.container) || stopping || spec.role == Role::Ephemeral {
                continue;
            }
            let started = Timestamp::from_nanosecond(i128::from(c.status.started_at)).unwrap_or(now);
            let target = probes::Target {
                container_id: id.clone(),
                container: spec.container.clone(),
                checker: Checker {
                    runtime: self.context.runtime.clone(),
                    container_id: id.clone(),
                    address: address.clone(),
                },
                age: now.duration_since(started).max(SignedDuration::ZERO).unsigned_abs(),
                health,
            };
            let task = self.operations.spawn(probes::run(target, self.verdicts.clone()));
            self.probing.insert(id.clone(), task);
        }
    }

    fn adopted_health(&self, id: &str) -> Health {
        let all = [&self.adopted.container_statuses, &self.adopted.init_container_statuses];
        let found = all
            .into_iter()
            .flat_map(|l| l.iter().flatten())
            .find(|s| s.container_id.as_deref().and_then(|c| c.split("://").nth(1)) == Some(id));
        found.map_or(Health::default(), |s| Health { started: s.started.unwrap_or(false), ready: s.ready })
    }

    fn judge(&mut self, verdict: Verdict) {
        let result = if verdict.message.is_empty() { "successful" } else { "failed" };
        let labels =
            vec![("probe_type".into(), verdict.kind.name().into()), ("result".into(), result.into())];
        self.context.metrics.probes.get_or_create(&labels).inc();
        if !verdict.message.is_empty() {
            let text = format!("{} probe failed: {}", verdict.kind.name(), verdict.message);
            self.context.events.warning(&self.desired, Some(&verdict.name), "Unhealthy", text);
        }
        let Some(settled) = verdict.settled else { return };
        let Some(health) = self.memory.health.get_mut(&verdict.container_id) else {
            return;
        };
        match (verdict.kind, settled) {
            (Kind::Startup, true) => health.started = true,
            (Kind::Readiness, ready) => health.ready = ready,
            (Kind::Liveness, true) => {}
            (Kind::Startup | Kind::Liveness, false) => {
                let kind = verdict.kind.name().to_lowercase();
                let why = format!("Container {} failed {kind} probe, will be restarted", verdict.name);
                self.memory.condemned.insert(verdict.container_id, why);
            }
        }
    }

    // === effects ===

    fn apply(&mut self, effect: Effect, seen: &PodRuntime) {
        let job = operations::Job {
            context: self.context.clone(),
            desired: self.desired.clone(),
            sandbox_config: self.sandbox_config(seen),
            leaving: self.leaving.clone(),
        };
        let news = self.news.clone();
        match effect {
            Effect::Prepare { attempt, sandbox } => {
                self.memory.sandbox_busy = true;
                let config = SandboxConfig { attempt, ..job.sandbox_config.clone() };
                let job = operations::Job { sandbox_config: config, ..job };
                self.operations.spawn(async move {
                    let _ = news.send(job.prepare(sandbox).await).await;
                });
            }
            Effect::StopSandbox { id } => {
                if self.memory.sandbox_busy {
                    return;
                }
                self.memory.sandbox_busy = true;
                self.operations.spawn(async move {
                    let _ = news.send(job.stop_sandbox(id).await).await;
                });
            }
            Effect::RemoveSandbox { id } => {
                self.operations.spawn(async move {
                    let _ = job.context.runtime.remove_sandbox(&id).await;
                });
            }
            Effect::RemoveContainer { id } => {
                self.operations.spawn(async move {
                    let _ = job.context.runtime.remove_container(&id).await;
                });
            }
            Effect::Start { name, sandbox, attempt } => {
                self.memory.starting.insert(name.clone());
                if let Some(last) = seen.newest(&name)
                    && last.is_over()
                    && !self.memory.replaced.contains(&last.status.id)
                {
                    let backoff = self.memory.crashes.entry(name.clone()).or_default();
                    let instant = |ns: i64| Timestamp::from_nanosecond(i128::from(ns)).unwrap_or_default();
                    let ran =
                        instant(last.status.finished_at).duration_since(instant(last.status.started_at));
                    if ran >= SignedDuration::from_mins(10) {
                        backoff.reset();
                    }
                    backoff.advance();
                }
                let target = self.desired.container(&name).and_then(|s| s.target.as_deref());
                let target = target.and_then(|t| seen.newest(t)).map(|c| c.status.id.clone());
                let addresses = match self.desired.host_network() {
                    true => self.context.config.node_ip_texts(),
                    false => seen.sandboxes.first().map(|s| s.addresses.clone()).unwrap_or_default(),
                };
                let start = operations::Start { name, sandbox, attempt, target, addresses };
                self.operations.spawn(async move {
                    let _ = news.send(job.start(start).await).await;
                });
            }
            Effect::Resize(resizing) => {
                self.memory.resize.busy = true;
                self.operations.spawn(async move {
                    let _ = news.send(job.resize(resizing).await).await;
                });
            }
            Effect::Stop { id, name, grace_seconds, why, replace } => {
                self.memory.stopping.insert(id.clone());
                if replace {
                    self.memory.replaced.insert(id.clone());
                }
                self.pending_stops.insert(id.clone(), grace_seconds);
                if self.desired.is_deleting() || self.gone {
                    // Liveness must not restart what is being stopped; readiness goes on.
                    self.memory.condemned.remove(&id);
                }
                let address = seen.sandboxes.first().and_then(|s| s.addresses.first().cloned());
                let address = if self.desired.host_network() {
                    Some(self.context.config.node_ip_text())
                } else {
                    address
                };
                self.operations.spawn(async move {
                    let _ = news.send(job.stop(id, name, grace_seconds, why, address).await).await;
                });
            }
        }
    }

    fn sandbox_config(&self, seen: &PodRuntime) -> SandboxConfig {
        let parent = self.context.cgroups.path(resources::qos(self.desired.spec()), &self.desired.uid);
        let attempt = seen.sandboxes.first().map_or(0, |s| s.info.attempt);
        sandbox::compile(&self.desired, &self.context.config, &parent, &self.context.node_resolver(), attempt)
    }

    fn absorb(&mut self, done: Done) {
        match done {
            Done::Prepared { failure } => {
                self.memory.sandbox_busy = false;
                self.memory.volumes_ready = failure.is_none();
                self.refreshed_at = tokio::time::Instant::now();
                self.memory.sandbox_retry_at = failure.map(|pause| Timestamp::now() + pause);
            }
            Done::SandboxStopped => self.memory.sandbox_busy = false,
            Done::Started { name, failure } => {
                self.memory.starting.remove(&name);
                match failure {
                    None => {
                        self.memory.failures.remove(&name);
                    }
                    Some(waiting) => self.remember_failure(name, waiting),
                }
            }
            Done::Resized { told, failure } => self.absorb_resize(told, failure),
            Done::Stopped { id, ok } => {
                self.memory.stopping.remove(&id);
                self.pending_stops.remove(&id);
                if !ok {
                    tracing::warn!(pod = %self.title(), container = id, "stop failed; it will be tried again");
                }
            }
        }
    }

    fn remember_failure(&mut self, name: String, waiting: Waiting) {
        let labels = vec![("code".to_string(), waiting.reason.clone())];
        self.context.metrics.start_errors.get_or_create(&labels).inc();
        let mut backoff = self.memory.failures.get(&name).map(|f| f.backoff).unwrap_or_default();
        backoff.advance();
        // Pulls wait longer and longer; everything else may be healed by the next write of a user.
        let pull = matches!(waiting.reason.as_str(), "ErrImagePull" | "ImagePullBackOff");
        let pause =
            if pull { backoff.pause() } else { backoff.pause().min(SignedDuration::from_secs(10)) / 5 };
        let shown = if pull && self.memory.failures.contains_key(&name) {
            let image =
                self.desired.container(&name).and_then(|s| s.container.image.clone()).unwrap_or_default();
            let message =
                format!("Back-off pulling image \"{image}\": {}: {}", waiting.reason, waiting.message);
            Waiting { reason: "ImagePullBackOff".into(), message }
        } else {
            waiting
        };
        self.memory
            .failures
            .insert(name, StartFailure { waiting: shown, retry_at: Timestamp::now() + pause, backoff });
    }

    fn refresh_volumes(&mut self, seen: &PodRuntime, finished: bool) {
        let due = self.refreshed_at.elapsed() >= REFRESH && self.memory.volumes_ready && !finished;
        if !due || !Volumes::is_live(&self.desired) || self.stop_order().is_some() {
            return;
        }
        self.refreshed_at = tokio::time::Instant::now();
        let job = operations::Job {
            context: self.context.clone(),
            desired: self.desired.clone(),
            sandbox_config: self.sandbox_config(seen),
            leaving: self.leaving.clone(),
        };
        let addresses = seen.sandboxes.first().map(|s| s.addresses.clone()).unwrap_or_default();
        self.operations.spawn(async move { job.refresh(addresses).await });
    }
}

fn is_young(started_at_ns: i64, now: Timestamp) -> bool {
    now.as_nanosecond() - i128::from(started_at_ns) < 2_000_000_000
}

/// Second looks after an event: CRI learns of an exit from the same event, and may not have done so when we ask.
const SECOND_LOOKS: [Duration; 2] = [Duration::from_millis(40), Duration::from_millis(400)];

/// Runtime events for the workers.
pub async fn route_events(context: Arc<Context>, shutdown: CancellationToken) {
    let mut events = context.runtime.events();
    let late = SECOND_LOOKS.map(|delay| {
        let (queue, inbox) = mpsc::channel(NEWS_MAX * 16);
        tokio::spawn(repeat_events(context.clone(), delay, inbox));
        queue
    });
    loop {
        let event = tokio::select! {
            () = shutdown.cancelled() => return,
            event = events.recv() => event,
        };
        match event {
            Ok(event) => {
                context.routes.wake(Some(&event));
                if event.kind != RuntimeEventKind::Started {
                    let now = tokio::time::Instant::now();
                    for queue in &late {
                        // A full queue loses a second look; the regular ones remain.
                        let _ = queue.try_send((now, event.clone()));
                    }
                }
            }
            Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => context.routes.wake(None),
            Err(tokio::sync::broadcast::error::RecvError::Closed) => return,
        }
    }
}

async fn repeat_events(
    context: Arc<Context>,
    delay: Duration,
    mut inbox: mpsc::Receiver<(tokio::time::Instant, penstock_runtime::RuntimeEvent)>,
) {
    while let Some((at, event)) = inbox.recv().await {
        tokio::time::sleep_until(at + delay).await;
        context.routes.wake(Some(&event));
    }
}
