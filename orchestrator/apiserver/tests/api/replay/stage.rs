//! What the commands speak of: the objects, a kubelet and a metrics server that know just enough.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::{Response, StatusCode};
use penstock_apiserver::User;
use penstock_store::{Expect, Mutation, Store as _, Write};
use rcgen::{CertificateParams, DnType, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use crate::cluster::{Cluster, Identity};
use crate::https::{HttpsServer, json_answer};

const PATIENCE: Duration = Duration::from_secs(30);

/// Gone with the test.
pub struct Stage {
    kubelet: JoinHandle<()>,
    _metrics: HttpsServer,
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.kubelet.abort();
    }
}

/// Answers logs, and grants every upgrade.
async fn kubelet(listener: TcpListener, identity: Identity) -> anyhow::Result<()> {
    let chain = vec![CertificateDer::from_pem_slice(identity.certificate.as_bytes())?];
    let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes())?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    let acceptor = TlsAcceptor::from(Arc::new(config));
    loop {
        let (stream, _) = listener.accept().await?;
        let mut stream = BufReader::new(acceptor.accept(stream).await?);
        let mut granted = String::new();
        loop {
            let mut line = String::new();
            stream.read_line(&mut line).await?;
            let name = line.split(':').next().unwrap_or_default().to_ascii_lowercase();
            if ["upgrade", "x-stream-protocol-version", "sec-websocket-protocol"].contains(&name.as_str()) {
                granted.push_str(&line);
            }
            if line.trim().is_empty() {
                break;
            }
        }
        let answer = if granted.is_empty() {
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 6\r\n\r\nhello\n".to_owned()
        } else {
            format!("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n{granted}\r\n")
        };
        stream.write_all(answer.as_bytes()).await?;
        stream.flush().await?;
    }
}

const METRICS: &str = "/apis/metrics.k8s.io/v1beta1";

/// What `kubectl top` asks for.
fn metrics(path: &str, _: &Value) -> Response<Body> {
    let usage = json!({"cpu": "100m", "memory": "64Mi"});
    let of = |kind: &str, name: &str| {
        json!({"kind": kind, "apiVersion": "metrics.k8s.io/v1beta1", "metadata": {"name": name},
            "timestamp": "2026-01-01T00:00:00Z", "window": "10s"})
    };
    match path.split('?').next().unwrap_or_default().strip_prefix(METRICS) {
        Some("") => json_answer(&json!({"kind": "APIResourceList", "apiVersion": "v1",
            "groupVersion": "metrics.k8s.io/v1beta1", "resources": [
                {"name": "nodes", "singularName": "", "namespaced": false, "kind": "NodeMetrics", "verbs": ["get", "list"]},
                {"name": "pods", "singularName": "", "namespaced": true, "kind": "PodMetrics", "verbs": ["get", "list"]}]})),
        Some("/nodes") => {
            let mut node = of("NodeMetrics", "n1");
            node["usage"] = usage;
            json_answer(&json!({"kind": "NodeMetricsList", "apiVersion": "metrics.k8s.io/v1beta1",
                "metadata": {}, "items": [node]}))
        }
        Some("/namespaces/default/pods") => {
            let mut pod = of("PodMetrics", "web-1");
            pod["containers"] = json!([{"name": "c", "usage": usage}]);
            json_answer(&json!({"kind": "PodMetricsList", "apiVersion": "metrics.k8s.io/v1beta1",
                "metadata": {}, "items": [pod]}))
        }
        _ => Response::builder().status(StatusCode::NOT_FOUND).body(Body::empty()).expect("a response"),
    }
}

/// A request to sign, for a key that is thrown away.
fn signing_request() -> anyhow::Result<String> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "somebody");
    let pem = params.serialize_request(&KeyPair::generate()?)?.pem()?;
    Ok(base64::Engine::encode(&base64::engine::general_purpose::STANDARD, pem))
}

