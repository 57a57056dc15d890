//! Writes a pod's status to the API server, newest only: what was overtaken while a write was under way is never sent.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Map, Value, json};
use tokio::sync::watch;

use crate::context::Context;

const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(10);

/// One pod's writer; its task ends with it, after the last status was written or refused.
pub struct StatusWriter {
    wanted: watch::Sender<Option<PodStatus>>,
    written: watch::Receiver<Option<PodStatus>>,
}

impl StatusWriter {
    /// `current` is the status the API server has.
    pub fn start(
        context: Arc<Context>,
        namespace: String,
        name: String,
        uid: String,
        current: PodStatus,
    ) -> Self {
        let (wanted, orders) = watch::channel(None);
        let (done, written) = watch::channel(None);
        tokio::spawn(write(context, (namespace, name, uid), current, orders, done));
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
    (namespace, name, uid): (String, String, String),
    current: PodStatus,
    mut orders: watch::Receiver<Option<PodStatus>>,
    done: watch::Sender<Option<PodStatus>>,
) {
    let api: Api<Pod> = Api::namespaced(context.client.clone(), &namespace);
    let mut current = current;
    let mut pause = RETRY_MIN;
    while orders.changed().await.is_ok() {
        loop {
            let Some(wanted) = orders.borrow_and_update().clone() else {
                break;
            };
            let Some(patch) = compile_patch(&uid, &current, &wanted) else {
                done.send_replace(Some(wanted));
                break;
            };
            match api
                .patch_status(&name, &PatchParams::default(), &Patch::Strategic(patch))
                .await
            {
                Ok(_) => {
                    context.metrics.status_writes.inc();
                    current = wanted.clone();
                    pause = RETRY_MIN;
                    done.send_replace(Some(wanted));
                    break;
                }
                // Gone, or another pod of that name: nobody wants this status any more.
                Err(kube::Error::Api(e)) if e.code == 404 || e.code == 409 => {
                    done.send_replace(Some(wanted));
                    break;
                }
                Err(error) => {
                    tracing::warn!(pod = %format!("{namespace}/{name}"), %error, "status not written; trying again");
                    tokio::select! {
                        () = tokio::time::sleep(pause) => {}
                        closed = orders.changed() => if closed.is_err() { return },
                    }
                    pause = (pause * 2).min(RETRY_MAX);
                }
            }
        }
    }
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
    (!patch.is_empty()).then(|| json!({"metadata": {"uid": uid}, "status": patch}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_holds_what_changed_and_nothing_else() {
        let from = PodStatus {
            phase: Some("Pending".into()),
            reason: Some("x".into()),
            ..Default::default()
        };
        let to = PodStatus {
            phase: Some("Running".into()),
            ..Default::default()
        };
        assert_eq!(compile_patch("u", &from, &from), None);
        let want = json!({"metadata": {"uid": "u"}, "status": {"phase": "Running", "reason": null}});
        assert_eq!(compile_patch("u", &from, &to), Some(want));
    }
}
