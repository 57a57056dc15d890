//! Which pods of a StatefulSet may be made and deleted now, and what its status says. Pure.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetStatus};
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use penstock_informers::Meta;

use super::identity::ordinal_of;
use crate::intstr::{Round, resolve};
use crate::pod;
use crate::revisions::HASH_LABEL;

pub(crate) struct Observed {
    pub set: Arc<StatefulSet>,
    /// Owned pods with a name of the set.
    pub pods: Vec<Arc<Pod>>,
    /// Name of the revision that was last rolled out completely, and its template.
    pub current: String,
    pub current_template: PodTemplateSpec,
    /// Name of the revision of the set's template.
    pub update: String,
    pub now: Timestamp,
}

/// What a pass does.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// Ordinals to create, and whether from the updated template.
    pub create: Vec<(i32, bool)>,
    pub delete: Vec<Arc<Pod>>,
}

impl Observed {
    /// First ordinal and the one after the last.
    fn range(&self) -> (i32, i32) {
        let spec = self.set.spec.as_ref();
        let start = spec.and_then(|s| s.ordinals.as_ref()?.start).unwrap_or(0);
        let replicas = spec.and_then(|s| s.replicas).unwrap_or(1).max(0);
        (start, start.saturating_add(replicas))
    }

    fn at(&self, ordinal: i32) -> Option<&Arc<Pod>> {
        let name = |p: &&Arc<Pod>| ordinal_of(&self.set, p.name()) == Some(ordinal);
        self.pods.iter().find(name)
    }

    fn in_order(&self) -> bool {
        let policy = self.set.spec.as_ref().and_then(|s| s.pod_management_policy.as_deref());
        policy != Some("Parallel")
    }

    fn is_healthy(&self, pod: &Pod) -> bool {
        let min_ready = self.set.spec.as_ref().and_then(|s| s.min_ready_seconds).unwrap_or(0);
        !pod.deleting() && pod::phase(pod) == "Running" && pod::is_available(pod, min_ready, self.now)
    }

    fn rolls(&self) -> bool {
        let strategy = self.set.spec.as_ref().and_then(|s| s.update_strategy.as_ref());
        strategy.and_then(|s| s.type_.as_deref()) != Some("OnDelete")
    }

    /// Ordinals below keep the current revision.
    fn partition(&self) -> i32 {
        let strategy = self.set.spec.as_ref().and_then(|s| s.update_strategy.as_ref());
        let partition = strategy.and_then(|s| s.rolling_update.as_ref()?.partition);
        self.range().0.saturating_add(partition.unwrap_or(0))
    }

    fn is_updated(&self, pod: &Pod) -> bool {
        pod.label(HASH_LABEL) == Some(&self.update)
    }
}

pub(crate) fn plan(observed: &Observed) -> Plan {
    let mut plan = Plan::default();
    let (start, end) = observed.range();
    let ordered = observed.in_order();
    for ordinal in start..end {
        let Some(pod) = observed.at(ordinal) else {
            let updated = !observed.rolls() || ordinal >= observed.partition();
            plan.create.push((ordinal, updated));
            if ordered {
                break;
            }
            continue;
        };
        if pod::is_finished(pod) && !pod.deleting() {
            plan.delete.push(pod.clone());
        }
        if ordered && !observed.is_healthy(pod) {
            break;
        }
    }
    let blocked = (start..end).any(|o| observed.at(o).is_none_or(|p| !observed.is_healthy(p)));
    let mut condemned: Vec<(i32, &Arc<Pod>)> = observed
        .pods
        .iter()
        .filter_map(|p| Some((ordinal_of(&observed.set, p.name())?, p)))
        .filter(|(ordinal, _)| *ordinal < start || *ordinal >= end)
        .collect();
    condemned.sort_by_key(|(ordinal, _)| std::cmp::Reverse(*ordinal));
    if ordered {
        // One at a time, the last first, and not while another is in trouble.
        let lowest_in_trouble = condemned.iter().rev().find(|(_, pod)| !observed.is_healthy(pod));
        if let Some((ordinal, victim)) = condemned.first()
            && !blocked
            && !victim.deleting()
            // One that is in trouble waits for those before it.
            && (observed.is_healthy(victim) || lowest_in_trouble.is_none_or(|(lowest, _)| lowest == ordinal))
        {
            plan.delete.push((*victim).clone());
        }
    } else {
        plan.delete.extend(condemned.iter().filter(|(_, p)| !p.deleting()).map(|(_, p)| (*p).clone()));
    }
    let busy = !plan.create.is_empty() || !plan.delete.is_empty() || (ordered && !condemned.is_empty());
    if observed.rolls() && !(ordered && busy) {
        let going: Vec<String> = plan.delete.iter().map(|p| p.uid_str().to_owned()).collect();
        let update = plan_update(observed).into_iter();
        plan.delete.extend(update.filter(|p| !going.iter().any(|uid| uid == p.uid_str())));
    }
    plan
}

