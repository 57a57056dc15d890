//! Counters and gauges of the kubelet half, under the names dashboards know.

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

type Labels = Vec<(String, String)>;

/// See the module.
pub struct Metrics {
    registry: Registry,
    /// Pods the node has been given.
    pub running_pods: Gauge,
    /// Containers started.
    pub started_containers: Counter,
    /// Containers that could not be started, by reason.
    pub start_errors: Family<Labels, Counter>,
    /// Probe results by kind and result.
    pub probes: Family<Labels, Counter>,
    /// Status writes that reached the API server.
    pub status_writes: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Self {
            registry: Registry::default(),
            running_pods: Gauge::default(),
            started_containers: Counter::default(),
            start_errors: Family::default(),
            probes: Family::default(),
            status_writes: Counter::default(),
        };
        let registry = &mut metrics.registry;
        registry.register("kubelet_running_pods", "Pods given to the node", metrics.running_pods.clone());
        registry.register(
            "kubelet_started_containers",
            "Containers started",
            metrics.started_containers.clone(),
        );
        registry.register(
            "kubelet_started_containers_errors",
            "Failed starts by reason",
            metrics.start_errors.clone(),
        );
        registry.register("prober_probe", "Probes by kind and result", metrics.probes.clone());
        registry.register("penstock_pod_status_writes", "Status writes", metrics.status_writes.clone());
        metrics
    }
}

impl Metrics {
    /// The exposition text.
    pub fn text(&self) -> String {
        let mut out = String::new();
        // Writing to a string cannot fail.
        let _ = encode(&mut out, &self.registry);
        out
    }
}
