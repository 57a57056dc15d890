//! Pods as controllers make them, for lists to be long.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Result;
use serde_json::{Value, json};

use crate::contender::NAMESPACE;
use crate::http::Endpoint;

const AT_ONCE: usize = 32;

/// Makes the pods with these numbers.
pub async fn create(endpoint: &Endpoint, numbers: Range<usize>) -> Result<()> {
    let next = Arc::new(AtomicUsize::new(numbers.start));
    let makers: Vec<_> = (0..AT_ONCE)
        .map(|_| {
            let (endpoint, next, end) = (endpoint.clone(), next.clone(), numbers.end);
            tokio::spawn(async move {
                let mut connection = endpoint.connect().await?;
                let path = format!("/api/v1/namespaces/{NAMESPACE}/pods");
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= end {
                        return anyhow::Ok(());
                    }
                    let body = pod(number).to_string();
                    let request = endpoint.request("POST", &path, "application/json", body.as_bytes());
                    connection.ask(&request).await?;
                }
            })
        })
        .collect();
    for maker in makers {
        maker.await??;
    }
    Ok(())
}

fn pod(number: usize) -> Value {
    let app = format!("app-{}", number / 50);
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": format!("{app}-7d4b9c6f58-{number:06}"),
            "labels": {"app": app, "pod-template-hash": "7d4b9c6f58", "tier": "backend"},
            "annotations": {"example.com/config-hash": "3f1c0a5de9b84f6c"},
        },
        "spec": {
            "automountServiceAccountToken": false,
            "containers": [{
                "name": "main",
                "image": "registry.example.com/team/service:1.4.2",
                "args": ["--listen=:8080", "--log-format=json"],
                "ports": [{"containerPort": 8080, "name": "http"}, {"containerPort": 9090, "name": "metrics"}],
                "env": [
                    {"name": "LOG_LEVEL", "value": "info"},
                    {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                ],
                "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}},
                "readinessProbe": {"httpGet": {"path": "/healthz", "port": "http"}, "periodSeconds": 10},
                "volumeMounts": [{"name": "config", "mountPath": "/etc/service"}],
            }],
            "volumes": [{"name": "config", "configMap": {"name": "service-config"}}],
            "nodeSelector": {"kubernetes.io/os": "linux"},
        },
    })
}
