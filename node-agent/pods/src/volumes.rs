//! Volumes of a pod: made before its containers start, refreshed while it runs, taken down when it is gone.
//!
//! Every volume is a directory (or a host path); where it lies follows from the pod's UID and the volume's name, so
//! that a restarted agent finds it. Layout as of other kubelets: `<dir>/pods/<uid>/volumes/<plugin>/<name>`.

pub mod atomic;
pub mod mounts;
pub mod payload;
mod token;

use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{
    KeyToPath, PersistentVolume, PersistentVolumeClaim, ProjectedVolumeSource, Volume,
};
use kube::Api;

use penstock_runtime::RuntimeError;

use crate::desired::Desired;
use crate::fields::{Addresses, Allocatable};
use crate::image_volumes;
use crate::images::ImageError;
use crate::objects::{Age, Objects};
use crate::quantity;
use atomic::Files;
pub use token::Tokens;

/// Why a volume is not there.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// The object it shows does not exist.
    #[error("{kind} \"{name}\" not found")]
    NoObject { kind: &'static str, name: String },
    /// The object lacks a key.
    #[error("{kind} \"{name}\" references non-existent key: {key}")]
    NoKey { kind: &'static str, name: String, key: String },
    /// A downward-API file of a field that does not exist.
    #[error("the field shown by {path} does not exist")]
    NoField { path: String },
    /// A host path is not what the pod says it is.
    #[error("hostPath type check failed: {path} is not a {kind}")]
    HostPath { path: String, kind: String },
    /// A sub-path leaves its volume.
    #[error("subPath {path} is not inside its volume")]
    SubPath { path: String },
    /// A claim that is not bound to something we can mount.
    #[error("persistentvolumeclaim \"{name}\": {message}")]
    Claim { name: String, message: String },
    /// An image that a volume shows cannot be had.
    #[error("image \"{image}\": {source}")]
    Image { image: String, source: ImageError },
    /// The runtime does not show the files of an image.
    #[error("the runtime cannot show the files of image \"{image}\": {source}")]
    View { image: String, source: RuntimeError },
    /// Nothing here knows this kind of volume.
    #[error("volume \"{name}\" is of a kind this node cannot mount")]
    Unsupported { name: String },
    /// A container mounts a volume the pod does not have.
    #[error("volume \"{name}\" is not declared in the pod")]
    Undeclared { name: String },
    /// The API server did not answer.
    #[error("cannot read what the volume shows: {source}")]
    Api {
        #[from]
        source: Box<kube::Error>,
    },
    /// The file system refused.
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: std::io::Error },
}

impl From<kube::Error> for VolumeError {
    fn from(source: kube::Error) -> Self {
        Self::Api { source: Box::new(source) }
    }
}

/// What making volumes needs.
pub struct Volumes {
    /// API.
    pub client: kube::Client,
    /// Cached reads.
    pub objects: std::sync::Arc<Objects>,
    /// Service-account tokens.
    pub tokens: Tokens,
    /// `<kubelet_dir>`.
    pub kubelet_dir: PathBuf,
    /// For resource fields.
    pub node: Allocatable,
}

impl Volumes {
    /// Everything of one pod on this node.
    pub fn pod_dir(&self, uid: &str) -> PathBuf {
        self.kubelet_dir.join("pods").join(uid)
    }

    /// Where a volume of a kind of plugin lies.
    pub fn dir(&self, uid: &str, plugin: &str, name: &str) -> PathBuf {
        self.pod_dir(uid).join("volumes").join(format!("kubernetes.io~{plugin}")).join(name)
    }

    /// Makes or refreshes all volumes of a pod. Idempotent.
    ///
    /// # Errors
    /// The first that cannot be made, after all have been tried.
    pub async fn ensure(
        &self,
        desired: &Desired,
        addresses: &Addresses,
        age: Age,
    ) -> Result<(), (String, VolumeError)> {
        let mut first = Ok(());
        for volume in desired.spec().volumes.iter().flatten() {
            if let Err(error) = self.ensure_one(desired, volume, addresses, age).await
                && first.is_ok()
            {
                first = Err((volume.name.clone(), error));
            }
        }
        first
    }

