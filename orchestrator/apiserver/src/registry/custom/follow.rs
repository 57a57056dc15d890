//! Keeps what is served in step with the stored CustomResourceDefinitions.
//!
//! One loop a process: an event, the status it calls for, the next set of served kinds. A kind is served before its
//! definition says Established, so that whoever waits for that may use it at once. Several servers on one store do
//! the same work and agree, because the plan depends on nothing but what is stored.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use penstock_store::cache::{CacheEvent, Watcher};
use serde_json::{Value, json};

use super::build::build;
use super::conditions::{self, Taken};
use super::{CLEANUP_FINALIZER, cleanup};
use crate::error::ApiError;
use crate::registry::context::{Context, Target};
use crate::registry::generic::cache_error;
use crate::registry::generic::update::Race;
use crate::registry::object::{CachedObject, items_at, str_at};
use crate::registry::ownership::Tracking;
use crate::registry::{Definition, Registry};

pub(super) const GROUP: &str = "apiextensions.k8s.io";
pub(super) const PLURAL: &str = "customresourcedefinitions";
/// How long a lost watch is waited for before it is opened again.
const REOPEN_AFTER: Duration = Duration::from_millis(200);
/// A status that could not be written is tried again after this.
const RETRY_AFTER: Duration = Duration::from_secs(1);

type Definitions = BTreeMap<String, Value>;
type Following = Watcher<Arc<CachedObject>>;

/// Serves every stored definition, then follows their changes until the registry is dropped.
pub(crate) async fn follow(registry: &Arc<Registry>) -> Result<(), ApiError> {
    let mut follower = Follower {
        registry: Arc::downgrade(registry),
        definitions: Definitions::new(),
        built: BTreeMap::new(),
    };
    let watcher = follower.open(registry).await?;
    let stop = registry.background();
    tokio::spawn(async move {
        tokio::select! { () = stop.cancelled() => {}, () = follower.run(watcher) => {} }
    });
    Ok(())
}

struct Follower {
    registry: Weak<Registry>,
    definitions: Definitions,
    /// What each definition's kinds were last built from.
    built: BTreeMap<String, Value>,
}

// === impl Follower ===

impl Follower {
    /// Takes what is there and begins to watch.
    async fn open(&mut self, registry: &Arc<Registry>) -> Result<Following, ApiError> {
        let cell = registry.cell_of(GROUP, PLURAL)?;
        cell.cache.wait_until_current().await.map_err(cache_error)?;
        let mut watcher = cell.cache.watch(&cell.prefix, None).await.map_err(cache_error)?;
        let now: Definitions =
            watcher.take_initial().iter().map(|item| (item.value.name.clone(), item.value.value())).collect();
        let gone: Vec<String> =
            self.definitions.keys().filter(|name| !now.contains_key(*name)).cloned().collect();
        self.definitions = now;
        for name in gone {
            self.unserve(registry, &name);
        }
        for name in self.definitions.keys().cloned().collect::<Vec<_>>() {
            self.settle(registry, &name).await;
        }
        Ok(watcher)
    }

    async fn run(mut self, mut watcher: Following) {
        let mut retry = tokio::time::interval(RETRY_AFTER);
        retry.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut unsettled: Vec<String> = Vec::new();
        loop {
            let event = tokio::select! {
                event = watcher.next() => event,
                _ = retry.tick(), if !unsettled.is_empty() => {
                    let Some(registry) = self.registry.upgrade() else { return };
                    for name in std::mem::take(&mut unsettled) {
                        if !self.settle(&registry, &name).await {
                            unsettled.push(name);
                        }
                    }
                    continue;
                }
            };
            let Some(registry) = self.registry.upgrade() else { return };
            match event {
                Some(Ok(event)) => {
                    for name in self.take(&event) {
                        if !self.settle(&registry, &name).await {
                            unsettled.push(name);
                        }
                    }
                }
                Some(Err(_)) | None => {
                    // The cache started over. What is served stays until it is known again.
                    watcher = loop {
                        match self.open(&registry).await {
                            Ok(watcher) => break watcher,
                            Err(error) => {
                                tracing::warn!(%error, "custom kinds cannot be followed; trying again");
                                tokio::time::sleep(REOPEN_AFTER).await;
                            }
                        }
                    };
                }
            }
        }
    }

