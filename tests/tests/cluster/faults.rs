//! Kills at bad moments: what was flowing goes on, and the cluster heals.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use penstock_tests::cluster::{Cluster, PATIENCE};
use penstock_tests::eventually::until;
use penstock_tests::load::Load;

use super::Scenario;

pub const SCENARIOS: &[Scenario] = &[
    ("kill_9_of_the_orchestrator_stops_no_traffic_and_heals", orchestrator),
    ("kill_9_of_an_agent_stops_no_traffic_and_heals", agent),
    ("kill_9_of_containerd_stops_no_traffic_and_heals", containerd),
];

fn orchestrator(cluster: &Cluster) -> Result<()> {
    survives(cluster, "control", "orchestrator")
}

fn agent(cluster: &Cluster) -> Result<()> {
    survives(cluster, "node-1", "node-agent")
}

fn containerd(cluster: &Cluster) -> Result<()> {
    survives(cluster, "node-1", "containerd")
}

/// Kills a process under load; no request may fail, it must come back, and a new pod on the node must come up.
fn survives(cluster: &Cluster, part: &str, program: &str) -> Result<()> {
    let target: SocketAddr = format!("{}:30080", cluster.node_addresses()?.remove(0)).parse()?;
    let load = Load::start(target);
    until(PATIENCE, "the load flows", || load.answered() > 100)?;
    let killed = cluster.kill_9(part, program)?;
    let back = until(PATIENCE, &format!("{program} comes back"), || {
        cluster.pid(part, program).is_ok_and(|pid| pid != killed)
    });
    let healed = back.and_then(|()| heals(cluster, program));
    let enough = until(PATIENCE, "more load flows", || load.answered() > 1000);
    let outcome = load.finish();
    healed?;
    enough?;
    let first = outcome.failures.first();
    ensure!(first.is_none(), "{} of {} requests failed: {first:?}", outcome.failures.len(), outcome.answered);
    Ok(())
}

fn heals(cluster: &Cluster, program: &str) -> Result<()> {
    let pod = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: after\nspec:\n  nodeName: node-1\n  terminationGracePeriodSeconds: 0\n  \
         containers:\n  - name: main\n    image: penstock.local/demo:1\n    args: [serve]\n";
    until(PATIENCE, "the API takes a pod", || cluster.kubectl_with(&["apply", "-f", "-"], pod).is_ok())?;
    cluster
        .kubectl(&["wait", "--for=condition=Ready", "pod/after", "--timeout=90s"])
        .with_context(|| format!("no pod comes up after the death of {program}"))?;
    cluster.kubectl(&["delete", "pod", "after"])?;
    until(PATIENCE, "every node is Ready", || {
        let nodes = cluster.kubectl(&["get", "nodes", "--no-headers"]).unwrap_or_default();
        nodes.lines().count() == 3 && nodes.lines().all(|line| line.contains(" Ready"))
    })
}
