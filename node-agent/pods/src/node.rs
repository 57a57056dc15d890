//! The Node object: registered once, its status and lease renewed while the agent lives.
//!
//! Ready says what the runtime says: RuntimeReady and NetworkReady. Nothing tells when that changes, so the runtime is asked, often
//! until the node is ready (as other kubelets do), each second after that, and a change is published at once.

mod facts;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::{
    ContainerImage, DaemonEndpoint, Node, NodeAddress, NodeCondition, NodeDaemonEndpoints,
    NodeRuntimeHandler, NodeRuntimeHandlerFeatures, NodeSpec, NodeStatus, Taint,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, OwnerReference, Time};
use kube::Api;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use penstock_runtime::RuntimeStatus;
use tokio_util::sync::CancellationToken;

use crate::context::Context;
pub use facts::{compile_usable, observe_allocatable};

/// The API level we implement.
pub const VERSION: &str = "v1.36.0";
const LEASE_SECONDS: i32 = 40;
const LEASE_EVERY: Duration = Duration::from_secs(10);
const STATUS_EVERY: Duration = Duration::from_secs(10);
/// Without a change the status is written this often all the same.
const STATUS_WRITE_EVERY: Duration = Duration::from_secs(300);
/// How often an unready node's whole status is looked at; its reasons may change.
const UNREADY_EVERY: Duration = Duration::from_millis(500);
/// Pauses after a status that could not be written: the server is away, or starts with the agent.
const RETRY_AFTER: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// How often the runtime is asked whether it can run pods. A question takes it less than a millisecond.
const ASK_UNREADY_EVERY: Duration = Duration::from_millis(50);
const ASK_READY_EVERY: Duration = Duration::from_secs(1);
/// Images reported at most, as other kubelets do.
const IMAGES_MAX: usize = 50;

/// Registers the node and keeps its status until shutdown.
pub async fn run_status(context: Arc<Context>, shutdown: CancellationToken) {
    let api: Api<Node> = Api::all(context.client.clone());
    let name = context.config.node_name.clone();
    let mut previous = NodeStatus::default();
    let mut written_at: Option<tokio::time::Instant> = None;
    let mut retry_after = RETRY_AFTER.0;
    loop {
        let status = observe_status(&context, &previous).await;
        let ready = is_ready(&status);
        let unchanged = timeless(&status) == timeless(&previous)
            && written_at.is_some_and(|t| t.elapsed() < STATUS_WRITE_EVERY);
        if !unchanged {
            match write(&context, &api, &name, &status).await {
                Ok(()) => {
                    if ready && !is_ready(&previous) {
                        tracing::info!(node = name, "node is ready");
                    }
                    previous = status;
                    written_at = Some(tokio::time::Instant::now());
                    retry_after = RETRY_AFTER.0;
                }
                Err(error) => {
                    tracing::warn!(node = name, %error, "node status not written; trying again");
                    tokio::select! {
                        () = shutdown.cancelled() => return,
                        () = tokio::time::sleep(retry_after) => {}
                    }
                    retry_after = (retry_after * 2).min(RETRY_AFTER.1);
                    continue;
                }
            }
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(if ready { STATUS_EVERY } else { UNREADY_EVERY }) => {}
            () = readiness_changes(&context, ready) => {}
        }
    }
}

/// Returns when the runtime can run pods, for a node that is not ready; when it no longer can, for one that is. Of reasons that
/// change nothing is told at once, since a text may differ each time.
async fn readiness_changes(context: &Context, ready: bool) {
    loop {
        tokio::time::sleep(if ready { ASK_READY_EVERY } else { ASK_UNREADY_EVERY }).await;
        if readiness(&context.runtime.status().await.map_err(|e| e.to_string())).is_ok() != ready {
            return;
        }
    }
}

