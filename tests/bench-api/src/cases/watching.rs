//! Many watchers on a steady stream of changes: how long after a write was acknowledged the last of them knew.
//!
//! All watchers see the same changes in the same order, that of their versions, so the nth event is the nth write by
//! version: a watcher only counts where events end. What a watcher heard before the writer did counts as nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::writes::{JSON, config_map, ensure_objects, object, path};
use crate::contender::NAMESPACE;
use crate::http::{Connection, Endpoint};

const WRITERS: usize = 16;
/// Connections that are opened at the same time.
const OPENED_AT_ONCE: usize = 16;
/// How long the last events may take to arrive.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(60);

/// What watchers have seen of one change.
#[derive(Default)]
struct Seen {
    by: AtomicU32,
    /// When the last of them did, in nanoseconds since the beginning.
    last_ns: AtomicU64,
}

/// One latency a change, in ms. Fails if a watcher was cut off.
pub async fn latencies_ms(
    endpoint: &Endpoint,
    watchers: usize,
    changes_per_second: u32,
    lasts: Duration,
) -> Result<Vec<f64>> {
    ensure_objects(endpoint, WRITERS).await?;
    let changes = (f64::from(changes_per_second) * lasts.as_secs_f64()) as usize;
    let seen: Arc<Vec<Seen>> = Arc::new((0..changes).map(|_| Seen::default()).collect());
    let began = Instant::now();
    let connections = open(endpoint, watchers).await?;
    let mut running: JoinSet<Result<()>> = JoinSet::new();
    for connection in connections {
        running.spawn(follow(connection, seen.clone(), began));
    }
    let written = write(endpoint, changes, changes_per_second, began).await;
    let drained = drain(&seen, watchers, running).await;
    let mut acknowledged = written?;
    drained?;
    acknowledged.sort_unstable();
    let latencies = acknowledged.iter().zip(seen.iter()).map(|((_, acknowledged_ns), seen)| {
        seen.last_ns.load(Ordering::Acquire).saturating_sub(*acknowledged_ns) as f64 / 1e6
    });
    Ok(latencies.collect())
}

/// Opens the watches, each on a connection of its own, from the present on.
async fn open(endpoint: &Endpoint, watchers: usize) -> Result<Vec<Connection>> {
    let list = endpoint.request("GET", &format!("{}?limit=1", path(None)), JSON, b"");
    let (_, body) = endpoint.connect().await?.call(&list).await?;
    let version = resource_version(&body).context("a list without a version")?;
    let watch = format!(
        "/api/v1/namespaces/{NAMESPACE}/configmaps?watch=true&resourceVersion={version}&timeoutSeconds=600"
    );
    let request: Arc<[u8]> = endpoint.request("GET", &watch, JSON, b"").into();
    let places = Arc::new(Semaphore::new(OPENED_AT_ONCE));
    let opening: Vec<_> = (0..watchers)
        .map(|_| {
            let (endpoint, request, places) = (endpoint.clone(), request.clone(), places.clone());
            tokio::spawn(async move {
                let _place = places.acquire().await?;
                let mut connection = endpoint.connect().await?;
                connection.open(&request).await?;
                anyhow::Ok(connection)
            })
        })
        .collect();
    let mut connections = Vec::with_capacity(watchers);
    for opened in opening {
        connections.push(opened.await?.context("opening a watch")?);
    }
    Ok(connections)
}

/// Notes when each event ended, until all came.
async fn follow(mut connection: Connection, seen: Arc<Vec<Seen>>, began: Instant) -> Result<()> {
    let mut next = 0;
    while next < seen.len() {
        let mut ended = 0;
        // An event is a line; a line's end is nowhere else in JSON.
        let more =
            connection.chunk(&mut |part| ended += part.iter().filter(|byte| **byte == b'\n').count()).await?;
        let now_ns = u64::try_from(began.elapsed().as_nanos())?;
        for event in seen.iter().skip(next).take(ended) {
            event.last_ns.fetch_max(now_ns, Ordering::AcqRel);
            event.by.fetch_add(1, Ordering::AcqRel);
        }
        next += ended;
        if !more && next < seen.len() {
            bail!("the server ended it after {next} events");
        }
    }
    Ok(())
}

/// Writes at the given pace, and gives the version and the time in ns of each acknowledgement.
async fn write(
    endpoint: &Endpoint,
    changes: usize,
    changes_per_second: u32,
    began: Instant,
) -> Result<Vec<(u64, u64)>> {
    let next = Arc::new(AtomicUsize::new(0));
    let mut connections = Vec::new();
    for _ in 0..WRITERS {
        connections.push(endpoint.connect().await?);
    }
    let starts = Instant::now();
    let writers: Vec<_> = connections
        .into_iter()
        .enumerate()
        .map(|(writer, mut connection)| {
            let (endpoint, next) = (endpoint.clone(), next.clone());
            tokio::spawn(async move {
                let name = object(writer);
                let path = path(Some(&name));
                let mut acknowledged = Vec::new();
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= changes {
                        return anyhow::Ok(acknowledged);
                    }
                    // A writer that is late writes at once, so that the pace is kept if it can be.
                    let due = starts + Duration::from_secs(1) * u32::try_from(number)? / changes_per_second;
                    tokio::time::sleep_until(due.into()).await;
                    // Never what the object holds from another round.
                    let stamp = usize::try_from(began.elapsed().as_nanos())?;
                    let body = config_map(&name, stamp);
                    let (status, answer) =
                        connection.call(&endpoint.request("PUT", &path, JSON, &body)).await?;
                    let now_ns = u64::try_from(began.elapsed().as_nanos())?;
                    if status != 200 {
                        bail!("a write was answered {status}: {}", String::from_utf8_lossy(&answer));
                    }
                    let version = resource_version(&answer).context("an answer without a version")?;
                    acknowledged.push((version, now_ns));
                }
            })
        })
        .collect();
    let mut acknowledged = Vec::with_capacity(changes);
    for writer in writers {
        acknowledged.extend(writer.await??);
    }
    Ok(acknowledged)
}

/// Waits until every watcher has seen every change.
async fn drain(seen: &[Seen], watchers: usize, mut running: JoinSet<Result<()>>) -> Result<()> {
    let all = async {
        while let Some(ended) = running.join_next().await {
            ended?.context("a watch")?;
        }
        anyhow::Ok(())
    };
    match tokio::time::timeout(DRAIN_TIMEOUT, all).await {
        Ok(ended) => ended,
        Err(_) => {
            let done = seen.iter().filter(|it| it.by.load(Ordering::Acquire) as usize == watchers).count();
            bail!("{done} of {} changes reached all {watchers} watchers within {DRAIN_TIMEOUT:?}", seen.len())
        }
    }
}

/// The first version in an answer: of the object, or of the list.
fn resource_version(body: &[u8]) -> Option<u64> {
    const KEY: &[u8] = b"\"resourceVersion\":\"";
    let at = body.windows(KEY.len()).position(|it| it == KEY)? + KEY.len();
    let length = body[at..].iter().position(|byte| *byte == b'"')?;
    str::from_utf8(&body[at..at + length]).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_an_answer_is_read() {
        assert_eq!(resource_version(br#"{"metadata":{"resourceVersion":"123"}}"#), Some(123));
        assert_eq!(resource_version(b"{}"), None);
    }
}
