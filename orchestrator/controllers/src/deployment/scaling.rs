//! Scaling a Deployment, also in the middle of a rollout or while paused: the change is shared among its sets in
//! proportion to their size, so that a scale does not become a rollout. Pure.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use penstock_informers::Meta;

use super::limits::Limits;
use super::plan::{Change, Roles, scale};
use super::revision::{DESIRED_REPLICAS, MAX_REPLICAS, available, replicas};

pub(crate) fn plan_scaling(deployment: &Deployment, limits: &Limits, roles: &Roles) -> Vec<Change> {
    let active: Vec<&Arc<ReplicaSet>> = roles.all().filter(|s| replicas(s) > 0).collect();
    if active.len() <= 1 {
        let only = active.first().copied().or(roles.new.as_ref()).or_else(|| roles.old.last());
        return only
            .filter(|s| needs_scale(s, limits.replicas, limits))
            .map_or(Vec::new(), |s| vec![scale(s, limits.replicas, limits)]);
    }
    if roles.new.as_ref().is_some_and(|n| is_saturated(n, limits)) {
        return roles.old.iter().filter(|s| replicas(s) > 0).map(|s| scale(s, 0, limits)).collect();
    }
    if !limits.rolling {
        return Vec::new();
    }
    plan_proportional(deployment, limits, active)
}

fn plan_proportional(
    deployment: &Deployment,
    limits: &Limits,
    mut sets: Vec<&Arc<ReplicaSet>>,
) -> Vec<Change> {
    let total: i32 = sets.iter().map(|s| replicas(s)).sum();
    let allowed = if limits.replicas > 0 { limits.replicas + limits.max_surge } else { 0 };
    let to_add = allowed - total;
    // The largest set takes what rounding leaves; among equals the newest grows and the oldest shrinks.
    sets.sort_by_key(|s| {
        let age = if to_add > 0 { -s.created_seconds() } else { s.created_seconds() };
        (-replicas(s), age, s.name().to_owned())
    });
    let mut added = 0;
    let mut sizes = Vec::with_capacity(sets.len());
    for set in &sets {
        let share = proportion(deployment, set, limits, to_add, added);
        added += share;
        sizes.push(replicas(set) + share);
    }
    if let Some(first) = sizes.first_mut() {
        *first = (*first + to_add - added).max(0);
    }
    let changed = sets.into_iter().zip(sizes).filter(|(s, size)| needs_scale(s, *size, limits));
    changed.map(|(s, size)| scale(s, size, limits)).collect()
}

fn proportion(deployment: &Deployment, set: &ReplicaSet, limits: &Limits, to_add: i32, added: i32) -> i32 {
    if to_add == 0 || to_add == added || replicas(set) == 0 {
        return 0;
    }
    let share = fraction(deployment, set, limits);
    let left = to_add - added;
    if to_add > 0 { share.clamp(0, left) } else { share.clamp(left, 0) }
}

/// By how much the set would change if everything changed by the same factor.
fn fraction(deployment: &Deployment, set: &ReplicaSet, limits: &Limits) -> i32 {
    let size = replicas(set);
    if limits.replicas == 0 {
        return -size;
    }
    let annotated = set.annotation(MAX_REPLICAS).and_then(|v| v.parse::<i32>().ok());
    let was = annotated.or_else(|| deployment.status.as_ref()?.replicas).filter(|m| *m > 0);
    let Some(was) = was else { return 0 };
    let is = limits.replicas + limits.max_surge;
    let scaled = (f64::from(size) * f64::from(is) / f64::from(was)).round() as i32;
    scaled - size
}

/// The set is as large as the Deployment and all of it serves.
fn is_saturated(set: &ReplicaSet, limits: &Limits) -> bool {
    let desired: Option<i32> = set.annotation(DESIRED_REPLICAS).and_then(|v| v.parse().ok());
    replicas(set) == limits.replicas && desired == Some(limits.replicas) && available(set) == limits.replicas
}

fn needs_scale(set: &ReplicaSet, to: i32, limits: &Limits) -> bool {
    let desired: Option<i32> = set.annotation(DESIRED_REPLICAS).and_then(|v| v.parse().ok());
    replicas(set) != to || desired != Some(limits.replicas)
}
