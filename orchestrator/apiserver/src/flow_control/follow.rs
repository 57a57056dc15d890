//! Keeps priority and fairness as the stored objects say, and the objects as they must be.
//!
//! Both kinds are watched. Whatever changes, all of them are read again from the watch cache: they are few, and depend
//! on each other. Missing and altered bootstrap objects are put right, and each FlowSchema is told whether its level is
//! there. Seats move between levels every ten seconds.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::select;
use serde_json::Value;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::FlowControl;
use super::configuration::{Plan, Reference};
use crate::error::ApiError;
use crate::registry::bootstrap::flow_control as bootstrap;
use crate::registry::generic::now_text;
use crate::registry::generic::update::Race;
use crate::registry::object::meta_str;
use crate::registry::ownership::Tracking;
use crate::registry::{Context, ListOptions, Registry, Target, WatchItem, WatchItems};

/// How often seats move (upstream's period).
const ADJUST_EVERY: Duration = Duration::from_secs(10);
/// How often bootstrap objects are looked at though nothing was seen to change.
const ENSURE_EVERY: Duration = Duration::from_secs(60);
/// Pause before a failed watch is started again.
const RETRY_AFTER: Duration = Duration::from_millis(250);
/// Changes that come together are taken together.
const SETTLE_AFTER: Duration = Duration::from_millis(20);
/// Servers that disagree about a condition must not write it in turns without end.
const CONDITIONS_A_MINUTE_MAX: usize = 6;

/// When conditions of schemas were written in the last minute, by schema.
type Written = HashMap<String, VecDeque<Instant>>;

/// Reads the configuration, and follows it until `shutdown`.
pub(crate) async fn spawn(
    control: &Arc<FlowControl>,
    registry: Arc<Registry>,
    shutdown: CancellationToken,
) -> Result<(), ApiError> {
    let (schemas, levels) = read(&registry).await?;
    control.adopt(&Plan::of(&schemas, &levels));
    let control = control.clone();
    tokio::spawn(async move {
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = follow(&control, &registry) => {}
        }
    });
    Ok(())
}

async fn follow(control: &FlowControl, registry: &Arc<Registry>) {
    let mut written = Written::new();
    let mut adjust = interval(ADJUST_EVERY);
    let mut ensure = interval(ENSURE_EVERY);
    for ticks in [&mut adjust, &mut ensure] {
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    }
    loop {
        let watched = watch(registry).await;
        let mut changed = true;
        if let Ok(mut events) = watched {
            loop {
                if changed {
                    tokio::time::sleep(SETTLE_AFTER).await;
                    settle(control, registry, &mut written).await;
                }
                changed = tokio::select! {
                    event = events.next() => match event {
                        Some(WatchItem::Bookmark(_)) => false,
                        Some(WatchItem::Error(error)) => {
                            tracing::debug!(%error, "a watch of the flow control configuration ended");
                            break;
                        }
                        Some(_) => true,
                        None => break,
                    },
                    _ = adjust.tick() => {
                        control.rebalance();
                        control.has_levels_to_drop()
                    }
                    _ = ensure.tick() => true,
                };
            }
        }
        tokio::time::sleep(RETRY_AFTER).await;
    }
}

/// All stored schemas and levels, with all acknowledged writes.
async fn read(registry: &Registry) -> Result<(Vec<Value>, Vec<Value>), ApiError> {
    let mut kinds = [Vec::new(), Vec::new()];
    for (kind, plural) in kinds.iter_mut().zip([bootstrap::SCHEMAS, bootstrap::LEVELS]) {
        let stored = registry.cached(bootstrap::GROUP, plural, None).await?;
        *kind = stored.iter().map(|object| object.value()).collect();
    }
    let [schemas, levels] = kinds;
    Ok((schemas, levels))
}

