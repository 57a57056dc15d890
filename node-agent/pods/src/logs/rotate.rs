//! Keeps container logs small: a file past its size is renamed and the runtime told to open a new one.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use penstock_runtime::{ContainerFilter, ContainerState};
use tokio_util::sync::CancellationToken;

use crate::context::Context;
use crate::names;

const SIZE_BYTES_MAX: u64 = 10 * 1024 * 1024;
const FILES_MAX: usize = 5;
const EVERY: Duration = Duration::from_secs(10);

/// Runs until shutdown.
pub async fn run(context: Arc<Context>, shutdown: CancellationToken) {
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
        let Ok(containers) = context.runtime.list_containers(&ContainerFilter::default()).await else {
            continue;
        };
        for c in containers.iter().filter(|c| c.state == ContainerState::Running) {
            let label = |name: &str| c.labels.get(name).map(String::as_str).unwrap_or_default();
            if label(names::POD_UID).is_empty() {
                continue;
            }
            let pod = format!(
                "{}_{}_{}",
                label(names::POD_NAMESPACE),
                label(names::POD_NAME),
                label(names::POD_UID)
            );
            let path = context.config.pod_logs_dir.join(pod).join(&c.name).join(format!("{}.log", c.attempt));
            if std::fs::metadata(&path).is_ok_and(|m| m.len() > SIZE_BYTES_MAX) {
                rotate(&context, &path, &c.id).await;
            }
        }
    }
}

async fn rotate(context: &Context, path: &Path, id: &str) {
    let stamp = jiff::Timestamp::now().strftime("%Y%m%d-%H%M%S");
    let aside = PathBuf::from(format!("{}.{stamp}", path.display()));
    if let Err(error) = std::fs::rename(path, &aside) {
        tracing::warn!(path = %path.display(), %error, "log not rotated");
        return;
    }
    if let Err(error) = context.runtime.reopen_log(id).await {
        tracing::warn!(path = %path.display(), %error, "runtime did not open a new log; the old one is put back");
        let _ = std::fs::rename(&aside, path);
        return;
    }
    for old in plan_removals(&rotated(path)) {
        let _ = std::fs::remove_file(old);
    }
}

fn rotated(path: &Path) -> Vec<PathBuf> {
    let prefix = format!("{}.", path.file_name().unwrap_or_default().to_string_lossy());
    let entries = path.parent().and_then(|dir| std::fs::read_dir(dir).ok()).into_iter().flatten().flatten();
    entries.filter(|e| e.file_name().to_string_lossy().starts_with(&prefix)).map(|e| e.path()).collect()
}

/// The oldest, until with the live file no more than [`FILES_MAX`] are left. Names sort by time.
fn plan_removals(files: &[PathBuf]) -> Vec<PathBuf> {
    let mut files = files.to_vec();
    files.sort();
    files.truncate(files.len().saturating_sub(FILES_MAX - 1));
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_logs_go_first() {
        let files: Vec<PathBuf> = (1..=6).map(|n| PathBuf::from(format!("0.log.2026010{n}"))).collect();
        assert_eq!(plan_removals(&files), files[..2]);
        assert!(plan_removals(&files[..4]).is_empty());
    }
}
