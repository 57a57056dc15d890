//! What the pods half asks of whoever programs Services on this node: whether a pod still gets new connections.
//!
//! It exists so that the pods half runs without knowing who that is, or that there is anybody: beside another proxy
//! nothing is asked, and pods are stopped at once as by any kubelet.

use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::OnceCell;

use crate::quiet::Busy;

/// How many nodes one question may be about. A cluster of 5,000 nodes has groups of 71.
pub const NODES_MAX: usize = 256;
/// The longest that a question may be kept.
pub const WITHIN_MAX: Duration = Duration::from_secs(10);
/// Where it is asked on the kubelet API.
pub const PATH: &str = "/programmed";

/// See the module.
#[async_trait]
pub trait Rotation: Send + Sync {
    /// Returns when no node sends new connections to a pod of this node any more, at once when none ever did; whether any
    /// did. May wait for ever; the caller bounds it.
    async fn left(&self, uid: &str) -> bool;

    /// Says how far this node and those it is asked about are, when they are far enough or the time is over. None when
    /// nothing is programmed here.
    async fn answer(&self, question: &Question) -> Option<Answer>;
}

/// Whether nodes have every change of EndpointSlices up to a resource version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    pub up_to: u64,
    /// Other nodes that the one asked is to ask.
    pub nodes: Vec<String>,
    /// How long to wait for those that do not.
    pub within: Duration,
}

/// How far they are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    /// Up to which resource version the node asked has everything.
    pub up_to: u64,
    /// Which of the others are there and not as far as was asked for.
    pub behind: Vec<String>,
}

/// A question as a request has it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Query {
    up_to: u64,
    #[serde(default)]
    nodes: String,
    within_ms: u64,
}

impl Question {
    /// Path and query of the request that asks it.
    pub fn path(&self) -> String {
        let Self { up_to, nodes, within } = self;
        // Names of nodes are DNS names, which need no escapes.
        format!("{PATH}?upTo={up_to}&withinMs={}&nodes={}", within.as_millis(), nodes.join(","))
    }
}

impl Query {
    /// The question, if it is within bounds.
    pub fn question(self) -> Result<Question, String> {
        let nodes: Vec<String> =
            self.nodes.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
        if nodes.len() > NODES_MAX {
            return Err(format!("nodes: {} are named, and at most {NODES_MAX} may be", nodes.len()));
        }
        Ok(Question {
            up_to: self.up_to,
            nodes,
            within: Duration::from_millis(self.within_ms).min(WITHIN_MAX),
        })
    }
}

/// How long a pod may be kept running for it. Only pods that are deleted are: those are the ones that slices list as
/// ending. Half of a short grace period stays the container's, and an order to hurry is obeyed at once.
pub(crate) fn plan_wait(limit: Duration, grace: Duration, is_deleting: bool) -> Duration {
    if is_deleting { limit.min(grace / 2) } else { Duration::ZERO }
}

/// How far a pod that ends is. All of its containers share it, and their stops.
#[derive(Debug, Default)]
pub(crate) struct Leaving {
    /// Set once the pod has left, or was given its time.
    over: OnceCell<()>,
    stage: Mutex<Stage>,
}

/// What is waited for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Stage {
    /// That every node is heard to send it no new connections.
    #[default]
    InRotation,
    /// That it has done what it was sent before. What it was last seen to have before it, if it was looked at.
    Out(Option<Busy>),
}

impl Leaving {
    /// Notes how far it is.
    pub fn note(&self, stage: Stage) {
        *self.stage.lock() = stage;
    }

    /// How far it is.
    pub fn stage(&self) -> Stage {
        *self.stage.lock()
    }

