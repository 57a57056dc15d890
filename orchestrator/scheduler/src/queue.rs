//! Pods that wait for a node: ready to be tried, backing off after a failure, or parked until something changes
//! that could help them. Pure but for the time it is handed.
//!
//! A pod that something may help now does not sit out its backoff while nobody else is ready: it gives way to pods that
//! were not tried as often, and is tried when there are none. That is no busy loop. Only a change in the cluster brings a parked pod
//! back, once, and trying a pod is no such change. What failed for another reason, a binding say, would fail again at
//! once, and waits. (Upstream: `SchedulerPopFromBackoffQ`, on since 1.33.)
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

type Order = (std::cmp::Reverse<i32>, Instant, String);
/// Among pods that something may help: who failed least often first, then as among those that are ready.
type HelpedOrder = (Duration, Order);

struct Waiting {
    pod: Arc<Pod>,
    since: Instant,
    attempts: u32,
    place: Place,
}

impl Waiting {
    fn order(&self, uid: &str) -> Order {
        (std::cmp::Reverse(priority(&self.pod)), self.since, uid.to_owned())
    }
}

#[derive(Clone)]
enum Place {
    Ready(Order),
    /// `helped`: something changed since it was tried, and it may be tried earlier.
    Backoff {
        until: Instant,
        helped: Option<HelpedOrder>,
    },
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
    helped: BTreeMap<HelpedOrder, String>,
    /// All that back off, those that were helped as well.
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

