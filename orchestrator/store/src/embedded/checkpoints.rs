//! When a checkpoint is due: the database is made durable, so that the journal may begin again. Pure.
//!
//! A store that is idle is made one file again; one that never is must not depend on its journal for ever, and gets
//! the room back that only a checkpoint frees. That the journal is full is seen where it is written.

use std::time::{Duration, Instant};

use super::EmbeddedOptions;

/// How long after one that failed the next is tried.
const RETRY_WAIT: Duration = Duration::from_secs(30);

/// What is not in the database alone, and since when.
#[derive(Debug)]
pub(super) struct Checkpoints {
    idle: Duration,
    age_max: Duration,
    /// The first and the last change since the last checkpoint.
    changed: Option<(Instant, Instant)>,
    not_before: Option<Instant>,
}

// === impl Checkpoints ===

impl Checkpoints {
    /// `wanted` if the journal holds something already.
    pub(super) fn new(options: &EmbeddedOptions, wanted: bool, now: Instant) -> Self {
        Self {
            idle: options.checkpoint_idle,
            age_max: options.checkpoint_age_max,
            changed: wanted.then_some((now, now)),
            not_before: None,
        }
    }

    /// Something was committed that is not durable in the database.
    pub(super) fn wanted(&mut self, now: Instant) {
        self.changed = Some((self.changed.map_or(now, |(first, _)| first), now));
    }

    /// Everything is durable in the database.
    pub(super) fn made(&mut self) {
        (self.changed, self.not_before) = (None, None);
    }

    /// It did not work; what there was to do is still to be done.
    pub(super) fn failed(&mut self, now: Instant) {
        self.not_before = Some(now + RETRY_WAIT);
    }

    pub(super) fn is_wanted(&self) -> bool {
        self.changed.is_some()
    }

    /// How long until one is due; none if nothing changed.
    pub(super) fn wait(&self, now: Instant) -> Option<Duration> {
        let (first, last) = self.changed?;
        let due = (last + self.idle).min(first + self.age_max);
        let due = self.not_before.map_or(due, |not_before| due.max(not_before));
        Some(due.saturating_duration_since(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn checkpoints(now: Instant) -> Checkpoints {
        let options = EmbeddedOptions {
            checkpoint_idle: SECOND,
            checkpoint_age_max: 10 * SECOND,
            ..EmbeddedOptions::default()
        };
        Checkpoints::new(&options, false, now)
    }

    #[test]
    fn a_store_that_did_not_change_waits_for_nothing() {
        let now = Instant::now();
        let mut checkpoints = checkpoints(now);
        assert_eq!((checkpoints.wait(now), checkpoints.is_wanted()), (None, false));
        checkpoints.wanted(now);
        assert_eq!((checkpoints.wait(now), checkpoints.is_wanted()), (Some(SECOND), true));
        checkpoints.made();
        assert_eq!((checkpoints.wait(now), checkpoints.is_wanted()), (None, false));
    }

    #[test]
    fn a_store_that_is_never_idle_is_not_left_to_its_journal() {
        let start = Instant::now();
        let mut checkpoints = checkpoints(start);
        for tenths in 0..95 {
            checkpoints.wanted(start + SECOND / 10 * tenths);
        }
        assert_eq!(checkpoints.wait(start + 19 * SECOND / 2), Some(SECOND / 2));
        assert_eq!(checkpoints.wait(start + 11 * SECOND), Some(Duration::ZERO));
    }

    #[test]
    fn one_that_failed_is_tried_again_after_a_while() {
        let start = Instant::now();
        let mut checkpoints = checkpoints(start);
        checkpoints.wanted(start);
        checkpoints.failed(start + SECOND);
        checkpoints.wanted(start + 2 * SECOND);
        assert_eq!(checkpoints.wait(start + SECOND), Some(RETRY_WAIT));
        checkpoints.made();
        checkpoints.wanted(start + 3 * SECOND);
        assert_eq!(checkpoints.wait(start + 3 * SECOND), Some(SECOND));
    }
}