    /// Whether something in the pod changes after it has started.
    pub fn is_live(desired: &Desired) -> bool {
        desired.spec().volumes.iter().flatten().any(|v| {
            v.config_map.is_some() || v.secret.is_some() || v.projected.is_some() || v.downward_api.is_some()
        })
    }

    async fn ensure_one(
        &self,
        desired: &Desired,
        volume: &Volume,
        addresses: &Addresses,
        age: Age,
    ) -> Result<(), VolumeError> {
        let group = fs_group(desired);
        let Some(dir) = self.host_dir(desired, volume).await? else {
            return Err(VolumeError::Unsupported { name: volume.name.clone() });
        };
        let io = |source| VolumeError::Io { path: dir.clone(), source };
        if let Some(empty) = &volume.empty_dir {
            if empty.medium.as_deref() == Some("Memory") {
                let size = empty.size_limit.as_ref().and_then(quantity::whole);
                return mounts::ensure_memory_dir(&dir, size, group).map_err(io);
            }
            return mounts::ensure_empty_dir(&dir, group).map_err(io);
        }
        if let Some(host) = &volume.host_path {
            return mounts::ensure_host_path(&host.path, host.type_.as_deref().unwrap_or_default());
        }
        let files = if let Some(source) = &volume.config_map {
            let optional = source.optional.unwrap_or(false);
            let object = self.objects.config_map(&desired.namespace, &source.name, age).await?;
            let mode = source.default_mode.unwrap_or(payload::MODE);
            payload::config_map(object.as_ref(), &source.name, source.items.as_deref(), mode, optional)?
        } else if let Some(source) = &volume.secret {
            let name = source.secret_name.clone().unwrap_or_default();
            let optional = source.optional.unwrap_or(false);
            let object = self.objects.secret(&desired.namespace, &name, age).await?;
            let mode = source.default_mode.unwrap_or(payload::MODE);
            payload::secret(object.as_ref(), &name, source.items.as_deref(), mode, optional)?
        } else if let Some(source) = &volume.downward_api {
            let items = source.items.as_deref().unwrap_or_default();
            payload::downward(
                desired,
                items,
                source.default_mode.unwrap_or(payload::MODE),
                addresses,
                &self.node,
            )?
        } else if let Some(source) = &volume.projected {
            self.projected(desired, source, addresses, age).await?
        } else {
            return Ok(());
        };
        atomic::apply(&dir, &files, group).map(|_| ()).map_err(io)
    }

    async fn projected(
        &self,
        desired: &Desired,
        source: &ProjectedVolumeSource,
        addresses: &Addresses,
        age: Age,
    ) -> Result<Files, VolumeError> {
        let mode = source.default_mode.unwrap_or(payload::MODE);
        let mut files = Files::new();
        for part in source.sources.iter().flatten() {
            let items = |i: &Option<Vec<KeyToPath>>| i.clone().unwrap_or_default();
            if let Some(s) = &part.config_map {
                let object = self.objects.config_map(&desired.namespace, &s.name, age).await?;
                let optional = s.optional.unwrap_or(false);
                files.extend(payload::config_map(
                    object.as_ref(),
                    &s.name,
                    Some(&items(&s.items)),
                    mode,
                    optional,
                )?);
            }
            if let Some(s) = &part.secret {
                let object = self.objects.secret(&desired.namespace, &s.name, age).await?;
                let optional = s.optional.unwrap_or(false);
                files.extend(payload::secret(
                    object.as_ref(),
                    &s.name,
                    Some(&items(&s.items)),
                    mode,
                    optional,
                )?);
            }
            if let Some(s) = &part.downward_api {
                let items = s.items.as_deref().unwrap_or_default();
                files.extend(payload::downward(desired, items, mode, addresses, &self.node)?);
            }
            if let Some(s) = &part.service_account_token {
                let token = self.tokens.token(&self.client, desired, s).await?;
                // Private to root, unless the pod says who reads it.
                let user = desired.spec().security_context.as_ref().and_then(|c| c.run_as_user);
                let mode = if fs_group(desired).is_some() || user.is_none() && mode == payload::MODE {
                    mode
                } else {
                    mode | 0o044
                };
                files.insert(s.path.clone(), (token.into_bytes(), u32::try_from(mode).unwrap_or(0o644)));
            }
        }
        Ok(files)
    }

