//! The real kubectl against the real server.

use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use tokio::process::Command;

use crate::cluster::Cluster;

pub const KUBECTL: &str = "/usr/bin/kubectl";
const COMMAND_TIMEOUT: Duration = Duration::from_secs(120);

/// kubectl with a kubeconfig and a home of its own.
pub struct Kubectl {
    pub kubeconfig: PathBuf,
    pub home: PathBuf,
}

// === impl Kubectl ===

impl Kubectl {
    pub async fn run(&self, arguments: &[&str]) -> anyhow::Result<Output> {
        let running = Command::new(KUBECTL)
            .args(arguments)
            .env("KUBECONFIG", &self.kubeconfig)
            .env("HOME", &self.home)
            .kill_on_drop(true)
            .output();
        Ok(tokio::time::timeout(COMMAND_TIMEOUT, running).await??)
    }

    /// The standard output of a command that must succeed.
    pub async fn ok(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let output = self.run(arguments).await?;
        let (stdout, stderr) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        anyhow::ensure!(output.status.success(), "kubectl {}\n{stdout}{stderr}", arguments.join(" "));
        Ok(stdout.into_owned())
    }

    /// The standard error of a command that must fail.
    pub async fn refused(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let output = self.run(arguments).await?;
        anyhow::ensure!(!output.status.success(), "kubectl {} succeeded", arguments.join(" "));
        Ok(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

pub const DEPLOYMENT: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 1
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: c, image: nginx}]}
"#;

const LIST: &str = r#"
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: ConfigMap, metadata: {name: one}, data: {a: b}}
- {apiVersion: v1, kind: ConfigMap, metadata: {name: two}, data: {a: b}}
"#;

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_creates_reads_changes_and_deletes() -> anyhow::Result<()> {
    if !Path::new(KUBECTL).exists() {
        println!("SKIPPED: {KUBECTL} is not installed");
        return Ok(());
    }
    let cluster = Cluster::start().await?;
    let home = cluster.directory.path().to_owned();
    let kubectl =
        Kubectl { kubeconfig: cluster.kubeconfig("admin", &["system:masters"])?, home: home.clone() };
    let manifest = home.join("web.yaml");
    std::fs::write(&manifest, DEPLOYMENT)?;
    let manifest = manifest.to_string_lossy().into_owned();
    // Pods need the account the controllers would make.
    kubectl.ok(&["create", "serviceaccount", "default"]).await?;

    // Discovery and documentation.
    assert!(kubectl.ok(&["version"]).await?.contains("v1.36"));
    let resources = kubectl.ok(&["api-resources", "--cached=false"]).await?;
    assert!(resources.lines().any(|l| l.starts_with("deployments") && l.contains("deploy")), "{resources}");
    assert!(kubectl.ok(&["explain", "pods.spec"]).await?.contains("containers"));
    assert_eq!(kubectl.ok(&["get", "--raw", "/livez"]).await?, "ok");

    // Protobuf bodies.
    kubectl.ok(&["create", "configmap", "cm", "--from-literal=a=b"]).await?;
    kubectl.ok(&["create", "secret", "generic", "s", "--from-literal=a=b"]).await?;
    kubectl.ok(&["create", "namespace", "nn"]).await?;
    kubectl.ok(&["create", "deployment", "d1", "--image=nginx"]).await?;
    assert!(kubectl.ok(&["create", "token", "default"]).await?.split('.').count() == 3);
    assert_eq!(kubectl.ok(&["auth", "can-i", "get", "pods"]).await?.trim(), "yes");
    assert!(kubectl.ok(&["auth", "whoami"]).await?.contains("admin"));

    // Apply, both ways, and what a mistake gets.
    assert!(kubectl.ok(&["apply", "-f", &manifest]).await?.contains("deployment.apps/web created"));
    assert!(kubectl.ok(&["apply", "-f", &manifest]).await?.contains("unchanged"));
    std::fs::write(
        home.join("bad.yaml"),
        DEPLOYMENT.replace("image: nginx", "imagee: nginx").replace("name: web,", "name: bad,"),
    )?;
    let bad = home.join("bad.yaml").to_string_lossy().into_owned();
    let refusal = kubectl.refused(&["apply", "-f", &bad]).await?;
    assert!(refusal.contains("spec.template.spec.containers[0].imagee"), "{refusal}");
    assert!(kubectl.refused(&["get", "deployment", "bad"]).await?.contains("NotFound"));

    // A list is no kind of the API's: kubectl checks it with the document of everything (OpenAPI v2).
    let list = home.join("list.yaml").to_string_lossy().into_owned();
    std::fs::write(&list, LIST)?;
    assert!(kubectl.ok(&["create", "-f", &list]).await?.contains("configmap/two created"));
    std::fs::write(&list, LIST.replace("data: {a: b}", "data: {a: c}"))?;
    assert!(kubectl.ok(&["apply", "-f", &list]).await?.contains("configmap/one configured"));
    assert_eq!(kubectl.ok(&["get", "cm", "two", "-o", "jsonpath={.data.a}"]).await?, "c");
    std::fs::write(&list, LIST.replace("data:", "daata:"))?;
    let refusal = kubectl.refused(&["apply", "-f", &list]).await?;
    assert!(refusal.contains("unknown field \"daata\""), "{refusal}");
    let explained = kubectl.ok(&["explain", "--output=plaintext-openapiv2", "pod.spec.containers"]).await?;
    assert!(explained.contains("imagePullPolicy"), "{explained}");

    // Tables, scale, patches.
    let table = kubectl.ok(&["get", "deployments"]).await?;
    assert!(table.starts_with("NAME") && table.contains("UP-TO-DATE"), "{table}");
    kubectl.ok(&["scale", "deployment", "web", "--replicas=3"]).await?;
    let replicas = kubectl.ok(&["get", "deployment", "web", "-o", "jsonpath={.spec.replicas}"]).await?;
    assert_eq!(replicas, "3");
    kubectl.ok(&["patch", "cm", "cm", "-p", r#"{"data":{"z":"1"}}"#]).await?;
    kubectl
        .ok(&["patch", "cm", "cm", "--type=json", "-p", r#"[{"op":"add","path":"/data/q","value":"1"}]"#])
        .await?;
    kubectl.ok(&["set", "image", "deployment/web", "c=nginx:2"]).await?;
    kubectl.ok(&["label", "deployment", "web", "x=y"]).await?;
    assert!(kubectl.ok(&["get", "deployment", "-l", "x=y"]).await?.contains("web"));
    assert!(kubectl.ok(&["get", "cm", "cm", "-o", "yaml"]).await?.contains("q: \"1\""));

    // Impersonation is authorised, and the impersonated user is not.
    assert!(kubectl.refused(&["get", "pods", "--as=bob"]).await?.contains("User \"bob\" cannot list"));

    // A watch shows what is there; kubectl leaves when its own timeout ends the stream.
    let watched = kubectl.run(&["get", "cm", "cm", "-w", "--request-timeout=5s"]).await?;
    assert!(String::from_utf8_lossy(&watched.stdout).contains("cm"));

    kubectl.ok(&["delete", "cm", "cm"]).await?;
    kubectl.ok(&["delete", "-f", &manifest, "--cascade=background"]).await?;
    assert!(kubectl.refused(&["get", "deployment", "web"]).await?.contains("NotFound"));
    cluster.stop().await;
    Ok(())
}
