//! The only CRUD. Each verb has its room; what they share is here: keys, consistent reads, one compare-and-set.
//!
//! The rooms add their methods to [`Registry`]. They know definitions and strategies, never a kind.

pub(crate) mod apply;
pub(crate) mod body;
mod create;
mod delete;
mod get;
mod list;
mod patch;
pub(crate) mod update;
mod watch;

use std::sync::Arc;

use jiff::Timestamp;
use penstock_store::cache::{CacheError, CacheEvent, Feed, Item, WatchCache, Watcher};
use penstock_store::{Expect, Mutation, Record, Revision, StoreError, Write};
use serde_json::Value;

use super::Registry;
use super::custom::conversion::Converter;
use super::definition::{Definition, api_version};
use super::object::{CachedObject, set_resource_version};
use crate::error::ApiError;

/// The storage of one resource: its keys and its watch cache.
pub(crate) struct Cell {
    pub(crate) prefix: String,
    pub(crate) cache: Arc<WatchCache<Arc<CachedObject>>>,
    /// The stored kind.
    pub(crate) definition: Arc<Definition>,
}

impl Cell {
    pub(crate) fn new(feed: Arc<Feed>, definition: Arc<Definition>) -> Self {
        let group = if definition.group.is_empty() { "core" } else { &*definition.group };
        let prefix = format!("/registry/{group}/{}/", &definition.plural);
        let decoded_as = definition.clone();
        let cache = WatchCache::new(
            feed,
            prefix.clone(),
            move |record| {
                let (value, _) = parse(record)?;
                Ok(share(&decoded_as, &from_stored(&decoded_as, value)))
            },
            Default::default(),
        );
        Self { prefix, cache, definition }
    }

    /// `<prefix>[namespace/]name`.
    pub(crate) fn key(&self, namespace: &str, name: &str) -> String {
        if self.definition.namespaced {
            format!("{}{namespace}/{name}", self.prefix)
        } else {
            format!("{}{name}", self.prefix)
        }
    }

    /// The prefix of one namespace, or of everything.
    pub(crate) fn prefix_of(&self, namespace: Option<&str>) -> String {
        match namespace {
            Some(namespace) if self.definition.namespaced && !namespace.is_empty() => {
                format!("{}{namespace}/", self.prefix)
            }
            _ => self.prefix.clone(),
        }
    }
}

/// A stored object as a value that carries its resourceVersion.
pub(crate) fn parse(record: &Record) -> Result<(Value, Revision), serde_json::Error> {
    let mut value: Value = serde_json::from_slice(&record.value)?;
    set_resource_version(&mut value, record.modified.0);
    Ok((value, record.modified))
}

/// Now, in whole seconds, as metadata has it.
pub(crate) fn now_text() -> String {
    time_text(Timestamp::now())
}

