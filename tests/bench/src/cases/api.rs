//! What takes the whole way from the API to the kernel: a change of endpoints, the start of an agent; and what an agent and
//! its maps hold.
//!
//! Orchestrator and agents are the programs that ship, each in its own process and namespace.

use std::net::SocketAddrV4;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use penstock_dataplane::monotonic_ns;

use crate::cluster::{self, Agent, Cluster, Fleet, SERVICE_PORT, moved_prefix};
use crate::report::Row;
use crate::rounds::{median, quantile};
use crate::stage::{Scope, Stage};
use crate::worker::Worker;
use crate::{map_memory, process};

const CHANGE: &str = "endpoint change from API write to first connection";
const CHANGE_NODES: usize = 3;
const CHANGE_ENDPOINTS: u32 = 25;
const CHANGE_P99_GOAL_MS: f64 = 10.0;
const CHANGE_CPU_GOAL_MS: f64 = 1.0;

const COLD: &str = "cold start through the API";
/// As many endpoints as the goal speaks of, of fewer Services: to make 50,000 through the API takes longer than all the rest
/// of the bench. So there is no goal here; the library's row has it.
const COLD_SERVICES: u32 = 10_000;
const COLD_SERVICES_QUICK: u32 = 2_000;
const COLD_ENDPOINTS: u32 = 25;

const MEMORY: &str = "memory of agent and maps";
const MEMORY_SERVICES: u32 = 10_000;
const MEMORY_ENDPOINTS: u32 = 10;
const MEMORY_GOAL_MB: f64 = 80.0;
/// How long an agent that has programmed everything is left alone before its memory is read.
const IDLE: Duration = Duration::from_secs(10);
const MB: f64 = 1e6;

pub fn change_cases(_scope: &Scope) -> Vec<String> {
    vec![CHANGE.to_owned()]
}

pub fn cold_start_cases(_scope: &Scope) -> Vec<String> {
    vec![COLD.to_owned()]
}

pub fn memory_cases(_scope: &Scope) -> Vec<String> {
    vec![MEMORY.to_owned()]
}

/// Every endpoint of one Service is moved by one write: the first connection after a kernel knows it lands on a new one.
pub fn change(stage: &Stage) -> Result<Vec<Row>> {
    let (services, changes) = if stage.scope.quick { (1_000, 20) } else { (10_000, 100) };
    cluster::with(stage, CHANGE_NODES, |cluster| {
        let (fleet, filling) = fill(cluster, services, CHANGE_ENDPOINTS)?;
        let agents: Vec<Agent> =
            cluster.nodes.iter().map(|node| cluster.start_agent(node, stage)).collect::<Result<_>>()?;
        for (node, agent) in cluster.nodes.iter().zip(&agents) {
            agent.wait_until_programmed(node, fleet.last()?).with_context(|| node.name.clone())?;
        }
        let mut probers: Vec<Worker> = cluster
            .nodes
            .iter()
            .map(|node| Worker::prober(&node.netns, &node.cgroup))
            .collect::<Result<_>>()?;
        let cpu = || agents.iter().map(Agent::settled_cpu_ns).collect::<Result<Vec<u64>>>();
        let (mut took, mut writes) = (Vec::new(), Vec::new());
        let before = cpu()?;
        for change in 0..changes {
            // Far from each other, so that nothing of the last change is warm.
            let moved = move_endpoints(cluster, &fleet, &mut probers, change * 97 % services, change)?;
            writes.push(moved.write_ms);
            took.push(moved.last_ms);
            cpu()?;
        }
        let after = cpu()?;
        let each =
            before.iter().zip(&after).map(|(a, b)| (b - a) as f64 / 1e6 / f64::from(changes)).collect();
        let p99 = quantile(took.clone(), 0.99).context("no change was made")?;
        // A smaller cluster says nothing of the goals.
        let judged = |case: String, value: f64, goal: f64| {
            let row = Row::of(case, value, "ms");
            if stage.scope.quick { row } else { row.at_most(goal) }
        };
        let size = format!(
            "{CHANGE}, {CHANGE_NODES} nodes, {services} services, {} endpoints ({changes} changes of {CHANGE_ENDPOINTS})",
            services * CHANGE_ENDPOINTS
        );
        Ok(vec![
            Row::of(format!("{CHANGE}: making {services} services before"), filling, "s"),
            Row::of(format!("{size}: the write itself, p50"), median(writes)?, "ms"),
            Row::of(format!("{size}: last node, p50"), median(took)?, "ms"),
            judged(format!("{size}: last node, p99"), p99, CHANGE_P99_GOAL_MS),
            judged(format!("{size}: CPU of an agent"), median(each)?, CHANGE_CPU_GOAL_MS),
        ])
    })
}

