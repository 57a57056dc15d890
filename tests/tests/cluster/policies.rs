//! NetworkPolicies from outside: what they stop and let through, that probes and DNS go on as they should, and that a pod
//! never runs without its own.

use std::time::Duration;

use anyhow::{Result, ensure};
use penstock_tests::cluster::{Cluster, PATIENCE};
use penstock_tests::eventually::{eventually, until};

use super::Scenario;

pub const SCENARIOS: &[Scenario] =
    &[("policies_stop_what_they_do_not_allow_and_pods_start_with_theirs_in_force", policies)];

const NAMESPACE: &str = "policies";

const PODS: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: { name: web }
spec:
  replicas: 3
  selector: { matchLabels: { app: web } }
  template:
    metadata: { labels: { app: web } }
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: main
        image: penstock.local/demo:1
        args: [serve]
        ports: [{ name: http, containerPort: 8080 }]
        readinessProbe: { httpGet: { path: /, port: http }, periodSeconds: 1 }
---
apiVersion: v1
kind: Service
metadata: { name: web }
spec: { selector: { app: web }, ports: [{ port: 80, targetPort: http }] }
---
apiVersion: v1
kind: Pod
metadata: { name: client, labels: { app: client } }
spec: { terminationGracePeriodSeconds: 1, containers: [{ name: main, image: \"penstock.local/demo:1\", args: [serve] }] }
---
apiVersion: v1
kind: Pod
metadata: { name: other, labels: { app: other } }
spec: { terminationGracePeriodSeconds: 1, containers: [{ name: main, image: \"penstock.local/demo:1\", args: [serve] }] }
";

const NOTHING: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: { name: nothing }
spec: { podSelector: {}, policyTypes: [Ingress, Egress] }
";

const CLIENTS: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: { name: web }
spec:
  podSelector: { matchLabels: { app: web } }
  ingress:
  - from: [{ podSelector: { matchLabels: { app: client } } }]
    ports: [{ port: http }]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: { name: clients }
spec:
  podSelector: { matchExpressions: [{ key: app, operator: In, values: [client, other] }] }
  policyTypes: [Egress]
  egress:
  - to:
    - namespaceSelector: { matchLabels: { kubernetes.io/metadata.name: kube-system } }
      podSelector: { matchLabels: { k8s-app: kube-dns } }
    ports: [{ protocol: UDP, port: 53 }]
  - to: [{ podSelector: { matchLabels: { app: web } } }]
    ports: [{ port: http }]
";

struct Stage<'a>(&'a Cluster);

impl Stage<'_> {
    fn kubectl(&self, words: &[&str]) -> Result<String> {
        self.0.kubectl(&[&["--namespace", NAMESPACE], words].concat())
    }

    fn apply(&self, yaml: &str) -> Result<String> {
        self.0.kubectl_with(&["--namespace", NAMESPACE, "apply", "-f", "-"], yaml)
    }

    fn fetch(&self, pod: &str, url: &str) -> Result<String> {
        self.kubectl(&["exec", pod, "--", "demo", "fetch", url])
    }
}

impl Drop for Stage<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.0.kubectl(&["delete", "namespace", NAMESPACE, "--timeout=60s"]) {
            eprintln!("left behind: namespace {NAMESPACE}: {error:#}");
        }
    }
}

fn policies(cluster: &Cluster) -> Result<()> {
    cluster.kubectl(&["create", "namespace", NAMESPACE])?;
    let stage = Stage(cluster);
    stage.apply(PODS)?;
    stage.kubectl(&["rollout", "status", "deployment/web", "--timeout=90s"])?;
    stage.kubectl(&["wait", "pod", "--all", "--for=condition=Ready", "--timeout=90s"])?;
    for pod in ["client", "other"] {
        eventually(PATIENCE, || stage.fetch(pod, "http://web/"))?;
    }

    stage.apply(NOTHING)?;
    until(PATIENCE, "nothing is allowed", || {
        ["client", "other"].iter().all(|pod| stage.fetch(pod, "http://web/").is_err())
    })?;
    let address =
        stage.kubectl(&["get", "pods", "-l", "app=web", "-o", "jsonpath={.items[0].status.podIP}"])?;
    ensure!(
        stage.fetch("client", &format!("http://{address}:8080/")).is_err(),
        "nothing goes past names either"
    );

    stage.apply(CLIENTS)?;
    eventually(PATIENCE, || stage.fetch("client", "http://web/"))?;
    for _ in 0..3 {
        stage.fetch("client", "http://web/")?;
        ensure!(stage.fetch("other", "http://web/").is_err(), "the pods of web do not let it in");
    }
    // Its node asks whether a pod is ready.
    stage.kubectl(&["rollout", "restart", "deployment/web"])?;
    stage.kubectl(&["rollout", "status", "deployment/web", "--timeout=90s"])?;
    eventually(PATIENCE, || stage.fetch("client", "http://web/"))?;

    starts_with_it(&stage)?;
    counted(cluster)?;

    stage.kubectl(&["delete", "networkpolicies", "--all"])?;
    eventually(PATIENCE, || stage.fetch("other", "http://web/"))?;
    Ok(())
}

/// A pod whose first act is to ask somebody it may not ask: never once is it answered.
fn starts_with_it(stage: &Stage) -> Result<()> {
    let address =
        stage.kubectl(&["get", "pods", "-l", "app=web", "-o", "jsonpath={.items[0].status.podIP}"])?;
    let asks = |name: &str, app: &str| {
        format!(
            "
apiVersion: v1
kind: Pod
metadata: {{ name: {name}, labels: {{ app: {app} }} }}
spec:
  restartPolicy: Never
  containers:
  - {{ name: main, image: \"penstock.local/demo:1\", args: [fetch, \"http://{address}:8080/\"] }}
---"
        )
    };
    let pods: Vec<String> = (0..4).map(|it| format!("early-{it}")).collect();
    let stopped: String = pods.iter().map(|name| asks(name, "early")).collect();
    stage.apply(&(stopped + &asks("welcome", "client")))?;
    let phase = |name: &str| stage.kubectl(&["get", "pod", name, "-o", "jsonpath={.status.phase}"]);
    for name in &pods {
        until(PATIENCE, "a pod has asked", || {
            phase(name).is_ok_and(|it| it == "Failed" || it == "Succeeded")
        })?;
        ensure!(phase(name)? == "Failed", "{name} was answered: {}", stage.kubectl(&["logs", name])?);
    }
    // Whoever is allowed may be too early for the other node to know it.
    until(PATIENCE, "a pod has asked", || {
        phase("welcome").is_ok_and(|it| it == "Failed" || it == "Succeeded")
    })
}

/// Some node has dropped packets for that reason, and knows of which pods.
fn counted(cluster: &Cluster) -> Result<()> {
    let has_drops = || {
        cluster.node_names().iter().any(|node| {
            let counters = cluster.counters(node).unwrap_or_default();
            let pods = counters["pods"].as_array().cloned().unwrap_or_default();
            counters["drops"]["policy"].as_u64().is_some_and(|count| count > 0)
                && pods.iter().any(|it| it["reason"] == "policy" && it["drops"].as_u64() > Some(0))
        })
    };
    until(Duration::from_secs(30), "drops by policy are counted", has_drops)
}
