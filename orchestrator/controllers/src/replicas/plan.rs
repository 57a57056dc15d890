//! The decision of one pass over a ReplicaSet: how many pods to create, which to delete, and what the status
//! says. Pure: no API, no clock.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::pod;

/// Pods created or deleted in one pass at most.
const BURST_MAX: usize = 500;

/// What a pass sees.
pub(crate) struct Observed {
    pub wanted: i32,
    pub deleting: bool,
    /// Whether the cache shows all that earlier passes did.
    pub settled: bool,
    pub min_ready_seconds: i32,
    pub template_labels: Option<BTreeMap<String, String>>,
    pub generation: Option<i64>,
    pub status: ReplicaSetStatus,
    /// Owned pods, finished and going ones too.
    pub pods: Vec<Arc<Pod>>,
    /// Pods of the same workload, for spreading deletions over nodes.
    pub related: Vec<Arc<Pod>>,
    pub now: Timestamp,
}

/// What a pass does.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub create: usize,
    pub delete: Vec<Arc<Pod>>,
    /// Seconds after which a ready pod becomes available.
    pub next: Option<u64>,
}

/// What went wrong in applying, for the status.
#[derive(Debug)]
pub(crate) struct Trouble {
    pub reason: &'static str,
    pub message: String,
}

pub(crate) fn plan(observed: &Observed) -> Plan {
    let active: Vec<&Arc<Pod>> = observed.pods.iter().filter(|p| pod::is_active(p)).collect();
    let waits = active.iter().filter_map(|p| {
        pod::seconds_until_available(p, observed.min_ready_seconds, observed.now).filter(|s| *s > 0)
    });
    let mut plan = Plan { next: waits.min().map(|s| s as u64), ..Default::default() };
    if observed.deleting || !observed.settled {
        return plan;
    }
    let wanted = observed.wanted.max(0) as usize;
    if active.len() < wanted {
        plan.create = (wanted - active.len()).min(BURST_MAX);
    } else if active.len() > wanted {
        let excess = (active.len() - wanted).min(BURST_MAX);
        plan.delete = choose_victims(observed, active, excess);
    }
    plan
}

fn choose_victims(observed: &Observed, active: Vec<&Arc<Pod>>, count: usize) -> Vec<Arc<Pod>> {
    let mut crowd: HashMap<&str, usize> = HashMap::new();
    for related in observed.related.iter().filter(|p| pod::is_active(p)) {
        if let Some(node) = pod::node_name(related) {
            *crowd.entry(node).or_default() += 1;
        }
    }
    let rank = |p: &Pod| pod::node_name(p).and_then(|n| crowd.get(n)).copied().unwrap_or(0);
    let mut ranked: Vec<(&Arc<Pod>, usize)> = active.into_iter().map(|p| (p, rank(p))).collect();
    ranked.sort_by(|a, b| pod::compare_for_deletion((a.0, a.1), (b.0, b.1), observed.now));
    ranked.into_iter().take(count).map(|(p, _)| p.clone()).collect()
}

/// The status after the pass. Counts are what was observed: the next pass counts what this one changed.
pub(crate) fn plan_status(observed: &Observed, trouble: Option<&Trouble>) -> ReplicaSetStatus {
    let count =
        |f: &dyn Fn(&Pod) -> bool| observed.pods.iter().filter(|p| pod::is_active(p) && f(p)).count() as i32;
    let labelled = |p: &Pod| {
        let labels = p.metadata.labels.as_ref();
        let template = observed.template_labels.iter().flatten();
        template.into_iter().all(|(k, v)| labels.and_then(|l| l.get(k)) == Some(v))
    };
    let present = |n: i32| (n > 0).then_some(n);
    let terminating = observed.pods.iter().filter(|p| pod::is_terminating(p)).count() as i32;
    ReplicaSetStatus {
        replicas: count(&|_| true),
        fully_labeled_replicas: present(count(&labelled)),
        ready_replicas: present(count(&pod::is_ready)),
        available_replicas: present(count(&|p| {
            pod::is_available(p, observed.min_ready_seconds, observed.now)
        })),
        terminating_replicas: observed
            .status
            .terminating_replicas
            .map(|_| terminating)
            .or(present(terminating)),
        observed_generation: observed.generation.or(observed.status.observed_generation),
        conditions: plan_conditions(observed, trouble),
    }
}