/// What a change took.
pub struct Moved {
    /// Until the write was acknowledged.
    pub write_ms: f64,
    /// From then until the last node's first connection led to a new endpoint.
    pub last_ms: f64,
}

/// Moves the endpoints of one Service and watches where it leads.
pub fn move_endpoints(
    cluster: &Cluster,
    fleet: &Fleet,
    probers: &mut [Worker],
    number: u32,
    change: u32,
) -> Result<Moved> {
    let target = SocketAddrV4::new(fleet.vips[number as usize], SERVICE_PORT);
    probers.iter_mut().try_for_each(|prober| prober.watch(target, moved_prefix(change)))?;
    let write = cluster.control.runtime.block_on(fleet.move_endpoints(number, change))?;
    let acknowledged = monotonic_ns();
    let mut last_ms = 0.0_f64;
    for prober in probers {
        // The kernel may know before the writer hears that it was written.
        let after = prober.seen_at_ns()?.saturating_sub(acknowledged);
        last_ms = last_ms.max(after as f64 / 1e6);
    }
    Ok(Moved { write_ms: write.as_secs_f64() * 1e3, last_ms })
}

/// From the start of an agent's process until its kernel has every Service of the API server.
pub fn cold_start(stage: &Stage) -> Result<Vec<Row>> {
    let services = if stage.scope.quick { COLD_SERVICES_QUICK } else { COLD_SERVICES };
    cluster::with(stage, 1, |cluster| {
        let (fleet, filling) = fill(cluster, services, COLD_ENDPOINTS)?;
        let node = cluster.nodes.first().context("a cluster without nodes")?;
        let agent = cluster.start_agent(node, stage)?;
        let took = agent.wait_until_programmed(node, fleet.last()?)?;
        let cpu = agent.settled_cpu_ns()? as f64 / 1e9;
        let size = format!("{COLD}, {services} services, {} endpoints", services * COLD_ENDPOINTS);
        Ok(vec![
            Row::of(format!("{COLD}: making {services} services before"), filling, "s"),
            Row::of(format!("{size}: start to full programming"), took, "s"),
            Row::of(format!("{size}: CPU of the agent"), cpu, "s"),
        ])
    })
}

/// What an agent holds that follows the API, and the kernel for its maps.
pub fn memory(stage: &Stage) -> Result<Vec<Row>> {
    let services = if stage.scope.quick { MEMORY_SERVICES / 5 } else { MEMORY_SERVICES };
    cluster::with(stage, 1, |cluster| {
        let (fleet, _) = fill(cluster, services, MEMORY_ENDPOINTS)?;
        let node = cluster.nodes.first().context("a cluster without nodes")?;
        let agent = cluster.start_agent(node, stage)?;
        agent.wait_until_programmed(node, fleet.last()?)?;
        std::thread::sleep(IDLE);
        let resident = process::resident_bytes(agent.pid())? as f64 / MB;
        let maps = map_memory::of_process(agent.pid())?;
        let held = maps.values().sum::<u64>() as f64 / MB;
        let size = format!("{MEMORY}, {services} services of {MEMORY_ENDPOINTS} endpoints");
        let both = Row::of(format!("{size}: both"), resident + held, "MB");
        // A smaller cluster says nothing of the goal.
        Ok(vec![
            Row::of(format!("{size}: resident"), resident, "MB"),
            Row::of(format!("{size}: {} maps in the kernel", maps.len()), held, "MB"),
            if stage.scope.quick { both } else { both.at_most(MEMORY_GOAL_MB) },
        ])
    })
}

/// Makes Services and slices, and returns the seconds that took.
pub fn fill(cluster: &Cluster, services: u32, endpoints_each: u32) -> Result<(Fleet, f64)> {
    let begin = Instant::now();
    let fleet =
        cluster.control.runtime.block_on(Fleet::make(&cluster.control.client, services, endpoints_each));
    Ok((fleet.context("filling the cluster")?, begin.elapsed().as_secs_f64()))
}
