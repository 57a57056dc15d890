//! ResourceQuota status: what each quota bounds, and how much of it is used.
//!
//! Admission charges what is written; this loop counts what is there: at first, when something goes or changes, and a
//! while after something came, for charges whose write then failed. It counts from live lists read after the quota,
//! and writes only over the quota it read, so that a charge in between is never lost.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ResourceQuota;
use kube::api::{DynamicObject, ListParams, PostParams};
use kube::{Api, Client};
use penstock_informers::cache::{Cache, Delta};
use penstock_informers::failure::{During, is_conflict, is_not_found};
use penstock_informers::{Failure, Key, Meta, Next, Reconcile, WorkQueue, run_workers};
use penstock_quota::amounts::{self, Amounts};
use penstock_quota::{Measured, Quantity, said, takes_in, usage};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::context::Context;
use crate::discovery::{Found, observe_resources};

mod follow;

/// A quota is not counted more often than this, however much changes.
const COUNT_EVERY: Duration = Duration::from_millis(300);
/// A write that was charged is stored within this, if it is.
const CHARGED_IS_STORED: Duration = Duration::from_millis(300);
/// By then a charged write is stored, or has failed.
const CHARGES_SETTLE: Duration = Duration::from_secs(2);
/// Time ends the charge for pods that should be gone, and resources appear with their definitions.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
const WORKERS: usize = 4;

/// Runs the controller.
pub async fn run(context: Context) {
    let controller = Arc::new(Controller {
        client: context.client(),
        quotas: context.informers.cache(),
        queue: Arc::new(WorkQueue::new()),
        resources: Mutex::default(),
        counted: Mutex::default(),
        shutdown: context.shutdown.clone(),
    });
    controller.quotas.wait_synced().await;
    let adder = controller.clone();
    controller.quotas.subscribe(move |delta| {
        let quota = delta.object();
        let changed = match delta {
            Delta::Added(_) | Delta::Deleted(_) => true,
            Delta::Updated { old, new } => old.spec != new.spec || hard(new) != spec_hard(new),
        };
        // A status that only charges changed may be of a write that failed.
        let delay = if changed { Duration::ZERO } else { CHARGES_SETTLE };
        adder.queue.add_after(quota.key(), delay);
    });
    let queue = controller.queue.clone();
    run_workers(controller, queue, WORKERS, context.shutdown).await;
}

struct Controller {
    client: Client,
    quotas: Arc<Cache<ResourceQuota>>,
    queue: Arc<WorkQueue<Key>>,
    /// What quotas name, as the server has it, with what stops following it.
    resources: Mutex<BTreeMap<Measured, (Found, CancellationToken)>>,
    /// When each quota was counted last.
    counted: Mutex<HashMap<Key, Instant>>,
    shutdown: CancellationToken,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|e| e.into_inner())
}

type Hard<'a> = Option<&'a BTreeMap<String, k8s_openapi::apimachinery::pkg::api::resource::Quantity>>;

fn spec_hard(quota: &ResourceQuota) -> Hard<'_> {
    quota.spec.as_ref()?.hard.as_ref()
}

fn hard(quota: &ResourceQuota) -> Hard<'_> {
    quota.status.as_ref()?.hard.as_ref()
}

/// Whose objects a quota counts.
fn measured_by(quota: &ResourceQuota) -> BTreeSet<Measured> {
    spec_hard(quota).into_iter().flatten().filter_map(|(name, _)| Measured::by_name(name)).collect()
}

impl Controller {
    /// Every object of a resource in a namespace; `None` if the server has no such resource.
    async fn list(&self, namespace: &str, measured: &Measured) -> Result<Option<Vec<Value>>, Failure> {
        let found = lock(&self.resources).get(measured).map(|(found, _)| found.clone());
        let Some(found) = found.filter(|found| found.namespaced) else { return Ok(None) };
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), namespace, &found.resource);
        let listing = || format!("counting {} in {namespace}", measured.plural);
        let objects = api.list(&ListParams::default()).await.during(listing)?;
        let value = |object: &DynamicObject| serde_json::to_value(object).unwrap_or_default();
        Ok(Some(objects.items.iter().map(value).collect()))
    }

    /// Counts what a quota bounds; also whether time alone may change it.
    async fn count(&self, quota: &Value, measured: &BTreeSet<Measured>) -> Result<(Amounts, bool), Failure> {
        let namespace = quota["metadata"]["namespace"].as_str().unwrap_or_default();
        let now = Timestamp::now();
        let (mut used, mut unsettled) = (Amounts::new(), false);
        for measured in measured {
            let Some(objects) = self.list(namespace, measured).await? else {
                unsettled = true;
                continue;
            };
            for object in objects.iter().filter(|object| takes_in(quota, measured, object)) {
                unsettled |= object.pointer("/metadata/deletionTimestamp").is_some();
                amounts::add(&mut used, &usage(measured, object, now));
            }
        }
        Ok((used, unsettled))
    }
}

