//! The decision of one pass over a Deployment. Pure: it sees ReplicaSets and pods, and says what to change next.
//!
//! A pass does one stage only (revision, create, scale up, scale down, clean up); its effects come back as events
//! and lead to the next pass. So every stage is decided on what is, not on what was hoped for.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, ReplicaSet};
use penstock_informers::Meta;

use super::limits::Limits;
use super::revision::{self, DESIRED_REPLICAS, REVISION, available, find_new, replicas};
use super::{rolling, scaling};

/// What a pass sees.
pub(crate) struct Observed {
    pub deployment: Arc<Deployment>,
    /// Controlled ReplicaSets.
    pub sets: Vec<Arc<ReplicaSet>>,
    /// Whether a pod of an older template is still there, going or not, and has not finished.
    pub old_pods_running: bool,
    pub now: Timestamp,
}

/// What a pass does.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Change {
    Create(Box<ReplicaSet>),
    Update(Update),
    Delete {
        name: String,
        uid: String,
    },
    /// Writes the revision on the Deployment.
    Revision(String),
}

/// A change of one ReplicaSet.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Update {
    pub name: String,
    pub resource_version: Option<String>,
    pub was: i32,
    pub replicas: Option<i32>,
    pub annotations: BTreeMap<String, String>,
    pub min_ready_seconds: Option<i32>,
}

/// The sets of a Deployment, sorted by role; the oldest first.
pub(crate) struct Roles {
    pub new: Option<Arc<ReplicaSet>>,
    pub old: Vec<Arc<ReplicaSet>>,
}