    /// Returns when a pod has left, or after this long: `Err` with what was waited for when it had no more time. What is
    /// stopped after that does not wait again.
    pub async fn wait(&self, wait: Duration, leaves: impl Future<Output = ()>) -> Result<(), Stage> {
        if wait.is_zero() {
            return Ok(());
        }
        let leaves = self.over.get_or_init(|| leaves);
        let has_left = tokio::time::timeout(wait, leaves).await.is_ok();
        // Another container's stop may have noted it already.
        let _ = self.over.set(());
        if has_left { Ok(()) } else { Err(self.stage()) }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    const SHORT: Duration = Duration::from_millis(20);
    const LONG: Duration = Duration::from_secs(3600);

    #[tokio::test]
    async fn containers_of_a_pod_wait_together_and_those_stopped_later_not_again() {
        let (asked, leaving) = (AtomicUsize::new(0), Leaving::default());
        let wait = || {
            leaving.wait(LONG, async {
                asked.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(SHORT).await;
            })
        };
        assert_eq!(tokio::join!(wait(), wait()), (Ok(()), Ok(())));
        assert_eq!(wait().await, Ok(()));
        assert_eq!(asked.load(Ordering::Relaxed), 1, "asked once");
    }

    #[tokio::test]
    async fn who_does_not_leave_in_time_is_stopped_and_an_order_to_hurry_is_not_kept_waiting() {
        let leaving = Leaving::default();
        let never = || tokio::time::sleep(LONG);
        let (slow, forced) = tokio::join!(
            leaving.wait(SHORT, never()),
            leaving.wait(plan_wait(LONG, Duration::ZERO, true), never()),
        );
        assert_eq!((slow, forced), (Err(Stage::InRotation), Ok(())));
        assert_eq!(leaving.wait(LONG, never()).await, Ok(()), "it had its time");
    }

    #[tokio::test]
    async fn who_was_out_in_time_and_is_busy_is_told_from_who_was_not_out() {
        let leaving = Leaving::default();
        let busy = async {
            leaving.note(Stage::Out(None));
            leaving.note(Stage::Out(Some(Busy::Runs)));
            tokio::time::sleep(LONG).await;
        };
        // The container that did not ask tells the same.
        let (one, other) =
            tokio::join!(leaving.wait(SHORT, busy), leaving.wait(SHORT, tokio::time::sleep(LONG)));
        assert_eq!(one, Err(Stage::Out(Some(Busy::Runs))));
        assert_eq!(other, one);
    }

    #[test]
    fn a_wait_is_within_the_grace_period_and_for_deleted_pods_only() {
        let second = Duration::from_secs(1);
        assert_eq!(plan_wait(2 * second, 30 * second, true), 2 * second);
        assert_eq!(plan_wait(2 * second, second, true), second / 2);
        assert_eq!(plan_wait(2 * second, Duration::ZERO, true), Duration::ZERO);
        assert_eq!(plan_wait(2 * second, 30 * second, false), Duration::ZERO);
        assert_eq!(plan_wait(Duration::ZERO, 30 * second, true), Duration::ZERO);
    }

    fn asked(path: &str) -> Result<Question, String> {
        let uri: http::Uri = path.parse().unwrap();
        let query = axum::extract::Query::<Query>::try_from_uri(&uri).map_err(|error| error.to_string())?;
        query.0.question()
    }

    #[test]
    fn a_question_is_read_as_it_was_asked() {
        let question =
            Question { up_to: 7, nodes: vec!["a".into(), "b.c".into()], within: Duration::from_millis(1500) };
        assert_eq!(asked(&question.path()), Ok(question));
        let alone = Question { up_to: 7, nodes: Vec::new(), within: Duration::from_secs(2) };
        assert_eq!(asked(&alone.path()), Ok(alone));
    }

    #[test]
    fn a_question_out_of_bounds_is_refused_or_cut() {
        assert!(asked("/programmed?upTo=-1&withinMs=1").is_err());
        assert!(asked("/programmed").is_err());
        let many = vec!["n"; NODES_MAX + 1].join(",");
        assert!(asked(&format!("/programmed?upTo=1&withinMs=1&nodes={many}")).is_err());
        assert_eq!(asked("/programmed?upTo=1&withinMs=99999999").unwrap().within, WITHIN_MAX);
    }
}