    /// The most important pod that is ready, the longest waiting of equals; if none is, one that something may have helped.
    pub fn next(&mut self, now: Instant) -> Option<Arc<Pod>> {
        self.end_backoffs(now);
        let ready = self.ready.first_key_value().map(|(_, uid)| uid);
        let uid = ready.or(self.helped.first_key_value().map(|(_, uid)| uid))?.clone();
        self.leave(&uid);
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
            let until = now + backoff(waiting.attempts);
            return self.retry(uid, until, now);
        }
        waiting.place = Place::Parked { filters, at: now };
    }

    /// Something went wrong that has nothing to do with fitting.
    pub fn back_off(&mut self, uid: &str, now: Instant) {
        let Some(waiting) = self.pods.get_mut(uid) else {
            return;
        };
        let until = now + backoff(waiting.attempts);
        waiting.place = Place::Backoff { until, helped: None };
        self.backoff.insert((until, uid.to_owned()));
    }

    /// What a parked pod waits for failed. One that something helped meanwhile is tried anyway.
    pub fn back_off_if_parked(&mut self, uid: &str, now: Instant) {
        if self.pods.get(uid).is_some_and(|waiting| matches!(waiting.place, Place::Parked { .. })) {
            self.back_off(uid, now);
        }
    }

    /// Something changed in the cluster: parked pods that it helps are tried again. `helps` is told of a pod and of the
    /// filters that kept it off.
    pub fn changed(&mut self, now: Instant, helps: impl Fn(&Arc<Pod>, &BTreeSet<&'static str>) -> bool) {
        let helped: Vec<(String, Instant)> = self
            .pods
            .iter_mut()
            .filter_map(|(uid, waiting)| match &mut waiting.place {
                Place::Trying { moved } => {
                    *moved = true;
                    None
                }
                Place::Parked { filters, at } if helps(&waiting.pod, filters) => {
                    Some((uid.clone(), *at + backoff(waiting.attempts)))
                }
                _ => None,
            })
            .collect();
        for (uid, until) in helped {
            self.retry(&uid, until, now);
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

    /// Ready at `until`, and before if nobody else is.
    fn retry(&mut self, uid: &str, until: Instant, now: Instant) {
        if until <= now {
            return self.make_ready(uid);
        }
        if let Some(waiting) = self.pods.get_mut(uid) {
            let order = (backoff(waiting.attempts), waiting.order(uid));
            waiting.place = Place::Backoff { until, helped: Some(order.clone()) };
            self.helped.insert(order, uid.to_owned());
            self.backoff.insert((until, uid.to_owned()));
        }
    }

    fn end_backoffs(&mut self, now: Instant) {
        while let Some((at, uid)) = self.backoff.first().cloned() {
            if at > now {
                break;
            }
            self.make_ready(&uid);
            // Whatever the pod is by now, this entry is over.
            self.backoff.remove(&(at, uid));
        }
    }

    fn make_ready(&mut self, uid: &str) {
        self.leave(uid);
        if let Some(waiting) = self.pods.get_mut(uid) {
            let order = waiting.order(uid);
            waiting.place = Place::Ready(order.clone());
            self.ready.insert(order, uid.to_owned());
        }
    }

    fn leave(&mut self, uid: &str) {
        match self.pods.get(uid).map(|w| w.place.clone()) {
            Some(Place::Ready(order)) => {
                self.ready.remove(&order);
            }
            Some(Place::Backoff { until, helped }) => {
                self.backoff.remove(&(until, uid.to_owned()));
                if let Some(order) = helped {
                    self.helped.remove(&order);
                }
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

    fn parked(queue: &mut Queue, pods: &[Arc<Pod>], now: Instant) {
        for pod in pods {
            queue.put(pod.clone(), now);
            queue.next(now);
            queue.park(pod.uid_str(), ["NodeResourcesFit"].into(), now);
        }
    }

    #[test]
    fn a_parked_pod_waits_for_a_change_that_helps_and_is_tried_once_for_it() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        let at = |ms| now + Duration::from_millis(ms);
        parked(&mut queue, &[pod("a", 0)], now);
        queue.changed(at(10), |_, filters| filters.contains("VolumeBinding"));
        assert!(next(&mut queue, at(5000)).is_none());
        queue.changed(at(100), |_, filters| filters.contains("NodeResourcesFit"));
        queue.changed(at(100), |_, _| true);
        assert_eq!(next(&mut queue, at(100)).as_deref(), Some("a"), "nobody else is ready");
        queue.park("a", BTreeSet::new(), at(100));
        assert!(next(&mut queue, at(9000)).is_none(), "nothing changed since");
        assert_eq!(queue.next_deadline(), None);
    }

    #[test]
    fn who_was_helped_gives_way_to_who_is_ready_until_its_backoff_ends() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        let at = |ms| now + Duration::from_millis(ms);
        parked(&mut queue, &[pod("a", 9)], now);
        queue.changed(at(100), |_, _| true);
        queue.put(pod("b", 0), at(100));
        queue.put(pod("c", 0), at(200));
        assert_eq!(next(&mut queue, at(200)).as_deref(), Some("b"));
        assert_eq!(queue.next_deadline(), Some(at(1000)));
        assert_eq!(next(&mut queue, at(1000)).as_deref(), Some("a"), "ready, and more important");
        assert_eq!(next(&mut queue, at(1000)).as_deref(), Some("c"));
        assert!(next(&mut queue, at(9000)).is_none());
    }

    #[test]
    fn of_those_that_were_helped_who_failed_less_often_is_first_then_who_is_more_important() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        parked(&mut queue, &[pod("twice", 9)], now);
        queue.changed(now, |_, _| true);
        queue.next(now);
        queue.park("twice", BTreeSet::new(), now);
        parked(&mut queue, &[pod("low", 0), pod("high", 1)], now);
        queue.changed(now, |_, _| true);
        let order: Vec<_> = std::iter::from_fn(|| next(&mut queue, now)).collect();
        assert_eq!(order, ["high", "low", "twice"]);
    }

    #[test]
    fn what_failed_for_another_reason_waits_whatever_changes() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.put(pod("a", 0), now);
        queue.next(now);
        queue.back_off("a", now);
        queue.changed(now, |_, _| true);
        assert!(next(&mut queue, now).is_none());
        assert_eq!(next(&mut queue, now + BACKOFF_FIRST).as_deref(), Some("a"));
    }

    #[test]
    fn what_a_parked_pod_waits_for_may_fail_before_or_after_something_helps_it() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        parked(&mut queue, &[pod("a", 0)], now);
        queue.back_off_if_parked("a", now);
        assert!(next(&mut queue, now).is_none());
        assert_eq!(next(&mut queue, now + BACKOFF_FIRST).as_deref(), Some("a"));
        queue.park("a", BTreeSet::new(), now);
        queue.changed(now, |_, _| true);
        queue.back_off_if_parked("a", now);
        assert_eq!(next(&mut queue, now).as_deref(), Some("a"));
        assert!(next(&mut queue, now + BACKOFF_MAX).is_none(), "tried once");
    }

    #[test]
    fn a_change_during_the_try_is_not_lost() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.put(pod("a", 0), now);
        queue.next(now);
        queue.changed(now, |_, _| false);
        queue.park("a", BTreeSet::new(), now);
        assert_eq!(next(&mut queue, now).as_deref(), Some("a"));
    }

    #[test]
    fn a_pod_that_goes_while_it_waits_is_not_tried() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        parked(&mut queue, &[pod("a", 0)], now);
        queue.changed(now, |_, _| true);
        queue.remove("a");
        assert!(next(&mut queue, now + BACKOFF_MAX).is_none());
        assert_eq!(queue.next_deadline(), None);
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
