//! Probes of running containers: one task a container, which tells its worker when a verdict changes.
//!
//! Startup first, then liveness and readiness side by side. Until readiness first succeeds it is asked every second
//! of its first period, so that a pod is Ready as soon as it answers and not a period later.

pub mod check;

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Probe};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::memory::Health;
use check::{Checker, Outcome};

/// Which probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Until it passes, nothing else is asked.
    Startup,
    /// Failing it restarts the container.
    Liveness,
    /// Failing it takes the pod out of service.
    Readiness,
}

impl Kind {
    /// As written in events.
    pub fn name(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Liveness => "Liveness",
            Self::Readiness => "Readiness",
        }
    }
}

/// News from a container's probes.
#[derive(Debug, Clone)]
pub struct Verdict {
    /// Runtime id.
    pub container_id: String,
    /// Container name.
    pub name: String,
    /// Which probe.
    pub kind: Kind,
    /// Past the threshold: passes or fails. `None`: one failure that does not yet count.
    pub settled: Option<bool>,
    /// Words of a failure.
    pub message: String,
}

/// What a probing task needs.
pub struct Target {
    /// Runtime id.
    pub container_id: String,
    /// Its definition.
    pub container: Container,
    /// How to reach it.
    pub checker: Checker,
    /// How long ago it was started.
    pub age: Duration,
    /// What is known already (an adopted container keeps its verdicts).
    pub health: Health,
}

/// Whether there is anything to ask.
pub fn needed(container: &Container) -> bool {
    container.startup_probe.is_some()
        || container.liveness_probe.is_some()
        || container.readiness_probe.is_some()
}

/// Probes until aborted, or until liveness fails for good.
pub async fn run(target: Target, verdicts: mpsc::Sender<Verdict>) {
    let began = Instant::now();
    let started_at = began.checked_sub(target.age).unwrap_or(began);
    if let Some(probe) = &target.container.startup_probe
        && !target.health.started
        && !ask(&target, &verdicts, Kind::Startup, probe, started_at, false).await
    {
        return;
    }
    let liveness = async {
        match &target.container.liveness_probe {
            Some(probe) => ask(&target, &verdicts, Kind::Liveness, probe, started_at, true).await,
            None => std::future::pending().await,
        }
    };
    let readiness = async {
        match &target.container.readiness_probe {
            Some(probe) => {
                ask(&target, &verdicts, Kind::Readiness, probe, started_at, target.health.ready).await
            }
            None => std::future::pending().await,
        }
    };
    tokio::join!(liveness, readiness);
}

/// Asks on and on; ends with true when startup passed, false when startup or liveness failed for good.
async fn ask(
    target: &Target,
    verdicts: &mpsc::Sender<Verdict>,
    kind: Kind,
    probe: &Probe,
    started_at: Instant,
    mut passing: bool,
) -> bool {
    let seconds =
        |value: Option<i32>, default: u64| value.and_then(|v| u64::try_from(v).ok()).unwrap_or(default);
    let period = Duration::from_secs(seconds(probe.period_seconds, 10).max(1));
    let timeout = Duration::from_secs(seconds(probe.timeout_seconds, 1).max(1));
    let failure_threshold = seconds(probe.failure_threshold, 3).max(1);
    let success_threshold = seconds(probe.success_threshold, 1).max(1);
    let first = started_at + Duration::from_secs(seconds(probe.initial_delay_seconds, 0));
    tokio::time::sleep_until(first).await;
    let eager_until = Instant::now().max(first) + period;
    let (mut row, mut last) = (0, None);
    loop {
        let asked = Instant::now();
        let outcome = match tokio::time::timeout(
            timeout,
            target.checker.check(probe, &target.container, timeout),
        )
        .await
        {
            Ok(outcome) => outcome,
            Err(_) => Outcome::Failure(format!("probe timed out after {} s", timeout.as_secs())),
        };
        let ok = match outcome {
            Outcome::Success => Some(true),
            Outcome::Failure(_) => Some(false),
            Outcome::Unknown => None,
        };
        if let Some(ok) = ok {
            row = if last == Some(ok) { row + 1 } else { 1 };
            last = Some(ok);
            let threshold = if ok { success_threshold } else { failure_threshold };
            let settled = (row >= threshold).then_some(ok);
            let message = match outcome {
                Outcome::Failure(message) => message,
                Outcome::Success | Outcome::Unknown => String::new(),
            };
            let news = !ok || settled.is_some_and(|s| s != passing || kind == Kind::Startup);
            if news {
                let verdict = Verdict {
                    container_id: target.container_id.clone(),
                    name: target.container.name.clone(),
                    kind,
                    settled,
                    message,
                };
                if verdicts.send(verdict).await.is_err() {
                    return false;
                }
            }
            match (settled, kind) {
                (Some(true), Kind::Startup) => return true,
                (Some(false), Kind::Startup | Kind::Liveness) => return false,
                (Some(now), _) => passing = now,
                (None, _) => {}
            }
        }
        let eager = kind == Kind::Readiness && !passing && asked < eager_until;
        let pause = if eager { period.min(Duration::from_secs(1)) } else { period };
        tokio::time::sleep_until(asked + pause).await;
    }
}

#[cfg(test)]
mod tests;
