//! Pods from manifests in a directory of the node. They run with or without an API server; what the API shows of them
//! are mirrors (see `mirror`).
//!
//! The directory is looked at every few seconds. A changed manifest is another pod: its UID is a hash of node, file and
//! content, so a restarted agent finds its containers again. It must not know how pods are run.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, Toleration};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::names;

const LOOK: Duration = Duration::from_secs(3);
const MANIFEST_BYTES_MAX: u64 = 1024 * 1024;
const MANIFESTS_MAX: usize = 110;

/// Why a manifest is not run.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
enum ManifestError {
    #[error("not a pod in YAML or JSON: {message}")]
    Decode { message: String },
    #[error("kind is {kind}, not Pod of v1")]
    Kind { kind: String },
    #[error("metadata.name and spec.containers are needed")]
    Incomplete,
    #[error("a static pod cannot use {what}, which only the API server has")]
    NeedsApi { what: &'static str },
}

/// The pods of the directory now, by UID. Manifests that cannot be read or are no pods are reported and left out.
pub fn observe(dir: &Path, node: &str) -> BTreeMap<String, Pod> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(dir)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok().map(|e| e.path()))
        .filter(|path| is_manifest(path))
        .collect();
    paths.sort();
    paths.truncate(MANIFESTS_MAX);
    let mut pods = BTreeMap::new();
    for path in paths {
        let size = std::fs::metadata(&path).map_or(0, |m| m.len());
        if size > MANIFEST_BYTES_MAX {
            tracing::warn!(path = %path.display(), size, "manifest too large");
            continue;
        }
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "manifest not read");
                continue;
            }
        };
        match compile(&text, &path, node) {
            Ok(pod) => {
                pods.insert(pod.metadata.uid.clone().unwrap_or_default(), pod);
            }
            Err(error) => tracing::warn!(path = %path.display(), %error, "manifest not run"),
        }
    }
    pods
}

/// Sends the directory's pods whenever they change, until shutdown.
pub async fn run(
    dir: PathBuf,
    node: String,
    pods: watch::Sender<BTreeMap<String, Pod>>,
    shutdown: CancellationToken,
) {
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(LOOK) => {}
        }
        let (dir, node) = (dir.clone(), node.clone());
        let Ok(now) = tokio::task::spawn_blocking(move || observe(&dir, &node)).await else {
            continue;
        };
        pods.send_if_modified(|old| {
            let changed = !old.keys().eq(now.keys());
            if changed {
                *old = now;
            }
            changed
        });
    }
}

fn is_manifest(path: &Path) -> bool {
    let hidden = path.file_name().is_none_or(|name| name.to_string_lossy().starts_with('.'));
    let known = path.extension().is_some_and(|e| e == "yaml" || e == "yml" || e == "json" || e == "manifest");
    !hidden && known
}

/// The pod as this node runs it: named after the node, bound to it, tolerant of everything that evicts.
fn compile(text: &str, path: &Path, node: &str) -> Result<Pod, ManifestError> {
    let decode = |e: serde_yaml::Error| ManifestError::Decode { message: e.to_string() };
    let raw: serde_json::Value = serde_yaml::from_str(text).map_err(decode)?;
    let field = |name: &str| raw.get(name).and_then(|v| v.as_str()).unwrap_or_default();
    if field("kind") != "Pod" || field("apiVersion") != "v1" {
        return Err(ManifestError::Kind { kind: format!("{} of {}", field("kind"), field("apiVersion")) });
    }
    let mut pod: Pod = serde_yaml::from_str(text).map_err(decode)?;
    let uid = hash(&[node.as_bytes(), path.as_os_str().as_encoded_bytes(), text.as_bytes()]);
    let name = pod.metadata.name.clone().filter(|n| !n.is_empty());
    let (Some(name), Some(spec)) = (name, pod.spec.as_mut().filter(|s| !s.containers.is_empty())) else {
        return Err(ManifestError::Incomplete);
    };
    if spec.service_account_name.as_deref().is_some_and(|s| !s.is_empty()) {
        return Err(ManifestError::NeedsApi { what: "a service account" });
    }
    spec.node_name = Some(node.to_string());
    let everything = Toleration {
        operator: Some("Exists".into()),
        effect: Some("NoExecute".into()),
        ..Default::default()
    };
    let tolerations = spec.tolerations.get_or_insert_default();
    if !tolerations.contains(&everything) {
        tolerations.push(everything);
    }
    let meta = &mut pod.metadata;
    meta.name = Some(format!("{name}-{node}"));
    meta.namespace.get_or_insert_with(|| "default".to_string());
    let annotations = meta.annotations.get_or_insert_default();
    annotations.insert(names::CONFIG_HASH.into(), uid.clone());
    annotations.insert(names::CONFIG_SOURCE.into(), "file".into());
    meta.uid = Some(uid);
    pod.status = None;
    Ok(pod)
}

/// FNV-1a of 128 bits, the same in every build; not meant against forgers, who would need to write the directory.
fn hash(parts: &[&[u8]]) -> String {
    let bytes = parts.iter().flat_map(|part| part.iter().copied().chain([0]));
    let hash = bytes.fold(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d_u128, |h, b| {
        (h ^ u128::from(b)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b)
    });
    format!("{hash:032x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST: &str =
        "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec:\n  containers: [{name: c, image: a/b:1}]\n";

    #[test]
    fn a_manifest_becomes_a_pod_of_this_node_with_a_uid_that_lasts() {
        let path = Path::new("/m/web.yaml");
        let pod = compile(MANIFEST, path, "n1").unwrap();
        assert_eq!(pod.metadata.name.as_deref(), Some("web-n1"));
        assert_eq!(pod.metadata.namespace.as_deref(), Some("default"));
        let spec = pod.spec.as_ref().unwrap();
        assert_eq!(spec.node_name.as_deref(), Some("n1"));
        assert_eq!(spec.tolerations.as_ref().unwrap().len(), 1);
        assert_eq!(compile(MANIFEST, path, "n1").unwrap().metadata.uid, pod.metadata.uid);
        let changed = MANIFEST.replace("a/b:1", "a/b:2");
        assert_ne!(compile(&changed, path, "n1").unwrap().metadata.uid, pod.metadata.uid);
    }

    #[test]
    fn what_is_no_pod_is_refused_with_the_reason() {
        let path = Path::new("/m/x.yaml");
        let kind = compile("apiVersion: v1\nkind: Service\n", path, "n").unwrap_err();
        assert!(matches!(kind, ManifestError::Kind { .. }));
        assert!(matches!(compile("{[", path, "n"), Err(ManifestError::Decode { .. })));
        let empty = "apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec: {containers: []}\n";
        assert_eq!(compile(empty, path, "n"), Err(ManifestError::Incomplete));
        let account = MANIFEST.replace("spec:\n", "spec:\n  serviceAccountName: a\n");
        assert!(matches!(compile(&account, path, "n"), Err(ManifestError::NeedsApi { .. })));
    }

    #[test]
    fn only_manifests_of_the_directory_are_looked_at() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a.yaml", ".hidden.yaml", "notes.txt"] {
            std::fs::write(dir.path().join(name), MANIFEST).unwrap();
        }
        std::fs::write(dir.path().join("b.json"), "nonsense").unwrap();
        assert_eq!(observe(dir.path(), "n").len(), 1);
        assert!(observe(&dir.path().join("absent"), "n").is_empty());
    }
}
