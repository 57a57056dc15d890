//! Admission webhooks as clients meet them: connections that are refused, warnings in headers.

use std::time::Duration;

use axum::body::Body;
use http::{Request, Response};
use penstock_apiserver::User;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::cluster::Cluster;
use crate::https::{HttpsServer, json_answer};

const PATIENCE: Duration = Duration::from_secs(30);

/// Refuses connections, and lets everything else pass with a warning.
fn hook(_: &str, question: &Value) -> Response<Body> {
    let request = &question["request"];
    let allowed = request["operation"] != "CONNECT";
    json_answer(&json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": {
        "uid": request["uid"], "allowed": allowed, "warnings": ["careful \"now\""],
        "status": {"message": "stay out", "code": 403, "reason": "Forbidden"}}}))
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_can_be_refused_and_warnings_reach_the_client() -> anyhow::Result<()> {
    let server = HttpsServer::start(&[], hook).await;
    let cluster = Cluster::start().await?;
    let client = cluster.server.client(User::system("ann"));
    let rule = |operation: &str, resource: &str| json!({"operations": [operation], "apiGroups": [""], "apiVersions": ["v1"], "resources": [resource]});
    let configuration = json!({"apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration", "metadata": {"name": "v"}, "webhooks": [{
            "name": "w.example.com", "clientConfig": server.client("/"), "sideEffects": "None",
            "admissionReviewVersions": ["v1"],
            "rules": [rule("CONNECT", "pods/exec"), rule("CREATE", "configmaps")]}]});
    let configurations = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations";
    let request = Request::post(configurations).header("content-type", "application/json");
    client.request::<Value>(request.body(configuration.to_string().into_bytes())?).await?;
    client.request::<Value>(Request::get(configurations).body(Vec::new())?).await?;

    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}}).to_string();
    let request =
        Request::post("/api/v1/namespaces/default/configmaps").header("content-type", "application/json");
    let made = client.send(request.body(map.into_bytes().into())?).await?;
    assert_eq!(made.status(), 201);
    assert_eq!(made.headers()["warning"], "299 - \"careful \\\"now\\\"\"");

    let mut stream = cluster.dial(&cluster.identity("ann", &["system:masters"])?).await?;
    let path = "/api/v1/namespaces/default/pods/p/exec?command=ls&stdout=true";
    let head = format!("POST {path} HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    let mut answer = String::new();
    let reading = async {
        while !answer.contains("stay out") {
            let mut buffer = [0u8; 4096];
            let count = stream.read(&mut buffer).await?;
            anyhow::ensure!(count > 0, "the server hung up after {answer:?}");
            answer.push_str(&String::from_utf8_lossy(&buffer[..count]));
        }
        Ok(())
    };
    tokio::time::timeout(PATIENCE, reading).await??;
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    assert!(
        answer.contains("admission webhook \\\"w.example.com\\\" denied the request: stay out"),
        "{answer}"
    );
    let question = server.asked.lock().last().unwrap().1["request"].clone();
    assert_eq!((&question["operation"], &question["subResource"]), (&json!("CONNECT"), &json!("exec")));
    assert_eq!(question["kind"], json!({"group": "", "version": "v1", "kind": "PodExecOptions"}));
    assert_eq!(
        (&question["resource"]["resource"], &question["object"]["command"]),
        (&json!("pods"), &json!(["ls"]))
    );
    cluster.stop().await;
    Ok(())
}
