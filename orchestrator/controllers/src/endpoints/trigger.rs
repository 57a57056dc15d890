//! When the change happened that leads to a write of endpoints: proxies measure from it how long it took to reach them.
//!
//! As upstream: a pod's change is the last of its condition `Ready`, a Service's is its creation. Of several that came since the
//! last look the first counts. What has no time of its own, such as a pod's deletion, is not measured.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, Service};
use penstock_informers::{Key, Meta};

use crate::pod;

/// The annotation that says it.
pub(crate) const TRIGGER_TIME: &str = "endpoints.kubernetes.io/last-change-trigger-time";

/// The changes that were taken note of, by Service.
#[derive(Debug, Default)]
pub(crate) struct Triggers(Mutex<HashMap<Key, Seen>>);

/// Of one Service and its pods.
#[derive(Debug, Default, PartialEq)]
struct Seen {
    service: Option<Timestamp>,
    pods: BTreeMap<String, Timestamp>,
}

// === impl Triggers ===

impl Triggers {
    /// The first change since this was last asked for a Service; none when nothing that has a time changed.
    pub(crate) fn changed(&self, service: &Service, pods: &[Arc<Pod>]) -> Option<Timestamp> {
        let now = Seen::observe(service, pods);
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = match seen.get(&service.key()) {
            // Its pods may have been ready long before it was there.
            None => now.service,
            Some(former) => now.first_after(former),
        };
        seen.insert(service.key(), now);
        changed
    }

    /// Forgets a Service that is gone.
    pub(crate) fn forget(&self, service: &Key) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(service);
    }
}

// === impl Seen ===

impl Seen {
    fn observe(service: &Service, pods: &[Arc<Pod>]) -> Self {
        let changed = |pod: &Arc<Pod>| {
            let ready = pod::condition(pod, "Ready")?;
            Some((pod.name().to_owned(), ready.last_transition_time.as_ref()?.0))
        };
        Self {
            service: service.metadata.creation_timestamp.as_ref().map(|time| time.0),
            pods: pods.iter().filter_map(changed).collect(),
        }
    }

    /// The first of its times that is later than its former one.
    fn first_after(&self, former: &Self) -> Option<Timestamp> {
        let pods =
            self.pods.iter().filter(|(name, time)| former.pods.get(*name).is_none_or(|was| was < time));
        let service = self.service.filter(|time| former.service.is_none_or(|was| was < *time));
        pods.map(|(_, time)| *time).chain(service).min()
    }
}

/// Says in an object's annotations when its last change happened; a change without a time takes away that of the one
/// before.
pub(crate) fn annotate(annotations: &mut BTreeMap<String, String>, trigger: Option<Timestamp>) {
    match trigger {
        Some(time) => annotations.insert(TRIGGER_TIME.to_owned(), time.to_string()),
        None => annotations.remove(TRIGGER_TIME),
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::tests::{test_pod, time};

    fn service() -> Service {
        let mut service = Service::default();
        service.metadata.name = Some("web".to_owned());
        service.metadata.creation_timestamp = Some(time(100));
        service
    }

    fn pod(name: &str, ready_since: i64) -> Arc<Pod> {
        Arc::new(test_pod(name, Some("n1"), "Running", Some(ready_since)))
    }

    fn at(seconds: i64) -> Option<Timestamp> {
        Some(time(seconds).0)
    }

    #[test]
    fn the_first_change_since_the_last_look_is_told_once() {
        let triggers = Triggers::default();
        let service = service();
        assert_eq!(triggers.changed(&service, &[pod("a", 50)]), at(100), "a new Service");
        assert_eq!(triggers.changed(&service, &[pod("a", 50)]), None);
        let more = [pod("a", 50), pod("b", 120), pod("c", 110)];
        assert_eq!(triggers.changed(&service, &more), at(110));
        assert_eq!(triggers.changed(&service, &more), None);
        assert_eq!(triggers.changed(&service, &[pod("a", 130), pod("b", 120)]), at(130), "ready again");
        assert_eq!(triggers.changed(&service, &[pod("a", 130)]), None, "a deletion has no time");
        triggers.forget(&service.key());
        assert_eq!(triggers.changed(&service, &[]), at(100));
    }

    #[test]
    fn a_change_without_a_time_takes_away_the_one_before() {
        let mut annotations = BTreeMap::new();
        annotate(&mut annotations, at(100));
        assert_eq!(annotations[TRIGGER_TIME], "1970-01-01T00:01:40Z");
        annotate(&mut annotations, None);
        assert!(annotations.is_empty());
    }
}
