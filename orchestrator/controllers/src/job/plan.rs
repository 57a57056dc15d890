//! What a pass over a Job does: which finished pods are counted, whether the Job is over, which pods are made and
//! deleted, and what the status says. Pure.
//!
//! Counting is in two steps, so that no pod is counted twice or lost: a finished pod's UID is written into the
//! status first, then the pod's finalizer is taken away, and only then does the number in the status grow.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{Job, JobCondition, JobSpec, JobStatus, UncountedTerminatedPods};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use penstock_informers::Meta;

use super::indexes::Indexes;
use super::policy::{Meaning, meaning_of, success};
use crate::pod;

/// Keeps a finished pod until it is counted.
pub(crate) const TRACKING: &str = "batch.kubernetes.io/job-tracking";
/// On indexed pods, as annotation and label.
pub(crate) const INDEX: &str = "batch.kubernetes.io/job-completion-index";
/// How often the index had failed when the pod was made.
pub(crate) const INDEX_FAILURES: &str = "batch.kubernetes.io/job-index-failure-count";
/// Pods created or deleted in one pass at most.
const BURST_MAX: i32 = 500;
/// Pods written into the status in one pass at most: the object must not grow too large.
const UNCOUNTED_MAX: usize = 500;
const BACKOFF_FIRST_SECONDS: i64 = 10;
const BACKOFF_MAX_SECONDS: i64 = 600;

pub(crate) struct Observed {
    pub job: Arc<Job>,
    pub pods: Vec<Arc<Pod>>,
    /// Whether the cache shows all that earlier passes did.
    pub settled: bool,
    pub now: Timestamp,
}

/// A pod to make; without an index for a Job that has none.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NewPod {
    pub index: Option<i32>,
    pub index_failures: i32,
}

/// What a pass does, in this order.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub create: Vec<NewPod>,
    /// Pods of a Job that is over: they count as failed when they go.
    pub end: Vec<Arc<Pod>>,
    /// Surplus pods: they never count.
    pub surplus: Vec<Arc<Pod>>,
    pub status: JobStatus,
    /// Pods that are in the written status, or need not be: their finalizer goes.
    pub release: Vec<Arc<Pod>>,
    /// Seconds after which to look again.
    pub next: Option<u64>,
}

/// How a Job is over.
struct Verdict {
    failed: bool,
    reason: &'static str,
    message: String,
}

pub(crate) fn is_true(job: &Job, kind: &str) -> bool {
    let conditions = job.status.as_ref().and_then(|s| s.conditions.as_ref());
    conditions.into_iter().flatten().any(|c| c.type_ == kind && c.status == "True")
}

pub(crate) fn is_over(job: &Job) -> bool {
    is_true(job, "Complete") || is_true(job, "Failed")
}

fn index_of(pod: &Pod) -> Option<i32> {
    pod.annotation(INDEX)?.parse().ok()
}

fn replaces_failed_only(spec: &JobSpec) -> bool {
    spec.pod_replacement_policy.as_deref() == Some("Failed") || spec.pod_failure_policy.is_some()
}

fn is_failed(spec: &JobSpec, pod: &Pod) -> bool {
    match pod::phase(pod) {
        "Failed" => true,
        "Succeeded" => false,
        // It may never come to report an end; without grace left its agent has let it go.
        _ => {
            pod.deleting()
                && (!replaces_failed_only(spec) || pod.metadata.deletion_grace_period_seconds == Some(0))
        }
    }
}

/// When the pod's last container ended, or else when it was asked to go.
fn ended_at(pod: &Pod) -> Option<Timestamp> {
    let statuses = pod.status.as_ref().and_then(|s| s.container_statuses.as_ref());
    let ended = statuses.into_iter().flatten();
    let ended =
        ended.filter_map(|c| c.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref().map(|t| t.0));
    ended.max().or_else(|| pod.metadata.deletion_timestamp.as_ref().map(|t| t.0))
}