/// Pods of an old template that may go now: the last first, no more in trouble than allowed.
fn plan_update(observed: &Observed) -> Vec<Arc<Pod>> {
    let (start, end) = observed.range();
    let strategy = observed.set.spec.as_ref().and_then(|s| s.update_strategy.as_ref());
    let limit = strategy.and_then(|s| s.rolling_update.as_ref()?.max_unavailable.as_ref());
    let limit = limit.and_then(|l| resolve(l, end - start, Round::Up)).unwrap_or(1).max(1);
    let mut unavailable = 0;
    let mut victims = Vec::new();
    for ordinal in (start.max(observed.partition())..end).rev() {
        if unavailable >= limit {
            break;
        }
        match observed.at(ordinal) {
            // Broken and of the old template: replacing it is the way out.
            Some(pod) if !observed.is_updated(pod) => {
                unavailable += 1;
                if !pod.deleting() {
                    victims.push(pod.clone());
                }
            }
            Some(pod) if observed.is_healthy(pod) => {}
            _ => unavailable += 1,
        }
    }
    victims
}

pub(crate) fn plan_status(observed: &Observed) -> StatefulSetStatus {
    let set = &observed.set;
    let old = set.status.clone().unwrap_or_default();
    let min_ready = set.spec.as_ref().and_then(|s| s.min_ready_seconds).unwrap_or(0);
    let count = |f: &dyn Fn(&Pod) -> bool| {
        let alive = observed.pods.iter().filter(|p| !pod::is_finished(p));
        i32::try_from(alive.filter(|p| f(p)).count()).unwrap_or(i32::MAX)
    };
    let of = |revision: &str| count(&|p| !p.deleting() && p.label(HASH_LABEL) == Some(revision));
    let mut status = StatefulSetStatus {
        replicas: count(&|_| true),
        ready_replicas: Some(count(&pod::is_ready)),
        available_replicas: Some(count(&|p| pod::is_available(p, min_ready, observed.now))),
        current_replicas: Some(of(&observed.current)),
        updated_replicas: Some(of(&observed.update)),
        current_revision: Some(observed.current.clone()),
        update_revision: Some(observed.update.clone()),
        observed_generation: set.metadata.generation,
        collision_count: old.collision_count.or(Some(0)),
        conditions: old.conditions,
    };
    let (start, end) = observed.range();
    let complete = (start..end).all(|o| {
        let pod = observed.at(o);
        pod.is_some_and(|p| observed.is_updated(p) && pod::is_ready(p) && !p.deleting())
    });
    if complete && status.replicas == end - start {
        status.current_revision = status.update_revision.clone();
        status.current_replicas = status.updated_replicas;
    }
    status
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::tests::{test_pod, time};
    use serde_json::json;

    fn observed(replicas: i32, policy: &str, pods: Vec<Pod>) -> Observed {
        let set = json!({
            "metadata": {"name": "db", "namespace": "ns", "uid": "u"},
            "spec": {"replicas": replicas, "podManagementPolicy": policy, "selector": {}, "template": {}},
        });
        Observed {
            set: Arc::new(serde_json::from_value(set).unwrap()),
            pods: pods.into_iter().map(Arc::new).collect(),
            current: "old".into(),
            current_template: PodTemplateSpec::default(),
            update: "new".into(),
            now: Timestamp::from_second(100).unwrap(),
        }
    }

    fn member(ordinal: i32, revision: &str, ready: bool) -> Pod {
        let mut pod = test_pod(&format!("db-{ordinal}"), Some("n"), "Running", ready.then_some(1));
        pod.metadata.labels = Some([(HASH_LABEL.to_owned(), revision.to_owned())].into());
        pod
    }

    fn names(pods: &[Arc<Pod>]) -> Vec<&str> {
        pods.iter().map(|p| p.name()).collect()
    }

    #[test]
    fn pods_come_one_after_the_other_when_the_last_is_ready() {
        assert_eq!(plan(&observed(3, "OrderedReady", vec![])).create, [(0, true)]);
        let waits = plan(&observed(3, "OrderedReady", vec![member(0, "new", false)]));
        assert!(waits.create.is_empty());
        let next = plan(&observed(3, "OrderedReady", vec![member(0, "new", true)]));
        assert_eq!(next.create, [(1, true)]);
        let all = plan(&observed(3, "Parallel", vec![]));
        assert_eq!(all.create, [(0, true), (1, true), (2, true)]);
    }

    #[test]
    fn surplus_pods_go_from_the_end_and_not_while_one_is_in_trouble() {
        let pods = |ready| (0..4).map(|i| member(i, "new", i != 0 || ready)).collect::<Vec<_>>();
        assert_eq!(names(&plan(&observed(2, "OrderedReady", pods(true))).delete), ["db-3"]);
        assert!(plan(&observed(2, "OrderedReady", pods(false))).delete.is_empty());
        assert_eq!(names(&plan(&observed(2, "Parallel", pods(true))).delete), ["db-3", "db-2"]);
        let all_go = |ready: [bool; 3]| {
            let pods = (0..3).zip(ready).map(|(i, ready)| member(i, "new", ready)).collect();
            names(&plan(&observed(0, "OrderedReady", pods)).delete).join(",")
        };
        assert_eq!(all_go([false, false, false]), "", "the last is in trouble, and so is one before it");
        assert_eq!(all_go([true, true, false]), "db-2", "it alone is in trouble: its end is the way out");
        assert_eq!(all_go([false, true, true]), "db-2");
        let mut going = pods(true);
        going[3].metadata.deletion_timestamp = Some(time(1));
        assert!(plan(&observed(2, "OrderedReady", going)).delete.is_empty());
    }

    #[test]
    fn a_new_template_replaces_the_last_pod_first_and_stops_at_the_partition() {
        let old = |ready| (0..3).map(|i| member(i, "old", i != 2 || ready)).collect::<Vec<_>>();
        assert_eq!(names(&plan(&observed(3, "OrderedReady", old(true))).delete), ["db-2"]);
        let mut half = old(true);
        half[2] = member(2, "new", false);
        assert!(plan(&observed(3, "OrderedReady", half.clone())).delete.is_empty(), "it is not ready yet");
        half[2] = member(2, "new", true);
        let mut half = observed(3, "OrderedReady", half);
        assert_eq!(names(&plan(&half).delete), ["db-1"]);
        let mut set = half.set.as_ref().clone();
        let strategy = json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 2}});
        set.spec.as_mut().unwrap().update_strategy = serde_json::from_value(strategy).unwrap();
        half.set = Arc::new(set);
        assert!(plan(&half).delete.is_empty());
        half.pods.remove(0);
        assert_eq!(plan(&half).create, [(0, false)], "below the partition the old template is used");
    }

    #[test]
    fn a_complete_rollout_is_the_current_revision() {
        let status =
            plan_status(&observed(2, "OrderedReady", vec![member(0, "new", true), member(1, "old", true)]));
        assert_eq!((status.current_replicas, status.updated_replicas), (Some(1), Some(1)));
        assert_eq!(status.current_revision.as_deref(), Some("old"));
        let status =
            plan_status(&observed(2, "OrderedReady", vec![member(0, "new", true), member(1, "new", true)]));
        assert_eq!(status.current_revision.as_deref(), Some("new"));
    }
}
