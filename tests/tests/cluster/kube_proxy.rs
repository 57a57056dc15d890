//! A cluster whose Services kube-proxy serves, beside agents with `--service-proxy none`: everything that is not the
//! proxy's works, and nothing of the agents' is in its way. `PENSTOCK_KUBE_PROXY` names the program.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use penstock_tests::cluster::{Cluster, PATIENCE};
use penstock_tests::eventually::eventually;

use super::traffic::ask_http;
use super::{Scenario, rollouts};

pub const SCENARIOS: &[Scenario] =
    &[("kube_proxy_serves_services_beside_the_agents_and_they_serve_the_rest", beside)];

const NODES: u16 = 2;
const HOST_PORT: u16 = 31_888;

/// A pod with a host port, and processes of both nodes' own network.
const OBJECTS: &str = r#"
apiVersion: v1
kind: Pod
metadata: { name: ported, namespace: demo }
spec:
  nodeName: node-1
  terminationGracePeriodSeconds: 0
  containers:
  - name: main
    image: penstock.local/demo:1
    args: [serve]
    ports: [{ containerPort: 8080, hostPort: 31888 }]
---
apiVersion: v1
kind: Pod
metadata: { name: host-1, namespace: demo }
spec:
  nodeName: node-1
  hostNetwork: true
  terminationGracePeriodSeconds: 0
  containers:
  - { name: main, image: "penstock.local/demo:1", command: [sh, -c, "while true; do sleep 3600; done"] }
---
apiVersion: v1
kind: Pod
metadata: { name: host-2, namespace: demo }
spec:
  nodeName: node-2
  hostNetwork: true
  terminationGracePeriodSeconds: 0
  containers:
  - { name: main, image: "penstock.local/demo:1", command: [sh, -c, "while true; do sleep 3600; done"] }
"#;

fn beside(_: &Cluster) -> Result<()> {
    let Some(program) = std::env::var_os("PENSTOCK_KUBE_PROXY").map(PathBuf::from) else {
        println!("SKIPPED: PENSTOCK_KUBE_PROXY names no kube-proxy");
        return Ok(());
    };
    let cluster = Cluster::up_beside("beside", NODES, &program)?;
    let addresses = cluster.node_addresses()?;
    cluster.kubectl_with(&["apply", "-f", "-"], OBJECTS)?;
    for pod in ["ported", "host-1", "host-2"] {
        let pod = format!("pod/{pod}");
        cluster.kubectl(&["-n", "demo", "wait", "--for=condition=Ready", "--timeout=60s", &pod])?;
    }
    services(&cluster, &addresses).context("Services, by kube-proxy")?;
    host_port(&cluster, &addresses).context("host ports, by the agents")?;
    rollouts::replace(&cluster, 10)
}

/// What a pod of the demo is answered.
fn fetch(cluster: &Cluster, pod: &str, url: &str) -> Result<()> {
    eventually(PATIENCE, || {
        let said = cluster.kubectl(&["-n", "demo", "exec", pod, "--", "demo", "fetch", url, "6"])?;
        let answers = said.lines().filter(|line| line.starts_with("hello from ")).count();
        ensure!(answers == 6, "{pod} was answered {answers} times of 6 by {url}: {said}");
        Ok(())
    })
}

fn services(cluster: &Cluster, addresses: &[String]) -> Result<()> {
    let ip =
        cluster.kubectl(&["-n", "demo", "get", "service", "hello", "-o", "jsonpath={.spec.clusterIP}"])?;
    for pod in ["deploy/hello", "ported"] {
        fetch(cluster, pod, &format!("http://{ip}/"))?;
        fetch(cluster, pod, "http://hello.demo.svc.cluster.local/")?;
        let said =
            cluster.kubectl(&["-n", "demo", "exec", pod, "--", "demo", "ask", "hello.demo:81", "6"])?;
        ensure!(said.lines().filter(|line| line.starts_with("hello from ")).count() == 6, "{pod}: {said}");
    }
    for pod in ["host-1", "host-2"] {
        fetch(cluster, pod, &format!("http://{ip}/"))?;
    }
    for address in addresses {
        fetch(cluster, "deploy/hello", &format!("http://{address}:30080/"))?;
        eventually(PATIENCE, || ask_http(&format!("{address}:30080")))?;
    }
    Ok(())
}

/// From outside, from pods, and from processes of both nodes.
fn host_port(cluster: &Cluster, addresses: &[String]) -> Result<()> {
    let node = addresses.first().context("a node")?;
    eventually(PATIENCE, || ask_http(&format!("{node}:{HOST_PORT}")))?;
    for pod in ["deploy/hello", "host-1", "host-2"] {
        fetch(cluster, pod, &format!("http://{node}:{HOST_PORT}/"))?;
    }
    Ok(())
}
