//! `/metrics` under the names dashboards already use.

use std::time::Duration;

use axum::body::Body;
use http::Response;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::request_info::RequestInfo;
use super::respond;

/// Upstream's buckets of `apiserver_request_duration_seconds`, thinned.
const SECONDS_BUCKETS: [f64; 14] =
    [0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 2.0, 4.0, 8.0, 30.0, 60.0];
/// Names longer than any real resource's are counted together, so that hostile paths cannot grow the families.
const OTHER: &str = "other";

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    component: &'static str,
    verb: String,
    group: String,
    version: String,
    resource: String,
    subresource: String,
    scope: &'static str,
    code: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DurationLabels {
    component: &'static str,
    verb: String,
    group: String,
    version: String,
    resource: String,
    subresource: String,
    scope: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct InflightLabels {
    request_kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BuildLabels {
    major: &'static str,
    minor: &'static str,
    git_version: &'static str,
}

/// The server's counters.
pub struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    durations: Family<DurationLabels, Histogram>,
    inflight: Family<InflightLabels, Gauge>,
}

/// A request being counted.
pub struct Observed {
    labels: DurationLabels,
    kind: &'static str,
}

// === impl Metrics ===

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    pub fn new() -> Self {
        let mut registry = Registry::default();
        let requests = Family::<RequestLabels, Counter>::default();
        // The encoder appends `_total`.
        registry.register("apiserver_request", "Requests by verb, resource and code", requests.clone());
        let durations =
            Family::<DurationLabels, Histogram>::new_with_constructor(|| Histogram::new(SECONDS_BUCKETS));
        registry.register(
            "apiserver_request_duration_seconds",
            "Time to the response's head",
            durations.clone(),
        );
        let inflight = Family::<InflightLabels, Gauge>::default();
        registry.register("apiserver_current_inflight_requests", "Requests being answered", inflight.clone());
        let build = Family::<BuildLabels, Gauge>::default();
        build.get_or_create(&BuildLabels { major: "1", minor: "36", git_version: super::GIT_VERSION }).set(1);
        registry.register("kubernetes_build_info", "What is running", build);
        Self { registry, requests, durations, inflight }
    }

    /// A request starts.
    pub fn begin(&self, info: &RequestInfo) -> Observed {
        let bounded = |text: &str| {
            if text.len() > 64 { OTHER.to_owned() } else { text.to_owned() }
        };
        let labels = DurationLabels {
            component: "apiserver",
            verb: if info.is_resource { info.verb.to_ascii_uppercase() } else { plain_verb(&info.verb) },
            group: bounded(&info.group),
            version: bounded(&info.version),
            resource: bounded(&info.resource),
            subresource: if info.is_resource { bounded(&info.subresource) } else { plain_path(&info.path) },
            scope: info.scope(),
        };
        let kind = match info.verb.as_str() {
            "get" | "list" | "watch" => "readOnly",
            _ => "mutating",
        };
        self.inflight.get_or_create(&InflightLabels { request_kind: kind }).inc();
        Observed { labels, kind }
    }

    /// Its response's head is ready.
    pub fn end(&self, observed: Observed, code: u16, took: Duration) {
        self.inflight.get_or_create(&InflightLabels { request_kind: observed.kind }).dec();
        let mut labels = observed.labels;
        if code == 404 || code == 403 || code == 401 {
            // What does not exist, or may not be seen, must not become a label.
            OTHER.clone_into(&mut labels.resource);
            labels.group.clear();
            labels.version.clear();
            labels.subresource.clear();
        }
        if labels.verb != "WATCH" {
            self.durations.get_or_create(&labels).observe(took.as_secs_f64());
        }
        let DurationLabels { component, verb, group, version, resource, subresource, scope } = labels;
        self.requests
            .get_or_create(&RequestLabels {
                component,
                verb,
                group,
                version,
                resource,
                subresource,
                scope,
                code,
            })
            .inc();
    }

    /// Adds what others count.
    pub fn extend(&mut self, register: impl FnOnce(&mut Registry)) {
        register(&mut self.registry);
    }

    /// The exposition.
    pub fn respond(&self) -> Response<Body> {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &self.registry);
        respond::bytes(200, "application/openmetrics-text; version=1.0.0; charset=utf-8", text.into(), false)
    }
}

fn plain_verb(verb: &str) -> String {
    match verb {
        "get" | "head" | "post" | "put" | "patch" | "delete" => verb.to_ascii_uppercase(),
        _ => OTHER.to_owned(),
    }
}

/// The first segment of a path outside the API, when it is one of ours.
fn plain_path(path: &str) -> String {
    let first = path.trim_start_matches('/').split('/').next().unwrap_or_default();
    match first {
        "api" | "apis" | "debug" | "healthz" | "livez" | "readyz" | "metrics" | "openapi" | "version" => {
            format!("/{first}")
        }
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::super::query::Query;
    use super::*;

    #[test]
    fn requests_are_counted_under_upstreams_names() {
        let metrics = Metrics::new();
        let info = RequestInfo::parse(&Method::GET, "/api/v1/namespaces/a/pods", &Query::default());
        let observed = metrics.begin(&info);
        metrics.end(observed, 200, Duration::from_millis(3));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &metrics.registry).unwrap();
        let line = text.lines().find(|l| l.starts_with("apiserver_request_total{")).unwrap();
        for part in ["verb=\"LIST\"", "resource=\"pods\"", "scope=\"namespace\"", "code=\"200\"", "} 1"] {
            assert!(line.contains(part), "{part} in {line}");
        }
        assert!(text.contains("apiserver_request_duration_seconds_bucket"));
    }
}
