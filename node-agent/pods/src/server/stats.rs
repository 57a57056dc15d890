//! Usage of node, pods and containers: the summary API and three Prometheus pages.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use jiff::Timestamp;
use penstock_runtime::{ContainerFilter, ContainerStats};
use serde_json::{Value, json};

use super::Refusal;
use crate::context::{Context, observe_disk};
use crate::names;

fn label<'a>(stats: &'a ContainerStats, name: &str) -> &'a str {
    stats.labels.get(name).map(String::as_str).unwrap_or_default()
}

async fn ours(context: &Context) -> Result<Vec<ContainerStats>, Refusal> {
    let mut stats = context.runtime.list_stats(&ContainerFilter::default()).await?;
    stats.retain(|s| s.labels.contains_key(names::POD_UID));
    Ok(stats)
}

pub(super) async fn summary(State(context): State<Arc<Context>>) -> Result<Json<Value>, Refusal> {
    let mut pods: BTreeMap<String, Vec<ContainerStats>> = BTreeMap::new();
    for stats in ours(&context).await? {
        pods.entry(label(&stats, names::POD_UID).to_string()).or_default().push(stats);
    }
    let now = Timestamp::now().to_string();
    let (free, total) = observe_disk(&context.config.kubelet_dir).unwrap_or_default();
    let disk = json!({"time": now, "availableBytes": free, "capacityBytes": total, "usedBytes": total.saturating_sub(free)});
    let cpu = |ns: u64| json!({"time": now, "usageCoreNanoSeconds": ns});
    let memory = |used: u64, working: u64, rss: u64| json!({"time": now, "usageBytes": used, "workingSetBytes": working, "rssBytes": rss});
    let sum = |all: &[ContainerStats], of: fn(&ContainerStats) -> u64| all.iter().map(of).sum::<u64>();
    let pod = |(uid, all): (&String, &Vec<ContainerStats>)| {
        let first = &all[0];
        let containers: Vec<Value> = all
            .iter()
            .map(|c| {
                json!({"name": c.name, "startTime": now, "cpu": cpu(c.cpu_total_ns),
                    "memory": memory(c.memory_usage_bytes, c.memory_working_set_bytes, c.memory_rss_bytes),
                    "rootfs": {"time": now, "availableBytes": free, "capacityBytes": total, "usedBytes": c.fs_used_bytes,
                        "inodesUsed": c.fs_inodes_used},
                    "logs": disk})
            })
            .collect();
        json!({"podRef": {"name": label(first, names::POD_NAME), "namespace": label(first, names::POD_NAMESPACE), "uid": uid},
            "startTime": now, "containers": containers, "cpu": cpu(sum(all, |c| c.cpu_total_ns)),
            "memory": memory(sum(all, |c| c.memory_usage_bytes), sum(all, |c| c.memory_working_set_bytes), sum(all, |c| c.memory_rss_bytes)),
            "ephemeral-storage": {"time": now, "usedBytes": sum(all, |c| c.fs_used_bytes), "availableBytes": free, "capacityBytes": total}})
    };
    let everything: Vec<ContainerStats> = pods.values().flatten().cloned().collect();
    let node = json!({"nodeName": context.config.node_name, "startTime": now, "fs": disk, "runtime": {"imageFs": disk, "containerFs": disk},
        "cpu": cpu(sum(&everything, |c| c.cpu_total_ns)),
        "memory": memory(sum(&everything, |c| c.memory_usage_bytes), sum(&everything, |c| c.memory_working_set_bytes), sum(&everything, |c| c.memory_rss_bytes))});
    Ok(Json(json!({"node": node, "pods": pods.iter().map(pod).collect::<Vec<_>>()})))
}

fn exposition(stats: &[ContainerStats]) -> String {
    let mut out = String::new();
    type Series = (&'static str, &'static str, fn(&ContainerStats) -> f64);
    let series: [Series; 2] = [
        ("container_cpu_usage_seconds_total", "counter", |c| c.cpu_total_ns as f64 / 1e9),
        ("container_memory_working_set_bytes", "gauge", |c| c.memory_working_set_bytes as f64),
    ];
    for (name, kind, value) in series {
        // Writing to a string cannot fail.
        let _ = writeln!(out, "# TYPE {name} {kind}");
        for c in stats {
            let (pod, namespace) = (label(c, names::POD_NAME), label(c, names::POD_NAMESPACE));
            let _ = writeln!(
                out,
                "{name}{{container=\"{}\",namespace=\"{namespace}\",pod=\"{pod}\"}} {}",
                c.name,
                value(c)
            );
        }
    }
    out
}

pub(super) async fn resource_metrics(State(context): State<Arc<Context>>) -> Result<String, Refusal> {
    let stats = ours(&context).await?;
    let mut out = exposition(&stats);
    let cpu: u64 = stats.iter().map(|c| c.cpu_total_ns).sum();
    let memory: u64 = stats.iter().map(|c| c.memory_working_set_bytes).sum();
    let _ = writeln!(
        out,
        "# TYPE node_cpu_usage_seconds_total counter\nnode_cpu_usage_seconds_total {}",
        cpu as f64 / 1e9
    );
    let _ =
        writeln!(out, "# TYPE node_memory_working_set_bytes gauge\nnode_memory_working_set_bytes {memory}");
    Ok(out)
}

pub(super) async fn cadvisor_metrics(State(context): State<Arc<Context>>) -> Result<String, Refusal> {
    Ok(exposition(&ours(&context).await?))
}
