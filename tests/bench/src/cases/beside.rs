//! A change of endpoints through the API, for our agent and then for the real kube-proxy: on one node each, one after the
//! other, of one cluster.
//!
//! Changes are some seconds apart, for kube-proxy programs at most once a second and would be measured waiting.

use std::time::Duration;

use anyhow::{Context, Result};

use super::api::{fill, move_endpoints};
use crate::cluster::{self, Cluster, Fleet, Node};
use crate::peer::kube_proxy::{KubeProxy, Mode};
use crate::process;
use crate::report::Row;
use crate::rounds::{Figure, median};
use crate::stage::{Scope, Stage};
use crate::worker::Worker;

const NAME: &str = "endpoint change beside kube-proxy";
const SERVICES: u32 = 5_000;
const SERVICES_QUICK: u32 = 1_000;
/// More would take iptables-restore minutes at first.
const ENDPOINTS: u32 = 2;
const CHANGES: u32 = 30;
const CHANGES_QUICK: u32 = 8;
const APART: Duration = Duration::from_secs(2);

/// What changes took on a node, and cost there.
struct Changes {
    took_ms: f64,
    cpu_ms: f64,
}

pub fn cases(scope: &Scope) -> Vec<String> {
    scope.kube_proxy.iter().map(|_| NAME.to_owned()).collect()
}

pub fn run(stage: &Stage) -> Result<Vec<Row>> {
    let program = stage.scope.kube_proxy.as_ref().context("no kube-proxy was given")?;
    let (services, changes) =
        if stage.scope.quick { (SERVICES_QUICK, CHANGES_QUICK) } else { (SERVICES, CHANGES) };
    cluster::with(stage, 1 + Mode::ALL.len(), |cluster| {
        let (fleet, _) = fill(cluster, services, ENDPOINTS)?;
        let (node, others) = cluster.nodes.split_first().context("a cluster without nodes")?;
        eprintln!("  penstock");
        let ours = {
            let agent = cluster.start_agent(node, stage)?;
            agent.wait_until_programmed(node, fleet.last()?)?;
            measure(cluster, &fleet, node, agent.pid(), 0..changes)?
        };
        let size = format!(
            "{NAME}, {services} services, {} endpoints, {} s apart",
            services * ENDPOINTS,
            APART.as_secs()
        );
        let mut rows = vec![
            Row::of(format!("{size}: penstock, write to first connection, p50"), ours.took_ms, "ms"),
            Row::of(format!("{size}: penstock, CPU of a change and the pause"), ours.cpu_ms, "ms"),
        ];
        for (turn, (mode, node)) in (1..).zip(Mode::ALL.into_iter().zip(others)) {
            eprintln!("  kube-proxy {}", mode.name());
            let kubeconfig = cluster.control.kubeconfig();
            let proxy = KubeProxy::start(program, mode, &kubeconfig, &node.name, &node.netns, node.folder())?;
            proxy.wait_until_programmed(&node.netns)?;
            let numbers = turn * changes..(turn + 1) * changes;
            let theirs = measure(cluster, &fleet, node, proxy.pid(), numbers)?;
            let name = mode.name();
            let beside = |what: &str, value: f64, ours: f64| {
                let figure = Figure { value, ratio: value / ours, spread: 0.0 };
                Row::beside(format!("{size}: kube-proxy {name}, {what}"), figure, ours, "ms")
            };
            rows.push(beside("write to first connection, p50", theirs.took_ms, ours.took_ms));
            rows.push(beside(
                "CPU of a change and the pause, without iptables and nft",
                theirs.cpu_ms,
                ours.cpu_ms,
            ));
        }
        Ok(rows)
    })
}

fn measure(
    cluster: &Cluster,
    fleet: &Fleet,
    node: &Node,
    pid: u32,
    changes: std::ops::Range<u32>,
) -> Result<Changes> {
    let mut probers = [Worker::prober(&node.netns, &node.cgroup)?];
    std::thread::sleep(APART);
    let (count, before) = (f64::from(changes.end - changes.start), process::cpu_ns(pid));
    let mut took = Vec::new();
    for change in changes {
        let number = change * 97 % fleet.vips.len() as u32;
        took.push(move_endpoints(cluster, fleet, &mut probers, number, change)?.last_ms);
        std::thread::sleep(APART);
    }
    let cpu_ms = (process::cpu_ns(pid) - before) as f64 / 1e6 / count;
    Ok(Changes { took_ms: median(took)?, cpu_ms })
}
