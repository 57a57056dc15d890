//! Preemption: which less important pods would have to go for a pod to fit, and on which node that costs least.
//! Pure; disruption budgets are broken only where nothing else helps.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use penstock_informers::Meta;
use penstock_informers::selector::Selector;

use crate::cluster::{Cluster, Placed};
use crate::decide::{Misfit, Prepared, priority};

/// Nodes tried at most.
const CANDIDATES_MAX: usize = 100;

/// Where to make room, and who goes.
#[derive(Clone, Debug)]
pub struct Preemption {
    pub node: String,
    pub victims: Vec<Arc<Pod>>,
    budgets_broken: usize,
}

/// The cheapest preemption, if any helps.
pub fn plan_preemption(
    pod: &Arc<Pod>,
    cluster: &Cluster,
    misfit: &Misfit,
    budgets: &[Arc<PodDisruptionBudget>],
) -> Option<Preemption> {
    if pod.spec.as_ref()?.preemption_policy.as_deref() == Some("Never") || misfit.whole.is_some() {
        return None;
    }
    let resolvable = misfit.rejections.iter().filter(|(_, r)| r.resolvable).map(|(name, _)| name);
    let candidates = resolvable.take(CANDIDATES_MAX).filter_map(|node| try_node(pod, cluster, node, budgets));
    candidates.min_by_key(cost)
}

fn cost(p: &Preemption) -> (usize, i32, i64, usize, std::cmp::Reverse<i64>) {
    let highest = p.victims.iter().map(|v| priority(v)).max().unwrap_or(i32::MIN);
    // Shifted so that many unimportant pods are not cheaper than few for being negative.
    let sum = p.victims.iter().map(|v| i64::from(priority(v)) + i64::from(i32::MAX)).sum();
    let youngest_start = p.victims.iter().map(|v| started(v)).min().unwrap_or(0);
    (p.budgets_broken, highest, sum, p.victims.len(), std::cmp::Reverse(youngest_start))
}

fn started(pod: &Pod) -> i64 {
    let start = pod.status.as_ref().and_then(|s| s.start_time.as_ref());
    start.map_or_else(|| pod.created_seconds(), |t| t.0.as_second())
}

fn try_node(
    pod: &Arc<Pod>,
    cluster: &Cluster,
    node: &str,
    budgets: &[Arc<PodDisruptionBudget>],
) -> Option<Preemption> {
    let mut state = cluster.nodes.get(node)?.as_ref().clone();
    let mine = priority(pod);
    let mut removed: Vec<Placed> = state.pods.values().filter(|p| priority(&p.pod) < mine).cloned().collect();
    if removed.is_empty() {
        return None;
    }
    removed.iter().for_each(|p| {
        state.take(p.pod.uid_str());
    });
    if !fits(pod, cluster, &state) {
        return None;
    }
    let broken = breaking(&removed, budgets);
    // Those whose loss breaks a budget, and the important and old ones, are let back first.
    removed.sort_by_key(|p| {
        (!broken.contains_key(p.pod.uid_str()), std::cmp::Reverse(priority(&p.pod)), started(&p.pod))
    });
    let mut victims = Vec::new();
    let mut budgets_broken = 0;
    for placed in removed {
        state.put(placed.clone());
        if !fits(pod, cluster, &state) {
            state.take(placed.pod.uid_str());
            budgets_broken += usize::from(broken.contains_key(placed.pod.uid_str()));
            victims.push(placed.pod);
        }
    }
    Some(Preemption { node: node.to_owned(), victims, budgets_broken })
}

fn fits(pod: &Arc<Pod>, cluster: &Cluster, state: &crate::cluster::NodeState) -> bool {
    let state = Arc::new(state.clone());
    let what_if = cluster.with_node(state.clone());
    Prepared::new(pod, &what_if).is_ok_and(|prepared| prepared.check(&state).is_ok())
}

/// Pods (by UID) whose removal, after those before them, exceeds a budget.
fn breaking(removed: &[Placed], budgets: &[Arc<PodDisruptionBudget>]) -> BTreeMap<String, ()> {
    let mut left: Vec<i32> =
        budgets.iter().map(|b| b.status.as_ref().and_then(|s| s.disruptions_allowed).unwrap_or(0)).collect();
    let mut broken = BTreeMap::new();
    for placed in removed {
        let pod = &placed.pod;
        for (budget, left) in budgets.iter().zip(&mut left) {
            let selector =
                Selector::from_label_selector(budget.spec.as_ref().and_then(|s| s.selector.as_ref()));
            if budget.ns() == pod.ns() && selector.matches(pod.metadata.labels.as_ref()) {
                *left -= 1;
                if *left < 0 {
                    broken.insert(pod.uid_str().to_owned(), ());
                }
            }
        }
    }
    broken
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::choose;

    fn pod(name: &str, priority: i32, cpu: &str) -> Arc<Pod> {
        Arc::new(
            serde_json::from_value(serde_json::json!({
                "metadata": {"name": name, "namespace": "ns", "uid": name, "labels": {"app": name}},
                "spec": {"priority": priority, "containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]},
            }))
            .unwrap(),
        )
    }

    fn cluster() -> Cluster {
        let mut cluster = Cluster::default();
        for name in ["n1", "n2"] {
            cluster.put_node(Arc::new(
                serde_json::from_value(serde_json::json!({
                    "metadata": {"name": name}, "status": {"allocatable": {"cpu": "1", "memory": "1Gi", "pods": "10"}},
                }))
                .unwrap(),
            ));
        }
        cluster
    }

    #[test]
    fn the_least_important_pods_go_and_only_as_many_as_needed() {
        let mut cluster = cluster();
        cluster.put_pod("n1", Placed::new(pod("small", 1, "300m")));
        cluster.put_pod("n1", Placed::new(pod("large", 2, "600m")));
        cluster.put_pod("n2", Placed::new(pod("vip", 50, "900m")));
        let wanting = pod("wanting", 100, "600m");
        let misfit = choose(&wanting, &cluster, 0).unwrap_err();
        let preemption = plan_preemption(&wanting, &cluster, &misfit, &[]).unwrap();
        let victims: Vec<&str> = preemption.victims.iter().map(|p| p.name()).collect();
        assert_eq!((preemption.node.as_str(), victims), ("n1", vec!["large"]));
        assert!(plan_preemption(&pod("humble", 0, "600m"), &cluster, &misfit, &[]).is_none());
    }

    #[test]
    fn a_node_whose_pods_have_no_budget_left_is_the_last_choice() {
        let mut cluster = cluster();
        cluster.put_pod("n1", Placed::new(pod("guarded", 1, "900m")));
        cluster.put_pod("n2", Placed::new(pod("free", 5, "900m")));
        let budget: PodDisruptionBudget = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "b", "namespace": "ns"},
            "spec": {"selector": {"matchLabels": {"app": "guarded"}}}, "status": {"disruptionsAllowed": 0},
        }))
        .unwrap();
        let wanting = pod("wanting", 100, "600m");
        let misfit = choose(&wanting, &cluster, 0).unwrap_err();
        let preemption = plan_preemption(&wanting, &cluster, &misfit, &[Arc::new(budget)]).unwrap();
        assert_eq!(preemption.node, "n2");
    }
}
