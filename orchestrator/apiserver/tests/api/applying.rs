//! Server-side apply as stock kubectl does it, and who may create by it.

use std::path::Path;

use crate::cluster::Cluster;
use crate::kubectl::{DEPLOYMENT, KUBECTL, Kubectl};

const PATCHERS: &str = r#"
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: patchers}
rules: [{apiGroups: [""], resources: [configmaps], verbs: [get, patch]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: patchers}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: patchers}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: patcher}]
"#;

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_applies_on_the_server() -> anyhow::Result<()> {
    if !Path::new(KUBECTL).exists() {
        println!("SKIPPED: {KUBECTL} is not installed");
        return Ok(());
    }
    let cluster = Cluster::start().await?;
    let home = cluster.directory.path().to_owned();
    let kubectl =
        Kubectl { kubeconfig: cluster.kubeconfig("admin", &["system:masters"])?, home: home.clone() };
    let file = |name: &str, text: &str| -> anyhow::Result<String> {
        let path = home.join(name);
        std::fs::write(&path, text)?;
        Ok(path.to_string_lossy().into_owned())
    };

    // Made by the client's apply, taken over by the server's.
    let first = file("first.yaml", DEPLOYMENT)?;
    kubectl.ok(&["apply", "-f", &first]).await?;
    let shown = kubectl.ok(&["get", "deployment", "web", "-o", "yaml", "--show-managed-fields"]).await?;
    assert!(shown.contains("manager: kubectl-client-side-apply"), "{shown}");
    let second = file("second.yaml", &DEPLOYMENT.replace("image: nginx", "image: nginx:2"))?;
    let applied = kubectl.ok(&["apply", "--server-side", "-f", &second]).await?;
    assert!(applied.contains("deployment.apps/web serverside-applied"), "{applied}");
    let shown = kubectl.ok(&["get", "deployment", "web", "-o", "yaml", "--show-managed-fields"]).await?;
    assert!(!shown.contains("manager: kubectl-client-side-apply"), "{shown}");
    assert!(shown.contains("manager: kubectl\n") && shown.contains("operation: Apply"), "{shown}");

    // Another's wish is a conflict until it is forced.
    let third = file("third.yaml", &DEPLOYMENT.replace("replicas: 1", "replicas: 2"))?;
    let other = ["apply", "--server-side", "--field-manager=other", "-f", &third];
    let refusal = kubectl.refused(&other).await?;
    let expected = [
        "Apply failed with 2 conflicts: conflicts with \"kubectl\":",
        "- .spec.replicas",
        "- .spec.template.spec.containers[name=\"c\"].image",
    ];
    assert!(expected.iter().all(|line| refusal.contains(line)), "{refusal}");
    kubectl.ok(&[&other[..], &["--force-conflicts"]].concat()).await?;
    let replicas = ["get", "deployment", "web", "-o", "jsonpath={.spec.replicas}"];
    assert_eq!(kubectl.ok(&replicas).await?, "2");
    let unknown = file("unknown.yaml", &DEPLOYMENT.replace("replicas:", "replicass:"))?;
    let refusal = kubectl.refused(&["apply", "--server-side", "--validate=false", "-f", &unknown]).await?;
    assert!(refusal.contains(".spec.replicass: field not declared in schema"), "{refusal}");
    let dry = kubectl
        .ok(&["apply", "--server-side", "--dry-run=server", "--force-conflicts", "-f", &first])
        .await?;
    assert!(dry.contains("server dry run"), "{dry}");
    let diff = kubectl.run(&["diff", "--server-side", "--force-conflicts", "-f", &first]).await?;
    assert_eq!(diff.status.code(), Some(1), "there is a difference: {diff:?}");

    // To create by apply one must be allowed to create.
    let role = file("role.yaml", PATCHERS)?;
    kubectl.ok(&["apply", "--server-side", "-f", &role]).await?;
    let patcher = Kubectl { kubeconfig: cluster.kubeconfig("patcher", &[])?, home: home.clone() };
    let map = file("map.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: m}\ndata: {a: b}\n")?;
    let apply = ["apply", "--server-side", "--force-conflicts", "--validate=false", "-f", &map];
    let refusal = patcher.refused(&apply).await?;
    assert!(refusal.contains("User \"patcher\" cannot create resource \"configmaps\""), "{refusal}");
    kubectl.ok(&["create", "configmap", "m"]).await?;
    patcher.ok(&apply).await?;
    cluster.stop().await;
    Ok(())
}