pub(crate) fn time_text(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

pub(crate) fn store_error(error: StoreError) -> ApiError {
    match error {
        StoreError::TooLarge { value_bytes, value_bytes_max, .. } => ApiError::request_too_large(format!(
            "the object has {value_bytes} bytes; at most {value_bytes_max} can be stored"
        )),
        StoreError::Compacted { .. } => {
            ApiError::expired("The resourceVersion for the provided list is too old.")
        }
        StoreError::FutureRevision { requested, newest } => {
            ApiError::too_large_version(requested.0, newest.0)
        }
        StoreError::InvalidKey { key } => ApiError::bad_request(format!("unusable name: {key}")),
        StoreError::Unavailable { detail } => {
            ApiError::unavailable(format!("the store is unavailable: {detail}"))
        }
        other => ApiError::internal(other),
    }
}

pub(crate) fn cache_error(error: CacheError) -> ApiError {
    match error {
        CacheError::Store(source) => store_error(source),
        CacheError::Compacted { oldest } => {
            ApiError::expired(format!("too old resource version (oldest: {oldest})"))
        }
        slow @ CacheError::TooSlow { .. } => ApiError::expired(slow.to_string()),
    }
}

/// Where somebody stands who follows all objects of a resource.
#[derive(Default)]
pub(crate) struct Following(Option<Watcher<Arc<CachedObject>>>);

/// What became of the objects of a resource.
pub(crate) enum News {
    /// All there are: at first, and when changes were missed.
    Everything(Vec<Arc<CachedObject>>),
    /// What each change made of what, in their order.
    Changes(Vec<[Option<Arc<CachedObject>>; 2]>),
}

/// How a compare-and-set ended.
pub(crate) enum Stored {
    Done(Revision),
    /// Somebody else was first; this is what is there now.
    Raced(Option<Record>),
}

impl Registry {
    pub(crate) fn cell(&self, definition: &Definition) -> Result<Arc<Cell>, ApiError> {
        let (group, _, plural) = definition.storage();
        match &definition.custom {
            // Its definition may have been removed since the request was routed.
            Some(_) => self.served().cell(group, plural).ok_or_else(ApiError::no_such_path),
            None => self.cell_of(group, plural),
        }
    }

    /// The storage of a resource by name, for strategies and admission that look at other kinds.
    pub(crate) fn cell_of(&self, group: &str, plural: &str) -> Result<Arc<Cell>, ApiError> {
        self.served()
            .cell(group, plural)
            .ok_or_else(|| ApiError::internal(format!("{plural} has no storage")))
    }

    /// The other served versions of what a definition serves.
    pub(crate) fn equivalents(&self, definition: &Definition) -> Vec<Arc<Definition>> {
        let (group, _, plural) = definition.storage();
        let served = self.served();
        let same = |other: &&Arc<Definition>| {
            let (other_group, _, other_plural) = other.storage();
            (other_group, other_plural) == (group, plural)
                && (&other.group, &other.version) != (&definition.group, &definition.version)
        };
        served.definitions().iter().filter(same).cloned().collect()
    }

    /// An object of one version in another one.
    pub(crate) async fn convert(
        &self,
        from: &Definition,
        to: &Definition,
        object: Value,
    ) -> Result<Value, ApiError> {
        match converter(from) {
            Some(converter) if from.version != to.version => {
                let made = converter.convert(self, &to.api_version(), &[object]).await?;
                let made = made.into_iter().next();
                Ok(from_stored(to, made.ok_or_else(|| ApiError::internal("the converter gave nothing"))?))
            }
            _ => Ok(from_stored(to, to_stored(from, object))),
        }
    }

    /// The newest stored form, in the definition's own version. Bypasses the cache: writes build on it.
    pub(crate) async fn load(
        &self,
        definition: &Definition,
        namespace: &str,
        name: &str,
    ) -> Result<Option<(Value, Revision)>, ApiError> {
        let cell = self.cell(definition)?;
        let record = self.store.get(&cell.key(namespace, name)).await.map_err(store_error)?;
        self.open_found(definition, record.as_ref()).await
    }

    /// As [`Registry::load`], where an absent object is a 404.
    pub(crate) async fn require(
        &self,
        definition: &Definition,
        namespace: &str,
        name: &str,
    ) -> Result<(Value, Revision), ApiError> {
        let found = self.load(definition, namespace, name).await?;
        found.ok_or_else(|| ApiError::not_found(&definition.group, &definition.plural, name))
    }

    /// The object as the watch cache has it, which may be a moment old; none if that says nothing of the stored form.
    pub(crate) fn known(
        &self,
        definition: &Definition,
        namespace: &str,
        name: &str,
    ) -> Result<Option<(Value, Revision)>, ApiError> {
        // What is cached of these is in another form, or what a definition that has changed since made of it.
        if definition.custom.is_some() || definition.stored_as.is_some() {
            return Ok(None);
        }
        let cell = self.cell(definition)?;
        let item = cell.cache.peek(&cell.key(namespace, name));
        Ok(item.map(|item| (item.value.value(), item.revision)))
    }

    pub(crate) async fn open_record(
        &self,
        definition: &Definition,
        record: &Record,
    ) -> Result<(Value, Revision), ApiError> {
        let (value, revision) =
            parse(record).map_err(|e| ApiError::internal(format!("{} cannot be read: {e}", record.key)))?;
        let value = self.converted_to(definition, value).await?;
        Ok((from_stored(definition, value), revision))
    }

    /// As [`Registry::open_record`], of what was found.
    pub(crate) async fn open_found(
        &self,
        definition: &Definition,
        record: Option<&Record>,
    ) -> Result<Option<(Value, Revision)>, ApiError> {
        match record {
            Some(record) => self.open_record(definition, record).await.map(Some),
            None => Ok(None),
        }
    }

    /// An object in the definition's version, if that takes a converter.
    async fn converted_to(&self, definition: &Definition, value: Value) -> Result<Value, ApiError> {
        let api_version = definition.api_version();
        match converter(definition) {
            Some(converter) if value["apiVersion"] != *api_version => {
                let made = converter.convert(self, &api_version, &[value]).await?;
                made.into_iter().next().ok_or_else(|| ApiError::internal("the converter gave nothing"))
            }
            _ => Ok(value),
        }
    }

    /// Cached objects in the version the caller asked for; shared when that is the stored one, and converted at
    /// once when that takes a converter.
    pub(crate) async fn present_all(
        &self,
        definition: &Definition,
        objects: &[Arc<CachedObject>],
    ) -> Result<Vec<Arc<CachedObject>>, ApiError> {
        let Some(converter) = converter(definition) else {
            return Ok(objects.iter().map(|object| present(definition, object)).collect());
        };
        let api_version = definition.api_version();
        let (mut forms, mut foreign) = (Vec::with_capacity(objects.len()), Vec::new());
        for (index, object) in objects.iter().enumerate() {
            forms.push(match object.converted(&converter.fingerprint) {
                Some(form) => form,
                None if object.api_version == api_version => present(definition, object),
                None => {
                    foreign.push(index);
                    object.clone()
                }
            });
        }
        if foreign.is_empty() {
            return Ok(forms);
        }
        let values: Vec<Value> = foreign.iter().map(|index| objects[*index].value()).collect();
        let made = converter.convert(self, &api_version, &values).await?;
        for (index, value) in foreign.into_iter().zip(made) {
            let form = share(definition, &from_stored(definition, value));
            objects[index].keep_converted(&converter.fingerprint, form.clone());
            forms[index] = form;
        }
        Ok(forms)
    }

    /// As [`Registry::present_all`], of one.
    pub(crate) async fn present(
        &self,
        definition: &Definition,
        object: &Arc<CachedObject>,
    ) -> Result<Arc<CachedObject>, ApiError> {
        if converter(definition).is_none() {
            return Ok(present(definition, object));
        }
        let forms = self.present_all(definition, std::slice::from_ref(object)).await?;
        forms.into_iter().next().ok_or_else(|| ApiError::internal("the converter gave nothing"))
    }

    /// One compare-and-set of `value` (in the definition's version), which loses the version it carries. `expect` of 0
    /// means "must not exist".
    pub(crate) async fn put(
        &self,
        definition: &Definition,
        namespace: &str,
        name: &str,
        value: &mut Value,
        expect: Revision,
    ) -> Result<Stored, ApiError> {
        let cell = self.cell(definition)?;
        set_resource_version(value, 0);
        let stored = match &definition.stored_as {
            Some(_) if converter(definition).is_some() => {
                self.convert(definition, &cell.definition, value.clone()).await?.to_string()
            }
            Some(_) => to_stored(definition, value.clone()).to_string(),
            None => value.to_string(),
        };
        let write = Write {
            key: cell.key(namespace, name),
            expect: if expect.0 == 0 { Expect::Absent } else { Expect::Revision(expect) },
            mutation: Mutation::Put { value: stored.into(), lease_ttl_seconds: cell.definition.ttl_seconds },
        };
        match self.store.commit(write).await {
            Ok(committed) => Ok(Stored::Done(committed.revision)),
            Err(StoreError::Conflict { current, .. }) => Ok(Stored::Raced(current)),
            Err(e) => Err(store_error(e)),
        }
    }

    /// Removes a record that is still at `expect`.
    pub(crate) async fn remove(
        &self,
        definition: &Definition,
        namespace: &str,
        name: &str,
        expect: Revision,
    ) -> Result<Stored, ApiError> {
        let cell = self.cell(definition)?;
        let write = Write {
            key: cell.key(namespace, name),
            expect: Expect::Revision(expect),
            mutation: Mutation::Delete,
        };
        match self.store.commit(write).await {
            Ok(committed) => Ok(Stored::Done(committed.revision)),
            Err(StoreError::Conflict { current, .. }) => Ok(Stored::Raced(current)),
            Err(e) => Err(store_error(e)),
        }
    }

    /// Everything of a resource, as the cache has it after all acknowledged writes.
    pub(crate) async fn all(
        &self,
        group: &str,
        plural: &str,
        namespace: Option<&str>,
    ) -> Result<Vec<Arc<CachedObject>>, ApiError> {
        let cell = self.cell_of(group, plural)?;
        cell.cache.wait_until_current().await.map_err(cache_error)?;
        let (items, _) = cell.cache.list(&cell.prefix_of(namespace)).await.map_err(cache_error)?;
        Ok(items.iter().map(|i| i.value.clone()).collect())
    }

    /// As [`Registry::all`], possibly a moment old: for what every write would otherwise wait for.
    pub(crate) async fn cached(
        &self,
        group: &str,
        plural: &str,
        namespace: Option<&str>,
    ) -> Result<Vec<Arc<CachedObject>>, ApiError> {
        let cell = self.cell_of(group, plural)?;
        let (items, _) = cell.cache.list(&cell.prefix_of(namespace)).await.map_err(cache_error)?;
        Ok(items.iter().map(|i| i.value.clone()).collect())
    }

    /// How many objects a list goes through, not counting beyond `max`; none if nobody asked for the resource yet.
    pub(crate) fn count(&self, definition: &Definition, namespace: &str, max: usize) -> usize {
        let cell = self.cell(definition).ok();
        cell.map_or(0, |cell| cell.cache.count(&cell.prefix_of(Some(namespace)), max))
    }

    /// How many watch a resource.
    pub(crate) fn watchers(&self, definition: &Definition) -> usize {
        self.cell(definition).map_or(0, |cell| cell.cache.watchers())
    }

    /// What became of a resource since it was asked for last, with all acknowledged writes. Costs what changed.
    pub(crate) async fn news(
        &self,
        group: &str,
        plural: &str,
        following: &mut Following,
    ) -> Result<News, ApiError> {
        let cell = self.cell_of(group, plural)?;
        cell.cache.wait_until_current().await.map_err(cache_error)?;
        // A watcher that missed something is of no use any more.
        if let Some(mut watcher) = following.0.take()
            && let Ok(events) = watcher.take_ready()
        {
            following.0 = Some(watcher);
            let object =
                |item: &Option<Arc<Item<Arc<CachedObject>>>>| item.as_ref().map(|it| it.value.clone());
            let change = |event: &Arc<CacheEvent<_>>| [object(&event.previous), object(&event.current)];
            return Ok(News::Changes(events.iter().map(change).collect()));
        }
        let mut watcher = cell.cache.watch(&cell.prefix, None).await.map_err(cache_error)?;
        let all = watcher.take_initial().iter().map(|item| item.value.clone()).collect();
        following.0 = Some(watcher);
        Ok(News::Everything(all))
    }

    /// One object of a resource from the cache; possibly a moment old.
    pub(crate) async fn peek(
        &self,
        group: &str,
        plural: &str,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Arc<CachedObject>>, ApiError> {
        let cell = self.cell_of(group, plural)?;
        let item = cell.cache.get(&cell.key(namespace, name)).await.map_err(cache_error)?;
        Ok(item.map(|i| i.value.clone()))
    }
}

/// Who converts between the versions of a kind, if that takes anybody.
pub(crate) fn converter(definition: &Definition) -> Option<&Converter> {
    definition.custom.as_ref().and_then(|custom| custom.converter.as_ref())
}

/// A value of the definition's version as it is stored.
pub(crate) fn to_stored(definition: &Definition, value: Value) -> Value {
    match &definition.stored_as {
        Some(s) => {
            let mut v = (s.conversion.to_stored)(value);
            v["apiVersion"] = api_version(&s.group, &s.version).into();
            v
        }
        None => value,
    }
}

/// A stored value in the definition's version. Custom resources are pruned and defaulted by what their definition
/// says now, which may be more or less than when they were written.
pub(crate) fn from_stored(definition: &Definition, mut value: Value) -> Value {
    if definition.custom.is_some() {
        let api_version = definition.api_version();
        if converter(definition).is_some() && value["apiVersion"] != *api_version {
            // Another version's schema says nothing of it; whoever reads it has it converted.
            return value;
        }
        value["apiVersion"] = api_version.into();
        let kept = value.clone();
        if penstock_schema::check::conform(&definition.ty, &mut value).is_err() {
            value = kept;
        }
        penstock_schema::defaults::apply(&definition.ty, &mut value);
        return value;
    }
    match &definition.stored_as {
        Some(s) => {
            let mut v = (s.conversion.from_stored)(value);
            v["apiVersion"] = definition.api_version().into();
            v["kind"] = definition.kind.as_ref().into();
            v
        }
        None => value,
    }
}

/// A value of the definition's kind as it is handed out.
pub(crate) fn share(definition: &Definition, value: &Value) -> Arc<CachedObject> {
    Arc::new(definition.share(value))
}

/// A cached object in the version the caller asked for, where that takes no converter.
pub(crate) fn present(definition: &Definition, object: &Arc<CachedObject>) -> Arc<CachedObject> {
    match definition.stored_as {
        None => object.clone(),
        Some(_) => share(definition, &from_stored(definition, object.value())),
    }
}