fn plan_conditions(observed: &Observed, trouble: Option<&Trouble>) -> Option<Vec<ReplicaSetCondition>> {
    let mut conditions = observed.status.conditions.clone().unwrap_or_default();
    let old = conditions.iter().position(|c| c.type_ == "ReplicaFailure");
    match (trouble, old) {
        (Some(trouble), None) => conditions.push(ReplicaSetCondition {
            type_: "ReplicaFailure".into(),
            status: "True".into(),
            reason: Some(trouble.reason.into()),
            message: Some(trouble.message.clone()),
            last_transition_time: Some(Time(observed.now)),
        }),
        // While a round is under way nothing is known about the failure.
        (None, Some(at)) if observed.settled => {
            conditions.remove(at);
        }
        _ => {}
    }
    (!conditions.is_empty()).then_some(conditions)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::tests::test_pod;
    use penstock_informers::Meta;
    use proptest::prelude::*;

    fn observed(wanted: i32, pods: Vec<Pod>) -> Observed {
        let pods: Vec<Arc<Pod>> = pods.into_iter().map(Arc::new).collect();
        Observed {
            wanted,
            deleting: false,
            settled: true,
            min_ready_seconds: 0,
            template_labels: None,
            generation: Some(1),
            status: ReplicaSetStatus::default(),
            related: pods.clone(),
            pods,
            now: Timestamp::from_second(5000).unwrap(),
        }
    }

    #[test]
    fn finished_and_going_pods_are_replaced() {
        let mut going = test_pod("going", Some("n"), "Running", Some(1));
        going.metadata.deletion_timestamp = Some(crate::pod::tests::time(1));
        let pods = vec![
            going,
            test_pod("failed", Some("n"), "Failed", None),
            test_pod("ok", Some("n"), "Running", Some(1)),
        ];
        let observed = observed(3, pods);
        assert_eq!(plan(&observed).create, 2);
        let status = plan_status(&observed, None);
        assert_eq!(
            (status.replicas, status.ready_replicas, status.terminating_replicas),
            (1, Some(1), Some(1))
        );
    }

    #[test]
    fn nothing_is_created_or_deleted_while_unsettled_or_deleting() {
        let mut unsettled = observed(5, vec![]);
        unsettled.settled = false;
        assert_eq!(plan(&unsettled).create, 0);
        let mut deleting = observed(0, vec![test_pod("a", None, "Running", None)]);
        deleting.deleting = true;
        assert!(plan(&deleting).delete.is_empty());
    }

    #[test]
    fn a_failure_is_a_condition_until_the_next_good_round() {
        let mut round = observed(1, vec![]);
        let trouble = Trouble { reason: "FailedCreate", message: "quota".into() };
        round.status = plan_status(&round, Some(&trouble));
        assert_eq!(round.status.conditions.as_ref().unwrap()[0].reason.as_deref(), Some("FailedCreate"));
        assert!(plan_status(&round, None).conditions.is_none());
    }

    #[test]
    fn a_ready_pod_that_is_not_available_yet_is_looked_at_again() {
        let mut round = observed(1, vec![test_pod("a", Some("n"), "Running", Some(4995))]);
        round.min_ready_seconds = 10;
        assert_eq!(plan(&round).next, Some(5));
        assert_eq!(plan_status(&round, None).available_replicas, None);
    }

    proptest! {
        #[test]
        fn the_plan_always_leads_to_the_wanted_count(wanted in 0i32..40, have in 0usize..40, ready in 0usize..40) {
            let pods = (0..have)
                .map(|i| test_pod(&format!("p{i}"), Some(&format!("n{}", i % 3)), "Running", (i < ready).then_some(100)))
                .collect();
            let plan = plan(&observed(wanted, pods));
            prop_assert_eq!(have + plan.create - plan.delete.len(), wanted as usize);
            prop_assert!(plan.create == 0 || plan.delete.is_empty());
            let unready_left = have.saturating_sub(ready).saturating_sub(plan.delete.len());
            let ready_killed = plan.delete.iter().filter(|p| crate::pod::is_ready(p)).count();
            prop_assert!(ready_killed == 0 || unready_left == 0, "a ready pod dies only when no unready one is left");
            let mut names: Vec<&str> = plan.delete.iter().map(|p| p.name()).collect();
            names.dedup();
            prop_assert_eq!(names.len(), plan.delete.len());
        }
    }
}