/// The count so far, and what this pass adds to it.
struct Tally<'a> {
    spec: &'a JobSpec,
    indexed: bool,
    completions: i32,
    succeeded: i32,
    failed: i32,
    completed: Indexes,
    failed_indexes: Indexes,
    uncounted_succeeded: BTreeSet<String>,
    uncounted_failed: BTreeSet<String>,
    release: Vec<Arc<Pod>>,
    fail_job: Option<String>,
}

impl<'a> Tally<'a> {
    fn new(observed: &Observed, spec: &'a JobSpec) -> Self {
        let status = observed.job.status.clone().unwrap_or_default();
        let completions = spec.completions.unwrap_or(i32::MAX);
        let read = |text: Option<String>| Indexes::parse(&text.unwrap_or_default(), completions);
        let uncounted = status.uncounted_terminated_pods.unwrap_or_default();
        let mut tally = Self {
            spec,
            indexed: spec.completion_mode.as_deref() == Some("Indexed"),
            completions,
            succeeded: status.succeeded.unwrap_or(0),
            failed: status.failed.unwrap_or(0),
            completed: read(status.completed_indexes),
            failed_indexes: read(status.failed_indexes),
            uncounted_succeeded: BTreeSet::new(),
            uncounted_failed: BTreeSet::new(),
            release: Vec::new(),
            fail_job: None,
        };
        let held: BTreeSet<&str> =
            observed.pods.iter().filter(|p| p.has_finalizer(TRACKING)).map(|p| p.uid_str()).collect();
        for uid in uncounted.succeeded.into_iter().flatten() {
            if held.contains(uid.as_str()) {
                tally.uncounted_succeeded.insert(uid);
            } else {
                tally.succeeded += 1;
            }
        }
        for uid in uncounted.failed.into_iter().flatten() {
            if held.contains(uid.as_str()) {
                tally.uncounted_failed.insert(uid);
            } else {
                tally.failed += 1;
            }
        }
        tally
    }

    fn take(&mut self, pod: &Arc<Pod>) {
        let uid = pod.uid_str();
        let known = self.uncounted_succeeded.contains(uid) || self.uncounted_failed.contains(uid);
        let succeeded = pod::phase(pod) == "Succeeded";
        if !succeeded && !is_failed(self.spec, pod) {
            return;
        }
        if !known {
            if self.uncounted_succeeded.len() + self.uncounted_failed.len() >= UNCOUNTED_MAX {
                return;
            }
            match (succeeded, self.indexed) {
                (true, true) => {
                    let index = index_of(pod).filter(|i| (0..self.completions).contains(i));
                    if let Some(index) = index
                        && !self.failed_indexes.contains(index)
                    {
                        self.completed.insert(index);
                    }
                }
                (true, false) => {
                    self.uncounted_succeeded.insert(uid.to_owned());
                }
                (false, _) => self.take_failed(pod),
            }
        }
        self.release.push(pod.clone());
    }

    fn take_failed(&mut self, pod: &Pod) {
        let meaning = if pod::phase(pod) == "Failed" { meaning_of(self.spec, pod) } else { Meaning::Count };
        let index = index_of(pod).filter(|i| (0..self.completions).contains(i));
        match meaning {
            Meaning::Ignore => return,
            Meaning::FailJob(why) => self.fail_job = Some(why),
            Meaning::FailIndex => {
                index.map(|i| self.failed_indexes.insert(i));
            }
            Meaning::Count => {}
        }
        if let (Some(limit), Some(index)) = (self.spec.backoff_limit_per_index, index)
            && failures_before(pod) >= limit
            && !self.completed.contains(index)
        {
            self.failed_indexes.insert(index);
        }
        self.uncounted_failed.insert(pod.uid_str().to_owned());
    }

    fn succeeded_all(&self) -> i32 {
        if self.indexed {
            self.completed.len()
        } else {
            self.succeeded + self.uncounted_succeeded.len() as i32
        }
    }

