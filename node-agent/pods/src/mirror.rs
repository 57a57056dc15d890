//! Mirrors: what the API server shows of pods from manifests. Made, kept and removed here; nobody runs them.

use k8s_openapi::api::core::v1::{Node, Pod, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Api;
use kube::api::{DeleteParams, PostParams, Preconditions};

use crate::context::Context;
use crate::desired::Desired;
use crate::names;

/// Makes sure that the mirror is there, and returns its UID and status. A mirror of an older manifest is replaced.
///
/// # Errors
/// What the API server said; worth another try.
pub async fn ensure(context: &Context, desired: &Desired) -> Result<(String, PodStatus), kube::Error> {
    let api: Api<Pod> = Api::namespaced(context.client.clone(), &desired.namespace);
    let mut found = api.get_opt(&desired.name).await?;
    if let Some(stale) = found.take_if(|pod| !is_mirror_of(pod, &desired.uid)) {
        let uid = stale.metadata.uid.unwrap_or_default();
        remove(context, &desired.namespace, &desired.name, &uid).await?;
    }
    let pod = match found {
        Some(pod) => pod,
        None => {
            let node: Api<Node> = Api::all(context.client.clone());
            let node = node.get_opt(&context.config.node_name).await?;
            let mirror = compile(desired, node.and_then(|n| n.metadata.uid));
            api.create(&PostParams::default(), &mirror).await?
        }
    };
    Ok((pod.metadata.uid.unwrap_or_default(), pod.status.unwrap_or_default()))
}

/// Removes the mirror with this UID at once. One that is gone, or another pod by now, is left.
///
/// # Errors
/// What the API server said; worth another try.
pub async fn remove(context: &Context, namespace: &str, name: &str, uid: &str) -> Result<(), kube::Error> {
    let api: Api<Pod> = Api::namespaced(context.client.clone(), namespace);
    let exactly = Preconditions { uid: Some(uid.to_string()), resource_version: None };
    let params = DeleteParams { preconditions: Some(exactly), ..DeleteParams::default().grace_period(0) };
    match api.delete(name, &params).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(e)) if e.code == 404 || e.code == 409 => Ok(()),
        Err(error) => Err(error),
    }
}

/// Removes the mirror of a manifest that is gone.
///
/// # Errors
/// As [`remove`].
pub async fn remove_of(context: &Context, desired: &Desired) -> Result<(), kube::Error> {
    let api: Api<Pod> = Api::namespaced(context.client.clone(), &desired.namespace);
    match api.get_opt(&desired.name).await? {
        Some(pod) if is_mirror_of(&pod, &desired.uid) => {
            let uid = pod.metadata.uid.unwrap_or_default();
            remove(context, &desired.namespace, &desired.name, &uid).await
        }
        _ => Ok(()),
    }
}

/// The UID of the static pod an object mirrors.
pub fn mirrored(pod: &Pod) -> Option<&str> {
    let annotations = pod.metadata.annotations.as_ref()?;
    annotations.get(names::CONFIG_MIRROR).map(String::as_str)
}

fn is_mirror_of(pod: &Pod, uid: &str) -> bool {
    mirrored(pod) == Some(uid) && pod.metadata.deletion_timestamp.is_none()
}

fn compile(desired: &Desired, node_uid: Option<String>) -> Pod {
    let meta = &desired.pod.metadata;
    let mut annotations = meta.annotations.clone().unwrap_or_default();
    annotations.insert(names::CONFIG_MIRROR.into(), desired.uid.clone());
    let node = desired.spec().node_name.clone().unwrap_or_default();
    let owner = node_uid.map(|uid| OwnerReference {
        api_version: "v1".into(),
        kind: "Node".into(),
        name: node,
        uid,
        controller: Some(true),
        block_owner_deletion: None,
    });
    Pod {
        metadata: ObjectMeta {
            name: meta.name.clone(),
            namespace: meta.namespace.clone(),
            labels: meta.labels.clone(),
            annotations: Some(annotations),
            owner_references: owner.map(|o| vec![o]),
            ..Default::default()
        },
        spec: desired.pod.spec.clone(),
        status: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desired::Origin;

    #[test]
    fn a_mirror_names_the_manifest_and_belongs_to_the_node() {
        let pod: Pod = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "a-n", "namespace": "default", "uid": "hash", "labels": {"l": "x"}},
            "spec": {"nodeName": "n", "containers": [{"name": "c"}]},
        }))
        .unwrap();
        let desired = Desired::new(pod, Origin::File).unwrap();
        let mirror = compile(&desired, Some("node-uid".into()));
        assert!(is_mirror_of(&mirror, "hash") && !is_mirror_of(&mirror, "other"));
        assert_eq!(mirror.metadata.uid, None, "the API server gives it one of its own");
        let owner = &mirror.metadata.owner_references.as_ref().unwrap()[0];
        assert_eq!((owner.kind.as_str(), owner.name.as_str()), ("Node", "n"));
    }
}