/// Renews the lease until shutdown.
pub async fn run_lease(context: Arc<Context>, shutdown: CancellationToken) {
    let api: Api<Lease> = Api::namespaced(context.client.clone(), "kube-node-lease");
    let nodes: Api<Node> = Api::all(context.client.clone());
    let name = context.config.node_name.clone();
    loop {
        let spec = LeaseSpec {
            holder_identity: Some(name.clone()),
            lease_duration_seconds: Some(LEASE_SECONDS),
            renew_time: Some(MicroTime(Timestamp::now())),
            ..Default::default()
        };
        let patch = Patch::Merge(serde_json::json!({"spec": spec}));
        let result = match api.patch(&name, &PatchParams::default(), &patch).await {
            Err(kube::Error::Api(e)) if e.code == 404 => {
                let owner =
                    nodes.get(&name).await.ok().and_then(|n| n.metadata.uid).map(|uid| OwnerReference {
                        api_version: "v1".into(),
                        kind: "Node".into(),
                        name: name.clone(),
                        uid,
                        ..Default::default()
                    });
                let metadata = ObjectMeta {
                    name: Some(name.clone()),
                    owner_references: owner.map(|o| vec![o]),
                    ..Default::default()
                };
                api.create(&PostParams::default(), &Lease { metadata, spec: Some(spec) }).await.map(|_| ())
            }
            other => other.map(|_| ()),
        };
        let pause = match result {
            Ok(()) => LEASE_EVERY,
            Err(error) => {
                tracing::debug!(node = name, %error, "lease not renewed; trying again");
                Duration::from_secs(1)
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

async fn write(
    context: &Context,
    api: &Api<Node>,
    name: &str,
    status: &NodeStatus,
) -> Result<(), kube::Error> {
    let mut body = serde_json::to_value(status).unwrap_or_default();
    if let Some(addresses) = body.get_mut("addresses").and_then(|a| a.as_array_mut()) {
        addresses.insert(0, serde_json::json!({"$patch": "replace"}));
    }
    let patch = Patch::Strategic(serde_json::json!({"status": body}));
    match api.patch_status(name, &PatchParams::default(), &patch).await {
        Err(kube::Error::Api(e)) if e.code == 404 => {
            let node = compile_node(context, status.clone());
            match api.create(&PostParams::default(), &node).await {
                Ok(_) => {}
                Err(kube::Error::Api(e)) if e.code == 409 => {}
                Err(error) => return Err(error),
            }
            // Creation through the API drops the status of kinds with a status subresource.
            api.patch_status(name, &PatchParams::default(), &patch).await.map(|_| ())
        }
        Err(error) => Err(error),
        Ok(node) => ensure_labels(context, api, &node).await,
    }
}

fn labels(context: &Context) -> BTreeMap<String, String> {
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let usual = [
        ("kubernetes.io/hostname", context.config.node_name.as_str()),
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", arch),
        ("beta.kubernetes.io/os", "linux"),
        ("beta.kubernetes.io/arch", arch),
    ];
    let usual = usual.into_iter().map(|(k, v)| (k.to_string(), v.to_string()));
    usual.chain(context.config.labels.clone()).collect()
}

/// A node that was registered before gets labels it lacks; what users changed stays.
async fn ensure_labels(context: &Context, api: &Api<Node>, node: &Node) -> Result<(), kube::Error> {
    let have = node.metadata.labels.clone().unwrap_or_default();
    let missing: BTreeMap<_, _> =
        labels(context).into_iter().filter(|(k, _)| !have.contains_key(k)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let patch = Patch::Merge(serde_json::json!({"metadata": {"labels": missing}}));
    api.patch(&context.config.node_name, &PatchParams::default(), &patch).await.map(|_| ())
}

fn compile_node(context: &Context, status: NodeStatus) -> Node {
    let taints: Vec<Taint> = context.config.taints.iter().filter_map(|t| parse_taint(t)).collect();
    Node {
        metadata: ObjectMeta {
            name: Some(context.config.node_name.clone()),
            labels: Some(labels(context)),
            annotations: Some(BTreeMap::from([(
                "volumes.kubernetes.io/controller-managed-attach-detach".to_string(),
                "true".to_string(),
            )])),
            ..Default::default()
        },
        spec: Some(NodeSpec {
            provider_id: context.config.provider_id.clone(),
            taints: (!taints.is_empty()).then_some(taints),
            ..Default::default()
        }),
        status: Some(status),
    }
}

/// `key[=value]:effect`.
fn parse_taint(text: &str) -> Option<Taint> {
    let (key, effect) = text.rsplit_once(':')?;
    let (key, value) = key.split_once('=').map_or((key, None), |(k, v)| (k, Some(v.to_string())));
    Some(Taint { key: key.to_string(), value, effect: effect.to_string(), time_added: None })
}

fn is_ready(status: &NodeStatus) -> bool {
    status.conditions.iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True")
}

/// The status without heartbeats, to tell whether anything changed.
fn timeless(status: &NodeStatus) -> NodeStatus {
    let mut status = status.clone();
    for condition in status.conditions.iter_mut().flatten() {
        condition.last_heartbeat_time = None;
    }
    status
}

async fn observe_status(context: &Context, previous: &NodeStatus) -> NodeStatus {
    let runtime = context.runtime.status().await;
    let version = context.runtime.version().await.unwrap_or_default();
    let images = context.runtime.list_images().await.unwrap_or_default();
    let (capacity, allocatable) = facts::compile_capacity(&context.node, context.config.pods_max);
    let handlers = runtime.as_ref().map(|s| s.handlers.clone()).unwrap_or_default();
    let handler = |h: penstock_runtime::RuntimeHandler| NodeRuntimeHandler {
        name: Some(h.name),
        features: Some(NodeRuntimeHandlerFeatures {
            recursive_read_only_mounts: Some(h.recursive_read_only_mounts),
            user_namespaces: Some(h.user_namespaces),
        }),
    };
    let address = |kind: &str, value: String| NodeAddress { type_: kind.into(), address: value };
    let mut images: Vec<ContainerImage> = images
        .into_iter()
        .map(|i| ContainerImage {
            names: Some(i.digests.into_iter().chain(i.tags).collect()),
            size_bytes: i64::try_from(i.size_bytes).ok(),
        })
        .collect();
    images.sort_by_key(|i| std::cmp::Reverse(i.size_bytes));
    images.truncate(IMAGES_MAX);
    NodeStatus {
        addresses: Some(
            (context.config.node_ip_texts().into_iter().map(|ip| address("InternalIP", ip)))
                .chain([address("Hostname", context.config.node_name.clone())])
                .collect(),
        ),
        capacity: Some(capacity),
        allocatable: Some(allocatable),
        conditions: Some(conditions(context, runtime.map_err(|e| e.to_string()), previous)),
        daemon_endpoints: Some(NodeDaemonEndpoints {
            kubelet_endpoint: Some(DaemonEndpoint { port: i32::from(context.config.listen.port()) }),
        }),
        images: Some(images),
        node_info: Some(facts::observe_system(&version)),
        runtime_handlers: (!handlers.is_empty()).then(|| handlers.into_iter().map(handler).collect()),
        ..Default::default()
    }
}

/// Whether the runtime can run pods; else why not.
fn readiness(runtime: &Result<RuntimeStatus, String>) -> Result<(), String> {
    let status = runtime.as_ref().map_err(|error| format!("container runtime is down: {error}"))?;
    let wrong = |kind: &&str| match status.condition(kind) {
        Some(c) if c.ok => None,
        Some(c) => Some(format!("container runtime {kind}=false reason:{} message:{}", c.reason, c.message)),
        None => Some(format!("container runtime does not report {kind}")),
    };
    let wrong: Vec<String> = ["RuntimeReady", "NetworkReady"].iter().filter_map(wrong).collect();
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("; ")) }
}

fn conditions(
    context: &Context,
    runtime: Result<RuntimeStatus, String>,
    previous: &NodeStatus,
) -> Vec<NodeCondition> {
    let now = Timestamp::now();
    let (low_memory, low_disk) = facts::observe_pressure(&context.config.kubelet_dir);
    let (ready, reason, message) = match readiness(&runtime) {
        Ok(()) => (true, "KubeletReady", "the agent is posting ready status".to_string()),
        Err(message) => (false, "KubeletNotReady", message),
    };
    let pressure = |low: bool, yes: &'static str, no: &'static str| (low, if low { yes } else { no });
    let (memory, disk) = (
        pressure(low_memory, "KubeletHasInsufficientMemory", "KubeletHasSufficientMemory"),
        pressure(low_disk, "KubeletHasDiskPressure", "KubeletHasNoDiskPressure"),
    );
    let set = [
        ("MemoryPressure", memory.0, memory.1, "kubelet memory check".to_string()),
        ("DiskPressure", disk.0, disk.1, "kubelet disk check".to_string()),
        ("PIDPressure", false, "KubeletHasSufficientPID", "kubelet has sufficient PID available".to_string()),
        ("Ready", ready, reason, message),
    ];
    let build = |(kind, value, reason, message): (&str, bool, &str, String)| {
        let status = if value { "True" } else { "False" }.to_string();
        let old = previous.conditions.iter().flatten().find(|c| c.type_ == kind && c.status == status);
        NodeCondition {
            type_: kind.to_string(),
            last_transition_time: old.and_then(|c| c.last_transition_time.clone()).or(Some(Time(now))),
            last_heartbeat_time: Some(Time(now)),
            status,
            reason: Some(reason.to_string()),
            message: Some(message),
        }
    };
    set.into_iter().map(build).collect()
}

#[cfg(test)]
mod tests {
    use penstock_runtime::RuntimeCondition;

    use super::*;

    #[test]
    fn a_node_is_ready_when_its_runtime_and_its_network_are_and_else_says_what_is_not() {
        let condition = |kind: &str, ok| RuntimeCondition {
            kind: kind.into(),
            ok,
            reason: "Because".into(),
            message: "no conflist".into(),
        };
        let status = |conditions| Ok(RuntimeStatus { conditions, ..Default::default() });
        let (runtime, network) = (condition("RuntimeReady", true), condition("NetworkReady", true));
        assert_eq!(readiness(&status(vec![runtime.clone(), network])), Ok(()));
        let why = readiness(&status(vec![runtime.clone(), condition("NetworkReady", false)])).unwrap_err();
        assert!(why.contains("NetworkReady=false") && why.contains("no conflist"), "{why}");
        assert!(readiness(&status(vec![runtime])).unwrap_err().contains("does not report NetworkReady"));
        assert!(readiness(&Err("no socket".into())).unwrap_err().contains("no socket"));
    }

    #[test]
    fn a_taint_is_read_with_and_without_a_value() {
        let taint = parse_taint("a/b=c:NoSchedule").unwrap();
        assert_eq!(
            (taint.key.as_str(), taint.value.as_deref(), taint.effect.as_str()),
            ("a/b", Some("c"), "NoSchedule")
        );
        assert_eq!(parse_taint("k:NoExecute").unwrap().value, None);
        assert!(parse_taint("nothing").is_none());
    }
}
