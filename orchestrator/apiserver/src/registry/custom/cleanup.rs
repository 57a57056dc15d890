//! Empties a custom kind whose definition is being deleted, then lets the definition go.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::follow::{GROUP, PLURAL, definition};
use super::{CLEANUP_FINALIZER, conditions};
use crate::error::ApiError;
use crate::registry::context::{Context, Target};
use crate::registry::generic::now_text;
use crate::registry::generic::update::Race;
use crate::registry::object::items_at;
use crate::registry::options::{DeleteOptions, ListOptions};
use crate::registry::ownership::Tracking;
use crate::registry::{Definition, Registry};

/// Between two looks at what is left.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Starts emptying, unless that is under way.
pub(super) fn spawn(registry: &Arc<Registry>, name: &str) {
    if !registry.begin_cleanup(name) {
        return;
    }
    let (weak, stop, name) = (Arc::downgrade(registry), registry.background(), name.to_owned());
    tokio::spawn(async move {
        let work = async {
            loop {
                let Some(registry) = weak.upgrade() else { return };
                match step(&registry, &name).await {
                    Ok(true) => break,
                    Ok(false) => {}
                    Err(error) => {
                        tracing::warn!(definition = name, %error, "objects of a custom kind could not be deleted")
                    }
                }
                drop(registry);
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        };
        tokio::select! { () = stop.cancelled() => {}, () = work => {} }
        if let Some(registry) = weak.upgrade() {
            registry.end_cleanup(&name);
        }
    });
}

/// One pass; true when there is nothing left to do.
async fn step(registry: &Arc<Registry>, name: &str) -> Result<bool, ApiError> {
    let crds = definition(registry)?;
    let Some((crd, _)) = registry.load(&crds, "", name).await? else { return Ok(true) };
    if !conditions::is_terminating(&crd) {
        return Ok(true);
    }
    let Some(stored) = registry.served().custom(name).map(|custom| custom.stored.clone()) else {
        // Never served: nothing was ever stored.
        release(registry, &crds, name).await?;
        return Ok(true);
    };
    if stored.custom.as_ref().is_none_or(|custom| !custom.terminating) {
        // What is served has not caught up: new objects could still be made.
        return Ok(false);
    }
    let (left, found) = delete_all(registry, &stored).await?;
    if left > 0 {
        let message = format!("CustomResource deletion is in progress: {left} objects are left");
        tell(registry, &crds, name, "True", "InstanceDeletionInProgress", &message).await?;
        return Ok(false);
    }
    if found > 0 {
        // A create that was under way when deletion began may have landed behind the list: look once more.
        return Ok(false);
    }
    release(registry, &crds, name).await?;
    Ok(true)
}

/// Deletes everything; how many objects are left, and how many there were.
async fn delete_all(registry: &Registry, stored: &Definition) -> Result<(usize, usize), ApiError> {
    let (context, everything) = (Context::system(), Target::collection(None));
    let (options, list) = (DeleteOptions::default(), ListOptions::default());
    let before = registry.delete_collection(&context, stored, &everything, &options, &list).await?;
    let after = registry.list(&context, stored, &everything, &list).await?;
    Ok((after.items.len(), before.items.len()))
}

async fn tell(
    registry: &Registry,
    crds: &Definition,
    name: &str,
    is: &str,
    reason: &str,
    message: &str,
) -> Result<(), ApiError> {
    let target = Target::named(None, name).with_subresource("status");
    let context = Context::system();
    let mut wanted = |old: &Value, _: Option<&Value>| {
        let mut new = old.clone();
        let mut status = new["status"].take();
        conditions::set(&mut status, &now_text(), "Terminating", is, reason, message);
        new["status"] = status;
        Ok(new)
    };
    registry.modify(&context, crds, &target, Race::Rebases, Tracking::Changes, &mut wanted).await.map(drop)
}

/// Takes the finalizer away.
async fn release(registry: &Registry, crds: &Definition, name: &str) -> Result<(), ApiError> {
    let target = Target::named(None, name);
    let context = Context::system();
    let mut wanted = |old: &Value, _: Option<&Value>| {
        let mut new = old.clone();
        let finalizers = items_at(old, "/metadata/finalizers").iter();
        let kept: Vec<Value> = finalizers.filter(|f| *f != CLEANUP_FINALIZER).cloned().collect();
        new["metadata"]["finalizers"] = json!(kept);
        Ok(new)
    };
    match registry.modify(&context, crds, &target, Race::Rebases, Tracking::Changes, &mut wanted).await {
        Err(error) if !error.is_not_found() => {
            tracing::debug!(group = GROUP, plural = PLURAL, name, %error, "a finalizer could not be taken away");
            Err(error)
        }
        _ => Ok(()),
    }
}