/// Whether less was counted than is charged.
fn lowers(quota: &Value, counted: &Amounts) -> bool {
    let charged = said(quota, "/status/used");
    charged.iter().any(|(name, amount)| counted.get(name).copied().unwrap_or(Quantity::ZERO) < *amount)
}

/// The status of a quota with what was counted; `None` if it has it already.
fn plan_status(quota: &Value, counted: &Amounts) -> Option<Value> {
    let hard = said(quota, "/spec/hard");
    let used: Amounts = hard
        .keys()
        .map(|name| (name.clone(), counted.get(name).copied().unwrap_or(Quantity::ZERO)))
        .collect();
    if said(quota, "/status/hard") == hard && said(quota, "/status/used") == used {
        return None;
    }
    Some(json!({"hard": amounts::written(&hard), "used": amounts::written(&used)}))
}

impl Reconcile for Controller {
    type Key = Key;
    const NAME: &'static str = "resource-quota";

    async fn reconcile(&self, key: &Key) -> Result<Next, Failure> {
        let Some(quota) = self.quotas.get(key) else {
            lock(&self.counted).remove(key);
            self.stop_following();
            return Ok(Next::Done);
        };
        if quota.deleting() {
            return Ok(Next::Done);
        }
        let wait = lock(&self.counted).get(key).and_then(|at| COUNT_EVERY.checked_sub(at.elapsed()));
        if let Some(wait) = wait.filter(|wait| !wait.is_zero()) {
            return Ok(Next::After(wait));
        }
        lock(&self.counted).insert(key.clone(), Instant::now());
        let measured = measured_by(&quota);
        self.follow(&measured).await?;
        let api: Api<ResourceQuota> = Api::namespaced(self.client.clone(), &key.namespace);
        let reading = || format!("reading quota {}", key.name);
        let Some(live) = api.get_opt(&key.name).await.during(reading)? else { return Ok(Next::Done) };
        let mut value = serde_json::to_value(&live).unwrap_or_default();
        let (mut counted, mut unsettled) = self.count(&value, &measured).await?;
        if lowers(&value, &counted) {
            // What is charged already may be on its way into the store: it must not be let in twice.
            tokio::time::sleep(CHARGED_IS_STORED).await;
            (counted, unsettled) = self.count(&value, &measured).await?;
        }
        let next = if unsettled { Next::After(LOOK_AGAIN) } else { Next::Done };
        let Some(status) = plan_status(&value, &counted) else { return Ok(next) };
        value["status"] = status;
        let writing = || format!("status of quota {}", key.name);
        let changed =
            serde_json::from_value(value).map_err(|e| Failure::again(format!("{}: {e}", writing())))?;
        match api.replace_status(&key.name, &PostParams::default(), &changed).await {
            Err(error) if is_conflict(&error) => Ok(Next::After(COUNT_EVERY)),
            Err(error) if is_not_found(&error) => Ok(Next::Done),
            other => other.map(|_| next).during(writing),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_has_all_that_is_bounded_and_nothing_else() {
        let mut quota = json!({"spec": {"hard": {"pods": "2", "secrets": "1"}}});
        let counted = Amounts::from([
            ("pods".to_owned(), Quantity::count(1)),
            ("requests.cpu".to_owned(), Quantity::count(1)),
        ]);
        let status = plan_status(&quota, &counted);
        let wanted = json!({"hard": {"pods": "2", "secrets": "1"}, "used": {"pods": "1", "secrets": "0"}});
        assert_eq!(status, Some(wanted.clone()));
        quota["status"] = wanted;
        assert_eq!(plan_status(&quota, &counted), None);
        assert!(!lowers(&quota, &counted));
        assert!(lowers(&quota, &Amounts::new()), "a pod is charged that was not found");
        quota["spec"]["hard"]["pods"] = "3".into();
        assert!(plan_status(&quota, &counted).is_some());
    }
}
