//! A watch that never ends, as a stream of small events.
//!
//! It exists so that whoever keeps state sees only "this is so now", "this is gone" and "that was all". It must not
//! keep objects.

use std::collections::BTreeSet;
use std::fmt::Debug;

use futures::StreamExt;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Resource, ResourceExt};
use penstock_pods::WatchPause;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use super::ObjectName;

/// One thing learnt.
#[derive(Debug)]
pub enum Event<V> {
    /// The object is this now.
    Is(ObjectName, V),
    /// The object is gone.
    Gone(ObjectName),
    /// A list begins: until it is complete, what is learnt is in no order.
    Listing,
    /// A list is complete: these are all there are.
    All(BTreeSet<ObjectName>),
}

/// Watches for ever, through restarts and absences of the API server, with growing pauses; ends when nobody listens.
pub async fn watch<K, V, T>(
    api: Api<K>,
    what: &'static str,
    view: impl Fn(K) -> V,
    wrap: fn(Event<V>) -> T,
    to: mpsc::Sender<T>,
) where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    watch_some(api, watcher::Config::default(), what, view, wrap, to).await;
}

/// The same of the objects that a configuration selects.
pub async fn watch_some<K, V, T>(
    api: Api<K>,
    which: watcher::Config,
    what: &'static str,
    view: impl Fn(K) -> V,
    wrap: fn(Event<V>) -> T,
    to: mpsc::Sender<T>,
) where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let mut stream = std::pin::pin!(watcher(api, which).backoff(WatchPause::default()));
    let mut listed = BTreeSet::new();
    let mut away = false;
    while let Some(event) = stream.next().await {
        let event = match event {
            Ok(event) => event,
            Err(error) => {
                // Said once, not at every attempt of an outage.
                if !away {
                    tracing::warn!(%error, "watching {what} failed; it is tried again until it works");
                }
                away = true;
                continue;
            }
        };
        // `Init` says that a list is about to be asked for, not that the server answered.
        if !matches!(event, watcher::Event::Init) && std::mem::take(&mut away) {
            tracing::info!("watching {what} works again");
        }
        let event = match event {
            watcher::Event::Init => {
                listed.clear();
                Event::Listing
            }
            watcher::Event::InitApply(object) => {
                let name = name_of(&object);
                listed.insert(name.clone());
                Event::Is(name, view(object))
            }
            watcher::Event::InitDone => Event::All(std::mem::take(&mut listed)),
            watcher::Event::Apply(object) => Event::Is(name_of(&object), view(object)),
            watcher::Event::Delete(object) => Event::Gone(name_of(&object)),
        };
        if to.send(wrap(event)).await.is_err() {
            return;
        }
    }
}

fn name_of<K: Resource>(object: &K) -> ObjectName {
    ObjectName { namespace: object.namespace().unwrap_or_default(), name: object.name_any() }
}