    /// Where a volume lies on the node; `None` for kinds nobody here knows.
    pub async fn host_dir(&self, desired: &Desired, volume: &Volume) -> Result<Option<PathBuf>, VolumeError> {
        let dir = |plugin: &str| Some(self.dir(&desired.uid, plugin, &volume.name));
        Ok(if volume.empty_dir.is_some() {
            dir("empty-dir")
        } else if volume.config_map.is_some() {
            dir("configmap")
        } else if volume.secret.is_some() {
            dir("secret")
        } else if volume.projected.is_some() {
            dir("projected")
        } else if volume.downward_api.is_some() {
            dir("downward-api")
        } else if volume.image.is_some() {
            dir(image_volumes::PLUGIN)
        } else if let Some(host) = &volume.host_path {
            Some(PathBuf::from(&host.path))
        } else if let Some(claim) = &volume.persistent_volume_claim {
            Some(self.claim(&desired.namespace, &claim.claim_name).await?)
        } else if volume.ephemeral.is_some() {
            Some(self.claim(&desired.namespace, &format!("{}-{}", desired.name, volume.name)).await?)
        } else {
            None
        })
    }

    /// A claim bound to a volume that is a path on this node.
    async fn claim(&self, namespace: &str, name: &str) -> Result<PathBuf, VolumeError> {
        let failed =
            |message: &str| VolumeError::Claim { name: name.to_string(), message: message.to_string() };
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), namespace);
        let claim = claims.get_opt(name).await?.ok_or_else(|| failed("not found"))?;
        let volume = claim.spec.and_then(|s| s.volume_name).filter(|v| !v.is_empty());
        let volume = volume.ok_or_else(|| failed("not bound"))?;
        let volumes: Api<PersistentVolume> = Api::all(self.client.clone());
        let spec = volumes
            .get_opt(&volume)
            .await?
            .and_then(|v| v.spec)
            .ok_or_else(|| failed("its volume is gone"))?;
        if let Some(host) = spec.host_path {
            mounts::ensure_host_path(&host.path, host.type_.as_deref().unwrap_or("DirectoryOrCreate"))?;
            return Ok(PathBuf::from(host.path));
        }
        let local = spec.local.ok_or_else(|| failed("its volume is neither local nor a host path"))?;
        Ok(PathBuf::from(local.path))
    }

    /// Takes down everything of a pod on disk. Idempotent; what cannot be unmounted stays, and is reported.
    pub fn remove(&self, uid: &str) {
        let dir = self.pod_dir(uid);
        self.tokens.forget(uid);
        if mounts::unmount_below(&dir)
            && let Err(error) = std::fs::remove_dir_all(&dir)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(path = %dir.display(), %error, "directory of a gone pod stays");
        }
    }
}

/// Group that owns the pod's volumes.
pub fn fs_group(desired: &Desired) -> Option<u32> {
    let group = desired.spec().security_context.as_ref()?.fs_group?;
    u32::try_from(group).ok()
}

/// The part of a volume a container mounts.
pub fn sub_path(volume: &Path, sub: &str) -> Result<PathBuf, VolumeError> {
    if sub.is_empty() { Ok(volume.to_path_buf()) } else { mounts::ensure_sub_path(volume, sub) }
}
