//! Priority and fairness in numbers, under upstream's names.
//!
//! A flow schema's and a level's series are looked up once, when they appear, and go when they do.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::demand::Reading;
use super::shares::Limits;

/// Upstream's buckets of durations, lengths and seats.
const SECONDS: [f64; 13] = [0.0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0];
const LENGTHS: [f64; 8] = [0.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0];
const SEATS: [f64; 8] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 100.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FlowLabels {
    priority_level: String,
    flow_schema: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefusedLabels {
    priority_level: String,
    flow_schema: String,
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WaitLabels {
    priority_level: String,
    flow_schema: String,
    execute: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WorkLabels {
    priority_level: String,
    flow_schema: String,
    r#type: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LevelLabels {
    priority_level: String,
}

type Float = Gauge<f64, std::sync::atomic::AtomicU64>;
type Histograms<L> = Family<L, Histogram, fn() -> Histogram>;

/// Why a request was not worked on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    ConcurrencyLimit,
    QueueFull,
    TimeOut,
    /// Its client went away.
    Cancelled,
}

/// All series.
pub struct Metrics {
    refused: Family<RefusedLabels, Counter>,
    dispatched: Family<FlowLabels, Counter>,
    waiting: Family<FlowLabels, Gauge>,
    waiting_seats: Family<FlowLabels, Gauge>,
    executing: Family<FlowLabels, Gauge>,
    executing_seats: Family<FlowLabels, Gauge>,
    lengths: Histograms<FlowLabels>,
    waits: Histograms<WaitLabels>,
    takes: Histograms<WorkLabels>,
    estimates: Histograms<FlowLabels>,
    nominal: Family<LevelLabels, Gauge>,
    lower: Family<LevelLabels, Gauge>,
    upper: Family<LevelLabels, Gauge>,
    current: Family<LevelLabels, Gauge>,
    peak: Family<LevelLabels, Gauge>,
    average: Family<LevelLabels, Float>,
    deviation: Family<LevelLabels, Float>,
    smoothed: Family<LevelLabels, Float>,
    target: Family<LevelLabels, Float>,
    fair_fraction: Float,
}

/// The series of one flow schema at one level.
pub struct FlowMetrics {
    pub dispatched: Counter,
    pub waiting: Gauge,
    pub waiting_seats: Gauge,
    pub executing: Gauge,
    pub executing_seats: Gauge,
    pub lengths: Histogram,
    pub waits_of_executed: Histogram,
    pub waits_of_refused: Histogram,
    pub takes: Histogram,
    pub takes_of_watches: Histogram,
    pub estimates: Histogram,
    refused: Family<RefusedLabels, Counter>,
    labels: FlowLabels,
}

fn seconds() -> Histogram {
    Histogram::new(SECONDS)
}

fn lengths() -> Histogram {
    Histogram::new(LENGTHS)
}

fn seats() -> Histogram {
    Histogram::new(SEATS)
}

const REASONS: [Reason; 4] =
    [Reason::ConcurrencyLimit, Reason::QueueFull, Reason::TimeOut, Reason::Cancelled];

// === impl Reason ===

impl Reason {
    pub fn text(self) -> &'static str {
        match self {
            Self::ConcurrencyLimit => "concurrency-limit",
            Self::QueueFull => "queue-full",
            Self::TimeOut => "time-out",
            Self::Cancelled => "cancelled",
        }
    }
}

// === impl Metrics ===

impl Default for Metrics {
    fn default() -> Self {
        Self {
            refused: Family::default(),
            dispatched: Family::default(),
            waiting: Family::default(),
            waiting_seats: Family::default(),
            executing: Family::default(),
            executing_seats: Family::default(),
            lengths: Family::new_with_constructor(lengths),
            waits: Family::new_with_constructor(seconds),
            takes: Family::new_with_constructor(seconds),
            estimates: Family::new_with_constructor(seats),
            nominal: Family::default(),
            lower: Family::default(),
            upper: Family::default(),
            current: Family::default(),
            peak: Family::default(),
            average: Family::default(),
            deviation: Family::default(),
            smoothed: Family::default(),
            target: Family::default(),
            fair_fraction: Float::default(),
        }
    }
}

impl Metrics {
    /// Adds all series to an exposition.
    pub fn register(&self, registry: &mut Registry) {
        let all = registry.sub_registry_with_prefix("apiserver_flowcontrol");
        // The encoder appends `_total` to counters.
        all.register("rejected_requests", "Requests that were refused", self.refused.clone());
        all.register("dispatched_requests", "Requests that were worked on", self.dispatched.clone());
        all.register("current_inqueue_requests", "Requests waiting in queues", self.waiting.clone());
        all.register("current_inqueue_seats", "Seats that waiting requests want", self.waiting_seats.clone());
        all.register("current_executing_requests", "Requests being worked on", self.executing.clone());
        all.register("current_executing_seats", "Seats they take", self.executing_seats.clone());
        all.register(
            "request_queue_length_after_enqueue",
            "Length of the queue a request was put into, with it",
            self.lengths.clone(),
        );
        all.register("request_wait_duration_seconds", "Time spent in queues", self.waits.clone());
        all.register(
            "request_execution_seconds",
            "Time seats were taken, of watches to begin",
            self.takes.clone(),
        );
        all.register("work_estimated_seats", "Seats requests were expected to take", self.estimates.clone());
        all.register("nominal_limit_seats", "Seats by nominal shares", self.nominal.clone());
        all.register("lower_limit_seats", "Seats that are never lent", self.lower.clone());
        all.register("upper_limit_seats", "Seats with all that may be borrowed", self.upper.clone());
        all.register("current_limit_seats", "Seats for now", self.current.clone());
        all.register(
            "demand_seats_high_watermark",
            "Most seats wanted in the last period",
            self.peak.clone(),
        );
        all.register("demand_seats_average", "Seats wanted in the last period", self.average.clone());
        all.register(
            "demand_seats_stdev",
            "Spread of seats wanted in the last period",
            self.deviation.clone(),
        );
        all.register("demand_seats_smoothed", "Seats wanted, falling slowly", self.smoothed.clone());
        all.register("target_seats", "Seats aimed at", self.target.clone());
        all.register("seat_fair_frac", "Part of its target each level got", self.fair_fraction.clone());
    }

    /// The series of a schema; they exist from now on.
    pub fn flow(&self, level: &str, schema: &str) -> FlowMetrics {
        let labels = FlowLabels { priority_level: level.to_owned(), flow_schema: schema.to_owned() };
        let wait = |execute| WaitLabels {
            priority_level: level.to_owned(),
            flow_schema: schema.to_owned(),
            execute,
        };
        let work = |kind| WorkLabels {
            priority_level: level.to_owned(),
            flow_schema: schema.to_owned(),
            r#type: kind,
        };
        FlowMetrics {
            dispatched: self.dispatched.get_or_create_owned(&labels),
            waiting: self.waiting.get_or_create_owned(&labels),
            waiting_seats: self.waiting_seats.get_or_create_owned(&labels),
            executing: self.executing.get_or_create_owned(&labels),
            executing_seats: self.executing_seats.get_or_create_owned(&labels),
            lengths: self.lengths.get_or_create_owned(&labels),
            waits_of_executed: self.waits.get_or_create_owned(&wait("true")),
            waits_of_refused: self.waits.get_or_create_owned(&wait("false")),
            takes: self.takes.get_or_create_owned(&work("regular")),
            takes_of_watches: self.takes.get_or_create_owned(&work("watch")),
            estimates: self.estimates.get_or_create_owned(&labels),
            refused: self.refused.clone(),
            labels,
        }
    }

    /// Drops the series of a schema that is gone.
    pub fn forget_flow(&self, gone: &FlowMetrics) {
        let labels = &gone.labels;
        let (level, schema) = (&labels.priority_level, &labels.flow_schema);
        self.dispatched.remove(labels);
        for gauges in [&self.waiting, &self.waiting_seats, &self.executing, &self.executing_seats] {
            gauges.remove(labels);
        }
        self.lengths.remove(labels);
        self.estimates.remove(labels);
        for execute in ["true", "false"] {
            let (priority_level, flow_schema) = (level.clone(), schema.clone());
            self.waits.remove(&WaitLabels { priority_level, flow_schema, execute });
        }
        for kind in ["regular", "watch"] {
            let (priority_level, flow_schema) = (level.clone(), schema.clone());
            self.takes.remove(&WorkLabels { priority_level, flow_schema, r#type: kind });
        }
        for reason in REASONS {
            self.refused.remove(&gone.refused_labels(reason));
        }
    }

    /// What a level is entitled to.
    pub fn set_limits(&self, level: &str, limits: Limits) {
        let labels = LevelLabels { priority_level: level.to_owned() };
        self.nominal.get_or_create(&labels).set(limits.nominal.into());
        self.lower.get_or_create(&labels).set(limits.lower.into());
        self.upper.get_or_create(&labels).set(limits.upper.into());
    }

    /// What a level wanted, was to get and got.
    pub fn set_adjusted(&self, level: &str, last: Reading, smoothed: f64, target: f64, seats: u32) {
        let labels = LevelLabels { priority_level: level.to_owned() };
        self.peak.get_or_create(&labels).set(last.peak.into());
        self.average.get_or_create(&labels).set(last.average);
        self.deviation.get_or_create(&labels).set(last.deviation);
        self.smoothed.get_or_create(&labels).set(smoothed);
        self.target.get_or_create(&labels).set(target);
        self.current.get_or_create(&labels).set(seats.into());
    }

    pub fn set_fair_fraction(&self, fraction: f64) {
        self.fair_fraction.set(fraction);
    }

    /// Drops the series of a level that is gone.
    pub fn forget_level(&self, level: &str) {
        let labels = LevelLabels { priority_level: level.to_owned() };
        for gauges in [&self.nominal, &self.lower, &self.upper, &self.current, &self.peak] {
            gauges.remove(&labels);
        }
        for gauges in [&self.average, &self.deviation, &self.smoothed, &self.target] {
            gauges.remove(&labels);
        }
    }
}

// === impl FlowMetrics ===

impl FlowMetrics {
    pub fn refuse(&self, reason: Reason) {
        self.refused.get_or_create(&self.refused_labels(reason)).inc();
    }

    fn refused_labels(&self, reason: Reason) -> RefusedLabels {
        RefusedLabels {
            priority_level: self.labels.priority_level.clone(),
            flow_schema: self.labels.flow_schema.clone(),
            reason: reason.text(),
        }
    }
}
