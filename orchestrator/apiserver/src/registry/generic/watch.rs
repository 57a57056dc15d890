//! Watch: the cache's events as this caller sees them.
//!
//! An object that begins to match the selectors is ADDED, one that ceases to is DELETED. Bytes are shared with all
//! other watchers; what is done for each watcher is the comparison.

use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream;
use penstock_store::Revision;
use penstock_store::cache::{CacheError, CacheEvent, Item, Watcher};
use serde_json::{Value, json};

use super::list::{catch_up, parse_version};
use super::{cache_error, converter, present};
use crate::error::{ApiError, FieldError};
use crate::registry::context::{Context, Target};
use crate::registry::definition::Definition;
use crate::registry::object::CachedObject;
use crate::registry::options::ListOptions;
use crate::registry::selector::Selection;
use crate::registry::{Registry, WatchItem, WatchItems};

/// How often a watcher that asked for bookmarks learns how far it has come.
const BOOKMARK_PERIOD: Duration = Duration::from_secs(30);
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

type Shared = Arc<CachedObject>;

impl Registry {
    /// Events without end; the caller applies the timeout. An unusable version is reported as the first item.
    pub async fn watch(
        &self,
        _context: &Context,
        definition: &Definition,
        target: &Target,
        options: &ListOptions,
    ) -> Result<WatchItems, ApiError> {
        validate_watch_options(options)?;
        let mut fields = options.field_selector.clone().unwrap_or_default();
        if let Some(name) = &target.name {
            // The deprecated watch of one object.
            if !fields.is_empty() {
                fields.push(',');
            }
            fields.push_str(&format!("metadata.name={name}"));
        }
        let selection = Selection::parse(options.label_selector.as_deref(), Some(&fields), definition)?;
        let cell = self.cell(definition)?.clone();
        let prefix = cell.prefix_of(target.namespace.as_deref());
        let version = parse_version(options.resource_version.as_deref())?;
        let initial = match options.send_initial_events {
            Some(wanted) => wanted,
            None => matches!(version, None | Some(0)),
        };
        let from = match version {
            Some(n) if n > 0 && !initial => Some(Revision(n)),
            Some(n) if n > 0 => {
                catch_up(&cell, n).await?;
                None
            }
            Some(_) => None,
            None => {
                cell.cache.wait_until_current().await.map_err(cache_error)?;
                None
            }
        };
        let opened = if definition.stored_as.is_none() && converter(definition).is_none() {
            let wanted = selection.clone();
            let filter = move |event: &CacheEvent<Shared>| {
                let matches = |item: &Option<Arc<Item<Shared>>>| {
                    item.as_ref().is_some_and(|i| wanted.matches(&i.value))
                };
                matches(&event.current) || matches(&event.previous)
            };
            cell.cache.watch_where(&prefix, from, Box::new(filter)).await
        } else {
            cell.cache.watch(&prefix, from).await
        };
        let mut watcher = match opened {
            Ok(watcher) => watcher,
            Err(CacheError::Compacted { oldest }) => {
                let gone = ApiError::too_old(version.unwrap_or_default(), oldest.0);
                return Ok(Box::pin(stream::iter([WatchItem::Error(gone)])));
            }
            Err(e) => return Err(cache_error(e)),
        };
        let mut first = Vec::new();
        let already = watcher.take_initial();
        if initial {
            let stored: Vec<Shared> = already.iter().map(|item| item.value.clone()).collect();
            for object in self.present_all(definition, &stored).await? {
                if selection.matches(&object) {
                    first.push(WatchItem::Added(object));
                }
            }
            if options.send_initial_events == Some(true) && options.allow_watch_bookmarks {
                let at = watcher.position().0;
                first.push(WatchItem::Bookmark(bookmark(definition, at, true)));
            }
        }
        let events = Events {
            registry: self.handle(),
            definition: self
                .find(&definition.group, &definition.version, &definition.plural)
                .ok_or_else(ApiError::no_such_path)?,
            selection,
            watcher,
            bookmarks: options.allow_watch_bookmarks.then(|| {
                let mut ticks =
                    tokio::time::interval_at(tokio::time::Instant::now() + BOOKMARK_PERIOD, BOOKMARK_PERIOD);
                ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
                ticks
            }),
            told: 0,
            ended: false,
        };
        let rest = stream::unfold(events, |mut events| async move {
            let item = events.next().await?;
            Some((item, events))
        });
        Ok(Box::pin(stream::iter(first).chain(rest)))
    }
}

