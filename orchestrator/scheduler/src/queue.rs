//! Pods that wait for a node: ready to be tried, backing off after a failure, or parked until something changes
//! that could help them. Pure but for the time it is handed.
//!
//! Bound: one entry per pending pod.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use penstock_informers::Meta;
use tokio::time::Instant;

use crate::decide::priority;

const BACKOFF_FIRST: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// A parked pod is tried again after this even if nothing seems to have changed.
const PARKED_MAX: Duration = Duration::from_secs(300);

/// A change in the cluster that may help parked pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// A node appeared, or has other labels, taints or room.
    Node,
    /// A pod left a node.
    PodGone,
    /// A pod was placed, or its labels changed.
    PodPlaced,
    /// A claim, volume or class changed.
    Storage,
}

impl Change {
    /// Whether a pod that these filters kept off could fit now.
    fn helps(self, filters: &BTreeSet<&'static str>) -> bool {
        filters.is_empty()
            || filters.iter().any(|filter| match self {
                Self::Node => true,
                Self::PodGone => matches!(
                    *filter,
                    "NodeResourcesFit" | "NodePorts" | "InterPodAffinity" | "PodTopologySpread"
                ),
                Self::PodPlaced => matches!(*filter, "InterPodAffinity" | "PodTopologySpread"),
                Self::Storage => *filter == "VolumeBinding",
            })
    }
}

type Order = (std::cmp::Reverse<i32>, Instant, String);

struct Waiting {
    pod: Arc<Pod>,
    since: Instant,
    attempts: u32,
    place: Place,
}

#[derive(Clone)]
enum Place {
    Ready(Order),
    Backoff(Instant),
    Parked {
        filters: BTreeSet<&'static str>,
        at: Instant,
    },
    /// Being tried; `moved`: something changed meanwhile.
    Trying {
        moved: bool,
    },
}

/// See the module.
#[derive(Default)]
pub struct Queue {
    pods: HashMap<String, Waiting>,
    ready: BTreeMap<Order, String>,
    backoff: BTreeSet<(Instant, String)>,
}

impl Queue {
    /// A new pod, or a new version of a waiting one. A changed pod gets another chance at once.
    pub fn put(&mut self, pod: Arc<Pod>, now: Instant) {
        let uid = pod.uid_str().to_owned();
        match self.pods.get_mut(&uid) {
            Some(waiting) => {
                let changed =
                    waiting.pod.spec != pod.spec || waiting.pod.metadata.labels != pod.metadata.labels;
                waiting.pod = pod;
                if changed && matches!(waiting.place, Place::Parked { .. }) {
                    self.make_ready(&uid);
                }
            }
            None => {
                let place = Place::Trying { moved: false };
                self.pods.insert(uid.clone(), Waiting { pod, since: now, attempts: 0, place });
                self.make_ready(&uid);
            }
        }
    }

    /// A pod that needs no node any more.
    pub fn remove(&mut self, uid: &str) {
        self.leave(uid);
        self.pods.remove(uid);
    }

    /// The most important pod that is ready; the longest waiting of equals.
    pub fn next(&mut self, now: Instant) -> Option<Arc<Pod>> {
        self.end_backoffs(now);
        let (_, uid) = self.ready.pop_first()?;
        let waiting = self.pods.get_mut(&uid)?;
        waiting.place = Place::Trying { moved: false };
        waiting.attempts += 1;
        Some(waiting.pod.clone())
    }