    /// Notes a change; gives the definitions to look at.
    fn take(&mut self, event: &CacheEvent<Arc<CachedObject>>) -> Vec<String> {
        let Some(object) = event.current.as_ref().or(event.previous.as_ref()).map(|item| &item.value) else {
            return Vec::new();
        };
        let name = object.name.clone();
        let before = match &event.current {
            Some(item) => self.definitions.insert(name.clone(), item.value.value()),
            None => self.definitions.remove(&name),
        };
        let mut touched = vec![name.clone()];
        // Names that were given up may be what another definition of the group waits for.
        let names = |crd: Option<&Value>| crd.map(|crd| crd["status"]["acceptedNames"].clone());
        if names(before.as_ref()) != names(self.definitions.get(&name)) {
            let group =
                before.as_ref().or(self.definitions.get(&name)).map(|crd| crd["spec"]["group"].clone());
            let others = self.definitions.iter().filter(|(other, crd)| {
                **other != name
                    && Some(&crd["spec"]["group"]) == group.as_ref()
                    && !conditions::has(crd, "NamesAccepted")
            });
            touched.extend(others.map(|(name, _)| name.clone()));
        }
        touched
    }

    /// Brings one definition's kinds and status to where they should be; false when that has to be tried again.
    async fn settle(&mut self, registry: &Arc<Registry>, name: &str) -> bool {
        let Some(crd) = self.definitions.get(name).cloned() else {
            self.unserve(registry, name);
            return true;
        };
        let crd = &crd;
        let taken = self.taken(registry, name, str_at(crd, "/spec/group"));
        let now = crate::registry::generic::now_text();
        let status = conditions::plan_status(crd, &taken, &now);
        let mut settled = crd.clone();
        settled["status"] = status;
        if conditions::has(&settled, "Established") {
            self.serve(registry, name, crd, &settled["status"]["acceptedNames"]);
        } else {
            self.unserve(registry, name);
        }
        if conditions::is_terminating(crd) {
            if items_at(crd, "/metadata/finalizers").iter().any(|f| f == CLEANUP_FINALIZER) {
                cleanup::spawn(registry, name);
            }
            return true;
        }
        if settled["status"] == crd["status"] {
            return true;
        }
        match write_status(registry, name, &taken).await {
            Ok(written) => {
                // What comes back through the watch is the same; later events of others should see it now.
                self.definitions.insert(name.to_owned(), written);
                true
            }
            Err(error) if error.is_not_found() => true,
            Err(error) => {
                tracing::warn!(definition = name, %error, "the status of a custom kind could not be written");
                false
            }
        }
    }

    fn serve(&mut self, registry: &Registry, name: &str, crd: &Value, names: &Value) {
        let meta = &crd["metadata"];
        let built_from = json!([meta["uid"], meta["generation"], names, meta["deletionTimestamp"]]);
        if self.built.get(name) == Some(&built_from) {
            return;
        }
        match build(crd, names) {
            Ok(custom) => {
                registry.serve_custom(name, Some(Arc::new(custom)));
                self.built.insert(name.to_owned(), built_from);
            }
            Err(error) => {
                tracing::error!(definition = name, %error, "a custom kind cannot be served");
                self.unserve(registry, name);
            }
        }
    }

    fn unserve(&mut self, registry: &Registry, name: &str) {
        self.built.remove(name);
        registry.serve_custom(name, None);
    }

    /// Names of the group that belong to others.
    fn taken(&self, registry: &Registry, name: &str, group: &str) -> Taken {
        let mut taken = Taken::default();
        for definition in registry.definitions().iter().filter(|d| d.group == group && d.custom.is_none()) {
            taken.resource(&definition.plural);
            taken.resource(&definition.singular);
            definition.short_names.iter().for_each(|short| taken.resource(short));
            taken.kind(&definition.kind);
            taken.kind(&definition.list_kind);
        }
        let others =
            self.definitions.iter().filter(|(other, crd)| *other != name && crd["spec"]["group"] == group);
        others.for_each(|(_, crd)| taken.names_of(crd));
        taken
    }
}

async fn write_status(registry: &Registry, name: &str, taken: &Taken) -> Result<Value, ApiError> {
    let definition = definition(registry)?;
    let target = Target::named(None, name).with_subresource("status");
    let outcome = registry
        .modify(&Context::system(), &definition, &target, Race::Rebases, Tracking::Changes, &mut |old, _| {
            let mut new = old.clone();
            new["status"] = conditions::plan_status(old, taken, &crate::registry::generic::now_text());
            Ok(new)
        })
        .await?;
    Ok(outcome.object.value())
}

/// The definition of definitions.
pub(super) fn definition(registry: &Registry) -> Result<Arc<Definition>, ApiError> {
    registry.find(GROUP, "v1", PLURAL).ok_or_else(ApiError::no_such_path)
}
