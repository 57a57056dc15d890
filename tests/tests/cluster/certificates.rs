//! Certificates by request, driven by kubectl: asked for, approved or denied, signed, used.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use penstock_tests::cluster::{Cluster, PATIENCE};
use penstock_tests::eventually::eventually;
use serde_json::{Value, json};

use super::Scenario;

pub const SCENARIOS: &[Scenario] = &[
    ("an_approved_request_becomes_a_certificate_with_all_its_groups", granted),
    ("a_denied_request_gets_no_certificate_and_strangers_decide_nothing", denied),
];

/// A new key in `key.pem` of a folder, and a request for it as PEM.
fn request(folder: &Path, subject: &str) -> Result<String> {
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-new", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]);
    openssl.args(["-subj", subject, "-keyout"]).arg(folder.join("key.pem"));
    let made = openssl.output().context("this test needs the openssl command")?;
    ensure!(made.status.success(), "openssl: {}", String::from_utf8_lossy(&made.stderr));
    Ok(String::from_utf8(made.stdout)?)
}

fn ask(cluster: &Cluster, name: &str, request: &str) -> Result<()> {
    let object = json!({"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest",
        "metadata": {"name": name}, "spec": {"request": STANDARD.encode(request), "usages": ["client auth"],
        "signerName": "kubernetes.io/kube-apiserver-client", "expirationSeconds": 3600}});
    cluster.kubectl_with(&["create", "-f", "-"], &object.to_string()).map(drop)
}

fn granted(cluster: &Cluster) -> Result<()> {
    let folder = tempfile::tempdir()?;
    ask(cluster, "jane", &request(folder.path(), "/O=team:a/O=team:b/CN=jane")?)?;
    cluster.kubectl(&["certificate", "approve", "jane"])?;
    let issued = eventually(PATIENCE, || {
        let issued = cluster.kubectl(&["get", "csr", "jane", "-o", "jsonpath={.status.certificate}"])?;
        ensure!(!issued.is_empty(), "not signed yet");
        Ok(issued)
    })?;
    let listed = cluster.kubectl(&["get", "csr", "jane"])?;
    ensure!(listed.contains("Approved,Issued"), "{listed}");

    let mut kubeconfig: Value =
        serde_json::from_str(&cluster.kubectl(&["config", "view", "--raw", "--minify", "-o", "json"])?)?;
    let key = STANDARD.encode(std::fs::read(folder.path().join("key.pem"))?);
    kubeconfig["users"][0]["user"] = json!({"client-certificate-data": issued, "client-key-data": key});
    let file = folder.path().join("kubeconfig");
    std::fs::write(&file, kubeconfig.to_string())?;
    let said = Command::new("kubectl")
        .arg("--kubeconfig")
        .arg(&file)
        .args(["auth", "whoami", "-o", "json"])
        .output()?;
    ensure!(said.status.success(), "kubectl auth whoami: {}", String::from_utf8_lossy(&said.stderr));
    let said: Value = serde_json::from_slice(&said.stdout)?;
    let user = &said["status"]["userInfo"];
    ensure!(user["username"] == "jane", "{user}");
    ensure!(user["groups"] == json!(["team:a", "team:b", "system:authenticated"]), "{user}");
    cluster.kubectl(&["delete", "csr", "jane"]).map(drop)
}

fn denied(cluster: &Cluster) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let refused = |words: &[&str]| -> Result<String> {
        let output = cluster.kubectl_command(words).output()?;
        ensure!(!output.status.success(), "kubectl {words:?} succeeded");
        Ok(String::from_utf8(output.stderr)?)
    };
    let masters = request(folder.path(), "/O=system:masters/CN=joe")?;
    let told = ask(cluster, "joe", &masters).err().context("joe may ask to be a master")?;
    ensure!(format!("{told:#}").contains("system:masters group is not allowed"), "{told:#}");
    ask(cluster, "joe", &request(folder.path(), "/CN=joe")?)?;

    // Who may write approvals, and use no signer.
    cluster.kubectl(&[
        "create",
        "clusterrole",
        "clerk",
        "--verb=get,update,patch",
        "--resource=certificatesigningrequests,certificatesigningrequests/approval",
    ])?;
    cluster.kubectl(&["create", "clusterrolebinding", "clerk", "--clusterrole=clerk", "--user=clerk"])?;
    let told = eventually(PATIENCE, || {
        let told = refused(&["certificate", "approve", "joe", "--as=clerk"])?;
        ensure!(told.contains("not permitted to approve requests with signerName"), "{told}");
        Ok(told)
    });
    cluster.kubectl(&["delete", "clusterrolebinding/clerk", "clusterrole/clerk"])?;
    told?;

    cluster.kubectl(&["certificate", "deny", "joe"])?;
    let told = refused(&["certificate", "approve", "joe"])?;
    ensure!(told.contains("already Denied"), "{told}");
    let listed = cluster.kubectl(&["get", "csr", "joe"])?;
    ensure!(listed.contains("Denied") && !listed.contains("Issued"), "{listed}");
    cluster.kubectl(&["delete", "csr", "joe"]).map(drop)
}