impl Roles {
    pub(crate) fn of(spec: &DeploymentSpec, sets: &[Arc<ReplicaSet>]) -> Self {
        let new = find_new(spec, sets);
        let is_new = |set: &ReplicaSet| new.as_ref().is_some_and(|n| n.uid_str() == set.uid_str());
        let mut old: Vec<_> = sets.iter().filter(|s| !is_new(s)).cloned().collect();
        old.sort_by_key(|s| (s.created_seconds(), s.name().to_owned()));
        Self { new, old }
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<ReplicaSet>> {
        self.old.iter().chain(self.new.iter())
    }

    pub(crate) fn revision_wanted(&self) -> i64 {
        self.old.iter().map(|s| revision::revision(s)).max().unwrap_or(0) + 1
    }
}

/// Whether nothing is left to do but to count.
pub(crate) fn plan(observed: &Observed) -> Vec<Change> {
    let deployment = &observed.deployment;
    let Some(spec) = &deployment.spec else {
        return Vec::new();
    };
    if deployment.deleting() {
        return Vec::new();
    }
    let limits = Limits::of(spec);
    let roles = Roles::of(spec, &observed.sets);
    let mut changes = plan_revision(deployment, spec, &roles);
    if !changes.is_empty() {
        return changes;
    }
    let paused = spec.paused == Some(true);
    if paused || is_scaling_event(&limits, &roles) {
        changes = scaling::plan_scaling(deployment, &limits, &roles);
        if changes.is_empty() && paused {
            changes = plan_cleanup(spec, &roles);
        }
        return changes;
    }
    changes = if limits.rolling {
        rolling::plan_rolling(deployment, spec, &limits, &roles)
    } else {
        plan_recreate(deployment, spec, &limits, &roles, observed.old_pods_running)
    };
    if changes.is_empty() && is_complete(&limits, &roles) {
        changes = plan_cleanup(spec, &roles);
    }
    changes
}

/// Brings the current set's annotations and the Deployment's revision up to date.
fn plan_revision(deployment: &Deployment, spec: &DeploymentSpec, roles: &Roles) -> Vec<Change> {
    let Some(new) = &roles.new else { return Vec::new() };
    let annotations = revision::plan_annotations(deployment, Some(new), roles.revision_wanted());
    let min_ready = spec.min_ready_seconds.unwrap_or(0);
    let has_min_ready = new.spec.as_ref().and_then(|s| s.min_ready_seconds).unwrap_or(0);
    let mut changes = Vec::new();
    let number = annotations.get(REVISION).map(String::as_str).or_else(|| new.annotation(REVISION));
    if let Some(number) = number
        && deployment.annotation(REVISION) != Some(number)
    {
        changes.push(Change::Revision(number.to_owned()));
    }
    if !annotations.is_empty() || min_ready != has_min_ready {
        changes.push(Change::Update(Update {
            name: new.name().to_owned(),
            resource_version: new.metadata.resource_version.clone(),
            was: replicas(new),
            replicas: None,
            annotations,
            min_ready_seconds: (min_ready != has_min_ready).then_some(min_ready),
        }));
    }
    changes
}

/// The Deployment's replica count has changed since its active sets were last scaled.
pub(crate) fn is_scaling_event(limits: &Limits, roles: &Roles) -> bool {
    roles.all().filter(|s| replicas(s) > 0).any(|set| {
        let desired: Option<i32> = set.annotation(DESIRED_REPLICAS).and_then(|v| v.parse().ok());
        desired.is_some_and(|d| d != limits.replicas)
    })
}

fn plan_recreate(
    deployment: &Deployment,
    spec: &DeploymentSpec,
    limits: &Limits,
    roles: &Roles,
    old_pods_running: bool,
) -> Vec<Change> {
    let down: Vec<Change> =
        roles.old.iter().filter(|s| replicas(s) > 0).map(|s| scale(s, 0, limits)).collect();
    if !down.is_empty() {
        return down;
    }
    if old_pods_running {
        return Vec::new();
    }
    match &roles.new {
        None => vec![create(deployment, spec, limits, roles, limits.replicas)],
        Some(new) if replicas(new) != limits.replicas => vec![scale(new, limits.replicas, limits)],
        Some(_) => Vec::new(),
    }
}

/// The creation of the current template's set.
pub(crate) fn create(
    deployment: &Deployment,
    spec: &DeploymentSpec,
    limits: &Limits,
    roles: &Roles,
    replicas: i32,
) -> Change {
    let revision = roles.revision_wanted();
    Change::Create(Box::new(revision::new_set(deployment, spec, limits, replicas, revision)))
}

/// A change of a set's replica count, with what it was computed from.
pub(crate) fn scale(set: &ReplicaSet, to: i32, limits: &Limits) -> Change {
    Change::Update(Update {
        name: set.name().to_owned(),
        resource_version: set.metadata.resource_version.clone(),
        was: replicas(set),
        replicas: Some(to),
        annotations: revision::scale_annotations(limits),
        min_ready_seconds: None,
    })
}

fn is_complete(limits: &Limits, roles: &Roles) -> bool {
    let has = |set: &ReplicaSet| set.status.as_ref().map_or(0, |s| s.replicas);
    roles.old.iter().all(|s| has(s) == 0 && replicas(s) == 0)
        && roles.new.as_ref().is_some_and(|n| has(n) == limits.replicas && available(n) == limits.replicas)
}

/// Deletes the oldest idle sets beyond the history limit.
fn plan_cleanup(spec: &DeploymentSpec, roles: &Roles) -> Vec<Change> {
    let Some(limit) = spec.revision_history_limit.filter(|l| *l != i32::MAX) else {
        return Vec::new();
    };
    let mut alive: Vec<_> = roles.old.iter().filter(|s| !s.deleting()).collect();
    let excess = alive.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
    alive.sort_by_key(|s| (revision::revision(s), s.created_seconds()));
    let idle = |set: &&Arc<ReplicaSet>| {
        let status = set.status.as_ref();
        replicas(set) == 0
            && status.is_none_or(|s| s.replicas == 0)
            && status.and_then(|s| s.observed_generation) >= set.metadata.generation
    };
    let victims = alive.into_iter().take(excess).filter(|s| idle(s));
    victims.map(|s| Change::Delete { name: s.name().to_owned(), uid: s.uid_str().to_owned() }).collect()
}
