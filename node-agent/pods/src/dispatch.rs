//! From pods as a source tells them to workers: one for each UID, made when it is first seen, gone when it is done.
//! The sources are the API server and the manifests of this node. Pods the runtime has and no source knows are stopped and removed once the source has told everything.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::runtime::{WatchStreamExt, watcher};
use penstock_runtime::ContainerFilter;
use tokio::sync::{Notify, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::admission::{self, Room};
use crate::context::Context;
use crate::desired::{Desired, Origin};
use crate::status_writer::StatusWriter;
use crate::watch_pause::WatchPause;
use crate::worker::{self, Order};
use crate::{mirror, names, resources, worker_cleanup};

/// Pause before a runtime that did not answer is asked again.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// The grace period of a pod that does not say, as in the API.
const GRACE_SECONDS: i64 = 30;

struct Handle {
    orders: watch::Sender<Order>,
}

struct Dispatch {
    context: Arc<Context>,
    shutdown: CancellationToken,
    workers: HashMap<String, Handle>,
    tasks: JoinSet<String>,
    /// UIDs seen during a relist.
    listed: Option<Vec<String>>,
    /// New pods seen during a relist, to be asked about when it has told all that run already.
    undecided: Vec<Arc<Desired>>,
    /// Pods this node refused, until the API says so too, and the tasks that tell it.
    refused: HashMap<String, AbortHandle>,
    /// UIDs of pods from manifests.
    statics: BTreeSet<String>,
}

/// Watches this node's pods and runs their workers until shutdown.
pub async fn run(
    context: Arc<Context>,
    mut statics: watch::Receiver<BTreeMap<String, Pod>>,
    shutdown: CancellationToken,
) {
    let pods: Api<Pod> = Api::all(context.client.clone());
    let mine = watcher::Config::default().fields(&format!("spec.nodeName={}", context.config.node_name));
    let mut stream = watcher(pods, mine).backoff(WatchPause::default()).boxed();
    let mut dispatch = Dispatch {
        context,
        shutdown: shutdown.clone(),
        workers: HashMap::new(),
        tasks: JoinSet::new(),
        listed: None,
        undecided: Vec::new(),
        refused: HashMap::new(),
        statics: BTreeSet::new(),
    };
    let first = statics.borrow_and_update().clone();
    dispatch.take_statics(first);
    let mut watching_statics = true;
    let (mut looked, mut looks) = (false, JoinSet::new());
    loop {
        tokio::select! {
            () = shutdown.cancelled() => break,
            Some(ended) = dispatch.tasks.join_next() => {
                if let Ok(uid) = ended {
                    dispatch.forget(&uid);
                }
            }
            changed = statics.changed(), if watching_statics => {
                watching_statics = changed.is_ok();
                let pods = statics.borrow_and_update().clone();
                dispatch.take_statics(pods);
            }
            // Who is known is asked after the look, which waits for the runtime: pods may have come meanwhile.
            Some(Ok(seen)) = looks.join_next() => dispatch.sweep(&seen),
            event = stream.next() => match event {
                Some(Ok(event)) => {
                    let complete = dispatch.take(event);
                    if complete && !looked {
                        looked = true;
                        looks.spawn(look(dispatch.context.clone()));
                    }
                }
                Some(Err(error)) => tracing::warn!(%error, "watch of this node's pods; trying again"),
                None => break,
            }
        }
    }
    // Workers stop nothing; they only have to let go.
    while dispatch.tasks.join_next().await.is_some() {}
}

impl Dispatch {
    /// Returns true when a relist is complete.
    fn take(&mut self, event: watcher::Event<Pod>) -> bool {
        match event {
            watcher::Event::Init => {
                self.listed = Some(Vec::new());
                self.undecided.clear();
            }
            watcher::Event::InitApply(pod) => {
                if let (Some(uids), Some(uid)) = (self.listed.as_mut(), pod.metadata.uid.clone()) {
                    uids.push(uid);
                }
                self.upsert(pod);
            }
            watcher::Event::InitDone => {
                let listed = self.listed.take().unwrap_or_default();
                let gone: Vec<String> = self
                    .workers
                    .keys()
                    .filter(|uid| !listed.contains(uid) && !self.is_static(uid))
                    .cloned()
                    .collect();
                gone.iter().for_each(|uid| self.delete(uid));
                self.refused.retain(|uid, task| listed.contains(uid) || drop_task(task));
                self.decide();
                self.context.ledger.complete();
                self.context.routes.wake(None);
                return true;
            }
            watcher::Event::Apply(pod) => self.upsert(pod),
            watcher::Event::Delete(pod) => {
                if let Some(uid) = pod.metadata.uid {
                    self.delete(&uid);
                }
            }
        }
        false
    }

    /// Whether a worker's pod is or was one from a manifest; the API's list says nothing about those.
    fn is_static(&self, uid: &str) -> bool {
        let file = |d: &Arc<Desired>| d.origin == Origin::File;
        self.statics.contains(uid) || self.workers.get(uid).is_some_and(|h| file(&h.orders.borrow().desired))
    }

    /// Pods from manifests, all of them.
    fn take_statics(&mut self, pods: BTreeMap<String, Pod>) {
        let gone: Vec<String> = self.statics.iter().filter(|uid| !pods.contains_key(*uid)).cloned().collect();
        gone.iter().for_each(|uid| self.delete(uid));
        self.statics = pods.keys().cloned().collect();
        for pod in pods.into_values() {
            if let Some(desired) = Desired::new(pod, Origin::File) {
                self.order(Arc::new(desired));
            }
        }
    }

    fn upsert(&mut self, pod: Pod) {
        if let Some(uid) = mirror::mirrored(&pod) {
            if pod.metadata.deletion_timestamp.is_some() || !self.is_static(uid) {
                self.remove_mirror(pod);
            }
            return;
        }
        let Some(desired) = Desired::new(pod, Origin::Api).map(Arc::new) else { return };
        let known = self.workers.contains_key(&desired.uid);
        if known || !admission::is_new(&desired) {
            if let Some(task) = self.refused.remove(&desired.uid) {
                task.abort();
            }
            self.order(desired);
        } else if !self.refused.contains_key(&desired.uid) {
            self.undecided.push(desired);
            if self.listed.is_none() {
                self.decide();
            }
        }
    }

    /// Takes or refuses the pods that are new here, the oldest first.
    fn decide(&mut self) {
        let created = |d: &Arc<Desired>| d.pod.metadata.creation_timestamp.as_ref().map(|t| t.0);
        let mut undecided = std::mem::take(&mut self.undecided);
        undecided.sort_by_key(created);
        for desired in undecided {
            let refusal = {
                let pods = self.context.pods.lock();
                let others = pods.values().map(|pod| &**pod).filter(|pod| !pod.is_terminal());
                admission::refuse(&desired, others, &self.room())
            };
            match refusal {
                None => self.order(desired),
                Some(refusal) => self.refuse(desired, &refusal),
            }
        }
    }

    fn room(&self) -> Room {
        let pods = usize::try_from(self.context.config.pods_max).unwrap_or(usize::MAX);
        Room { amounts: self.context.ledger.capacity(), pods }
    }

    /// Tells the API; when it has taken notice, the pod is one of those that have ended.
    fn refuse(&mut self, desired: Arc<Desired>, refusal: &admission::Refusal) {
        let pod = format!("{}/{}", desired.namespace, desired.name);
        tracing::info!(pod, reason = refusal.reason, message = refusal.message, "pod refused");
        self.context.events.warning(&desired, None, &refusal.reason, &refusal.message);
        let (context, uid) = (self.context.clone(), desired.uid.clone());
        let status = admission::refused_status(&desired, refusal);
        let task = tokio::spawn(async move {
            let before = desired.pod.status.clone().unwrap_or_default();
            let mut writer = StatusWriter::start(context, desired, before);
            writer.set(status);
            while !writer.is_written() {
                writer.progress().await;
            }
        });
        self.refused.insert(uid, task.abort_handle());
    }

    /// A mirror somebody asked to delete goes at once (its writer makes a new one), as does one without a manifest.
    fn remove_mirror(&self, pod: Pod) {
        let context = self.context.clone();
        let text = |value: Option<String>| value.unwrap_or_default();
        let meta = pod.metadata;
        tokio::spawn(async move {
            let (namespace, name, uid) = (text(meta.namespace), text(meta.name), text(meta.uid));
            if let Err(error) = mirror::remove(&context, &namespace, &name, &uid).await {
                tracing::warn!(pod = %format!("{namespace}/{name}"), %error, "mirror not removed");
            }
        });
    }

    fn order(&mut self, desired: Arc<Desired>) {
        self.context.pods.lock().insert(desired.uid.clone(), desired.clone());
        if let Some(handle) = self.workers.get(&desired.uid) {
            handle.orders.send_replace(Order { desired, gone: false });
            return;
        }
        let uid = desired.uid.clone();
        if !desired.is_terminal() {
            let qos = resources::qos(desired.spec());
            self.context.ledger.enter(&uid, qos, worker::given(&desired));
        }
        let (orders, inbox) = watch::channel(Order { desired, gone: false });
        let wake = Arc::new(Notify::new());
        let (context, shutdown) = (self.context.clone(), self.shutdown.clone());
        let id = uid.clone();
        self.tasks.spawn(async move {
            worker::run(context, inbox, wake, shutdown).await;
            id
        });
        self.workers.insert(uid, Handle { orders });
        self.count();
    }

    fn delete(&mut self, uid: &str) {
        if let Some(handle) = self.workers.get(uid) {
            handle.orders.send_modify(|order| order.gone = true);
        }
        if let Some(task) = self.refused.remove(uid) {
            task.abort();
        }
        self.undecided.retain(|desired| desired.uid != uid);
        self.context.pods.lock().remove(uid);
    }

    fn forget(&mut self, uid: &str) {
        self.workers.remove(uid);
        self.leave_ledger(uid);
        self.context.pods.lock().remove(uid);
        self.count();
    }

    /// Room that a pod leaves is news to those that wait for some.
    fn leave_ledger(&self, uid: &str) {
        if self.context.ledger.leave(uid) {
            self.context.routes.wake(None);
        }
    }

    /// Stops and removes what the runtime has of pods that no source knows.
    fn sweep(&self, seen: &Seen) {
        for (uid, grace_seconds) in plan_orphans(seen, |uid| self.workers.contains_key(uid)) {
            tracing::info!(uid, "stopping a pod that was deleted while the agent was away");
            let context = self.context.clone();
            tokio::spawn(async move { worker_cleanup::stop_orphan(&context, &uid, grace_seconds).await });
        }
        let (context, known) = (self.context.clone(), self.workers.keys().cloned().collect::<Vec<_>>());
        tokio::spawn(async move { worker_cleanup::remove_stale_dirs(&context, &known).await });
    }

    fn count(&self) {
        self.context.metrics.running_pods.set(i64::try_from(self.workers.len()).unwrap_or(i64::MAX));
    }
}

/// For a task nobody needs any more; never kept.
fn drop_task(task: &AbortHandle) -> bool {
    task.abort();
    false
}

/// What the runtime has of pods: their labels and annotations.
type Seen = Vec<(BTreeMap<String, String>, BTreeMap<String, String>)>;

/// Looks until the runtime answers.
async fn look(context: Arc<Context>) -> Seen {
    loop {
        let all = ContainerFilter::default();
        match tokio::try_join!(context.runtime.list_sandboxes(&[]), context.runtime.list_containers(&all)) {
            Ok((sandboxes, containers)) => {
                let sandboxes = sandboxes.into_iter().map(|s| (s.labels, s.annotations));
                return sandboxes.chain(containers.into_iter().map(|c| (c.labels, c.annotations))).collect();
            }
            Err(_) => tokio::time::sleep(LOOK_AGAIN_AFTER).await,
        }
    }
}

/// Pods of ours that nobody wants any more, with their grace periods in seconds. What has no labels of ours is not touched.
fn plan_orphans(seen: &Seen, is_known: impl Fn(&str) -> bool) -> BTreeMap<String, i64> {
    let mut orphans = BTreeMap::new();
    for (labels, annotations) in seen {
        if let Some(uid) = labels.get(names::POD_UID).filter(|uid| !is_known(uid)) {
            let grace = annotations.get(names::POD_GRACE).and_then(|grace| grace.parse().ok());
            orphans.insert(uid.clone(), grace.unwrap_or(GRACE_SECONDS));
        }
    }
    orphans
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pods_of_ours_that_nobody_knows_are_orphans() {
        let map = |key: &str, value: &str| BTreeMap::from([(key.to_owned(), value.to_owned())]);
        let seen = vec![
            (map(names::POD_UID, "known"), map(names::POD_GRACE, "1")),
            (map(names::POD_UID, "gone"), map(names::POD_GRACE, "7")),
            (map(names::POD_UID, "without"), BTreeMap::new()),
            (map("app", "another's"), map(names::POD_GRACE, "1")),
        ];
        let orphans = plan_orphans(&seen, |uid| uid == "known");
        assert_eq!(orphans, BTreeMap::from([("gone".to_owned(), 7), ("without".to_owned(), GRACE_SECONDS)]));
    }
}
