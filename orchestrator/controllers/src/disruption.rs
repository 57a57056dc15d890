//! PodDisruptionBudget status: how many pods of a budget may go now. Evictions are decided on it by the API
//! server.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{Pod, ReplicationController};
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::api::PostParams;
use kube::{Api, Client};
use penstock_informers::cache::{Cache, Delta};
use penstock_informers::failure::{During, gone_is_fine};
use penstock_informers::selector::Selector;
use penstock_informers::{Failure, Key, Meta, Next, Reconcile, WorkQueue, run_workers};

use crate::context::Context;
use crate::intstr::{Round, resolve};
use crate::pod;

/// An eviction that was allowed and did not happen within this is forgotten.
const DISRUPTION_BELIEVED_SECONDS: i64 = 120;

/// Runs the controller.
pub async fn run(context: Context) {
    let controller = Arc::new(Controller {
        client: context.client(),
        budgets: context.informers.cache(),
        pods: context.informers.cache(),
        sets: context.informers.cache(),
        deployments: context.informers.cache(),
        stateful: context.informers.cache(),
        controllers: context.informers.cache(),
    });
    let queue = Arc::new(WorkQueue::new());
    tokio::join!(
        controller.budgets.wait_synced(),
        controller.pods.wait_synced(),
        controller.sets.wait_synced(),
        controller.deployments.wait_synced(),
        controller.stateful.wait_synced(),
        controller.controllers.wait_synced(),
    );
    let adder = queue.clone();
    controller.budgets.subscribe(move |delta| adder.add(delta.object().key()));
    let (adder, handler) = (queue.clone(), controller.clone());
    controller.pods.subscribe(move |delta| {
        let pod = delta.object();
        let old = if let Delta::Updated { old, .. } = delta { Some(old) } else { None };
        for budget in handler.budgets.list_namespace(pod.ns()) {
            let selector = selector(&budget);
            let was = old.is_some_and(|o| selector.matches(o.metadata.labels.as_ref()));
            if was || selector.matches(pod.metadata.labels.as_ref()) {
                adder.add(budget.key());
            }
        }
    });
    run_workers(controller, queue, 2, context.shutdown).await;
}

struct Controller {
    client: Client,
    budgets: Arc<Cache<PodDisruptionBudget>>,
    pods: Arc<Cache<Pod>>,
    sets: Arc<Cache<ReplicaSet>>,
    deployments: Arc<Cache<Deployment>>,
    stateful: Arc<Cache<StatefulSet>>,
    controllers: Arc<Cache<ReplicationController>>,
}

fn selector(budget: &PodDisruptionBudget) -> Selector {
    Selector::from_label_selector(budget.spec.as_ref().and_then(|s| s.selector.as_ref()))
}

impl Controller {
    /// Pods the owners of these pods want in all; `Err` names a pod whose owner has no scale.
    fn expected(&self, pods: &[Arc<Pod>]) -> Result<i32, String> {
        let mut scales: BTreeMap<String, i32> = BTreeMap::new();
        for pod in pods {
            let owner =
                pod.controller_ref().ok_or_else(|| format!("pod {} has no controller", pod.name()))?;
            let key = Key::new(pod.ns(), owner.name.clone());
            let (uid, scale) = match owner.kind.as_str() {
                "ReplicaSet" => self.scale_of_set(&key, &owner.uid),
                "StatefulSet" => {
                    let replicas = self.stateful.get(&key).and_then(|s| s.spec.as_ref()?.replicas);
                    (owner.uid.clone(), replicas.unwrap_or(1))
                }
                "ReplicationController" => {
                    let replicas = self.controllers.get(&key).and_then(|s| s.spec.as_ref()?.replicas);
                    (owner.uid.clone(), replicas.unwrap_or(1))
                }
                kind => return Err(format!("{kind} {} has no scale", owner.name)),
            };
            scales.insert(uid, scale);
        }
        Ok(scales.values().sum())
    }

    fn scale_of_set(&self, key: &Key, uid: &str) -> (String, i32) {
        let Some(set) = self.sets.get(key) else {
            return (uid.to_owned(), 0);
        };
        if let Some(owner) = set.controller_ref().filter(|o| o.kind == "Deployment") {
            let deployment = self.deployments.get(&Key::new(key.namespace.clone(), owner.name.clone()));
            let replicas = deployment.and_then(|d| d.spec.as_ref()?.replicas);
            return (owner.uid.clone(), replicas.unwrap_or(1));
        }
        (uid.to_owned(), set.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1))
    }
}

