//! Following what quotas count: the metadata of those resources alone that a quota names.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::DynamicObject;
use kube::core::PartialObjectMeta;
use kube::runtime::watcher::{self, Event};
use penstock_informers::failure::During;
use penstock_informers::{Cache, Failure, Meta, WorkQueue};

use super::*;

/// A watch that broke is taken up again after this.
const WATCH_AGAIN: Duration = Duration::from_millis(500);

impl Controller {
    /// Starts to follow what is not followed yet. What the server does not have is left out.
    pub(super) async fn follow(&self, wanted: &BTreeSet<Measured>) -> Result<(), Failure> {
        let unknown = {
            let followed = lock(&self.resources);
            wanted.iter().any(|measured| !followed.contains_key(measured))
        };
        if !unknown {
            return Ok(());
        }
        let found =
            observe_resources(&self.client).await.during(|| "asking which resources there are".to_owned())?;
        let mut followed = lock(&self.resources);
        for found in found.into_iter().filter(|found| found.can("list") && found.can("watch")) {
            let measured = Measured::new(&found.resource.group, &found.resource.plural);
            if !wanted.contains(&measured) || followed.contains_key(&measured) {
                continue;
            }
            let stop = self.shutdown.child_token();
            let follower = Follower {
                api: Api::all_with(self.client.clone(), &found.resource),
                measured: measured.clone(),
                quotas: self.quotas.clone(),
                queue: self.queue.clone(),
                seen: HashSet::new(),
            };
            tokio::spawn(follower.run(stop.clone()));
            followed.insert(measured, (found, stop));
        }
        Ok(())
    }

    /// Stops following what no quota names any more.
    pub(super) fn stop_following(&self) {
        let named: BTreeSet<Measured> =
            self.quotas.list().iter().flat_map(|quota| measured_by(quota)).collect();
        lock(&self.resources).retain(|measured, (_, stop)| {
            let stays = named.contains(measured);
            if !stays {
                stop.cancel();
            }
            stays
        });
    }
}

/// One resource, everywhere.
struct Follower {
    api: Api<PartialObjectMeta<DynamicObject>>,
    measured: Measured,
    quotas: Arc<Cache<ResourceQuota>>,
    queue: Arc<WorkQueue<Key>>,
    /// UIDs, to tell what is new from what changed.
    seen: HashSet<String>,
}

impl Follower {
    async fn run(mut self, stop: CancellationToken) {
        let mut stream = std::pin::pin!(watcher::watcher(self.api.clone(), watcher::Config::default()));
        loop {
            let event = tokio::select! {
                () = stop.cancelled() => return,
                event = stream.next() => event,
            };
            match event {
                None => return,
                Some(Ok(event)) => self.take(event),
                Some(Err(error)) => {
                    tracing::debug!(resource = %self.measured.plural, %error, "watch for quotas interrupted");
                    tokio::time::sleep(WATCH_AGAIN).await;
                }
            }
        }
    }

    fn take(&mut self, event: Event<PartialObjectMeta<DynamicObject>>) {
        match event {
            // What is there at first was counted by whoever asked for this.
            Event::Init => self.seen.clear(),
            Event::InitApply(object) => self.seen.extend(object.metadata.uid),
            Event::InitDone => self.quotas.list().iter().for_each(|quota| self.count(quota, Duration::ZERO)),
            Event::Apply(object) => {
                let new = self.seen.insert(object.metadata.uid.clone().unwrap_or_default());
                // What is new was charged for.
                self.count_in(&object.metadata, if new { CHARGES_SETTLE } else { Duration::ZERO });
            }
            Event::Delete(object) => {
                self.seen.remove(object.metadata.uid.as_deref().unwrap_or_default());
                self.count_in(&object.metadata, Duration::ZERO);
            }
        }
    }

    fn count_in(&self, object: &ObjectMeta, delay: Duration) {
        let namespace = object.namespace.as_deref().unwrap_or_default();
        self.quotas.list_namespace(namespace).iter().for_each(|quota| self.count(quota, delay));
    }

    fn count(&self, quota: &ResourceQuota, delay: Duration) {
        if measured_by(quota).contains(&self.measured) {
            self.queue.add_after(quota.key(), delay);
        }
    }
}