fn objects(request: &str) -> Vec<(&'static str, Value)> {
    let meta = |name: &str| json!({"name": name});
    let container = json!({"name": "c", "image": "nginx"});
    let template = json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [container]}});
    let job = json!({"metadata": {}, "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [container]}}}});
    vec![
        ("/api/v1/nodes", json!({"metadata": meta("n1")})),
        ("/api/v1/namespaces/default/serviceaccounts", json!({"metadata": meta("default")})),
        (
            "/api/v1/namespaces/default/pods",
            json!({"metadata": {"name": "web-1", "labels": {"app": "web"}},
            "spec": {"nodeName": "n1", "containers": [container]}}),
        ),
        ("/api/v1/namespaces/default/configmaps", json!({"metadata": meta("cm1"), "data": {"a": "b"}})),
        (
            "/api/v1/namespaces/default/services",
            json!({"metadata": meta("web"), "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}}),
        ),
        (
            "/apis/apps/v1/namespaces/default/deployments",
            json!({"metadata": {"name": "web", "labels": {"app": "web"}},
            "spec": {"selector": {"matchLabels": {"app": "web"}}, "template": template}}),
        ),
        (
            "/apis/batch/v1/namespaces/default/cronjobs",
            json!({"metadata": meta("cj"), "spec": {"schedule": "0 0 1 1 *", "jobTemplate": job}}),
        ),
        (
            "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases",
            json!({"metadata": meta("n1"), "spec": {"holderIdentity": "n1"}}),
        ),
        (
            "/apis/certificates.k8s.io/v1/certificatesigningrequests",
            json!({"metadata": meta("csr1"), "spec": {"request": request, "usages": ["client auth"],
                "signerName": "kubernetes.io/kube-apiserver-client"}}),
        ),
    ]
}

/// Puts everything in place.
pub async fn set(cluster: &Cluster) -> anyhow::Result<Stage> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    let identity = cluster.serving_identity("127.0.0.1")?;
    let kubelet = tokio::spawn(async move {
        if let Err(error) = kubelet(listener, identity).await {
            eprintln!("the kubelet stopped: {error:#}");
        }
    });
    let client = cluster.server.client(User::system("test"));
    let send = async |method: &str, path: &str, content: &str, object: &Value| {
        let request = http::Request::builder().method(method).uri(path).header("content-type", content);
        client.request::<Value>(request.body(object.to_string().into_bytes())?).await?;
        anyhow::Ok(())
    };
    let request = signing_request()?;
    for (path, object) in objects(&request) {
        send("POST", path, "application/json", &object).await?;
    }
    let merge = "application/merge-patch+json";
    let node = json!({"status": {"addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": port}}}});
    send("PATCH", "/api/v1/nodes/n1/status", merge, &node).await?;
    let pod = json!({"status": {"phase": "Running", "podIP": "10.244.0.2", "hostIP": "127.0.0.1",
        "conditions": [{"type": "Ready", "status": "True"}],
        "containerStatuses": [{"name": "c", "image": "nginx", "imageID": "", "ready": true, "restartCount": 0,
            "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}}]}});
    send("PATCH", "/api/v1/namespaces/default/pods/web-1/status", merge, &pod).await?;
    let metrics = HttpsServer::start(&["metrics.kube-system.svc"], metrics).await;
    let service = json!({"metadata": {"name": "metrics"}, "spec": {"ports": [{"port": 443}]}});
    send("POST", "/api/v1/namespaces/kube-system/services", "application/json", &service).await?;
    // Endpoints on loopback are refused by the API, so this one goes straight into the store.
    let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": "metrics", "namespace": "kube-system",
            "labels": {"kubernetes.io/service-name": "metrics"}},
        "addressType": "IPv4", "ports": [{"name": "", "port": metrics.address.port(), "protocol": "TCP"}],
        "endpoints": [{"addresses": ["127.0.0.1"], "conditions": {"ready": true}}]});
    let mutation = Mutation::Put { value: slice.to_string().into(), lease_ttl_seconds: None };
    let key = "/registry/discovery.k8s.io/endpointslices/kube-system/metrics".to_owned();
    cluster.store.commit(Write { key, expect: Expect::Absent, mutation }).await?;
    let group = json!({"metadata": {"name": "v1beta1.metrics.k8s.io"},
        "spec": {"group": "metrics.k8s.io", "version": "v1beta1", "groupPriorityMinimum": 100, "versionPriority": 100,
            "caBundle": metrics.bundle, "service": {"namespace": "kube-system", "name": "metrics"}}});
    send("POST", "/apis/apiregistration.k8s.io/v1/apiservices", "application/json", &group).await?;
    let served = tokio::time::timeout(PATIENCE, async {
        let request = || http::Request::get(format!("{METRICS}/nodes")).body(Vec::new());
        while client.request::<Value>(request()?).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        anyhow::Ok(())
    });
    served.await??;
    Ok(Stage { kubelet, _metrics: metrics })
}
