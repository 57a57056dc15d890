//! The loop that keeps step with APIServices: makes the local ones, checks the others, learns what those serve.
//!
//! Once a second it compares what is stored with what is known, which costs a comparison of versions while nothing
//! changes. Several servers on one store do the same work and agree.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::future::join_all;
use serde_json::Value;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::availability::{self, Verdict};
use super::documents::{self, Documents};
use super::local::{self, Change, Served};
use super::remote::Remote;
use super::{Aggregation, Known};
use crate::error::ApiError;
use crate::registry::generic::now_text;
use crate::registry::generic::update::Race;
use crate::registry::ownership::Tracking;
use crate::registry::{Context, Definition, DeleteOptions, Target};
use crate::reviews;

const GROUP: &str = "apiregistration.k8s.io";
const PLURAL: &str = "apiservices";
const PERIOD: Duration = Duration::from_secs(1);
/// A server that answers is asked again after this.
const CHECK_AGAIN: Duration = Duration::from_secs(30);
/// A server that does not is asked again after this.
const CHECK_FAILED_AGAIN: Duration = Duration::from_secs(2);
/// OpenAPI documents are read again after this.
const READ_AGAIN: Duration = Duration::from_secs(60);

/// Follows until `stop`.
pub(crate) fn follow(aggregation: &Arc<Aggregation>, stop: CancellationToken) {
    let mut follower = Follower { aggregation: Arc::downgrade(aggregation), ..Follower::default() };
    tokio::spawn(async move {
        let mut ticks = tokio::time::interval(PERIOD);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! { () = stop.cancelled() => return, _ = ticks.tick() => {} }
            let Some(aggregation) = follower.aggregation.upgrade() else { return };
            let step = follower.step(&aggregation);
            tokio::select! {
                () = stop.cancelled() => return,
                stepped = step => if let Err(error) = stepped {
                    tracing::warn!(%error, "APIServices cannot be followed; trying again");
                },
            }
        }
    });
}

#[derive(Default)]
struct Follower {
    aggregation: Weak<Aggregation>,
    /// By name: the version that was read, and the object.
    objects: BTreeMap<String, (u64, Value)>,
    /// By name, of those that others serve.
    checked: BTreeMap<String, Checked>,
    /// What the registry served when the local ones were planned last.
    planned_at: Option<u64>,
}

/// What is known of an extension server.
struct Checked {
    remote: Remote,
    check_at: Instant,
    read_at: Instant,
    verdict: Option<Verdict>,
    documents: Documents,
}

// === impl Follower ===

impl Follower {
    async fn step(&mut self, aggregation: &Arc<Aggregation>) -> Result<(), ApiError> {
        let registry = &aggregation.registry;
        let definition = registry.find(GROUP, "v1", PLURAL).ok_or_else(ApiError::no_such_path)?;
        let changed = self.read(aggregation).await?;
        let generation = registry.generation();
        if changed || self.planned_at != Some(generation) {
            // What cannot be written now must not keep servers from being checked.
            match self.plan(aggregation, &definition).await {
                Ok(()) => self.planned_at = Some(generation),
                Err(error) => {
                    self.planned_at = None;
                    tracing::warn!(%error, "APIServices of what is served here cannot be kept; trying again");
                }
            }
        }
        let learnt = self.check(aggregation).await;
        if changed || learnt {
            // A group is served before its condition says so: whoever waits for that may use it at once.
            aggregation.set(self.known());
        }
        self.tell(aggregation, &definition).await
    }

    /// Reads what is stored; tells whether anything is new.
    async fn read(&mut self, aggregation: &Arc<Aggregation>) -> Result<bool, ApiError> {
        let stored = aggregation.registry.cached(GROUP, PLURAL, None).await?;
        let mut now = BTreeMap::new();
        let mut changed = stored.len() != self.objects.len();
        for object in &stored {
            let entry = match self.objects.remove(&object.name) {
                Some(known) if known.0 == object.resource_version => known,
                _ => {
                    changed = true;
                    (object.resource_version, object.value())
                }
            };
            now.insert(object.name.clone(), entry);
        }
        self.objects = now;
        Ok(changed)
    }

    /// Makes, mends and removes APIServices of what is served here.
    async fn plan(
        &self,
        aggregation: &Arc<Aggregation>,
        definition: &Arc<Definition>,
    ) -> Result<(), ApiError> {
        let registry = &aggregation.registry;
        let mut served: Vec<Served> = registry
            .definitions()
            .iter()
            .map(|d| Served {
                group: d.group.to_string(),
                version: d.version.to_string(),
                custom: d.custom.is_some(),
            })
            .chain(reviews::RESOURCES.iter().map(|review| Served {
                group: review.group.to_owned(),
                version: "v1".to_owned(),
                custom: false,
            }))
            .collect();
        served.sort();
        served.dedup();
        let present = self.objects.iter().map(|(name, (_, object))| (name.clone(), object.clone())).collect();
        let context = Context::system();
        for change in local::plan(&served, &present) {
            let done = match change {
                Change::Create(object) => {
                    let target = Target::collection(None);
                    let changes = Tracking::Changes;
                    registry.create_object(&context, definition, &target, changes, object).await.map(drop)
                }
                Change::Mend(want) => {
                    let name = want["metadata"]["name"].as_str().unwrap_or_default().to_owned();
                    let target = Target::named(None, &name);
                    let mend = &mut |old: &Value, _: Option<&Value>| {
                        let mut new = old.clone();
                        new["spec"] = want["spec"].clone();
                        new["metadata"]["labels"][local::MANAGED] =
                            want["metadata"]["labels"][local::MANAGED].clone();
                        Ok(new)
                    };
                    let changes = Tracking::Changes;
                    registry
                        .modify(&context, definition, &target, Race::Rebases, changes, mend)
                        .await
                        .map(drop)
                }
                Change::Remove(name) => {
                    let target = Target::named(None, &name);
                    registry.delete(&context, definition, &target, &DeleteOptions::default()).await.map(drop)
                }
            };
            match done {
                Err(e) if e.is_not_found() || e.is_already_exists() => {}
                done => done?,
            }
        }
        for (name, (_, object)) in &self.objects {
            if Remote::read(object).is_none() && !local::is_said_available(object) {
                note(aggregation, definition, name, &Verdict::local()).await?;
            }
        }
        Ok(())
    }

