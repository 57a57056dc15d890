//! The Node authoriser: a node reads what its own pods use, and writes what a node writes.
//!
//! A node is a user `system:node:<name>` in group `system:nodes`. Secrets, config maps, volume claims and tokens are
//! allowed only when a pod bound to that node refers to them. What the network half of the agent needs (it runs with
//! the same credentials) is part of the list.

use serde_json::Value;

use super::Attributes;
use crate::registry::{Context, ListOptions, Registry, Target, User};

const NODES_GROUP: &str = "system:nodes";
const NODE_USER_PREFIX: &str = "system:node:";

/// What the Node authoriser thinks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Allow,
    /// Nothing allows it here; `why` explains, RBAC may still allow.
    Refuse {
        why: String,
    },
    NoOpinion,
}

/// What must tie an object to the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tie {
    None,
    /// The object bears the node's name.
    OwnName,
    /// A pod on the node uses it.
    UsedByPod,
}

const READ: &[&str] = &["get", "list", "watch"];
const GET: &[&str] = &["get"];
const CREATE: &[&str] = &["create"];
const WRITE_STATUS: &[&str] = &["update", "patch"];
const EVENTS: &[&str] = &["create", "update", "patch"];
const OWN: &[&str] = &["get", "create", "update", "patch", "delete"];

/// Group, resource or `resource/subresource`, verbs, tie. The first row that matches decides.
const RULES: &[(&str, &str, &[&str], Tie)] = &[
    ("", "secrets", READ, Tie::UsedByPod),
    ("", "configmaps", READ, Tie::UsedByPod),
    ("", "persistentvolumeclaims", GET, Tie::UsedByPod),
    ("", "persistentvolumes", GET, Tie::None),
    ("", "serviceaccounts", GET, Tie::UsedByPod),
    ("", "serviceaccounts/token", CREATE, Tie::UsedByPod),
    ("", "services", READ, Tie::None),
    ("", "endpoints", READ, Tie::None),
    ("", "namespaces", READ, Tie::None),
    ("", "nodes", READ, Tie::None),
    ("", "nodes", CREATE, Tie::None),
    ("", "nodes", WRITE_STATUS, Tie::OwnName),
    ("", "nodes/status", WRITE_STATUS, Tie::OwnName),
    ("", "pods", READ, Tie::None),
    ("", "pods", &["create", "delete"], Tie::None),
    ("", "pods/status", WRITE_STATUS, Tie::None),
    ("", "pods/eviction", CREATE, Tie::None),
    ("", "events", EVENTS, Tie::None),
    ("events.k8s.io", "events", EVENTS, Tie::None),
    ("coordination.k8s.io", "leases", OWN, Tie::OwnName),
    ("coordination.k8s.io", "leases", READ, Tie::None),
    ("discovery.k8s.io", "endpointslices", READ, Tie::None),
    ("networking.k8s.io", "networkpolicies", READ, Tie::None),
    ("networking.k8s.io", "ingresses", READ, Tie::None),
    ("networking.k8s.io", "ingressclasses", READ, Tie::None),
    ("node.k8s.io", "runtimeclasses", READ, Tie::None),
    ("storage.k8s.io", "csidrivers", READ, Tie::None),
    ("storage.k8s.io", "csinodes", OWN, Tie::OwnName),
    ("storage.k8s.io", "volumeattachments", GET, Tie::None),
    ("resource.k8s.io", "resourceclaims", GET, Tie::None),
    (
        "resource.k8s.io",
        "resourceslices",
        &["get", "list", "watch", "create", "update", "patch", "delete"],
        Tie::None,
    ),
    ("certificates.k8s.io", "certificatesigningrequests", &["create", "get", "list", "watch"], Tie::None),
    ("authentication.k8s.io", "tokenreviews", CREATE, Tie::None),
    ("authorization.k8s.io", "subjectaccessreviews", CREATE, Tie::None),
    ("authorization.k8s.io", "localsubjectaccessreviews", CREATE, Tie::None),
];

/// The node a user is, if it is one.
pub fn node_of(user: &User) -> Option<&str> {
    let name = user.name.strip_prefix(NODE_USER_PREFIX)?;
    (user.is_in(NODES_GROUP) && !name.is_empty()).then_some(name)
}

/// Decides a request of `node`.
pub async fn decide(registry: &Registry, node: &str, request: &Attributes) -> Verdict {
    let ties: Vec<Tie> = ties(request).collect();
    let Some(first) = ties.first().copied() else {
        return Verdict::NoOpinion;
    };
    for tie in ties {
        let allowed = match tie {
            Tie::None => true,
            // Creating has no name in the path; the object's own name is checked at admission.
            Tie::OwnName => request.name == node || request.verb == "create",
            Tie::UsedByPod => used_by_pod(registry, node, request).await,
        };
        if allowed {
            return Verdict::Allow;
        }
    }
    let why = match first {
        Tie::UsedByPod => format!("no relationship found between node '{node}' and this object"),
        Tie::OwnName | Tie::None => format!("node '{node}' cannot modify an object of another node"),
    };
    Verdict::Refuse { why }
}

fn ties(request: &Attributes) -> impl Iterator<Item = Tie> {
    let resource = if request.subresource.is_empty() {
        request.resource.clone()
    } else {
        format!("{}/{}", request.resource, request.subresource)
    };
    RULES.iter().filter_map(move |(group, name, verbs, tie)| {
        (request.is_resource
            && *group == request.group
            && *name == resource
            && verbs.contains(&request.verb.as_str()))
        .then_some(*tie)
    })
}

