//! ServiceAccount: every pod runs as one, and finds its token where clients look for it.

use async_trait::async_trait;
use serde_json::{Value, json};

use super::{Attributes, Operation, Plugin};
use crate::error::ApiError;
use crate::registry::Registry;
use crate::registry::meta::names;
use crate::registry::object::{items_at, str_at};

pub struct ServiceAccount;

const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// An hour and seven seconds: the lifetime that tells the token issuer the token is one of these.
const TOKEN_SECONDS: i64 = 3607;

#[async_trait]
impl Plugin for ServiceAccount {
    async fn admit(
        &self,
        registry: &Registry,
        a: &Attributes<'_>,
        object: &mut Value,
    ) -> Result<(), ApiError> {
        if !a.is(Operation::Create, "", "pods") || !object["spec"].is_object() {
            return Ok(());
        }
        if object.pointer("/metadata/annotations/kubernetes.io~1config.mirror").is_some() {
            return check_mirror(a, object);
        }
        if str_at(object, "/spec/serviceAccountName").is_empty() {
            object["spec"]["serviceAccountName"] = "default".into();
        }
        let name = str_at(object, "/spec/serviceAccountName").to_string();
        object["spec"]["serviceAccount"] = name.as_str().into();
        let account = match registry.peek("", "serviceaccounts", a.namespace, &name).await? {
            Some(found) => found.value(),
            None => {
                let accounts =
                    registry.find("", "v1", "serviceaccounts").ok_or_else(ApiError::no_such_path)?;
                match registry.load(&accounts, a.namespace, &name).await? {
                    Some((account, _)) => account,
                    None => {
                        return Err(a.forbidden(format!(
                            "error looking up service account {}/{name}: serviceaccount \"{name}\" not found",
                            a.namespace
                        )));
                    }
                }
            }
        };
        let wanted = object
            .pointer("/spec/automountServiceAccountToken")
            .or_else(|| account.get("automountServiceAccountToken"))
            .and_then(Value::as_bool)
            .unwrap_or(true);
        if wanted {
            mount_token(object, &format!("kube-api-access-{}", names::random_suffix()));
        }
        if items_at(object, "/spec/imagePullSecrets").is_empty()
            && !items_at(&account, "/imagePullSecrets").is_empty()
        {
            object["spec"]["imagePullSecrets"] = account["imagePullSecrets"].clone();
        }
        Ok(())
    }
}

fn check_mirror(a: &Attributes<'_>, pod: &Value) -> Result<(), ApiError> {
    if !str_at(pod, "/spec/serviceAccountName").is_empty() {
        return Err(a.forbidden("a mirror pod may not reference service accounts"));
    }
    if items_at(pod, "/spec/volumes").iter().any(|v| v.get("secret").is_some()) {
        return Err(a.forbidden("a mirror pod may not reference secrets"));
    }
    Ok(())
}

/// Adds the projected volume and mounts it in every container that has nothing else at its place.
fn mount_token(pod: &mut Value, fresh_name: &str) {
    let existing = items_at(pod, "/spec/volumes")
        .iter()
        .filter_map(|v| v["name"].as_str())
        .find(|n| n.starts_with("kube-api-access-"))
        .map(str::to_string);
    let volume = existing.clone().unwrap_or_else(|| fresh_name.to_string());
    let mut mounted = false;
    for list in ["initContainers", "containers"] {
        let Some(containers) = pod.pointer_mut(&format!("/spec/{list}")).and_then(Value::as_array_mut) else {
            continue;
        };
        for container in containers {
            if items_at(container, "/volumeMounts").iter().any(|m| m["mountPath"] == MOUNT_PATH) {
                continue;
            }
            let mount = json!({"name": volume, "readOnly": true, "mountPath": MOUNT_PATH});
            match container.get_mut("volumeMounts").and_then(Value::as_array_mut) {
                Some(mounts) => mounts.push(mount),
                None => container["volumeMounts"] = json!([mount]),
            }
            mounted = true;
        }
    }
    if !mounted || existing.is_some() {
        return;
    }
    let token = json!({
        "name": volume,
        "projected": {
            "defaultMode": 0o644,
            "sources": [
                {"serviceAccountToken": {"expirationSeconds": TOKEN_SECONDS, "path": "token"}},
                {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
                {"downwardAPI": {"items": [
                    {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}
                ]}}
            ]
        }
    });
    match pod.pointer_mut("/spec/volumes").and_then(Value::as_array_mut) {
        Some(volumes) => volumes.push(token),
        None => pod["spec"]["volumes"] = json!([token]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_is_mounted_once_in_every_container() {
        let mut pod = json!({"spec": {"containers": [{"name": "a"}, {"name": "b"}]}});
        mount_token(&mut pod, "kube-api-access-x");
        mount_token(&mut pod, "kube-api-access-y");
        assert_eq!(items_at(&pod, "/spec/volumes").len(), 1);
        assert_eq!(pod["spec"]["containers"][1]["volumeMounts"][0]["mountPath"], MOUNT_PATH);
        assert_eq!(items_at(&pod, "/spec/containers/1/volumeMounts").len(), 1);
    }

    #[test]
    fn a_container_that_mounts_its_own_is_left_alone() {
        let mut pod = json!({"spec": {"containers": [{"name": "a", "volumeMounts": [{"name": "x", "mountPath": MOUNT_PATH}]}]}});
        let before = pod.clone();
        mount_token(&mut pod, "kube-api-access-x");
        assert_eq!(pod, before);
    }
}
