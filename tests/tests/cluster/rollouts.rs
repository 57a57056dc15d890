//! Changes under load. Pods are told to stop only when no node sends them anything any more, so a rollout loses nothing
//! although the demo's server ends at once when it is told, and no pod has a preStop hook. Nor does the death of agents.
//!
//! Two pods on two nodes press a Service by its address, and the host presses it by a NodePort of the last node.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use penstock_tests::cluster::{Cluster, PATIENCE};
use penstock_tests::eventually::until;
use penstock_tests::press::{Press, Pressed, demo};

use super::Scenario;

pub const SCENARIOS: &[Scenario] = &[
    ("a_rolling_update_of_30_replicas_under_load_fails_no_request", rolling_update),
    ("kill_9_of_every_agent_again_and_again_under_load_fails_no_request", killed_agents),
];

/// Of new connections a second, from each who presses.
const RATE: &str = "700";
/// How many of them each gets done at least, on a machine that has much else to do.
const CONNECTIONS_MIN: u64 = 1_000;

const WAVE: &str = r#"
apiVersion: v1
kind: Namespace
metadata: { name: wave }
---
apiVersion: apps/v1
kind: Deployment
metadata: { name: wave, namespace: wave }
spec:
  replicas: REPLICAS
  selector: { matchLabels: { app: wave } }
  template:
    metadata: { labels: { app: wave } }
    spec:
      containers:
      - name: main
        image: penstock.local/demo:1
        args: [serve]
        readinessProbe: { httpGet: { path: /, port: 8080 }, periodSeconds: 1 }
---
apiVersion: v1
kind: Service
metadata: { name: wave, namespace: wave }
spec:
  type: NodePort
  selector: { app: wave }
  ports:
  - { name: http, port: 80, targetPort: 8080, nodePort: 30090 }
  - { name: who, port: 81, targetPort: 8081, protocol: UDP, nodePort: 30091 }
"#;

/// A pod that presses until a file tells it to stop: it outlives the agent of its node, as a session with it would not.
const PRESS: &str = r#"
apiVersion: v1
kind: Pod
metadata: { name: press-NODE, namespace: wave }
spec:
  nodeName: NODE
  terminationGracePeriodSeconds: 0
  restartPolicy: Never
  containers:
  - name: main
    image: penstock.local/demo:1
    command: [sh, -c, "(while ! test -e /tmp/stop; do sleep 1; done) | demo press wave:80 wave:81 RATE"]
"#;

fn rolling_update(cluster: &Cluster) -> Result<()> {
    replace(cluster, 30)
}

/// A rolling update of so many replicas, under load.
pub fn replace(cluster: &Cluster, replicas: usize) -> Result<()> {
    under_load(cluster, replicas, || {
        let began = Instant::now();
        cluster.kubectl(&["-n", "wave", "rollout", "restart", "deployment/wave"])?;
        let status = ["-n", "wave", "rollout", "status", "deployment/wave", "--timeout=240s"];
        cluster.kubectl(&[&["--request-timeout=0"], &status[..]].concat())?;
        println!("{replicas} replicas were replaced in {:?}", began.elapsed());
        // The last of the old pods have still to go.
        until(PATIENCE, "the old pods are gone", || {
            let pods = cluster.kubectl(&["-n", "wave", "get", "pods", "-l", "app=wave", "--no-headers"]);
            pods.is_ok_and(|text| text.lines().count() == replicas && !text.contains("Terminating"))
        })
    })
}

fn killed_agents(cluster: &Cluster) -> Result<()> {
    const KILLS: u64 = 9;
    under_load(cluster, 6, || {
        for kill in 0..KILLS {
            let nodes = cluster.node_names();
            let node = &nodes[kill as usize % nodes.len()];
            let killed = cluster.kill_9(node, "node-agent")?;
            until(PATIENCE, "the agent comes back", || {
                cluster.pid(node, "node-agent").is_ok_and(|pid| pid != killed)
            })?;
            // Into another part of its start each time.
            std::thread::sleep(Duration::from_millis(150 * kill));
        }
        until(PATIENCE, "every node is Ready", || {
            let nodes = cluster.kubectl(&["get", "nodes", "--no-headers"]).unwrap_or_default();
            nodes.lines().filter(|line| line.contains(" Ready")).count() == cluster.node_names().len()
        })
    })
}

/// Does something while pods and the host press; none of them may lose anything.
fn under_load(cluster: &Cluster, replicas: usize, work: impl FnOnce() -> Result<()>) -> Result<()> {
    let pressed = press(cluster, replicas, work);
    cluster.kubectl(&["delete", "namespace", "wave"])?;
    let pressed = pressed?;
    pressed.iter().for_each(|pressed| println!("{pressed:?}"));
    pressed.iter().try_for_each(|pressed| pressed.check(CONNECTIONS_MIN))
}

fn press(cluster: &Cluster, replicas: usize, work: impl FnOnce() -> Result<()>) -> Result<Vec<Pressed>> {
    cluster.kubectl_with(&["apply", "-f", "-"], &WAVE.replace("REPLICAS", &replicas.to_string()))?;
    until(PATIENCE, "all replicas are ready", || {
        let path = "jsonpath={.status.readyReplicas}";
        let ready = cluster.kubectl(&["-n", "wave", "get", "deployment", "wave", "-o", path]);
        ready.is_ok_and(|text| text.trim() == replicas.to_string())
    })?;
    let names = cluster.node_names();
    let (pressing, served) = (&names[..2], cluster.node_addresses()?);
    let logs = |node: &str| cluster.kubectl(&["-n", "wave", "logs", &format!("press-{node}")]);
    for node in pressing {
        let pod = PRESS.replace("NODE", node).replace("RATE", RATE);
        cluster.kubectl_with(&["apply", "-f", "-"], &pod)?;
    }
    for node in pressing {
        until(PATIENCE, "the pods press", || logs(node).is_ok_and(|text| text.contains("pressing")))?;
    }
    let node = served.last().context("no node")?;
    let mut command = Command::new(demo()?);
    command.args(["press", &format!("{node}:30090"), &format!("{node}:30091"), RATE]);
    let host = Press::start("host", command)?;
    let worked = work();
    let mut pressed = vec![host.finish()?];
    for node in pressing {
        let pod = format!("press-{node}");
        until(PATIENCE, "the pods are told to stop", || {
            cluster.kubectl(&["-n", "wave", "exec", &pod, "--", "touch", "/tmp/stop"]).is_ok()
        })?;
        until(PATIENCE, "the pods have stopped", || logs(node).is_ok_and(|text| text.contains(" failed")))?;
        pressed.push(Pressed::read(&pod, &logs(node)?)?);
    }
    worked?;
    ensure!(pressed.len() == 3, "two pods and the host");
    Ok(pressed)
}