    fn failed_all(&self) -> i32 {
        self.failed + self.uncounted_failed.len() as i32
    }
}

fn failures_before(pod: &Pod) -> i32 {
    pod.annotation(INDEX_FAILURES).and_then(|n| n.parse().ok()).unwrap_or(0)
}

pub(crate) fn plan(observed: &Observed) -> Plan {
    let job = &observed.job;
    let Some(spec) = &job.spec else {
        return Plan::default();
    };
    let mut tally = Tally::new(observed, spec);
    let mut tracked: Vec<&Arc<Pod>> = observed.pods.iter().filter(|p| p.has_finalizer(TRACKING)).collect();
    tracked.sort_by_key(|p| (ended_at(p), p.uid_str().to_owned()));
    tracked.into_iter().for_each(|p| tally.take(p));

    let active: Vec<Arc<Pod>> = observed.pods.iter().filter(|p| pod::is_active(p)).cloned().collect();
    let terminating = observed.pods.iter().filter(|p| pod::is_terminating(p)).count() as i32;
    let suspended = spec.suspend == Some(true);
    let verdict = plan_verdict(observed, &tally, &active);
    let mut plan = Plan::default();
    let mut conditions = job.status.as_ref().and_then(|s| s.conditions.clone()).unwrap_or_default();
    let mut status = JobStatus {
        active: Some(active.len() as i32),
        ready: Some(active.iter().filter(|p| pod::is_ready(p)).count() as i32),
        terminating: Some(terminating),
        start_time: job.status.as_ref().and_then(|s| s.start_time.clone()),
        completion_time: job.status.as_ref().and_then(|s| s.completion_time.clone()),
        ..Default::default()
    };
    if let Some(verdict) = &verdict {
        let target = if verdict.failed { "FailureTarget" } else { "SuccessCriteriaMet" };
        set_condition(&mut conditions, target, true, verdict.reason, &verdict.message, observed.now);
        plan.end = active.clone();
        let accounted = tally.uncounted_succeeded.is_empty() && tally.uncounted_failed.is_empty();
        if active.is_empty() && terminating == 0 && accounted {
            let kind = if verdict.failed { "Failed" } else { "Complete" };
            set_condition(&mut conditions, kind, true, verdict.reason, &verdict.message, observed.now);
            if !verdict.failed {
                status.completion_time.get_or_insert(Time(observed.now));
            }
        }
    } else if suspended {
        if observed.settled {
            plan.surplus = active.clone();
        }
        status.start_time = None;
        set_condition(&mut conditions, "Suspended", true, "JobSuspended", "Job suspended", observed.now);
    } else {
        if conditions.iter().any(|c| c.type_ == "Suspended") {
            set_condition(&mut conditions, "Suspended", false, "JobResumed", "Job resumed", observed.now);
        }
        let started = status.start_time.get_or_insert(Time(observed.now)).0;
        let deadline =
            spec.active_deadline_seconds.map(|d| started.as_second() + d - observed.now.as_second());
        plan.next = deadline.and_then(|d| u64::try_from(d).ok()).map(|d| d.max(1));
        if observed.settled {
            plan_pods(observed, spec, &tally, active, terminating, &mut plan);
        }
    }
    let some = |n: i32| (n > 0).then_some(n);
    status.succeeded = some(if tally.indexed { tally.completed.len() } else { tally.succeeded });
    status.failed = some(tally.failed);
    status.active = status.active.filter(|n| *n > 0);
    status.completed_indexes =
        (tally.indexed && tally.completed.len() > 0).then(|| tally.completed.to_string());
    status.failed_indexes = spec.backoff_limit_per_index.map(|_| tally.failed_indexes.to_string());
    let list = |uids: BTreeSet<String>| (!uids.is_empty()).then(|| uids.into_iter().collect());
    status.uncounted_terminated_pods = Some(UncountedTerminatedPods {
        succeeded: list(tally.uncounted_succeeded),
        failed: list(tally.uncounted_failed),
    });
    status.conditions = (!conditions.is_empty()).then_some(conditions);
    plan.release = tally.release;
    plan.status = status;
    plan
}

