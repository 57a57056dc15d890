//! `/metrics`: what the programs counted, how full their maps are, and how long Services take to reach them, in the
//! Prometheus text format and under kube-proxy's names where it has one.
//!
//! Read from the pins when somebody asks; nothing is counted for it otherwise but the time of each programming. It must
//! not know what is programmed.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::StatusCode;
use k8s_openapi::jiff::Timestamp;
use parking_lot::Mutex;
use penstock_network::{Attachment, observe_links};
use penstock_observe::{
    Histogram, MapFill, NETWORK_PROGRAMMING_BOUNDS, PROGRAMMING_BOUNDS, counters_metrics, maps_metrics,
    observe_counters, observe_maps,
};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::health_server::{Reply, serve};

/// Pause between attempts to bind.
const RETRY_EVERY: Duration = Duration::from_secs(5);
/// For how long fill levels are told as they were: every key is listed to count them.
const FILL_KEPT: Duration = Duration::from_secs(15);

/// How long programming took; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Programming(Arc<Mutex<Taken>>);

#[derive(Debug)]
struct Taken {
    sync: Histogram,
    network: Histogram,
    failures: u64,
    restored: u64,
    last_unix_seconds: f64,
}

impl Default for Taken {
    fn default() -> Self {
        Self {
            sync: Histogram::new(&PROGRAMMING_BOUNDS),
            network: Histogram::new(&NETWORK_PROGRAMMING_BOUNDS),
            failures: 0,
            restored: 0,
            last_unix_seconds: 0.0,
        }
    }
}

impl Programming {
    /// Everything that was due is in the kernel, which took this long.
    pub fn done(&self, took: Duration) {
        let mut taken = self.0.lock();
        taken.sync.observe(took);
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        taken.last_unix_seconds = now.unwrap_or_default().as_secs_f64();
    }

    /// Changes of pods and Services that happened at these times are in the kernel. A clock that is behind the one they were
    /// timed by makes them take no time.
    pub fn arrived(&self, changed_at: impl Iterator<Item = Timestamp>) {
        let now = Timestamp::now();
        let mut taken = self.0.lock();
        changed_at.for_each(|at| {
            taken.network.observe(Duration::try_from(now.duration_since(at)).unwrap_or_default());
        });
    }

    /// It was refused, and is tried again.
    pub fn failed(&self) {
        self.0.lock().failures += 1;
    }

    /// As many programs were put back that somebody had taken off.
    pub fn restored(&self, programs: usize) {
        self.0.lock().restored += programs as u64;
    }

    fn metrics(&self) -> String {
        let taken = self.0.lock();
        let mut text = taken.sync.metrics(
            "kubeproxy_sync_proxy_rules_duration_seconds",
            "How long it took until the kernel had what changed in Services and endpoints",
        );
        text.push_str(&taken.network.metrics(
            "kubeproxy_network_programming_duration_seconds",
            "How long it took from a pod's or Service's change until the kernel had the endpoints of it",
        ));
        text.push_str(&format!(
            "# HELP kubeproxy_sync_proxy_rules_last_timestamp_seconds When the kernel last had all there was.\n\
             # TYPE kubeproxy_sync_proxy_rules_last_timestamp_seconds gauge\n\
             kubeproxy_sync_proxy_rules_last_timestamp_seconds {:.3}\n\
             # HELP penstock_programming_failures_total How often the kernel refused what changed.\n\
             # TYPE penstock_programming_failures_total counter\n\
             penstock_programming_failures_total {}\n\
             # HELP penstock_programs_restored_total How many programs were put back that somebody had taken off.\n\
             # TYPE penstock_programs_restored_total counter\n\
             penstock_programs_restored_total {}\n",
            taken.last_unix_seconds, taken.failures, taken.restored
        ));
        text
    }
}

/// What metrics are made of.
pub struct Sources {
    /// The agent's directory on its bpf file system.
    pub pins: PathBuf,
    /// This node's pods.
    pub attachments: watch::Receiver<Arc<Vec<Attachment>>>,
    pub programming: Programming,
}

/// Serves until it is dropped.
pub async fn run(address: SocketAddr, sources: Sources) {
    let mut said = false;
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => {
                tracing::info!(%address, "metrics are served");
                let fill = Mutex::new(None);
                return serve(listener, move |path| reply(path, &sources, &fill)).await;
            }
            Err(error) if !std::mem::replace(&mut said, true) => {
                tracing::error!(
                    "--metrics-bind-address {address}: {error}; it is tried again until it works"
                );
            }
            Err(_) => {}
        }
        tokio::time::sleep(RETRY_EVERY).await;
    }
}

type Fill = Mutex<Option<(Instant, Vec<MapFill>)>>;

fn reply(path: &str, sources: &Sources, fill: &Fill) -> Reply {
    let (status, body) = match path {
        "/metrics" => (StatusCode::OK, tokio::task::block_in_place(|| metrics(sources, fill))),
        _ => (StatusCode::NOT_FOUND, "metrics are at /metrics\n".to_owned()),
    };
    Reply { status, body: Value::String(body), weight: None }
}

/// What can be read; without programs there are no counters, and the rest is told all the same.
fn metrics(sources: &Sources, fill: &Fill) -> String {
    let mut text = sources.programming.metrics();
    if let Ok(mut counters) = observe_counters(&sources.pins) {
        if !counters.pods.is_empty() {
            let pods = observe_links(&sources.attachments.borrow().clone());
            counters.name_pods(|link| pods.get(&link).cloned());
        }
        text.push_str(&counters_metrics(&counters));
    }
    // One at a time: who asks meanwhile waits for the answer instead of counting again.
    let mut kept = fill.lock();
    if kept.as_ref().is_none_or(|(at, _)| at.elapsed() >= FILL_KEPT)
        && let Ok(maps) = observe_maps(&sources.pins)
    {
        *kept = Some((Instant::now(), maps));
    }
    if let Some((_, maps)) = kept.as_ref() {
        text.push_str(&maps_metrics(maps));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programming_is_told_without_programs_too() {
        let programming = Programming::default();
        programming.done(Duration::from_millis(3));
        programming.failed();
        programming.restored(2);
        programming.arrived([Timestamp::now(), Timestamp::MAX].into_iter());
        let sources =
            Sources { pins: "/nowhere".into(), attachments: watch::channel(Arc::default()).1, programming };
        let text = metrics(&sources, &Mutex::new(None));
        for line in [
            "kubeproxy_sync_proxy_rules_duration_seconds_count 1",
            "kubeproxy_sync_proxy_rules_duration_seconds_bucket{le=\"0.001\"} 0",
            "kubeproxy_sync_proxy_rules_duration_seconds_bucket{le=\"0.004\"} 1",
            "kubeproxy_network_programming_duration_seconds_bucket{le=\"0.25\"} 2",
            "kubeproxy_network_programming_duration_seconds_count 2",
            "penstock_programming_failures_total 1",
            "penstock_programs_restored_total 2",
        ] {
            assert!(text.lines().any(|it| it == line), "{line}\nis not in\n{text}");
        }
        assert!(!text.contains("penstock_dataplane"));
    }
}
