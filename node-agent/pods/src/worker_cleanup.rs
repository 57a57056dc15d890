//! Removing what deleted pods left, when no worker knew them.

use std::time::Duration;

use penstock_runtime::{ContainerFilter, ContainerState};

use crate::context::Context;
use crate::{image_volumes, names};

/// Stops and removes everything of a pod that is in no source, its directory included.
pub async fn stop_orphan(context: &Context, uid: &str, grace_seconds: i64) {
    let grace = Duration::from_secs(u64::try_from(grace_seconds).unwrap_or(30));
    let filter = ContainerFilter { sandbox: None, labels: vec![(names::POD_UID.into(), uid.into())] };
    loop {
        if let Ok(containers) = context.runtime.list_containers(&filter).await {
            let running = containers.iter().filter(|c| c.state == ContainerState::Running);
            let stops = running.map(|c| context.runtime.stop_container(&c.id, grace));
            let stopped = futures::future::join_all(stops).await.iter().all(Result::is_ok);
            if stopped && crate::worker::remove_from_runtime(context, uid).await.is_ok() {
                break;
            }
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    image_volumes::remove_volumes(context, uid).await;
    context.cgroups.remove(uid);
}

/// Removes directories of pods that are neither known nor in the runtime.
pub async fn remove_stale_dirs(context: &Context, known: &[String]) {
    let Ok(sandboxes) = context.runtime.list_sandboxes(&[]).await else {
        return;
    };
    let entries = std::fs::read_dir(context.config.kubelet_dir.join("pods")).into_iter().flatten().flatten();
    for entry in entries {
        let uid = entry.file_name().to_string_lossy().into_owned();
        let lives = sandboxes.iter().any(|s| s.uid == uid) || context.pods.lock().contains_key(&uid);
        if !lives && !known.contains(&uid) {
            image_volumes::remove_volumes(context, &uid).await;
        }
    }
}
