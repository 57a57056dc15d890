//! Namespace deletion: removes everything in a namespace that is going, tells in its conditions what is left and
//! why, and lets it go when it is empty.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, NamespaceCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{DeleteParams, DynamicObject, ListParams, PostParams};
use kube::{Api, Client};
use penstock_informers::cache::Cache;
use penstock_informers::failure::{During, gone_is_fine, is_conflict, is_not_found, status_code};
use penstock_informers::{Failure, Key, Meta, Next, Reconcile, WorkQueue, run_workers};

use crate::context::Context;
use crate::discovery::{Found, observe_resources};

const FINALIZER: &str = "kubernetes";
/// As [`Sweep::remaining`] names them.
const PODS: &str = "pods.";
/// Pods need their grace to end; looking twice a second makes the end of a namespace prompt.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// Runs the controller.
pub async fn run(context: Context) {
    let controller = Arc::new(Controller { client: context.client(), namespaces: context.informers.cache() });
    let queue = Arc::new(WorkQueue::new());
    controller.namespaces.wait_synced().await;
    let adder = queue.clone();
    controller.namespaces.subscribe(move |delta| {
        if delta.object().deleting() {
            adder.add(delta.object().key());
        }
    });
    run_workers(controller, queue, 5, context.shutdown).await;
}

struct Controller {
    client: Client,
    namespaces: Arc<Cache<Namespace>>,
}

/// What a sweep found.
#[derive(Debug, Default)]
struct Sweep {
    discovery_failure: Option<String>,
    failures: Vec<String>,
    /// Objects left, by resource.
    remaining: BTreeMap<String, usize>,
    /// Objects held by each finalizer.
    finalizers: BTreeMap<String, usize>,
}

impl Sweep {
    fn is_clean(&self) -> bool {
        self.discovery_failure.is_none() && self.failures.is_empty() && self.remaining.is_empty()
    }
}

impl Controller {
    async fn sweep(&self, namespace: &str) -> Sweep {
        let mut sweep = Sweep::default();
        let resources = match observe_resources(&self.client).await {
            Ok(resources) => resources,
            Err(error) => {
                sweep.discovery_failure = Some(error.to_string());
                return sweep;
            }
        };
        let mut removable: Vec<&Found> =
            resources.iter().filter(|f| f.namespaced && f.can("delete") && f.can("list")).collect();
        // Pods go first: what else is here may be what holds them back, a policy or a secret.
        removable.sort_by_key(|found| !is_pods(found));
        for found in removable {
            if !is_pods(found) && sweep.remaining.contains_key(PODS) {
                break;
            }
            if let Err(error) = self.sweep_resource(namespace, found, &mut sweep).await
                && !matches!(status_code(&error), Some(404 | 405))
            {
                sweep.failures.push(format!("{}: {error}", found.resource.plural));
            }
        }
        sweep
    }

    async fn sweep_resource(
        &self,
        namespace: &str,
        found: &Found,
        sweep: &mut Sweep,
    ) -> Result<(), kube::Error> {
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), namespace, &found.resource);
        let before = api.list_metadata(&ListParams::default()).await?;
        if before.items.is_empty() {
            return Ok(());
        }
        let params = DeleteParams::background();
        if found.can("deletecollection") {
            api.delete_collection(&params, &ListParams::default()).await?;
        } else {
            for item in &before.items {
                gone_is_fine(api.delete(item.metadata.name.as_deref().unwrap_or_default(), &params).await)?;
            }
        }
        let after = api.list_metadata(&ListParams::default()).await?;
        if !after.items.is_empty() {
            let group = &found.resource.group;
            sweep.remaining.insert(format!("{}.{group}", found.resource.plural), after.items.len());
        }
        for finalizer in after.items.iter().flat_map(|i| i.metadata.finalizers.iter().flatten()) {
            *sweep.finalizers.entry(finalizer.clone()).or_default() += 1;
        }
        Ok(())
    }

    async fn write_conditions(&self, namespace: &Namespace, sweep: &Sweep) -> Result<(), Failure> {
        let mut changed = namespace.clone();
        let status = changed.status.get_or_insert_default();
        let conditions = status.conditions.get_or_insert_default();
        if !plan_conditions(conditions, sweep, Timestamp::now()) {
            return Ok(());
        }
        let api: Api<Namespace> = Api::all(self.client.clone());
        match api.replace_status(namespace.name(), &PostParams::default(), &changed).await {
            Err(error) if is_not_found(&error) || is_conflict(&error) => Ok(()),
            other => other.map(drop).during(|| format!("conditions of namespace {}", namespace.name())),
        }
    }

    async fn finalize(&self, namespace: &Namespace) -> Result<(), Failure> {
        let mut changed = namespace.clone();
        if let Some(finalizers) = changed.spec.get_or_insert_default().finalizers.as_mut() {
            finalizers.retain(|f| f != FINALIZER);
        }
        changed.metadata.resource_version = None;
        let api: Api<Namespace> = Api::all(self.client.clone());
        let done =
            api.replace_subresource("finalize", namespace.name(), &PostParams::default(), &changed).await;
        gone_is_fine(done).map(drop).during(|| format!("finalizing namespace {}", namespace.name()))
    }
}