    /// Checks the servers whose time has come; tells whether anything was learnt.
    async fn check(&mut self, aggregation: &Arc<Aggregation>) -> bool {
        let now = Instant::now();
        let before = self.checked.len();
        let remotes: BTreeMap<String, Remote> = self
            .objects
            .iter()
            .filter_map(|(name, (_, object))| Some((name.clone(), Remote::read(object)?)))
            .collect();
        self.checked.retain(|name, _| remotes.contains_key(name));
        let mut learnt = self.checked.len() != before;
        for (name, remote) in remotes {
            match self.checked.get_mut(&name) {
                Some(checked) if checked.remote.target == remote.target => checked.remote = remote,
                _ => {
                    let documents = Documents::default();
                    let fresh = Checked { remote, check_at: now, read_at: now, verdict: None, documents };
                    self.checked.insert(name, fresh);
                    learnt = true;
                }
            }
        }
        // All at once: one that hangs must not keep the others waiting longer than its own timeout.
        let checking = self.checked.values_mut().map(|checked| checked.check(aggregation, now));
        learnt | join_all(checking).await.into_iter().any(|learnt| learnt)
    }

    /// Writes what was found into the conditions.
    async fn tell(
        &self,
        aggregation: &Arc<Aggregation>,
        definition: &Arc<Definition>,
    ) -> Result<(), ApiError> {
        for (name, checked) in &self.checked {
            let Some(verdict) = &checked.verdict else { continue };
            if self.objects.get(name).is_some_and(|(_, object)| !verdict.is_noted(object)) {
                note(aggregation, definition, name, verdict).await?;
            }
        }
        Ok(())
    }

    fn known(&self) -> Known {
        let mut known = Known::default();
        for (_, object) in self.objects.values() {
            let group = object["spec"]["group"].as_str().unwrap_or_default();
            let priority = object["spec"]["groupPriorityMinimum"].as_i64().unwrap_or(0);
            let largest = known.priorities.entry(group.to_owned()).or_insert(priority);
            *largest = priority.max(*largest);
        }
        for (name, checked) in &self.checked {
            // Built-in groups cannot be given away: clients of this server and its own parts depend on them.
            if local::is_built_in(&checked.remote.group) {
                continue;
            }
            let key = (checked.remote.group.clone(), checked.remote.version.clone());
            let mut remote = checked.remote.clone();
            if let Some(verdict) = &checked.verdict {
                remote.available = verdict.is_available();
            }
            known.remotes.insert(key, Arc::new(remote));
            known.documents.insert(name.clone(), Arc::new(checked.documents.clone()));
        }
        known
    }
}

// === impl Checked ===

impl Checked {
    /// Looks at the Service each time, and asks the server when it is due. Tells whether anything was learnt.
    async fn check(&mut self, aggregation: &Arc<Aggregation>, now: Instant) -> bool {
        let registry = &aggregation.registry;
        let identity = aggregation.identity();
        let identity = identity.as_ref();
        if let Some(verdict) = availability::of_service(registry, &self.remote).await {
            self.check_at = now;
            return self.learn(verdict);
        }
        let mut learnt = false;
        if self.check_at <= now {
            let (verdict, entries) = availability::ask(registry, identity, &self.remote).await;
            self.check_at = now + if verdict.is_available() { CHECK_AGAIN } else { CHECK_FAILED_AGAIN };
            learnt |= self.learn(verdict);
            if let Some(entries) = entries.filter(|entries| *entries != self.documents.entries) {
                self.documents.entries = entries;
                learnt = true;
            }
        }
        if self.read_at <= now && self.verdict.as_ref().is_some_and(Verdict::is_available) {
            self.read_at = now + READ_AGAIN;
            match documents::openapi(registry, identity, &self.remote).await {
                Ok(read) if self.documents.openapi.as_ref() != Some(&read) => {
                    self.documents.openapi = Some(read);
                    learnt = true;
                }
                Ok(_) => {}
                Err(error) => {
                    tracing::debug!(apiservice = self.remote.name, %error, "an extension server tells no OpenAPI");
                }
            }
        }
        learnt
    }

    fn learn(&mut self, verdict: Verdict) -> bool {
        let changed = self.verdict.as_ref() != Some(&verdict);
        self.verdict = Some(verdict);
        changed
    }
}

async fn note(
    aggregation: &Arc<Aggregation>,
    definition: &Arc<Definition>,
    name: &str,
    verdict: &Verdict,
) -> Result<(), ApiError> {
    let target = Target::named(None, name).with_subresource("status");
    let context = Context::system();
    let noted = &mut |old: &Value, _: Option<&Value>| Ok(verdict.note(old, &now_text()));
    let changes = Tracking::Changes;
    let written =
        aggregation.registry.modify(&context, definition, &target, Race::Rebases, changes, noted).await;
    match written {
        Err(e) if e.is_not_found() => Ok(()),
        written => written.map(drop),
    }
}
