//! The audit log of a server that kubectl talks to.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use penstock_apiserver::audit::{AuditConfig, LogConfig, Policy};
use serde_json::Value;

use crate::cluster::Cluster;
use crate::kubectl::Kubectl;

const PATIENCE: Duration = Duration::from_secs(30);

const POLICY: &str = "
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {level: RequestResponse, omitManagedFields: true, verbs: [create], resources: [{resources: [configmaps]}]}
- {level: Metadata, resources: [{resources: [secrets]}]}
- {level: None}
";

/// Waits for an event, which is written a moment after its answer.
async fn event(log: &Path, wanted: impl Fn(&Value) -> bool) -> Value {
    let started = Instant::now();
    loop {
        let text = std::fs::read_to_string(log).unwrap_or_default();
        let events = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        if let Some(found) = events.into_iter().find(|event| wanted(event)) {
            return found;
        }
        assert!(started.elapsed() < PATIENCE, "no such event in {text}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_policy_says_what_is_noted_of_whom() -> anyhow::Result<()> {
    let cluster = Cluster::start_with(|config, folder| {
        config.audit = Some(AuditConfig {
            policy: Arc::new(Policy::parse("policy", POLICY.as_bytes()).unwrap()),
            log: LogConfig { path: folder.join("audit.log"), size_max_mib: 0, kept_max: 0, days_max: 0 },
        });
    })
    .await?;
    let log = cluster.directory.path().join("audit.log");
    let kubeconfig = cluster.kubeconfig("admin", &["system:masters"])?;
    let kubectl = Kubectl { kubeconfig, home: cluster.directory.path().to_owned() };
    kubectl.ok(&["create", "configmap", "noted", "--from-literal=k=v"]).await?;
    let created = event(&log, |event| event["objectRef"]["name"] == "noted").await;
    assert_eq!(created["level"], "RequestResponse");
    assert_eq!(created["stage"], "ResponseComplete");
    assert_eq!(created["verb"], "create");
    assert_eq!(created["user"]["username"], "admin");
    assert_eq!(created["sourceIPs"], serde_json::json!(["127.0.0.1"]));
    assert_eq!(created["responseStatus"]["code"], 201);
    assert_eq!(created["requestObject"]["data"]["k"], "v", "sent as protobuf, noted as an object");
    assert!(created["responseObject"]["metadata"]["uid"].is_string());
    assert!(created["responseObject"]["metadata"].get("managedFields").is_none());
    assert_eq!(created["annotations"]["authorization.k8s.io/decision"], "allow");

    kubectl.run(&["get", "secrets", "--as=nobody"]).await?;
    let refused = event(&log, |event| event["objectRef"]["resource"] == "secrets").await;
    assert_eq!(refused["level"], "Metadata");
    assert_eq!(refused["impersonatedUser"]["username"], "nobody");
    assert_eq!(refused["responseStatus"]["code"], 403);
    assert_eq!(refused["responseStatus"]["reason"], "Forbidden");
    assert_eq!(refused["annotations"]["authorization.k8s.io/decision"], "forbid");
    let all = std::fs::read_to_string(&log)?;
    assert!(!all.contains("RequestReceived") && !all.contains("\"resource\":\"namespaces\""), "{all}");
    cluster.stop().await;
    Ok(())
}