    /// When a backoff ends next.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.backoff.first().map(|(at, _)| *at)
    }

    /// No node fitted: the pod is parked until something helps, or backs off when something just changed.
    pub fn park(&mut self, uid: &str, filters: BTreeSet<&'static str>, now: Instant) {
        let Some(waiting) = self.pods.get_mut(uid) else {
            return;
        };
        if matches!(waiting.place, Place::Trying { moved: true }) {
            return self.back_off(uid, now);
        }
        waiting.place = Place::Parked { filters, at: now };
    }

    /// Something went wrong that has nothing to do with fitting.
    pub fn back_off(&mut self, uid: &str, now: Instant) {
        let Some(waiting) = self.pods.get_mut(uid) else {
            return;
        };
        let until = now + backoff(waiting.attempts);
        waiting.place = Place::Backoff(until);
        self.backoff.insert((until, uid.to_owned()));
    }

    /// Something changed in the cluster: parked pods it may help are tried again, after their backoff.
    pub fn changed(&mut self, change: Change, now: Instant) {
        let helped: Vec<(String, Instant)> = self
            .pods
            .iter_mut()
            .filter_map(|(uid, waiting)| match &mut waiting.place {
                Place::Trying { moved } => {
                    *moved = true;
                    None
                }
                Place::Parked { filters, at } if change.helps(filters) => {
                    Some((uid.clone(), *at + backoff(waiting.attempts)))
                }
                _ => None,
            })
            .collect();
        for (uid, until) in helped {
            self.retry_at(&uid, until, now);
        }
    }

    /// Tries again what has been parked for too long.
    pub fn revive(&mut self, now: Instant) {
        let stale = |w: &Waiting| matches!(&w.place, Place::Parked { at, .. } if now.duration_since(*at) >= PARKED_MAX);
        let stale: Vec<String> =
            self.pods.iter().filter(|(_, w)| stale(w)).map(|(uid, _)| uid.clone()).collect();
        stale.iter().for_each(|uid| self.make_ready(uid));
    }

    /// Pods waiting.
    pub fn len(&self) -> usize {
        self.pods.len()
    }

    /// Whether no pod waits.
    pub fn is_empty(&self) -> bool {
        self.pods.is_empty()
    }

    fn retry_at(&mut self, uid: &str, until: Instant, now: Instant) {
        if until <= now {
            return self.make_ready(uid);
        }
        if let Some(waiting) = self.pods.get_mut(uid) {
            waiting.place = Place::Backoff(until);
            self.backoff.insert((until, uid.to_owned()));
        }
    }

    fn end_backoffs(&mut self, now: Instant) {
        while let Some((at, uid)) = self.backoff.first().cloned() {
            if at > now {
                break;
            }
            self.backoff.pop_first();
            self.make_ready(&uid);
        }
    }

    fn make_ready(&mut self, uid: &str) {
        self.leave(uid);
        if let Some(waiting) = self.pods.get_mut(uid) {
            let order = (std::cmp::Reverse(priority(&waiting.pod)), waiting.since, uid.to_owned());
            waiting.place = Place::Ready(order.clone());
            self.ready.insert(order, uid.to_owned());
        }
    }

    fn leave(&mut self, uid: &str) {
        match self.pods.get(uid).map(|w| w.place.clone()) {
            Some(Place::Ready(order)) => {
                self.ready.remove(&order);
            }
            Some(Place::Backoff(until)) => {
                self.backoff.remove(&(until, uid.to_owned()));
            }
            _ => {}
        }
    }
}

fn backoff(attempts: u32) -> Duration {
    BACKOFF_FIRST.saturating_mul(1 << attempts.saturating_sub(1).min(8)).min(BACKOFF_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, priority: i32) -> Arc<Pod> {
        Arc::new(
            serde_json::from_value(serde_json::json!({
                "metadata": {"name": name, "uid": name}, "spec": {"priority": priority, "containers": []},
            }))
            .unwrap(),
        )
    }

    fn next(queue: &mut Queue, now: Instant) -> Option<String> {
        queue.next(now).map(|p| p.name().to_owned())
    }

    #[test]
    fn important_pods_first_then_the_longest_waiting() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.put(pod("a", 0), now);
        queue.put(pod("b", 0), now + Duration::from_millis(1));
        queue.put(pod("c", 9), now + Duration::from_millis(2));
        let order: Vec<_> = std::iter::from_fn(|| next(&mut queue, now)).collect();
        assert_eq!(order, ["c", "a", "b"]);
    }

    #[test]
    fn a_parked_pod_waits_for_a_change_that_helps_and_for_its_backoff() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        let at = |ms| now + Duration::from_millis(ms);
        queue.put(pod("a", 0), now);
        queue.next(now);
        queue.park("a", ["NodeResourcesFit"].into(), now);
        queue.changed(Change::Storage, at(10));
        assert!(next(&mut queue, at(5000)).is_none());
        queue.changed(Change::PodGone, at(100));
        assert!(next(&mut queue, at(200)).is_none(), "its backoff has not passed");
        assert_eq!(queue.next_deadline(), Some(at(1000)));
        assert_eq!(next(&mut queue, at(1000)).as_deref(), Some("a"));
    }

    #[test]
    fn a_change_during_the_try_is_not_lost() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.put(pod("a", 0), now);
        queue.next(now);
        queue.changed(Change::Node, now);
        queue.park("a", BTreeSet::new(), now);
        assert_eq!(next(&mut queue, now + Duration::from_secs(1)).as_deref(), Some("a"));
    }

    #[test]
    fn what_is_parked_for_long_is_tried_again() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.put(pod("a", 0), now);
        queue.next(now);
        queue.park("a", ["NodeName"].into(), now);
        queue.revive(now + PARKED_MAX);
        assert_eq!(next(&mut queue, now + PARKED_MAX).as_deref(), Some("a"));
        queue.remove("a");
        assert!(queue.is_empty());
    }
}
