//! Aggregated ClusterRoles: their rules are those of all roles their selectors name.

use std::sync::Arc;

use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use penstock_informers::cache::Cache;
use penstock_informers::failure::{During, gone_is_fine};
use penstock_informers::selector::Selector;
use penstock_informers::{Failure, Key, Meta, Next, Reconcile, WorkQueue, run_workers};

use crate::context::Context;

/// Runs the controller.
pub async fn run(context: Context) {
    let controller = Arc::new(Controller { client: context.client(), roles: context.informers.cache() });
    let queue = Arc::new(WorkQueue::new());
    controller.roles.wait_synced().await;
    let (adder, handler) = (queue.clone(), controller.clone());
    controller.roles.subscribe(move |_| {
        let aggregated = handler.roles.list().into_iter().filter(|r| r.aggregation_rule.is_some());
        aggregated.for_each(|r| adder.add(r.key()));
    });
    run_workers(controller, queue, 1, context.shutdown).await;
}

struct Controller {
    client: Client,
    roles: Arc<Cache<ClusterRole>>,
}

/// The rules an aggregated role should have, in the order of the contributing roles' names.
fn plan_rules(role: &ClusterRole, all: &[Arc<ClusterRole>]) -> Option<Vec<PolicyRule>> {
    let selectors = role.aggregation_rule.as_ref()?.cluster_role_selectors.clone().unwrap_or_default();
    let selectors: Vec<Selector> = selectors.iter().map(|s| Selector::from_label_selector(Some(s))).collect();
    let mut rules: Vec<PolicyRule> = Vec::new();
    for other in all.iter().filter(|r| r.name() != role.name()) {
        if selectors.iter().any(|s| s.matches(other.metadata.labels.as_ref())) {
            for rule in other.rules.iter().flatten() {
                if !rules.contains(rule) {
                    rules.push(rule.clone());
                }
            }
        }
    }
    Some(rules)
}

impl Reconcile for Controller {
    type Key = Key;
    const NAME: &'static str = "cluster-role";

    async fn reconcile(&self, key: &Key) -> Result<Next, Failure> {
        let Some(role) = self.roles.get(key) else {
            return Ok(Next::Done);
        };
        let Some(rules) = plan_rules(&role, &self.roles.list()) else {
            return Ok(Next::Done);
        };
        if role.rules.as_deref().unwrap_or_default() == rules {
            return Ok(Next::Done);
        }
        let patch = serde_json::json!({"metadata": {"resourceVersion": role.metadata.resource_version}, "rules": rules});
        let api: Api<ClusterRole> = Api::all(self.client.clone());
        gone_is_fine(api.patch(role.name(), &PatchParams::default(), &Patch::Merge(&patch)).await)
            .during(|| format!("rules of cluster role {key}"))?;
        Ok(Next::Done)
    }
}