/// Whether the Job is over, and why. What was said before stays said.
fn plan_verdict(observed: &Observed, tally: &Tally<'_>, active: &[Arc<Pod>]) -> Option<Verdict> {
    let (job, spec) = (&observed.job, tally.spec);
    let conditions = job.status.iter().flat_map(|s| s.conditions.iter().flatten());
    for condition in conditions.filter(|c| c.status == "True") {
        let failed = condition.type_ == "FailureTarget";
        if failed || condition.type_ == "SuccessCriteriaMet" {
            // The reasons there are; a foreign one is kept out of the static set and told as the nearest.
            const REASONS: [&str; 7] = [
                "PodFailurePolicy",
                "BackoffLimitExceeded",
                "DeadlineExceeded",
                "MaxFailedIndexesExceeded",
                "FailedIndexes",
                "SuccessPolicy",
                "CompletionsReached",
            ];
            let said = condition.reason.as_deref().unwrap_or_default();
            let nearest = if failed { "BackoffLimitExceeded" } else { "CompletionsReached" };
            return Some(Verdict {
                failed,
                reason: REASONS.into_iter().find(|r| *r == said).unwrap_or(nearest),
                message: condition.message.clone().unwrap_or_default(),
            });
        }
    }
    let over = |failed, reason, message: &str| Some(Verdict { failed, reason, message: message.to_owned() });
    if let Some(why) = &tally.fail_job {
        return over(true, "PodFailurePolicy", why);
    }
    let limit = spec.backoff_limit.unwrap_or(6);
    let restarts: i32 = active.iter().map(|p| pod::restarts_max(p)).sum();
    let on_failure =
        spec.template.spec.as_ref().and_then(|s| s.restart_policy.as_deref()) == Some("OnFailure");
    let restarted = on_failure && restarts > 0 && restarts >= limit;
    if tally.failed_all() > limit || restarted {
        return over(true, "BackoffLimitExceeded", "Job has reached the specified backoff limit");
    }
    let started = job.status.as_ref().and_then(|s| s.start_time.as_ref()).map(|t| t.0.as_second());
    if let (Some(started), Some(deadline), false) =
        (started, spec.active_deadline_seconds, spec.suspend == Some(true))
        && observed.now.as_second() >= started + deadline
    {
        return over(true, "DeadlineExceeded", "Job was active longer than specified deadline");
    }
    if tally.indexed {
        if spec.max_failed_indexes.is_some_and(|max| tally.failed_indexes.len() > max) {
            let message = "Job has exceeded the specified maximal number of failed indexes";
            return over(true, "MaxFailedIndexesExceeded", message);
        }
        if let Some(message) = success(spec, &tally.completed) {
            return over(false, "SuccessPolicy", &message);
        }
        let failed = tally.failed_indexes.len();
        if failed > 0 && failed + tally.completed.len() >= tally.completions {
            return over(true, "FailedIndexes", "Job has failed indexes");
        }
    }
    let complete = match spec.completions {
        Some(completions) => tally.succeeded_all() >= completions,
        None => tally.succeeded_all() > 0 && active.is_empty(),
    };
    let message = "Reached expected number of succeeded pods";
    if complete { over(false, "CompletionsReached", message) } else { None }
}

