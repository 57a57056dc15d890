//! Files of an image without a container: a read-only snapshot of containerd's, which CRI v1 of its older versions
//! has no call for.
//!
//! The snapshot is labelled as a root for the runtime's garbage collection, so it lives until it is released.

use std::time::{SystemTime, UNIX_EPOCH};

use containerd_client::services::v1::ReadContentRequest;
use containerd_client::services::v1::content_client::ContentClient;
use containerd_client::services::v1::snapshots::snapshots_client::SnapshotsClient;
use containerd_client::services::v1::snapshots::{
    MountsRequest, MountsResponse, RemoveSnapshotRequest, StatSnapshotRequest, ViewSnapshotRequest,
};
use sha2::{Digest, Sha256};
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use crate::FsMount;

/// Where CRI keeps its images.
const NAMESPACE: &str = "k8s.io";
const GC_ROOT: &str = "containerd.io/gc.root";
/// Where an image may have been unpacked, in the order in which runtimes prefer them.
const SNAPSHOTTERS: [&str; 6] = ["overlayfs", "native", "fuse-overlayfs", "btrfs", "zfs", "devmapper"];
/// The configuration of an image has a line for each layer; this is thousands.
const CONFIG_BYTES_MAX: usize = 4 << 20;

/// Makes the view of this key, or finds it.
pub(super) async fn view(channel: &Channel, image_id: &str, key: &str) -> Result<Vec<FsMount>, Status> {
    let parent = chain_id(&layers(&config(channel, image_id).await?)?);
    let mut snapshots = SnapshotsClient::new(channel.clone());
    for snapshotter in SNAPSHOTTERS.map(str::to_string) {
        let stat = StatSnapshotRequest { snapshotter: snapshotter.clone(), key: parent.clone() };
        if snapshots.stat(named(stat)).await.is_err() {
            continue;
        }
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        let request = ViewSnapshotRequest {
            snapshotter: snapshotter.clone(),
            key: key.to_string(),
            parent: parent.clone(),
            labels: [(GC_ROOT.to_string(), seconds.to_string())].into(),
        };
        let mounts = match snapshots.view(named(request)).await {
            Ok(answer) => answer.into_inner().mounts,
            Err(status) if status.code() == Code::AlreadyExists => {
                let request = MountsRequest { snapshotter, key: key.to_string() };
                let MountsResponse { mounts } = snapshots.mounts(named(request)).await?.into_inner();
                mounts
            }
            Err(status) => return Err(status),
        };
        let mounts = mounts.into_iter();
        return Ok(mounts
            .map(|m| FsMount { fs_type: m.r#type, source: m.source, options: m.options })
            .collect());
    }
    Err(Status::failed_precondition(format!("image {image_id} is not unpacked by a snapshotter known here")))
}

/// Removes the view of this key, wherever it is.
pub(super) async fn release(channel: &Channel, key: &str) -> Result<(), Status> {
    let mut snapshots = SnapshotsClient::new(channel.clone());
    for snapshotter in SNAPSHOTTERS.map(str::to_string) {
        let stat = StatSnapshotRequest { snapshotter: snapshotter.clone(), key: key.to_string() };
        if snapshots.stat(named(stat)).await.is_ok() {
            let request = RemoveSnapshotRequest { snapshotter, key: key.to_string() };
            snapshots.remove(named(request)).await?;
        }
    }
    Ok(())
}

fn named<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request
        .metadata_mut()
        .insert("containerd-namespace", tonic::metadata::MetadataValue::from_static(NAMESPACE));
    request
}

/// The configuration of an image; its digest is the id that CRI gives.
async fn config(channel: &Channel, image_id: &str) -> Result<Vec<u8>, Status> {
    let request = ReadContentRequest { digest: image_id.to_string(), offset: 0, size: 0 };
    let mut stream = ContentClient::new(channel.clone()).read(named(request)).await?.into_inner();
    let mut bytes = Vec::new();
    while let Some(part) = stream.message().await? {
        bytes.extend(part.data);
        if bytes.len() > CONFIG_BYTES_MAX {
            return Err(Status::resource_exhausted(format!(
                "the configuration of image {image_id} is too large"
            )));
        }
    }
    Ok(bytes)
}

/// Digests of the layers, lowest first.
fn layers(config: &[u8]) -> Result<Vec<String>, Status> {
    let config: serde_json::Value = serde_json::from_slice(config)
        .map_err(|error| Status::data_loss(format!("the configuration of the image is no JSON: {error}")))?;
    let layers = config.pointer("/rootfs/diff_ids").and_then(serde_json::Value::as_array);
    let layers = layers.into_iter().flatten().filter_map(|id| id.as_str()).map(str::to_string);
    Ok(layers.collect())
}

/// The name of the snapshot of all layers, as the OCI image specification computes it.
fn chain_id(layers: &[String]) -> String {
    let mut layers = layers.iter();
    let first = layers.next().cloned().unwrap_or_default();
    layers.fold(first, |chain, layer| {
        let digest = Sha256::digest(format!("{chain} {layer}").as_bytes());
        let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("sha256:{hex}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chain_of_one_layer_is_the_layer_and_of_two_the_digest_of_both() {
        assert_eq!(chain_id(&["sha256:a".to_string()]), "sha256:a");
        let digest = Sha256::digest(b"sha256:a sha256:b");
        let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(chain_id(&["sha256:a".to_string(), "sha256:b".to_string()]), format!("sha256:{hex}"));
    }

    #[test]
    fn layers_are_read_from_the_configuration() {
        let config = br#"{"rootfs": {"type": "layers", "diff_ids": ["sha256:a", "sha256:b"]}}"#;
        assert_eq!(layers(config).unwrap(), ["sha256:a", "sha256:b"]);
        assert!(layers(b"{}").unwrap().is_empty());
        assert!(layers(b"no").is_err());
    }
}
