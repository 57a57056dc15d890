//! Volumes that show the files of an image, read only.
//!
//! The image is pulled as a container's would be, and a view of it, named after pod and volume, is mounted where
//! volumes lie. The runtime keeps the view, also while the agent is away; it is released when the pod's volumes go.

use std::path::Path;

use k8s_openapi::api::core::v1::{ImageVolumeSource, Secret};
use penstock_runtime::SandboxConfig;

use crate::context::Context;
use crate::desired::Desired;
use crate::volumes::{VolumeError, mounts};

/// Makes the image volumes of a pod. Idempotent.
///
/// # Errors
/// The name of the first that cannot be made, and why.
pub async fn ensure(
    context: &Context,
    desired: &Desired,
    secrets: &[Secret],
    sandbox: &SandboxConfig,
) -> Result<(), (String, VolumeError)> {
    for volume in desired.spec().volumes.iter().flatten() {
        if let Some(source) = &volume.image {
            let dir = context.volumes.dir(&desired.uid, PLUGIN, &volume.name);
            let made = show(context, &dir, &key(&desired.uid, &volume.name), source, secrets, sandbox).await;
            made.map_err(|error| (volume.name.clone(), error))?;
        }
    }
    Ok(())
}

/// Whether a pod has any.
pub fn any(desired: &Desired) -> bool {
    desired.spec().volumes.iter().flatten().any(|volume| volume.image.is_some())
}

/// Takes down all volumes of a pod on disk, and lets go of the images that some of them showed. Idempotent.
pub async fn remove_volumes(context: &Context, uid: &str) {
    let shown = names(&context.volumes.dir(uid, PLUGIN, ""));
    context.volumes.remove(uid);
    for name in shown {
        if let Err(error) = context.runtime.release_image_view(&key(uid, &name)).await {
            tracing::warn!(uid, volume = name, %error, "the view of an image that a volume showed stays");
        }
    }
}

/// As in the directory of such volumes.
pub const PLUGIN: &str = "image";

fn key(uid: &str, volume: &str) -> String {
    format!("penstock-volume-{uid}-{volume}")
}

async fn show(
    context: &Context,
    dir: &Path,
    key: &str,
    source: &ImageVolumeSource,
    secrets: &[Secret],
    sandbox: &SandboxConfig,
) -> Result<(), VolumeError> {
    let io = |source| VolumeError::Io { path: dir.to_path_buf(), source };
    if mounts::is_mounted(dir) {
        return Ok(());
    }
    let (runtime, policy) = (&*context.runtime, source.pull_policy.as_deref());
    let reference = source.reference.clone().unwrap_or_default();
    let image = context.images.ensure(runtime, &reference, policy, secrets, sandbox).await;
    let (image, _) = image.map_err(|source| VolumeError::Image { image: reference.clone(), source })?;
    // The directory comes first: by it the view is found again when the pod goes.
    std::fs::create_dir_all(dir).map_err(io)?;
    let layers = runtime.view_image(&image.id, key).await;
    let layers = layers.map_err(|source| VolumeError::View { image: reference, source })?;
    mounts::mount_read_only(dir, &layers).map_err(io)
}

fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}
