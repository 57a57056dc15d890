//! Writes a pod's status to the API server, newest only: what was overtaken while a write was under way is never sent.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Map, Value, json};
use tokio::sync::watch;

use crate::context::Context;
use crate::desired::{Desired, Origin};
use crate::mirror;

const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(10);
const MIRROR_CHECK: Duration = Duration::from_secs(10);

/// One pod's writer; its task ends with it, after the last status was written or refused.
pub struct StatusWriter {
    wanted: watch::Sender<Option<PodStatus>>,
    written: watch::Receiver<Option<PodStatus>>,
}

impl StatusWriter {
    /// `current` is the status the API server has.
    pub fn start(context: Arc<Context>, desired: Arc<Desired>, current: PodStatus) -> Self {
        let (wanted, orders) = watch::channel(None);
        let (done, written) = watch::channel(None);
        tokio::spawn(write(context, desired, current, orders, done));
        Self { wanted, written }
    }

    /// Hands over a status; returns at once.
    pub fn set(&self, status: PodStatus) {
        self.wanted.send_if_modified(|old| {
            let changed = old.as_ref() != Some(&status);
            if changed {
                *old = Some(status);
            }
            changed
        });
    }

    /// Whether the API server has what was last handed over.
    pub fn is_written(&self) -> bool {
        *self.wanted.borrow() == *self.written.borrow()
    }

    /// Resolves when a write has been done.
    pub async fn progress(&mut self) {
        if self.written.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

async fn write(
    context: Arc<Context>,
    desired: Arc<Desired>,
    mut current: PodStatus,
    mut orders: watch::Receiver<Option<PodStatus>>,
    done: watch::Sender<Option<PodStatus>>,
) {
    let Desired { namespace, name, .. } = &*desired;
    let api: Api<Pod> = Api::namespaced(context.client.clone(), namespace);
    let is_static = desired.origin == Origin::File;
    // Whose status is written: the pod itself, or the mirror of a pod from a manifest once it is known.
    let mut uid = (!is_static).then(|| desired.uid.clone());
    let mut pause = RETRY_MIN;
    loop {
        tokio::select! {
            changed = orders.changed() => if changed.is_err() { return },
            // Somebody may have removed the mirror.
            () = tokio::time::sleep(MIRROR_CHECK), if is_static => uid = None,
        }
        loop {
            let Some(wanted) = orders.borrow_and_update().clone() else {
                break;
            };
            let result = write_once(&context, &desired, &api, &mut uid, &mut current, &wanted).await;
            match result {
                Ok(()) => {
                    pause = RETRY_MIN;
                    done.send_replace(Some(wanted));
                    break;
                }
                // Gone, or another pod of that name: nobody wants this status any more. A mirror is made anew.
                Err(kube::Error::Api(e)) if e.code == 404 || e.code == 409 => {
                    done.send_replace(Some(wanted));
                    if !is_static {
                        break;
                    }
                    uid = None;
                }
                Err(error) => {
                    tracing::warn!(pod = %format!("{namespace}/{name}"), %error, "status not written; trying again");
                }
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                closed = orders.changed() => if closed.is_err() { return },
            }
            pause = (pause * 2).min(RETRY_MAX);
        }
    }
}

async fn write_once(
    context: &Context,
    desired: &Desired,
    api: &Api<Pod>,
    uid: &mut Option<String>,
    current: &mut PodStatus,
    wanted: &PodStatus,
) -> Result<(), kube::Error> {
    let uid = match uid {
        Some(uid) => uid,
        None => {
            let (found, status) = mirror::ensure(context, desired).await?;
            *current = status;
            uid.insert(found)
        }
    };
    if let Some(patch) = compile_patch(uid, current, wanted) {
        api.patch_status(&desired.name, &PatchParams::default(), &Patch::Strategic(patch)).await?;
        context.metrics.status_writes.inc();
        *current = wanted.clone();
    }
    Ok(())
}

/// The strategic patch from one status to the other; `None` when nothing changed. The UID in it keeps the status of a
/// pod from landing on its successor of the same name.
fn compile_patch(uid: &str, from: &PodStatus, to: &PodStatus) -> Option<Value> {
    let object = |status: &PodStatus| match serde_json::to_value(status) {
        Ok(Value::Object(map)) => map,
        _ => Map::new(),
    };
    let (from, to) = (object(from), object(to));
    let mut patch = Map::new();
    for (key, value) in &to {
        if from.get(key) != Some(value) {
            patch.insert(key.clone(), value.clone());
        }
    }
    for key in from.keys().filter(|k| !to.contains_key(*k)) {
        patch.insert(key.clone(), Value::Null);
    }
    // Lists of addresses are merged by address; a changed one must replace the old.
    for key in ["podIPs", "hostIPs"] {
        if let (Some(Value::Array(new)), Some(Value::Array(_))) = (patch.get_mut(key), from.get(key)) {
            new.insert(0, json!({"$patch": "replace"}));
        }
    }
    // Conditions are merged by type: what one no longer has must be taken out by name, or an old reason stays for ever.
    if let (Some(Value::Array(new)), Some(Value::Array(old))) =
        (patch.get_mut("conditions"), from.get("conditions"))
    {
        clear_what_left(new, old);
    }
    (!patch.is_empty()).then(|| json!({"metadata": {"uid": uid}, "status": patch}))
}

fn clear_what_left(new: &mut Vec<Value>, old: &[Value]) {
    let mut removed = Vec::new();
    for before in old.iter().filter_map(Value::as_object) {
        let kind = before.get("type");
        let now = new.iter_mut().filter_map(Value::as_object_mut);
        match now.into_iter().find(|c| c.get("type") == kind) {
            Some(now) => {
                for key in before.keys() {
                    now.entry(key.clone()).or_insert(Value::Null);
                }
            }
            None => removed.push(json!({"type": kind, "$patch": "delete"})),
        }
    }
    new.extend(removed);
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::PodCondition;

    #[test]
    fn a_condition_that_turned_true_loses_its_reason_and_one_that_went_is_deleted() {
        let condition = |kind: &str, status: &str, reason: Option<&str>| PodCondition {
            type_: kind.into(),
            status: status.into(),
            reason: reason.map(str::to_string),
            ..Default::default()
        };
        let with =
            |conditions: Vec<PodCondition>| PodStatus { conditions: Some(conditions), ..Default::default() };
        let from = with(vec![
            condition("Ready", "False", Some("ContainersNotReady")),
            condition("Old", "True", None),
        ]);
        let to = with(vec![condition("Ready", "True", None)]);
        let patch = compile_patch("u", &from, &to).unwrap();
        let want = json!([
            {"type": "Ready", "status": "True", "reason": null},
            {"type": "Old", "$patch": "delete"},
        ]);
        assert_eq!(patch["status"]["conditions"], want);
    }

    #[test]
    fn a_patch_holds_what_changed_and_nothing_else() {
        let from =
            PodStatus { phase: Some("Pending".into()), reason: Some("x".into()), ..Default::default() };
        let to = PodStatus { phase: Some("Running".into()), ..Default::default() };
        assert_eq!(compile_patch("u", &from, &from), None);
        let want = json!({"metadata": {"uid": "u"}, "status": {"phase": "Running", "reason": null}});
        assert_eq!(compile_patch("u", &from, &to), Some(want));
    }
}
