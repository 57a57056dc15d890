//! The status of a Deployment: counts, and the conditions Available, Progressing and ReplicaFailure. Pure.

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus, ReplicaSet};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use penstock_informers::Meta;

use super::limits::{Limits, progress_deadline_seconds};
use super::plan::{Observed, Roles, is_scaling_event};
use super::revision::replicas;

/// The new status, and the seconds after which a standing rollout is to be looked at again.
pub(crate) struct Outlook {
    pub status: DeploymentStatus,
    pub check_after_seconds: Option<i64>,
}

/// `created`: name of the set this pass created.
pub(crate) fn plan_status(observed: &Observed, created: Option<&str>) -> Outlook {
    let deployment = &observed.deployment;
    let old = deployment.status.clone().unwrap_or_default();
    let Some(spec) = &deployment.spec else {
        return Outlook { status: old, check_after_seconds: None };
    };
    let limits = Limits::of(spec);
    let roles = Roles::of(spec, &observed.sets);
    let mut status = count(deployment, &old, &roles);
    let mut conditions = old.conditions.clone().unwrap_or_default();
    put_available(&mut conditions, &status, &limits, observed.now);
    let mut check_after_seconds = None;
    let deadline = progress_deadline_seconds(spec);
    let paused = spec.paused == Some(true);
    if deadline.is_some() {
        put_paused(&mut conditions, paused, observed.now);
    }
    if let Some(deadline) = deadline
        && !paused
        && !deployment.deleting()
        && !is_scaling_event(&limits, &roles)
    {
        let names =
            Names { deployment: deployment.name(), set: created.or(roles.new.as_ref().map(|n| n.name())) };
        let rollout = Rollout { old: &old, new: &status, limits: &limits, deadline, now: observed.now };
        put_progress(&mut conditions, &rollout, &names, created.is_some());
        check_after_seconds = rollout.seconds_left(&conditions);
    }
    put_replica_failure(&mut conditions, &roles, observed.now);
    status.conditions = (!conditions.is_empty()).then_some(conditions);
    Outlook { status, check_after_seconds }
}

fn count(deployment: &Deployment, old: &DeploymentStatus, roles: &Roles) -> DeploymentStatus {
    let sum = |f: &dyn Fn(&ReplicaSet) -> i32| roles.all().map(|s| f(s)).sum::<i32>();
    let present = |n: i32| (n != 0).then_some(n);
    let of = |f: fn(&k8s_openapi::api::apps::v1::ReplicaSetStatus) -> i32| {
        sum(&|s| s.status.as_ref().map_or(0, f))
    };
    let available = of(|s| s.available_replicas.unwrap_or(0));
    let terminating = of(|s| s.terminating_replicas.unwrap_or(0));
    let updated = roles.new.as_ref().and_then(|n| n.status.as_ref()).map_or(0, |s| s.replicas);
    DeploymentStatus {
        observed_generation: deployment.metadata.generation,
        replicas: present(of(|s| s.replicas)),
        updated_replicas: present(updated),
        ready_replicas: present(of(|s| s.ready_replicas.unwrap_or(0))),
        available_replicas: present(available),
        unavailable_replicas: present((sum(&replicas) - available).max(0)),
        terminating_replicas: old.terminating_replicas.map(|_| terminating).or(present(terminating)),
        collision_count: old.collision_count,
        conditions: None,
    }
}

struct Names<'a> {
    deployment: &'a str,
    set: Option<&'a str>,
}

impl Names<'_> {
    fn subject(&self) -> String {
        match self.set {
            Some(set) => format!("ReplicaSet \"{set}\""),
            None => format!("Deployment \"{}\"", self.deployment),
        }
    }
}

struct Rollout<'a> {
    old: &'a DeploymentStatus,
    new: &'a DeploymentStatus,
    limits: &'a Limits,
    deadline: i32,
    now: Timestamp,
}

impl Rollout<'_> {
    fn is_complete(&self) -> bool {
        let wanted = self.limits.replicas;
        [self.new.updated_replicas, self.new.replicas, self.new.available_replicas]
            .iter()
            .all(|n| n.unwrap_or(0) == wanted)
    }

    fn is_progressing(&self) -> bool {
        let number = |n: Option<i32>| n.unwrap_or(0);
        let outdated = |s: &DeploymentStatus| number(s.replicas) - number(s.updated_replicas);
        number(self.new.updated_replicas) > number(self.old.updated_replicas)
            || outdated(self.new) < outdated(self.old)
            || number(self.new.ready_replicas) > number(self.old.ready_replicas)
            || number(self.new.available_replicas) > number(self.old.available_replicas)
    }

    fn seconds_left(&self, conditions: &[DeploymentCondition]) -> Option<i64> {
        let progress = conditions.iter().find(|c| c.type_ == "Progressing")?;
        let reason = progress.reason.as_deref();
        if reason == Some("NewReplicaSetAvailable") || reason == Some("ProgressDeadlineExceeded") {
            return None;
        }
        let since = progress.last_update_time.as_ref()?.0.as_second();
        Some((since + i64::from(self.deadline) - self.now.as_second()).max(0) + 1)
    }

    fn is_timed_out(&self, progress: &DeploymentCondition) -> bool {
        match progress.reason.as_deref() {
            Some("NewReplicaSetAvailable") => false,
            Some("ProgressDeadlineExceeded") => true,
            _ => progress
                .last_update_time
                .as_ref()
                .is_some_and(|t| t.0.as_second() + i64::from(self.deadline) < self.now.as_second()),
        }
    }
}

