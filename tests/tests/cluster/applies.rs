//! Server-side apply through kubectl: owners, conflicts, fields that go, and the way from client-side apply.

use anyhow::{Result, ensure};
use penstock_tests::cluster::{Cluster, PATIENCE};
use penstock_tests::eventually::until;
use serde_json::Value;

use super::Scenario;

pub const SCENARIOS: &[Scenario] = &[
    ("kubectl_applies_on_the_server_and_owners_are_kept_apart", owners),
    ("an_object_moves_from_client_side_to_server_side_apply", migration),
    ("each_component_owns_what_it_writes", components),
];

const IMAGE: &str = "penstock.local/demo:1";

fn manifest(name: &str, extra: &str) -> String {
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: {name}\nspec:\n{extra}  selector:\n    \
         matchLabels: {{app: {name}}}\n  template:\n    metadata:\n      labels: {{app: {name}}}\n    spec:\n      \
         terminationGracePeriodSeconds: 1\n      containers:\n      - {{name: main, image: {IMAGE}, args: [serve]}}\n"
    )
}

fn server_side(cluster: &Cluster, manager: &str, more: &[&str], text: &str) -> Result<String> {
    let manager = format!("--field-manager={manager}");
    let mut arguments = vec!["apply", "--server-side", &manager, "-f", "-"];
    arguments.extend(more);
    cluster.kubectl_with(&arguments, text)
}

fn read(cluster: &Cluster, object: &str) -> Result<Value> {
    Ok(serde_json::from_str(&cluster.kubectl(&["get", object, "-o", "json", "--show-managed-fields"])?)?)
}

/// `manager operation subresource` of each owner.
fn managers(object: &Value) -> Vec<String> {
    let entries = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    let text = |entry: &Value, field: &str| entry[field].as_str().unwrap_or("-").to_owned();
    entries.iter().map(|e| ["manager", "operation", "subresource"].map(|f| text(e, f)).join(" ")).collect()
}

fn owners(cluster: &Cluster) -> Result<()> {
    let given = "  replicas: 1\n  revisionHistoryLimit: 3\n";
    let applied = server_side(cluster, "kubectl", &[], &manifest("owned", given))?;
    ensure!(applied.contains("deployment.apps/owned serverside-applied"), "apply said: {applied}");
    cluster.kubectl(&["rollout", "status", "deployment/owned", "--timeout=60s"])?;
    let version = |object: &Value| object["metadata"]["resourceVersion"].clone();
    let before = read(cluster, "deployment/owned")?;
    server_side(cluster, "kubectl", &[], &manifest("owned", given))?;
    ensure!(version(&read(cluster, "deployment/owned")?) == version(&before), "a second apply wrote");

    let wanted = "  replicas: 2\n";
    let refused = server_side(cluster, "other", &[], &manifest("owned", wanted));
    let refused = refused.err().map(|e| format!("{e:#}")).unwrap_or_default();
    ensure!(
        refused.contains("Apply failed with 1 conflict: conflict with \"kubectl\": .spec.replicas"),
        "the conflict reads: {refused}"
    );
    server_side(cluster, "other", &["--force-conflicts"], &manifest("owned", wanted))?;
    let shared = read(cluster, "deployment/owned")?;
    ensure!(shared["spec"]["replicas"] == 2, "{shared}");

    // What an applier gives up goes when nobody else owns it, and stays when somebody does.
    server_side(cluster, "kubectl", &[], &manifest("owned", ""))?;
    let left = read(cluster, "deployment/owned")?;
    ensure!(left["spec"]["replicas"] == 2, "the other owner's count is gone: {left}");
    ensure!(left["spec"]["revisionHistoryLimit"] == 10, "the default is not back: {left}");

    let plain = cluster.kubectl(&["get", "deployment/owned", "-o", "yaml"])?;
    ensure!(!plain.contains("managedFields"), "kubectl shows owners unasked: {plain}");
    cluster.kubectl(&["scale", "deployment/owned", "--replicas=3"])?;
    let scaled = read(cluster, "deployment/owned")?;
    ensure!(
        managers(&scaled).iter().any(|m| m == "kubectl Update scale"),
        "the owners after a scale: {:?}",
        managers(&scaled)
    );
    cluster.kubectl(&["delete", "deployment/owned"]).map(drop)
}

fn migration(cluster: &Cluster) -> Result<()> {
    let map =
        |data: &str| format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: moved}}\ndata: {data}\n");
    cluster.kubectl_with(&["apply", "-f", "-"], &map("{one: '1', two: '2'}"))?;
    let before = read(cluster, "configmap/moved")?;
    ensure!(managers(&before) == ["kubectl-client-side-apply Update -"], "{:?}", managers(&before));
    server_side(cluster, "kubectl", &[], &map("{one: x}"))?;
    let after = read(cluster, "configmap/moved")?;
    ensure!(after["data"] == serde_json::json!({"one": "x"}), "what was left out is there: {after}");
    ensure!(managers(&after).contains(&"kubectl Apply -".to_owned()), "{:?}", managers(&after));
    cluster.kubectl(&["delete", "configmap/moved"]).map(drop)
}

fn components(cluster: &Cluster) -> Result<()> {
    cluster.kubectl_with(&["apply", "-f", "-"], &manifest("parts", "  replicas: 1\n"))?;
    cluster.kubectl(&["rollout", "status", "deployment/parts", "--timeout=60s"])?;
    let deployment = read(cluster, "deployment/parts")?;
    ensure!(
        managers(&deployment).contains(&"kube-controller-manager Update status".to_owned()),
        "{:?}",
        managers(&deployment)
    );
    let pods: Value = serde_json::from_str(&cluster.kubectl(&[
        "get",
        "pods",
        "-l",
        "app=parts",
        "-o",
        "json",
        "--show-managed-fields",
    ])?)?;
    let of_pod = managers(&pods["items"][0]);
    for wanted in ["kube-controller-manager Update -", "kubelet Update status"] {
        ensure!(of_pod.iter().any(|m| m == wanted), "{wanted} is not among {of_pod:?}");
    }
    cluster.kubectl(&["delete", "deployment/parts"])?;
    until(PATIENCE, "pods of a deleted deployment go", || {
        cluster
            .kubectl(&["get", "pods", "-l", "app=parts", "-o", "name"])
            .is_ok_and(|names| names.trim().is_empty())
    })
}
