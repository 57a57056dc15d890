//! A histogram of durations in the Prometheus text format.

use std::fmt::Write;
use std::time::Duration;

/// kube-proxy's buckets for one programming: from a millisecond, each twice the former, to 16 seconds.
pub const PROGRAMMING_BOUNDS: [Duration; 15] = {
    let mut bounds = [Duration::ZERO; 15];
    let mut at = 0;
    while at < bounds.len() {
        bounds[at] = Duration::from_millis(1 << at);
        at += 1;
    }
    bounds
};

/// kube-proxy's buckets from a change in the cluster to its programming: of a quarter of a second, then of one to a
/// minute, of five to two minutes, of thirty to five minutes.
pub const NETWORK_PROGRAMMING_BOUNDS: [Duration; 80] = {
    let mut bounds = [Duration::ZERO; 80];
    let (mut at, mut next_ms) = (0, 250);
    while at < bounds.len() {
        bounds[at] = Duration::from_millis(next_ms);
        next_ms += match next_ms {
            ..500 => 250,
            500..1_000 => 500,
            1_000..60_000 => 1_000,
            60_000..120_000 => 5_000,
            120_000.. => 30_000,
        };
        at += 1;
    }
    bounds
};

/// How many took how long.
#[derive(Debug, Clone)]
pub struct Histogram {
    /// How long what a bucket holds may have taken.
    bounds: &'static [Duration],
    /// In each bucket and not in the one before; the last has no bound.
    counts: Vec<u64>,
    sum: Duration,
}

impl Histogram {
    /// With these buckets, shortest first.
    pub fn new(bounds: &'static [Duration]) -> Self {
        Self { bounds, counts: vec![0; bounds.len() + 1], sum: Duration::ZERO }
    }

    /// Counts one.
    pub fn observe(&mut self, took: Duration) {
        let bucket = self.bounds.partition_point(|bound| *bound < took);
        self.counts[bucket] += 1;
        self.sum += took;
    }

    /// As a metric of this name.
    pub fn metrics(&self, name: &str, what: &str) -> String {
        let mut text = format!("# HELP {name} {what}.\n# TYPE {name} histogram\n");
        let mut so_far = 0;
        for (at, count) in self.counts.iter().enumerate() {
            so_far += count;
            let bound =
                self.bounds.get(at).map_or("+Inf".to_owned(), |bound| bound.as_secs_f64().to_string());
            let _ = writeln!(text, "{name}_bucket{{le=\"{bound}\"}} {so_far}");
        }
        let _ = writeln!(text, "{name}_sum {}\n{name}_count {so_far}", self.sum.as_secs_f64());
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_hold_all_that_took_no_longer() {
        let mut histogram = Histogram::new(&PROGRAMMING_BOUNDS);
        for ms in [1, 2, 100, 60_000] {
            histogram.observe(Duration::from_millis(ms));
        }
        let text = histogram.metrics("x", "y");
        for line in [
            "x_bucket{le=\"0.001\"} 1",
            "x_bucket{le=\"0.128\"} 3",
            "x_bucket{le=\"+Inf\"} 4",
            "x_sum 60.103",
        ] {
            assert!(text.lines().any(|it| it == line), "{line}\nis not in\n{text}");
        }
    }

    #[test]
    fn the_buckets_of_a_change_s_way_are_kube_proxy_s() {
        let seconds: Vec<f64> = NETWORK_PROGRAMMING_BOUNDS.iter().map(Duration::as_secs_f64).collect();
        assert_eq!(seconds[..4], [0.25, 0.5, 1.0, 2.0]);
        assert_eq!(seconds[60..64], [59.0, 60.0, 65.0, 70.0]);
        assert_eq!(seconds[72..], [115.0, 120.0, 150.0, 180.0, 210.0, 240.0, 270.0, 300.0]);
    }
}
