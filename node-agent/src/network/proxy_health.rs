//! Whether this node's service proxy works, for load balancers that ask: `/healthz` and `/livez`, as kube-proxy answers.
//!
//! It exists because a load balancer must not send new connections to a node that is about to go or that no longer
//! follows the cluster. It must not know how it is asked.

use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::{Value, json};

/// How long a change may wait for the kernel before the node is called unhealthy: kube-proxy's two sync periods.
const LATE_AFTER: Duration = Duration::from_secs(60);

/// The state; clones share it.
#[derive(Debug, Clone, Default)]
pub struct ProxyHealth(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// Since when something waits for the kernel.
    waiting_since: Option<Instant>,
    updated: Option<Timestamp>,
    leaving: bool,
}

/// What is answered.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    pub is_good: bool,
    pub body: Value,
}

impl ProxyHealth {
    /// Something is to be programmed.
    pub fn waits(&self) {
        self.0.lock().waiting_since.get_or_insert_with(Instant::now);
    }

    /// Everything is programmed.
    pub fn updated(&self, at: Timestamp) {
        let mut state = self.0.lock();
        (state.waiting_since, state.updated) = (None, Some(at));
    }

    /// Whether the node is about to go.
    pub fn set_leaving(&self, leaving: bool) {
        self.0.lock().leaving = leaving;
    }

    /// Whether the kernel has what the cluster wants, or will soon.
    pub fn is_healthy(&self) -> bool {
        self.0.lock().is_healthy(Instant::now())
    }

    /// `/healthz`: whether load balancers of Services without a local policy are to use the node.
    pub fn healthz(&self, now: Timestamp) -> Answer {
        let state = self.0.lock();
        Answer {
            is_good: state.is_healthy(Instant::now()) && !state.leaving,
            body: state.body(now, Some(!state.leaving)),
        }
    }

    /// `/livez`: whether the proxy works, whatever becomes of the node.
    pub fn livez(&self, now: Timestamp) -> Answer {
        let state = self.0.lock();
        Answer { is_good: state.is_healthy(Instant::now()), body: state.body(now, None) }
    }
}

impl State {
    fn is_healthy(&self, now: Instant) -> bool {
        self.waiting_since.is_none_or(|since| now.duration_since(since) < LATE_AFTER)
    }

    fn body(&self, now: Timestamp, eligible: Option<bool>) -> Value {
        // A healthy proxy is up to date now, however long ago the last change was.
        let updated = if self.is_healthy(Instant::now()) { Some(now) } else { self.updated };
        let mut body = json!({
            "lastUpdated": updated.map_or_else(|| "never".to_owned(), |at| at.to_string()),
            "currentTime": now.to_string(),
        });
        if let Some(eligible) = eligible {
            body["nodeEligible"] = eligible.into();
        }
        body
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_leaves_is_alive_but_gets_no_new_connections() {
        let (health, now) = (ProxyHealth::default(), Timestamp::now());
        health.waits();
        health.updated(now);
        let answer = health.healthz(now);
        assert!(answer.is_good && answer.body["nodeEligible"] == true);
        assert_eq!(answer.body["lastUpdated"], now.to_string());
        health.set_leaving(true);
        let answer = health.healthz(now);
        assert!(!answer.is_good && answer.body["nodeEligible"] == false);
        assert!(health.livez(now).is_good);
    }

    #[test]
    fn a_change_may_wait_a_while_but_not_for_ever() {
        let health = ProxyHealth::default();
        health.waits();
        assert!(health.is_healthy());
        let state = health.0.lock();
        let since = state.waiting_since.unwrap();
        assert!(!state.is_healthy(since + LATE_AFTER));
        drop(state);
        health.updated(Timestamp::now());
        assert!(health.is_healthy());
    }
}