fn put_progress(
    conditions: &mut Vec<DeploymentCondition>,
    rollout: &Rollout<'_>,
    names: &Names<'_>,
    created: bool,
) {
    let now = rollout.now;
    let subject = names.subject();
    let progress = conditions.iter().find(|c| c.type_ == "Progressing").cloned();
    let number = |n: Option<i32>| n.unwrap_or(0);
    let settled = number(rollout.new.replicas) == number(rollout.new.updated_replicas)
        && progress.as_ref().is_some_and(|p| p.reason.as_deref() == Some("NewReplicaSetAvailable"));
    if created {
        let message = format!("Created new replica set {:?}", names.set.unwrap_or_default());
        put(conditions, "Progressing", "True", "NewReplicaSetCreated", message, now, true);
    } else if settled {
        // A complete rollout stays complete while it is scaled or its pods restart.
    } else if rollout.is_complete() && names.set.is_some() {
        let message = format!("{subject} has successfully progressed.");
        put(conditions, "Progressing", "True", "NewReplicaSetAvailable", message, now, true);
    } else if rollout.is_progressing() {
        let message = format!("{subject} is progressing.");
        put(conditions, "Progressing", "True", "ReplicaSetUpdated", message, now, true);
    } else {
        match progress {
            None if names.set.is_some() => {
                let message = format!("Found new replica set {:?}", names.set.unwrap_or_default());
                put(conditions, "Progressing", "True", "FoundNewReplicaSet", message, now, true);
            }
            Some(progress) if rollout.is_timed_out(&progress) => {
                let message = format!("{subject} has timed out progressing.");
                put(conditions, "Progressing", "False", "ProgressDeadlineExceeded", message, now, false);
            }
            _ => {}
        }
    }
}

fn put_available(
    conditions: &mut Vec<DeploymentCondition>,
    status: &DeploymentStatus,
    limits: &Limits,
    now: Timestamp,
) {
    let available = status.available_replicas.unwrap_or(0);
    if available >= limits.min_available() {
        let message = "Deployment has minimum availability.".to_owned();
        put(conditions, "Available", "True", "MinimumReplicasAvailable", message, now, false);
    } else {
        let message = "Deployment does not have minimum availability.".to_owned();
        put(conditions, "Available", "False", "MinimumReplicasUnavailable", message, now, false);
    }
}

fn put_paused(conditions: &mut Vec<DeploymentCondition>, paused: bool, now: Timestamp) {
    let progress = conditions.iter().find(|c| c.type_ == "Progressing");
    let reason = progress.and_then(|p| p.reason.as_deref());
    match (paused, reason) {
        // A rollout that has failed is not made to look merely paused.
        (_, Some("ProgressDeadlineExceeded")) => {}
        (true, reason) if reason != Some("DeploymentPaused") => {
            let message = "Deployment is paused".to_owned();
            put(conditions, "Progressing", "Unknown", "DeploymentPaused", message, now, true);
        }
        (false, Some("DeploymentPaused")) => {
            let message = "Deployment is resumed".to_owned();
            put(conditions, "Progressing", "Unknown", "DeploymentResumed", message, now, true);
        }
        _ => {}
    }
}

fn put_replica_failure(conditions: &mut Vec<DeploymentCondition>, roles: &Roles, now: Timestamp) {
    let failure = roles.new.iter().chain(roles.old.iter()).find_map(|set| {
        let conditions = set.status.as_ref()?.conditions.as_ref()?;
        conditions.iter().find(|c| c.type_ == "ReplicaFailure").cloned()
    });
    match failure {
        Some(failure) => {
            let reason = failure.reason.unwrap_or_default();
            let message = failure.message.unwrap_or_default();
            put(conditions, "ReplicaFailure", &failure.status, &reason, message, now, false);
        }
        None => conditions.retain(|c| c.type_ != "ReplicaFailure"),
    }
}

/// Sets a condition. Without `refresh` one that says the same already is left as it is, times included.
fn put(
    conditions: &mut Vec<DeploymentCondition>,
    kind: &str,
    status: &str,
    reason: &str,
    message: String,
    now: Timestamp,
    refresh: bool,
) {
    let old = conditions.iter().position(|c| c.type_ == kind).map(|at| conditions.remove(at));
    if let Some(old) = &old
        && !refresh
        && old.status == status
        && old.reason.as_deref() == Some(reason)
    {
        conditions.push(old.clone());
        return;
    }
    let same_status = old.filter(|o| o.status == status);
    conditions.push(DeploymentCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message),
        last_update_time: Some(Time(now)),
        last_transition_time: same_status.and_then(|o| o.last_transition_time).or(Some(Time(now))),
    });
}