/// The status of a budget over its pods. `expected`: what their owners want.
fn plan_status(
    budget: &PodDisruptionBudget,
    pods: &[Arc<Pod>],
    expected: Result<i32, String>,
    now: Timestamp,
) -> PodDisruptionBudgetStatus {
    let old = budget.status.clone().unwrap_or_default();
    let spec = budget.spec.clone().unwrap_or_default();
    let disrupted: BTreeMap<String, Time> = old
        .disrupted_pods
        .clone()
        .unwrap_or_default()
        .into_iter()
        .filter(|(name, since)| {
            let waiting = pods.iter().any(|p| p.name() == name && !p.deleting());
            waiting && now.as_second() - since.0.as_second() < DISRUPTION_BELIEVED_SECONDS
        })
        .collect();
    let serves = |p: &&Arc<Pod>| pod::is_ready(p) && !p.deleting() && !disrupted.contains_key(p.name());
    let healthy = pods.iter().filter(serves).count() as i32;
    let count = i32::try_from(pods.len()).unwrap_or(i32::MAX);
    // A plain minimum needs no owner; anything relative does.
    let (expected, desired, trouble) = match (&spec.max_unavailable, &spec.min_available) {
        (Some(most), _) => match expected {
            Ok(n) => (n, n - resolve(most, n, Round::Up).unwrap_or(0), None),
            Err(why) => (0, 0, Some(why)),
        },
        (None, Some(least @ k8s_openapi::apimachinery::pkg::util::intstr::IntOrString::String(_))) => {
            match expected {
                Ok(n) => (n, resolve(least, n, Round::Up).unwrap_or(n), None),
                Err(why) => (0, 0, Some(why)),
            }
        }
        (None, Some(least)) => (count, resolve(least, count, Round::Up).unwrap_or(0), None),
        (None, None) => (count, 0, None),
    };
    let desired = desired.max(0);
    let allowed = if trouble.is_some() || expected <= 0 { 0 } else { (healthy - desired).max(0) };
    let (status, reason) = match (&trouble, allowed) {
        (Some(_), _) => ("False", "SyncFailed"),
        (None, 0) => ("False", "InsufficientPods"),
        (None, _) => ("True", "SufficientPods"),
    };
    let mut conditions = old.conditions.clone().unwrap_or_default();
    let previous =
        conditions.iter().position(|c| c.type_ == "DisruptionAllowed").map(|at| conditions.remove(at));
    let since = previous.filter(|c| c.status == status).map(|c| c.last_transition_time);
    conditions.push(Condition {
        type_: "DisruptionAllowed".into(),
        status: status.into(),
        reason: reason.into(),
        message: trouble.unwrap_or_default(),
        last_transition_time: since.unwrap_or(Time(now)),
        observed_generation: budget.metadata.generation,
    });
    PodDisruptionBudgetStatus {
        conditions: Some(conditions),
        current_healthy: Some(healthy),
        desired_healthy: Some(desired),
        disrupted_pods: (!disrupted.is_empty()).then_some(disrupted),
        disruptions_allowed: Some(allowed),
        expected_pods: Some(expected),
        observed_generation: budget.metadata.generation,
    }
}

impl Reconcile for Controller {
    type Key = Key;
    const NAME: &'static str = "disruption";

    async fn reconcile(&self, key: &Key) -> Result<Next, Failure> {
        let Some(budget) = self.budgets.get(key) else {
            return Ok(Next::Done);
        };
        let selector = selector(&budget);
        let mut pods = self.pods.list_namespace(&key.namespace);
        pods.retain(|p| selector.matches(p.metadata.labels.as_ref()) && !pod::is_finished(p));
        let status = plan_status(&budget, &pods, self.expected(&pods), Timestamp::now());
        let waits = status.disrupted_pods.is_some();
        if budget.status.as_ref() != Some(&status) {
            let changed = PodDisruptionBudget { status: Some(status), ..budget.as_ref().clone() };
            let api: Api<PodDisruptionBudget> = Api::namespaced(self.client.clone(), budget.ns());
            let written = api.replace_status(budget.name(), &PostParams::default(), &changed).await;
            gone_is_fine(written).during(|| format!("status of budget {key}"))?;
        }
        let look_again = Duration::from_secs(DISRUPTION_BELIEVED_SECONDS as u64);
        Ok(if waits { Next::After(look_again) } else { Next::Done })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::tests::test_pod;

    fn allowed(
        spec: serde_json::Value,
        ready: usize,
        count: usize,
        expected: Result<i32, String>,
    ) -> (i32, i32) {
        let budget: PodDisruptionBudget =
            serde_json::from_value(serde_json::json!({"metadata": {"name": "b"}, "spec": spec})).unwrap();
        let pod = |i| Arc::new(test_pod(&format!("p{i}"), Some("n"), "Running", (i < ready).then_some(1)));
        let pods: Vec<_> = (0..count).map(pod).collect();
        let status = plan_status(&budget, &pods, expected, Timestamp::from_second(9).unwrap());
        (status.disruptions_allowed.unwrap(), status.desired_healthy.unwrap())
    }

    #[test]
    fn budgets_count_as_documented() {
        let spec = |field: &str, value: serde_json::Value| serde_json::json!({field: value});
        assert_eq!(allowed(spec("minAvailable", 2.into()), 3, 3, Err("bare".into())), (1, 2));
        assert_eq!(allowed(spec("minAvailable", "50%".into()), 3, 3, Ok(3)), (1, 2));
        assert_eq!(allowed(spec("maxUnavailable", 1.into()), 3, 3, Ok(3)), (1, 2));
        assert_eq!(allowed(spec("maxUnavailable", 1.into()), 2, 3, Ok(3)), (0, 2));
        assert_eq!(allowed(spec("maxUnavailable", 1.into()), 3, 3, Err("bare".into())).0, 0);
    }
}