/// One watcher's state between events.
struct Events {
    /// Asked when a kind's versions take a converter.
    registry: Weak<Registry>,
    definition: Arc<Definition>,
    selection: Selection,
    watcher: Watcher<Shared>,
    bookmarks: Option<tokio::time::Interval>,
    /// The revision of the last bookmark.
    told: u64,
    ended: bool,
}

impl Events {
    async fn next(&mut self) -> Option<WatchItem> {
        if self.ended {
            return None;
        }
        loop {
            let event = match &mut self.bookmarks {
                None => self.watcher.next().await,
                Some(ticks) => tokio::select! {
                    biased;
                    event = self.watcher.next() => event,
                    _ = ticks.tick() => {
                        let at = self.watcher.position().0;
                        if at > self.told {
                            self.told = at;
                            return Some(WatchItem::Bookmark(bookmark(&self.definition, at, false)));
                        }
                        continue;
                    }
                },
            };
            match event? {
                Ok(event) => match self.seen(&event).await {
                    Ok(Some(item)) => return Some(item),
                    Ok(None) => {}
                    Err(error) => {
                        self.ended = true;
                        return Some(WatchItem::Error(error));
                    }
                },
                Err(e) => {
                    self.ended = true;
                    return Some(WatchItem::Error(cache_error(e)));
                }
            }
        }
    }

    async fn seen(&self, event: &CacheEvent<Shared>) -> Result<Option<WatchItem>, ApiError> {
        Ok(match (self.shown(&event.previous).await?, self.shown(&event.current).await?) {
            (None, Some(new)) => Some(WatchItem::Added(new)),
            (Some(_), Some(new)) => Some(WatchItem::Modified(new)),
            (Some(old), None) => Some(WatchItem::Deleted(old.tombstone(event.revision.0))),
            (None, None) => None,
        })
    }

    async fn shown(&self, item: &Option<Arc<Item<Shared>>>) -> Result<Option<Shared>, ApiError> {
        let Some(item) = item else { return Ok(None) };
        let object = match converter(&self.definition) {
            None => present(&self.definition, &item.value),
            Some(_) => {
                let registry = self.registry.upgrade();
                let registry = registry.ok_or_else(|| ApiError::unavailable("the server is stopping"))?;
                registry.present(&self.definition, &item.value).await?
            }
        };
        Ok(Some(object).filter(|object| self.selection.matches(object)))
    }
}

/// An empty object of the kind that says how far the watch has come.
fn bookmark(definition: &Definition, revision: u64, initial_events_end: bool) -> Shared {
    let mut value: Value = json!({
        "apiVersion": definition.api_version(),
        "kind": &definition.kind,
        "metadata": {"resourceVersion": revision.to_string()},
    });
    if initial_events_end {
        value["metadata"]["annotations"] = json!({INITIAL_EVENTS_END: "true"});
    }
    Arc::new(CachedObject::new(&definition.ty, &value, Vec::new()))
}

fn validate_watch_options(options: &ListOptions) -> Result<(), ApiError> {
    let mut errors = Vec::new();
    let how = options.resource_version_match.as_deref().filter(|t| !t.is_empty());
    let path = "resourceVersionMatch";
    match (options.send_initial_events, how) {
        (None, Some(_)) => errors.push(FieldError::forbidden(
            path,
            "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
        )),
        (Some(_), None) => errors.push(FieldError::forbidden(
            path,
            "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
        )),
        (Some(_), Some(how)) if how != "NotOlderThan" => {
            errors.push(FieldError::not_supported(path, how, &["NotOlderThan"]));
        }
        _ => {}
    }
    if options.send_initial_events.is_some()
        && options.continue_token.as_deref().is_some_and(|t| !t.is_empty())
    {
        errors
            .push(FieldError::forbidden(path, "resourceVersionMatch is forbidden when continue is provided"));
    }
    if errors.is_empty() { Ok(()) } else { Err(ApiError::invalid("meta.k8s.io", "ListOptions", "", errors)) }
}
