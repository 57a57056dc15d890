//! What a worker remembers between two looks at its pod, and nothing a restart of the agent may not forget.
//! Pure: time comes in as an argument.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use crate::resources::Limits;

/// First pause after a crash; doubles each time (kubernetes `pkg/kubelet/kubelet.go`, `backOffPeriod`).
const PAUSE_MIN: SignedDuration = SignedDuration::from_secs(10);
/// Longest pause.
const PAUSE_MAX: SignedDuration = SignedDuration::from_secs(300);
/// A container that ran this long starts again without a pause.
const HEALTHY_AFTER: SignedDuration = SignedDuration::from_secs(600);

/// A pause that doubles.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Backoff {
    pause: Option<SignedDuration>,
}

impl Backoff {
    /// The pause now in force.
    pub fn pause(&self) -> SignedDuration {
        self.pause.unwrap_or(SignedDuration::ZERO)
    }

    /// To be called when the next try begins.
    pub fn advance(&mut self) {
        self.pause = Some(self.pause.map_or(PAUSE_MIN, |p| (p * 2).min(PAUSE_MAX)));
    }

    /// Forgets everything.
    pub fn reset(&mut self) {
        self.pause = None;
    }

    /// The pause left at `now` for something that failed at `failed` after having run since `started`.
    pub fn left(&self, started: Timestamp, failed: Timestamp, now: Timestamp) -> SignedDuration {
        if failed.duration_since(started) >= HEALTHY_AFTER {
            return SignedDuration::ZERO;
        }
        (self.pause() - now.duration_since(failed)).max(SignedDuration::ZERO)
    }
}

/// Why a container does not run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// For example `ErrImagePull`.
    pub reason: String,
    /// Words.
    pub message: String,
}

/// A start that failed before there was a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartFailure {
    /// Shown until the next try.
    pub waiting: Waiting,
    /// When that is.
    pub retry_at: Timestamp,
    /// Its growing pause.
    pub backoff: Backoff,
}

/// What the probes of one container said last.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Health {
    /// The startup probe passed, or there is none.
    pub started: bool,
    /// The readiness probe passes, or there is none.
    pub ready: bool,
}

/// How far a resize has come.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resize {
    /// Why the pod does not get what it asks for.
    pub pending: Option<Waiting>,
    /// Generation of the pod whose resources were given last.
    pub granted: Option<i64>,
    /// Limits are being changed.
    pub busy: bool,
    /// What went wrong at the last try.
    pub failure: Option<String>,
    /// No new try before this.
    pub retry_at: Option<Timestamp>,
}

/// See the module.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    /// Crash pauses by container name.
    pub crashes: BTreeMap<String, Backoff>,
    /// Failed starts by container name.
    pub failures: BTreeMap<String, StartFailure>,
    /// Health by container id.
    pub health: BTreeMap<String, Health>,
    /// Containers to be killed, by id, and why.
    pub condemned: BTreeMap<String, String>,
    /// Container names an operation is under way for.
    pub starting: BTreeSet<String>,
    /// Container ids being stopped.
    pub stopping: BTreeSet<String>,
    /// The sandbox and volumes are being made, or taken down.
    pub sandbox_busy: bool,
    /// Volumes are in place.
    pub volumes_ready: bool,
    /// No new try at the sandbox before this.
    pub sandbox_retry_at: Option<Timestamp>,
    /// Containers stopped in order to be started anew, by id: their end says nothing of the pod's.
    pub replaced: BTreeSet<String>,
    /// Containers that must restart to get what a resize gave them, by id.
    pub restart_due: BTreeSet<String>,
    /// What running containers were told to be held to last, by id.
    pub told: BTreeMap<String, Limits>,
    /// The resize of the pod, if there is one.
    pub resize: Resize,
    /// The pod failed as a whole (deadline, eviction, refused at admission): reason and message.
    pub failed: Option<Waiting>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn pauses_double_from_ten_seconds_to_five_minutes() {
        let mut backoff = Backoff::default();
        let mut seen = vec![backoff.pause().as_secs()];
        for _ in 0..7 {
            backoff.advance();
            seen.push(backoff.pause().as_secs());
        }
        assert_eq!(seen, [0, 10, 20, 40, 80, 160, 300, 300]);
    }

    #[test]
    fn a_pause_counts_from_the_failure_and_not_from_the_look() {
        let mut backoff = Backoff::default();
        backoff.advance();
        assert_eq!(backoff.left(at(0), at(1), at(5)).as_secs(), 6);
        assert_eq!(backoff.left(at(0), at(1), at(20)).as_secs(), 0);
    }

    #[test]
    fn a_container_that_ran_for_long_starts_again_at_once() {
        let mut backoff = Backoff::default();
        backoff.advance();
        assert_eq!(backoff.left(at(0), at(601), at(601)).as_secs(), 0);
    }
}