fn is_pods(found: &Found) -> bool {
    found.resource.group.is_empty() && found.resource.plural == "pods"
}

/// Brings the five conditions up to date; true when one changed.
fn plan_conditions(conditions: &mut Vec<NamespaceCondition>, sweep: &Sweep, now: Timestamp) -> bool {
    let list = |map: &BTreeMap<String, usize>, between: &str| {
        let parts: Vec<String> =
            map.iter().map(|(k, n)| format!("{k} {between} {n} resource instances")).collect();
        parts.join(", ")
    };
    let remaining = (!sweep.remaining.is_empty())
        .then(|| format!("Some resources are remaining: {}", list(&sweep.remaining, "has")));
    let held = (!sweep.finalizers.is_empty()).then(|| {
        format!("Some content in the namespace has finalizers remaining: {}", list(&sweep.finalizers, "in"))
    });
    let failed = (!sweep.failures.is_empty()).then(|| {
        format!(
            "Failed to delete all resource types, {} remaining: {}",
            sweep.failures.len(),
            sweep.failures.join(", ")
        )
    });
    let wanted = [
        (
            "NamespaceDeletionDiscoveryFailure",
            sweep.discovery_failure.clone().map(|m| format!("Discovery failed for some groups: {m}")),
            ("DiscoveryFailed", "ResourcesDiscovered", "All resources successfully discovered"),
        ),
        (
            "NamespaceDeletionGroupVersionParsingFailure",
            None,
            ("GroupVersionParsingFailed", "ParsedGroupVersions", "All legacy kube types successfully parsed"),
        ),
        (
            "NamespaceDeletionContentFailure",
            failed,
            (
                "ContentDeletionFailed",
                "ContentDeleted",
                "All content successfully deleted, may be waiting on finalization",
            ),
        ),
        (
            "NamespaceContentRemaining",
            remaining,
            ("SomeResourcesRemain", "ContentRemoved", "All content successfully removed"),
        ),
        (
            "NamespaceFinalizersRemaining",
            held,
            ("SomeFinalizersRemain", "ContentHasNoFinalizers", "All content-preserving finalizers finished"),
        ),
    ];
    let mut changed = false;
    for (kind, trouble, (bad, good, fine)) in wanted {
        let status = if trouble.is_some() { "True" } else { "False" };
        let reason = if trouble.is_some() { bad } else { good };
        let message = trouble.unwrap_or_else(|| fine.to_owned());
        let old = conditions.iter_mut().find(|c| c.type_ == kind);
        let condition = NamespaceCondition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message),
            last_transition_time: Some(Time(now)),
        };
        match old {
            Some(old) if old.status == condition.status && old.message == condition.message => {}
            Some(old) => {
                *old = condition;
                changed = true;
            }
            None => {
                conditions.push(condition);
                changed = true;
            }
        }
    }
    changed
}

impl Reconcile for Controller {
    type Key = Key;
    const NAME: &'static str = "namespace";

    async fn reconcile(&self, key: &Key) -> Result<Next, Failure> {
        let Some(namespace) = self.namespaces.get(key) else {
            return Ok(Next::Done);
        };
        let finalizers = namespace.spec.as_ref().and_then(|s| s.finalizers.as_ref());
        let held = finalizers.is_some_and(|f| f.iter().any(|f| f == FINALIZER));
        if !namespace.deleting() || !held {
            return Ok(Next::Done);
        }
        let sweep = self.sweep(&key.name).await;
        if sweep.is_clean() {
            self.finalize(&namespace).await?;
            return Ok(Next::Done);
        }
        self.write_conditions(&namespace, &sweep).await?;
        Ok(Next::After(LOOK_AGAIN))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_say_what_is_left_and_change_only_when_it_does() {
        let mut conditions = Vec::new();
        let mut sweep = Sweep::default();
        sweep.remaining.insert("pods.".into(), 2);
        let now = Timestamp::from_second(1).unwrap();
        assert!(plan_conditions(&mut conditions, &sweep, now));
        let remaining = conditions.iter().find(|c| c.type_ == "NamespaceContentRemaining").unwrap();
        assert_eq!(remaining.status, "True");
        assert!(remaining.message.as_ref().unwrap().contains("pods. has 2 resource instances"));
        assert!(!plan_conditions(&mut conditions, &sweep, now));
        assert!(plan_conditions(&mut conditions, &Sweep::default(), now));
        assert!(conditions.iter().all(|c| c.status == "False"));
    }
}