fn plan_pods(
    observed: &Observed,
    spec: &JobSpec,
    tally: &Tally<'_>,
    mut active: Vec<Arc<Pod>>,
    terminating: i32,
    plan: &mut Plan,
) {
    let parallelism = spec.parallelism.unwrap_or(1).max(0);
    let have = active.len() as i32;
    let wanted = match spec.completions {
        // Any success ends the making of new ones.
        None if tally.succeeded_all() > 0 => have,
        None => parallelism,
        Some(completions) => {
            let failed = if tally.indexed { tally.failed_indexes.len() } else { 0 };
            (completions - tally.succeeded_all() - failed).clamp(0, parallelism)
        }
    };
    if tally.indexed {
        // Two pods of one index, or one nobody needs: the surplus goes first.
        let mut seen = BTreeSet::new();
        active.sort_by_key(|p| (index_of(p), p.created_seconds()));
        let (kept, surplus): (Vec<_>, Vec<_>) = active.into_iter().partition(|p| {
            let index = index_of(p).unwrap_or(-1);
            let needed = (0..tally.completions).contains(&index)
                && !tally.completed.contains(index)
                && !tally.failed_indexes.contains(index);
            needed && seen.insert(index)
        });
        plan.surplus = surplus;
        active = kept;
    } else {
        active.sort_by(|a, b| pod::compare_for_deletion((b, 0), (a, 0), observed.now));
    }
    let have = active.len() as i32;
    if have > wanted {
        let least_useful = active.split_off(wanted as usize);
        plan.surplus.extend(least_useful.into_iter().take(BURST_MAX as usize));
        return;
    }
    let going = if replaces_failed_only(spec) { terminating } else { 0 };
    let missing = (wanted - have - going).min(BURST_MAX);
    if missing <= 0 {
        return;
    }
    let wait = plan_backoff(observed, spec);
    if wait > 0 {
        plan.next = Some(plan.next.map_or(wait, |n| n.min(wait)));
        return;
    }
    if !tally.indexed {
        plan.create = (0..missing).map(|_| NewPod { index: None, index_failures: 0 }).collect();
        return;
    }
    let taken: BTreeSet<i32> = observed
        .pods
        .iter()
        .filter(|p| pod::is_active(p) || (going > 0 && pod::is_terminating(p)))
        .filter_map(|p| index_of(p))
        .collect();
    let mut failures: BTreeMap<i32, i32> = BTreeMap::new();
    for pod in observed.pods.iter().filter(|p| is_failed(spec, p)) {
        if let Some(index) = index_of(pod) {
            let count = failures.entry(index).or_default();
            *count = (*count).max(failures_before(pod) + 1);
        }
    }
    let free = (0..tally.completions).filter(|i| {
        !taken.contains(i) && !tally.completed.contains(*i) && !tally.failed_indexes.contains(*i)
    });
    plan.create = free
        .take(missing as usize)
        .map(|index| NewPod {
            index: Some(index),
            index_failures: failures.get(&index).copied().unwrap_or(0),
        })
        .collect();
}

/// Seconds to wait before a failed pod is replaced: doubling with each failure since the last success.
fn plan_backoff(observed: &Observed, spec: &JobSpec) -> u64 {
    let ends = |succeeded: bool| {
        let of_kind = move |p: &&Arc<Pod>| {
            if succeeded {
                pod::phase(p) == "Succeeded"
            } else {
                pod::phase(p) == "Failed" && is_failed(spec, p)
            }
        };
        observed.pods.iter().filter(of_kind).filter_map(|p| ended_at(p))
    };
    let success = ends(true).max();
    let failures: Vec<Timestamp> = ends(false).filter(|at| success.is_none_or(|s| *at > s)).collect();
    let Some(last) = failures.iter().max() else {
        return 0;
    };
    let doublings = (failures.len() - 1).min(6) as u32;
    let delay = (BACKOFF_FIRST_SECONDS << doublings).min(BACKOFF_MAX_SECONDS);
    u64::try_from(last.as_second() + delay - observed.now.as_second()).unwrap_or(0)
}

fn set_condition(
    conditions: &mut Vec<JobCondition>,
    kind: &str,
    holds: bool,
    reason: &str,
    message: &str,
    now: Timestamp,
) {
    let status = if holds { "True" } else { "False" };
    if conditions.iter().any(|c| c.type_ == kind && c.status == status) {
        return;
    }
    conditions.retain(|c| c.type_ != kind);
    conditions.push(JobCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_probe_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    });
}

#[cfg(test)]
mod tests;