/// Every change of either kind from now on.
async fn watch(registry: &Registry) -> Result<WatchItems, ApiError> {
    let context = Context::system();
    let mut watches = Vec::new();
    for plural in [bootstrap::SCHEMAS, bootstrap::LEVELS] {
        let definition = registry.find(bootstrap::GROUP, "v1", plural).ok_or_else(ApiError::no_such_path)?;
        let listed =
            registry.list(&context, &definition, &Target::default(), &ListOptions::default()).await?;
        let from = ListOptions {
            resource_version: Some(listed.resource_version.to_string()),
            ..ListOptions::default()
        };
        watches.push(registry.watch(&context, &definition, &Target::default(), &from).await?);
    }
    let mut watches = watches.into_iter();
    match (watches.next(), watches.next()) {
        // The end of either is the end of both: an error is told, or nothing follows.
        (Some(a), Some(b)) => Ok(Box::pin(select(told(a), told(b)))),
        _ => Err(ApiError::no_such_path()),
    }
}

/// The events, and an error when there are no more.
fn told(events: WatchItems) -> WatchItems {
    let end = futures::stream::iter([WatchItem::Error(ApiError::expired("the watch has ended"))]);
    Box::pin(events.chain(end))
}

/// Takes over what is stored, and puts right what is not as it must be.
async fn settle(control: &FlowControl, registry: &Registry, written: &mut Written) {
    match read(registry).await {
        Ok((schemas, levels)) => {
            let plan = Plan::of(&schemas, &levels);
            control.adopt(&plan);
            ensure(registry, schemas.iter().chain(&levels)).await;
            for reference in Reference::all(&schemas, &plan) {
                note(registry, &schemas, &reference, written).await;
            }
        }
        Err(error) => tracing::warn!(%error, "the flow control configuration could not be read"),
    }
}

/// Makes bootstrap objects that are missing and mends those that are not as they must be.
async fn ensure<'o>(registry: &Registry, stored: impl Iterator<Item = &'o Value>) {
    let of = |object: &Value| {
        (object["kind"].as_str().unwrap_or_default().to_owned(), meta_str(object, "name").to_owned())
    };
    let stored: HashMap<_, _> = stored.map(|object| (of(object), object)).collect();
    for want in bootstrap::objects() {
        let is_right = stored.get(&of(&want)).is_some_and(|have| {
            let mut mended = (*have).clone();
            bootstrap::reconcile(&mut mended, &want);
            mended == **have
        });
        if is_right {
            continue;
        }
        if let Err(error) =
            crate::registry::bootstrap::ensure_object(registry, want, bootstrap::reconcile).await
        {
            tracing::warn!(%error, "a flow control object is not as it must be; it is looked at again in a minute");
        }
    }
}

/// Writes the condition of a schema that does not say yet what is so.
async fn note(registry: &Registry, schemas: &[Value], reference: &Reference, written: &mut Written) {
    let Some(schema) = schemas.iter().find(|schema| meta_str(schema, "name") == reference.schema) else {
        return;
    };
    if reference.is_noted(schema) {
        return;
    }
    let now = Instant::now();
    written.retain(|_, times| {
        times.retain(|at| now.duration_since(*at) < Duration::from_secs(60));
        !times.is_empty()
    });
    let times = written.entry(reference.schema.clone()).or_default();
    if times.len() >= CONDITIONS_A_MINUTE_MAX {
        return;
    }
    times.push_back(now);
    let Some(definition) = registry.find(bootstrap::GROUP, "v1", bootstrap::SCHEMAS) else { return };
    let target = Target::named(None, &reference.schema).with_subresource("status");
    let context = Context::system();
    let noted = &mut |old: &Value, _: Option<&Value>| {
        Ok(if reference.is_noted(old) { old.clone() } else { reference.note(old, &now_text()) })
    };
    let changes = Tracking::Changes;
    match registry.modify(&context, &definition, &target, Race::Rebases, changes, noted).await {
        Err(error) if !error.is_not_found() => {
            tracing::warn!(schema = reference.schema, %error, "the condition of a flow schema is not written");
        }
        _ => {}
    }
}
