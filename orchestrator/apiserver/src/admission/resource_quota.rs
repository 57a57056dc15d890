//! ResourceQuota: what a write adds is charged to the quotas of its namespace before it is stored, or refused.
//!
//! A charge is a compare-and-set of the quota's `status.used`, so that no two writes, through whichever server, are
//! let in on the same rest. Nothing is taken back if the write fails afterwards: the controller counts what is there
//! and corrects the sum.

mod charge;

use async_trait::async_trait;
use jiff::Timestamp;
use penstock_quota::{Measured, has_time_limit};
use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::{Attributes, Operation, Plugin};
use crate::error::ApiError;
use crate::registry::Registry;
use crate::registry::context::{Context, Target};
use crate::registry::generic::update::Race;
use crate::registry::object::CachedObject;
use crate::registry::ownership::Tracking;
use charge::{Charged, plan};

/// How many namespaces can be charged at once by one server.
const TURNS: usize = 64;

/// The last plugin that may refuse: what it has charged should be stored.
pub struct ResourceQuota {
    /// Writers of one namespace take turns: they would only make each other start again.
    turns: Vec<Mutex<()>>,
}

impl Default for ResourceQuota {
    fn default() -> Self {
        Self { turns: (0..TURNS).map(|_| Mutex::default()).collect() }
    }
}

#[async_trait]
impl Plugin for ResourceQuota {
    async fn validate(
        &self,
        registry: &Registry,
        a: &Attributes<'_>,
        object: Option<&Value>,
    ) -> Result<(), ApiError> {
        let Some(object) = object.filter(|object| may_add(a, object)) else { return Ok(()) };
        let quotas = registry.all("", "resourcequotas", Some(a.namespace)).await?;
        if quotas.is_empty() {
            return Ok(());
        }
        let charged = Charged {
            measured: Measured::new(&a.definition.group, &a.definition.plural),
            before: a.old,
            after: object,
            now: Timestamp::now(),
        };
        let mut due = Vec::new();
        for quota in &quotas {
            if plan(&quota.value(), &charged).map_err(|why| a.forbidden(why))?.is_some() {
                due.push(quota);
            }
        }
        if a.context.dry_run || due.is_empty() {
            return Ok(());
        }
        let _turn = self.turns[turn_of(a.namespace)].lock().await;
        for quota in due {
            charge(registry, a, quota, &charged).await?;
        }
        Ok(())
    }
}

fn turn_of(namespace: &str) -> usize {
    namespace.bytes().fold(7_usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(usize::from(byte))) % TURNS
}

/// Whether a write can add to what is used.
fn may_add(a: &Attributes<'_>, object: &Value) -> bool {
    let (create, update) = (a.operation == Operation::Create, a.operation == Operation::Update);
    let plural = if a.definition.group.is_empty() { &*a.definition.plural } else { "" };
    match (plural, a.subresource) {
        _ if a.namespace.is_empty() => false,
        ("pods", "") => create || a.old.is_some_and(|old| has_time_limit(old) != has_time_limit(object)),
        ("pods", "resize") => update,
        ("services" | "persistentvolumeclaims", "") => create || update,
        ("persistentvolumeclaims", "status") => {
            let given = |claim: &Value| claim.pointer("/status/allocatedResources").cloned();
            a.old.map(given) != Some(given(object))
        }
        (_, "") => create && !Measured::new(&a.definition.group, &a.definition.plural).is_ignored(),
        _ => false,
    }
}

/// Adds to one quota as it is stored now.
async fn charge(
    registry: &Registry,
    a: &Attributes<'_>,
    quota: &CachedObject,
    charged: &Charged<'_>,
) -> Result<(), ApiError> {
    let quotas = registry.find("", "v1", "resourcequotas").ok_or_else(ApiError::no_such_path)?;
    let target = Target::named(Some(a.namespace), &quota.name).with_subresource("status");
    let mut charged = |old: &Value, _: Option<&Value>| {
        let mut new = old.clone();
        if let Some(used) = plan(old, charged).map_err(|why| a.forbidden(why))? {
            new["status"]["used"] = json!(penstock_quota::amounts::written(&used));
        }
        Ok(new)
    };
    let system = Context::system();
    match registry.modify(&system, &quotas, &target, Race::Rebases, Tracking::Changes, &mut charged).await {
        // It bounds nothing any more.
        Err(gone) if gone.is_not_found() => Ok(()),
        other => other.map(drop),
    }
}