/// Whether a pod bound to `node` refers to the object. Lists and watches must name one object.
async fn used_by_pod(registry: &Registry, node: &str, request: &Attributes) -> bool {
    if request.name.is_empty() || request.namespace.is_empty() {
        return false;
    }
    let Some(pods) = registry.find("", "v1", "pods") else {
        return false;
    };
    let options = ListOptions {
        field_selector: Some(format!("spec.nodeName={node}")),
        resource_version: Some("0".to_owned()),
        ..ListOptions::default()
    };
    let target = Target::collection(Some(&request.namespace));
    let Ok(listed) = registry.list(&Context::system(), &pods, &target, &options).await else {
        return false;
    };
    listed.items.iter().any(|pod| refers(&pod.value(), &request.resource, &request.name))
}

/// Whether a pod's spec refers to `name` of `resource`.
fn refers(pod: &Value, resource: &str, name: &str) -> bool {
    let Some(spec) = pod.get("spec") else { return false };
    let named = |value: Option<&Value>, key: &str| {
        value.and_then(|v| v.get(key)).and_then(Value::as_str).is_some_and(|found| found == name)
    };
    let list =
        |value: &Value, key: &str| value.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
    if resource == "serviceaccounts" {
        return named(Some(spec), "serviceAccountName");
    }
    let (env_key, env_from_key) = match resource {
        "secrets" => ("secretKeyRef", "secretRef"),
        "configmaps" => ("configMapKeyRef", "configMapRef"),
        _ => ("", ""),
    };
    let in_containers = ["containers", "initContainers", "ephemeralContainers"].iter().any(|key| {
        list(spec, key).iter().any(|container| {
            list(container, "env").iter().any(|e| named(e.pointer(&format!("/valueFrom/{env_key}")), "name"))
                || list(container, "envFrom").iter().any(|e| named(e.get(env_from_key), "name"))
        })
    });
    if in_containers {
        return true;
    }
    if resource == "secrets" && list(spec, "imagePullSecrets").iter().any(|s| named(Some(s), "name")) {
        return true;
    }
    list(spec, "volumes").iter().any(|volume| match resource {
        "secrets" => {
            named(volume.get("secret"), "secretName")
                || projected(volume, "secret", name)
                || volume.as_object().is_some_and(|v| {
                    v.values().any(|source| {
                        named(source.get("secretRef"), "name")
                            || named(source.get("nodePublishSecretRef"), "name")
                    })
                })
        }
        "configmaps" => named(volume.get("configMap"), "name") || projected(volume, "configMap", name),
        "persistentvolumeclaims" => {
            named(volume.get("persistentVolumeClaim"), "claimName") || is_ephemeral_claim(pod, volume, name)
        }
        _ => false,
    })
}

fn projected(volume: &Value, source: &str, name: &str) -> bool {
    let sources = volume.pointer("/projected/sources").and_then(Value::as_array);
    sources.is_some_and(|sources| {
        sources.iter().any(|s| s.pointer(&format!("/{source}/name")).and_then(Value::as_str) == Some(name))
    })
}

/// A generic ephemeral volume's claim is named `<pod>-<volume>`.
fn is_ephemeral_claim(pod: &Value, volume: &Value, name: &str) -> bool {
    let text = |value: &Value, pointer: &str| {
        value.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    volume.get("ephemeral").is_some()
        && format!("{}-{}", text(pod, "/metadata/name"), text(volume, "/name")) == name
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_way_a_pod_can_refer_to_an_object_counts() {
        let pod = json!({"metadata": {"name": "p"}, "spec": {
            "serviceAccountName": "bot",
            "imagePullSecrets": [{"name": "pull"}],
            "containers": [{"name": "c",
                "env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "env", "key": "k"}}}],
                "envFrom": [{"configMapRef": {"name": "all"}}]}],
            "volumes": [
                {"name": "v", "secret": {"secretName": "vol"}},
                {"name": "q", "projected": {"sources": [{"configMap": {"name": "proj"}}]}},
                {"name": "d", "persistentVolumeClaim": {"claimName": "disk"}},
                {"name": "e", "ephemeral": {}}]}});
        for (resource, name, want) in [
            ("serviceaccounts", "bot", true),
            ("secrets", "pull", true),
            ("secrets", "env", true),
            ("secrets", "vol", true),
            ("secrets", "all", false),
            ("configmaps", "all", true),
            ("configmaps", "proj", true),
            ("configmaps", "vol", false),
            ("persistentvolumeclaims", "disk", true),
            ("persistentvolumeclaims", "p-e", true),
            ("persistentvolumeclaims", "p-v", false),
        ] {
            assert_eq!(refers(&pod, resource, name), want, "{resource} {name}");
        }
    }

    #[test]
    fn only_members_of_the_nodes_group_are_nodes() {
        let mut user = User { name: "system:node:n1".into(), ..User::default() };
        assert_eq!(node_of(&user), None);
        user.groups.push("system:nodes".into());
        assert_eq!(node_of(&user), Some("n1"));
    }

    #[test]
    fn what_no_row_names_is_left_to_rbac() {
        assert_eq!(ties(&Attributes::on("delete", "", "secrets", "a", "s")).count(), 0);
        assert_eq!(ties(&Attributes::on("get", "", "secrets", "a", "s")).next(), Some(Tie::UsedByPod));
    }
}
