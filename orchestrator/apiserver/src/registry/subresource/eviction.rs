//! Eviction: a delete that asks the pod's disruption budgets first.

use serde_json::{Value, json};

use crate::error::ApiError;
use crate::registry::context::{Body, Context, Target};
use crate::registry::definition::Definition;
use crate::registry::generic::body::Expected;
use crate::registry::generic::share;
use crate::registry::generic::update::Race;
use crate::registry::object::{CachedObject, items_at, meta_str, str_at};
use crate::registry::options::DeleteOptions;
use crate::registry::ownership::Tracking;
use crate::registry::selector::LabelSelector;
use crate::registry::{Outcome, Registry};

/// The condition of a pod that is taken away, and did not fail by itself.
const DISRUPTED: &str = "DisruptionTarget";

pub(crate) async fn create(
    registry: &Registry,
    context: &Context,
    target: &Target,
    body: &Body,
) -> Result<Outcome, ApiError> {
    let missing = || ApiError::internal("the schema has no Eviction");
    let ty = registry.schema().kind("policy", "v1", "Eviction").ok_or_else(missing)?;
    let expected = Expected { ty: &ty, group: "policy", version: "v1", kind: "Eviction" };
    let mut eviction = expected.decode(context, body)?;
    let said = meta_str(&eviction, "name");
    if !said.is_empty() && said != target.name() {
        return Err(ApiError::bad_request(format!(
            "name in URL does not match name in Eviction object: {} != {said}",
            target.name()
        )));
    }
    let pods = registry.find("", "v1", "pods").ok_or_else(ApiError::no_such_path)?;
    super::admit(registry, context, &pods, target, "eviction", &mut eviction).await?;
    let mut options = match eviction.get("deleteOptions") {
        Some(options) => DeleteOptions::from_value(options)?,
        None => DeleteOptions::default(),
    };
    options.dry_run |= context.dry_run;
    let pod_target = Target::named(target.namespace.as_deref(), target.name());
    let (pod, _) = registry.require(&pods, target.namespace(), target.name()).await?;
    if is_budgeted(&pod) {
        let shared = share(&pods, &pod);
        let budgets = budgets_of(registry, &shared).await?;
        if budgets.len() > 1 {
            return Err(ApiError::internal(
                "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
            ));
        }
        if let Some(budget) = budgets.first() {
            take_from_budget(registry, context, budget, target.name(), options.dry_run).await?;
        }
    }
    if !options.dry_run {
        say_why(registry, context, &pods, &pod_target).await?;
    }
    registry.delete(context, &pods, &pod_target, &options).await?;
    super::success(registry, true)
}

/// Notes in the pod's status that it did not fail by itself: Jobs may go by that.
async fn say_why(
    registry: &Registry,
    context: &Context,
    pods: &Definition,
    target: &Target,
) -> Result<(), ApiError> {
    let status = target.clone().with_subresource("status");
    let own = Context { user: context.user.clone(), is_own: false, ..Context::system() };
    let mut with_condition = |old: &Value, _: Option<&Value>| {
        let mut new = old.clone();
        let others = items_at(old, "/status/conditions").iter().filter(|it| it["type"] != DISRUPTED).cloned();
        let mut conditions: Vec<Value> = others.collect();
        conditions.push(json!({
            "type": DISRUPTED,
            "status": "True",
            "lastTransitionTime": crate::registry::generic::now_text(),
            "reason": "EvictionByEvictionAPI",
            "message": "Eviction API: evicting",
        }));
        new["status"]["conditions"] = conditions.into();
        Ok(new)
    };
    registry.modify(&own, pods, &status, Race::Rebases, Tracking::Changes, &mut with_condition).await?;
    Ok(())
}

/// Finished, dying and never-started pods are evicted whatever the budgets say.
fn is_budgeted(pod: &Value) -> bool {
    let phase = str_at(pod, "/status/phase");
    meta_str(pod, "deletionTimestamp").is_empty() && !matches!(phase, "Succeeded" | "Failed" | "Pending" | "")
}

async fn budgets_of(registry: &Registry, pod: &CachedObject) -> Result<Vec<Value>, ApiError> {
    let all = registry.all("policy", "poddisruptionbudgets", Some(&pod.namespace)).await?;
    let selects = |b: &Value| {
        b.pointer("/spec/selector")
            .and_then(LabelSelector::from_object)
            .is_some_and(|s| s.matches(&pod.labels))
    };
    Ok(all.iter().map(|b| b.value()).filter(selects).collect())
}

/// Counts the disruption before it happens, so that two evictions cannot share one allowance.
async fn take_from_budget(
    registry: &Registry,
    context: &Context,
    budget: &Value,
    pod: &str,
    dry_run: bool,
) -> Result<(), ApiError> {
    let definition =
        registry.find("policy", "v1", "poddisruptionbudgets").ok_or_else(ApiError::no_such_path)?;
    let name = meta_str(budget, "name");
    let target = Target::named(Some(meta_str(budget, "namespace")), name).with_subresource("status");
    let take = Context { user: context.user.clone(), dry_run, is_own: false, ..Context::system() };
    registry
        .modify(&take, &definition, &target, Race::Rebases, Tracking::Changes, &mut |old, _| {
            let observed = old.pointer("/status/observedGeneration").and_then(Value::as_i64).unwrap_or(0);
            let generation = old.pointer("/metadata/generation").and_then(Value::as_i64).unwrap_or(0);
            if observed < generation {
                return Err(ApiError::too_many_requests(
                    "Cannot evict pod as it would violate the pod's disruption budget.",
                    10,
                )
                .with_cause(
                    "DisruptionBudget",
                    format!("The disruption budget {name} is still being processed by the server."),
                    None,
                ));
            }
            let allowed = old.pointer("/status/disruptionsAllowed").and_then(Value::as_i64).unwrap_or(0);
            if allowed <= 0 {
                let number =
                    |f: &str| old.pointer(&format!("/status/{f}")).and_then(Value::as_i64).unwrap_or(0);
                return Err(ApiError::too_many_requests(
                    "Cannot evict pod as it would violate the pod's disruption budget.",
                    0,
                )
                .with_cause(
                    "DisruptionBudget",
                    format!(
                        "The disruption budget {name} needs {} healthy pods and has {} currently",
                        number("desiredHealthy"),
                        number("currentHealthy")
                    ),
                    None,
                ));
            }
            let mut new = old.clone();
            new["status"]["disruptionsAllowed"] = json!(allowed - 1);
            if !new["status"]["disruptedPods"].is_object() {
                new["status"]["disruptedPods"] = json!({});
            }
            new["status"]["disruptedPods"][pod] = crate::registry::generic::now_text().into();
            Ok(new)
        })
        .await?;
    Ok(())
}
