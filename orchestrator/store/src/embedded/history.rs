//! How long history is kept, and forgetting it in small steps.
//!
//! Which revision is the oldest worth keeping is decided from ages and counts alone; removing rows happens beside
//! ordinary writes, a bounded number each time, so that no write waits for a large clean-up.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use redb::ReadableTable;

use super::EmbeddedOptions;
use super::apply::{Marks, Tables};
use super::layout::{Change, decode_log, failed, version_key};
use crate::{Revision, StoreError};

/// Ages are known to this precision.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(10);

/// Remembers roughly when revisions happened.
pub(super) struct Retention {
    /// (when, newest revision then), oldest first. One more than fits the age is kept.
    samples: VecDeque<(Instant, Revision)>,
    age_max: Duration,
    revisions_max: u64,
    revisions_min: u64,
}

// === impl Retention ===

impl Retention {
    /// What was written before now is taken to be as young as now.
    pub(super) fn new(options: &EmbeddedOptions, now: Instant, newest: Revision) -> Self {
        Self {
            samples: VecDeque::from([(now, newest)]),
            age_max: options.history_age_max,
            revisions_max: options.history_revisions_max,
            revisions_min: options.history_revisions_min.min(options.history_revisions_max),
        }
    }

    /// The oldest revision to keep, now that `newest` has happened.
    pub(super) fn plan_floor(&mut self, now: Instant, newest: Revision) -> Revision {
        if self.samples.back().is_none_or(|(when, _)| now.duration_since(*when) >= SAMPLE_INTERVAL) {
            self.samples.push_back((now, newest));
        }
        let expired = |sample: Option<&(Instant, Revision)>| {
            sample
                .filter(|(when, _)| now.duration_since(*when) >= self.age_max)
                .map(|(_, revision)| *revision)
        };
        while expired(self.samples.get(1)).is_some() {
            self.samples.pop_front();
        }
        let by_age = expired(self.samples.front()).unwrap_or(Revision(0)).0;
        let by_count = newest.0.saturating_sub(self.revisions_max);
        Revision(by_age.max(by_count).min(newest.0.saturating_sub(self.revisions_min)))
    }
}

/// Removes at most `rows_max` rows of history up to `marks.compacted`, and moves `marks.swept` accordingly.
pub(super) fn sweep(tables: &mut Tables<'_>, marks: &mut Marks, rows_max: usize) -> Result<(), StoreError> {
    if marks.swept >= marks.compacted {
        return Ok(());
    }
    let mut rows = Vec::new();
    for row in tables.log.range(marks.swept.0 + 1..=marks.compacted.0).map_err(failed)?.take(rows_max) {
        let (revision, bytes) = row.map_err(failed)?;
        let revision = Revision(revision.value());
        rows.push((revision, decode_log(revision, bytes.value())?));
    }
    marks.swept = match rows.last() {
        Some((revision, _)) if rows.len() == rows_max => *revision,
        _ => marks.compacted,
    };
    for (revision, row) in rows {
        if row.change != Change::Created {
            tables.versions.remove(version_key(&row.key, row.previous).as_slice()).map_err(failed)?;
        }
        if row.change == Change::Deleted {
            tables.versions.remove(version_key(&row.key, revision).as_slice()).map_err(failed)?;
        }
        tables.log.remove(revision.0).map_err(failed)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn retention(start: Instant) -> Retention {
        let options = EmbeddedOptions {
            history_age_max: Duration::from_secs(60),
            history_revisions_max: 1000,
            history_revisions_min: 10,
            ..EmbeddedOptions::default()
        };
        Retention::new(&options, start, Revision(100))
    }

    #[test]
    fn young_history_is_kept() {
        let start = Instant::now();
        assert_eq!(retention(start).plan_floor(start + Duration::from_secs(59), Revision(900)), Revision(0));
    }

    #[test]
    fn history_older_than_the_age_is_forgotten() {
        let start = Instant::now();
        let mut retention = retention(start);
        retention.plan_floor(start + Duration::from_secs(30), Revision(500));
        assert_eq!(retention.plan_floor(start + Duration::from_secs(61), Revision(600)), Revision(100));
        assert_eq!(retention.plan_floor(start + Duration::from_secs(91), Revision(700)), Revision(500));
    }

    #[test]
    fn a_flood_of_young_revisions_is_bounded_by_count() {
        let start = Instant::now();
        assert_eq!(retention(start).plan_floor(start, Revision(5000)), Revision(4000));
    }

    #[test]
    fn an_idle_store_keeps_its_last_revisions_however_old() {
        let start = Instant::now();
        assert_eq!(
            retention(start).plan_floor(start + Duration::from_secs(3600), Revision(105)),
            Revision(95)
        );
    }
}
