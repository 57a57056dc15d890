//! Rolling update: grow the new set within the surge, shrink the old ones while enough pods stay available. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec};
use penstock_informers::Meta;

use super::limits::Limits;
use super::plan::{Change, Roles, create, scale};
use super::revision::{available, replicas};

pub(crate) fn plan_rolling(
    deployment: &Deployment,
    spec: &DeploymentSpec,
    limits: &Limits,
    roles: &Roles,
) -> Vec<Change> {
    let target = new_set_target(limits, roles);
    let Some(new) = &roles.new else {
        return vec![create(deployment, spec, limits, roles, target)];
    };
    if replicas(new) != target {
        return vec![scale(new, target, limits)];
    }
    plan_old(limits, roles)
}

/// How large the new set may be now.
pub(crate) fn new_set_target(limits: &Limits, roles: &Roles) -> i32 {
    let has = roles.new.as_ref().map_or(0, |n| replicas(n));
    if has > limits.replicas {
        return limits.replicas;
    }
    let total: i32 = roles.all().map(|s| replicas(s)).sum();
    let room = (limits.replicas + limits.max_surge - total).max(0);
    has + room.min(limits.replicas - has)
}

/// Shrinks old sets: first pods that do not serve anyway, then as many as may be missing.
fn plan_old(limits: &Limits, roles: &Roles) -> Vec<Change> {
    let Some(new) = &roles.new else { return Vec::new() };
    let mut sizes: BTreeMap<&str, i32> = roles.old.iter().map(|s| (s.name(), replicas(s))).collect();
    let old_total: i32 = sizes.values().sum();
    if old_total == 0 {
        return Vec::new();
    }
    // Pods of the new set that do not serve yet count as missing already.
    let new_unavailable = replicas(new) - available(new);
    let removable = old_total + replicas(new) - limits.min_available() - new_unavailable;
    if removable <= 0 {
        return Vec::new();
    }
    let mut unhealthy_removed = 0;
    for set in &roles.old {
        let size = sizes.entry(set.name()).or_default();
        let unhealthy = (*size - available(set)).max(0).min(removable - unhealthy_removed);
        *size -= unhealthy;
        unhealthy_removed += unhealthy;
    }
    let available_total: i32 = roles.all().map(|s| available(s)).sum();
    let mut spare = (available_total - limits.min_available()).max(0);
    for set in &roles.old {
        let size = sizes.entry(set.name()).or_default();
        let removed = (*size).min(spare);
        *size -= removed;
        spare -= removed;
    }
    let changed = roles.old.iter().filter(|s| sizes.get(s.name()) != Some(&replicas(s)));
    changed.map(|s| scale(s, sizes.get(s.name()).copied().unwrap_or(0), limits)).collect()
}
