//! A histogram of durations in the Prometheus text format.

use std::fmt::Write;
use std::time::Duration;

/// kube-proxy's buckets for programming: from a millisecond, each twice the former, to 16 seconds.
const BUCKETS: usize = 15;
const FIRST: Duration = Duration::from_millis(1);

/// How many took how long.
#[derive(Debug, Clone, Default)]
pub struct Histogram {
    /// In each bucket and not in the one before; the last has no bound.
    counts: [u64; BUCKETS + 1],
    sum: Duration,
}

impl Histogram {
    /// Counts one.
    pub fn observe(&mut self, took: Duration) {
        let bucket = (0..BUCKETS).find(|at| took <= FIRST * (1 << at)).unwrap_or(BUCKETS);
        self.counts[bucket] += 1;
        self.sum += took;
    }

    /// As a metric of this name.
    pub fn metrics(&self, name: &str, what: &str) -> String {
        let mut text = format!("# HELP {name} {what}.\n# TYPE {name} histogram\n");
        let mut so_far = 0;
        for (at, count) in self.counts.iter().enumerate() {
            so_far += count;
            let bound = match at {
                BUCKETS => "+Inf".to_owned(),
                at => (FIRST * (1 << at)).as_secs_f64().to_string(),
            };
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
        let mut histogram = Histogram::default();
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
}
