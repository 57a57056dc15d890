//! What a connection is doing: requests that are open, since when there is none, and how many were taken back.
//!
//! A request counts until its response's body is done or dropped. Of several streams in one connection the transport
//! cannot tell who does not read: bodies that nobody has taken from for too long although there was something are
//! dropped here, and with them what they hold.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use http_body::{Body as _, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::super::limits::Limits;

/// Bodies up to this are taken by the transport whole, before anybody reads.
const WHOLE_BYTES_MAX: u64 = 64 * 1024;

/// Requests of all connections.
#[derive(Debug, Default)]
pub(super) struct Open {
    short: AtomicUsize,
}

/// One connection's.
pub(super) struct Activity {
    open: Arc<Open>,
    first_request: Duration,
    idle: Duration,
    stalled: Duration,
    abandoned_burst: f64,
    abandoned_per_second: f64,
    /// Whether bodies are looked after here.
    has_streams: bool,
    state: Mutex<State>,
    flooded: Notify,
}

struct State {
    requests: usize,
    has_had_requests: bool,
    /// Since when there has been no request.
    idle_since: Instant,
    /// How many requests may be abandoned, as of `counted_at`.
    patience: f64,
    counted_at: Instant,
    last_id: u64,
    streams: HashMap<u64, Weak<Stream>>,
}

/// Why a connection should end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Over {
    NoRequest,
    Idle,
    /// Its client asks and takes back, over and over.
    Flooded,
}

/// A request that is being worked on.
pub(super) struct Working {
    activity: Arc<Activity>,
    /// Whether the server's end waits for it.
    short: bool,
    /// Whether it has been taken back if it ends now.
    pending: bool,
}

/// A response's body.
struct Stream(Mutex<StreamState>);

struct StreamState {
    body: Option<Body>,
    /// Since when the client has had something to take.
    offered_since: Option<Instant>,
}

/// A body that its connection knows of.
struct Tracked {
    stream: Arc<Stream>,
    id: u64,
    working: Working,
}

/// A small body, of which the connection knows only that it is there.
struct Counted {
    body: Body,
    working: Working,
}

// === impl Open ===

impl Open {
    /// Requests that are not long-running.
    pub fn short_requests(&self) -> usize {
        self.short.load(Ordering::Acquire)
    }
}

// === impl Activity ===

impl Activity {
    pub fn new(open: Arc<Open>, limits: &Limits, has_streams: bool) -> Self {
        let now = Instant::now();
        Self {
            open,
            first_request: limits.first_request,
            idle: limits.idle,
            stalled: limits.stalled,
            abandoned_burst: limits.abandoned_burst.into(),
            abandoned_per_second: limits.abandoned_per_second.into(),
            has_streams,
            state: Mutex::new(State {
                requests: 0,
                has_had_requests: false,
                idle_since: now,
                patience: limits.abandoned_burst.into(),
                counted_at: now,
                last_id: 0,
                streams: HashMap::new(),
            }),
            flooded: Notify::new(),
        }
    }

    /// A request has come.
    pub fn begin(self: &Arc<Self>) -> Working {
        let mut state = self.state.lock();
        state.requests += 1;
        state.has_had_requests = true;
        self.open.short.fetch_add(1, Ordering::AcqRel);
        Working { activity: self.clone(), short: true, pending: true }
    }

    /// Waits until the connection should end, and drops on the way what nobody reads.
    pub async fn over(&self) -> Over {
        loop {
            let look_again = match self.look(Instant::now()) {
                Ok(at) => at,
                Err(why) => return why,
            };
            tokio::select! {
                () = tokio::time::sleep_until(look_again) => {}
                () = self.flooded.notified() => return Over::Flooded,
            }
        }
    }

    /// Whether the connection is over; if not, when to look again.
    fn look(&self, now: Instant) -> Result<Instant, Over> {
        self.drop_stalled(now);
        let state = self.state.lock();
        let (patience, why) = match state.has_had_requests {
            true => (self.idle, Over::Idle),
            false => (self.first_request, Over::NoRequest),
        };
        if state.requests > 0 {
            return Ok(now + if self.has_streams { patience.min(self.stalled / 2) } else { patience });
        }
        let due = state.idle_since + patience;
        if due <= now { Err(why) } else { Ok(due) }
    }

    fn drop_stalled(&self, now: Instant) {
        let streams: Vec<Arc<Stream>> =
            self.state.lock().streams.values().filter_map(Weak::upgrade).collect();
        for stream in streams {
            let mut stream = stream.0.lock();
            if stream.offered_since.is_some_and(|since| now.duration_since(since) >= self.stalled) {
                tracing::debug!("a response is dropped that its client does not read");
                stream.body = None;
            }
        }
    }

    fn abandon(&self, now: Instant) {
        let mut state = self.state.lock();
        let recovered = now.duration_since(state.counted_at).as_secs_f64() * self.abandoned_per_second;
        state.patience = (state.patience + recovered).min(self.abandoned_burst) - 1.0;
        state.counted_at = now;
        if state.patience < 0.0 {
            self.flooded.notify_one();
        }
    }
}

// === impl Working ===

impl Working {
    /// The response's head is ready; the request goes on until its body is done.
    pub fn answered(mut self, body: Body, long_running: bool) -> Body {
        // To end a watch is no offence, and in HTTP/1.1 there is nothing to take back.
        self.pending = !long_running && self.activity.has_streams;
        if long_running {
            self.end_short();
        }
        let small = body.size_hint().upper().is_some_and(|bytes| bytes <= WHOLE_BYTES_MAX);
        if small || !self.activity.has_streams {
            return Body::new(Counted { body, working: self });
        }
        let state = StreamState { body: Some(body), offered_since: Some(Instant::now()) };
        let stream = Arc::new(Stream(Mutex::new(state)));
        let id = {
            let mut state = self.activity.state.lock();
            state.last_id += 1;
            let id = state.last_id;
            state.streams.insert(id, Arc::downgrade(&stream));
            id
        };
        Body::new(Tracked { stream, id, working: self })
    }

    fn end_short(&mut self) {
        if std::mem::take(&mut self.short) {
            self.activity.open.short.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        self.end_short();
        let now = Instant::now();
        {
            let mut state = self.activity.state.lock();
            state.requests -= 1;
            state.idle_since = now;
        }
        if self.pending {
            self.activity.abandon(now);
        }
    }
}

// === impl Tracked ===

impl http_body::Body for Tracked {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let shared = self.stream.clone();
        let mut stream = shared.0.lock();
        let Some(body) = &mut stream.body else {
            let why = std::io::Error::new(std::io::ErrorKind::TimedOut, "the client reads nothing");
            return Poll::Ready(Some(Err(axum::Error::new(why))));
        };
        let polled = Pin::new(body).poll_frame(cx);
        let ended = matches!(polled, Poll::Ready(None));
        // Whoever has taken something comes back for more as soon as the client has read it.
        stream.offered_since = (polled.is_ready() && !ended).then(Instant::now);
        drop(stream);
        self.working.pending &= !ended;
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.stream.0.lock().body.as_ref().is_some_and(|body| body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.stream.0.lock().body.as_ref().map(|body| body.size_hint()).unwrap_or_default()
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        self.working.pending &= !self.is_end_stream() && self.stream.0.lock().body.is_some();
        self.working.activity.state.lock().streams.remove(&self.id);
    }
}

// === impl Counted ===

impl http_body::Body for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if matches!(polled, Poll::Ready(None)) {
            self.working.pending = false;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.working.pending &= !self.body.is_end_stream();
    }
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt, StreamExt};
    use http_body_util::BodyExt;

    use super::*;

    fn activity(limits: &Limits) -> (Arc<Open>, Arc<Activity>) {
        let open = Arc::new(Open::default());
        (open.clone(), Arc::new(Activity::new(open, limits, true)))
    }

    #[test]
    fn a_connection_without_a_request_ends_sooner_than_one_that_rests() {
        let limits = Limits::default();
        let (_, activity) = activity(&limits);
        let due = activity.look(Instant::now()).unwrap();
        assert!(due <= Instant::now() + limits.first_request);
        assert_eq!(activity.look(due), Err(Over::NoRequest));
        drop(activity.begin().answered(Body::empty(), false));
        let rests = activity.look(due).unwrap();
        assert!(rests > due);
        assert_eq!(activity.look(rests), Err(Over::Idle));
    }

    #[test]
    fn a_request_keeps_its_connection_until_its_body_is_done() {
        let (open, activity) = activity(&Limits::default());
        let hour = Duration::from_secs(3600);
        let endless = Body::from_stream(futures::stream::pending::<Result<Bytes, axum::Error>>());
        let mut watch = activity.begin().answered(endless, true);
        assert!(watch.frame().now_or_never().is_none());
        assert!(activity.look(Instant::now() + hour).is_ok(), "a quiet watch is not idle");
        assert!(watch.frame().now_or_never().is_none(), "nor is it dropped");
        assert_eq!(open.short_requests(), 0, "nobody waits for a watch to end");
        let short = activity.begin();
        assert_eq!(open.short_requests(), 1);
        drop((watch, short));
        assert_eq!(open.short_requests(), 0);
        assert_eq!(activity.look(Instant::now() + hour), Err(Over::Idle));
    }

    #[test]
    fn a_stream_nobody_reads_gives_up_what_it_holds() {
        let limits = Limits::default();
        let (_, activity) = activity(&limits);
        let held = Arc::new(());
        let in_stream = held.clone();
        let events = futures::stream::repeat(Bytes::from_static(b"event")).map(move |bytes| {
            let _held = &in_stream;
            Ok::<_, axum::Error>(bytes)
        });
        let mut body = activity.begin().answered(Body::from_stream(events), true);
        let mut next = || body.frame().now_or_never().flatten().map(|frame| frame.is_ok());
        assert_eq!(next(), Some(true));
        assert!(activity.look(Instant::now() + limits.stalled / 2).is_ok());
        assert_eq!((next(), Arc::strong_count(&held)), (Some(true), 2), "a slow reader is no deaf one");
        assert!(activity.look(Instant::now() + limits.stalled).is_ok());
        assert_eq!(Arc::strong_count(&held), 1);
        assert_eq!(next(), Some(false), "the client is told by a reset");
    }

    #[test]
    fn asking_and_taking_back_ends_the_connection_at_some_point() {
        let limits = Limits { abandoned_burst: 10, abandoned_per_second: 1, ..Limits::default() };
        let (_, activity) = activity(&limits);
        let began = Instant::now();
        for second in 0..30 {
            // Now and then is nobody's business.
            activity.abandon(began + Duration::from_secs(second));
        }
        assert_eq!(activity.flooded.notified().now_or_never(), None);
        for _ in 0..12 {
            drop(activity.begin());
        }
        assert!(activity.flooded.notified().now_or_never().is_some());
    }

    #[test]
    fn what_was_answered_was_not_taken_back() {
        let limits = Limits { abandoned_burst: 1, abandoned_per_second: 0, ..Limits::default() };
        let (_, activity) = activity(&limits);
        for _ in 0..10 {
            drop(activity.begin().answered(Body::empty(), false));
            let mut told = activity.begin().answered(Body::from("told"), false);
            assert!(told.frame().now_or_never().flatten().is_some());
            drop(told);
            drop(activity.begin().answered(Body::from("a watch"), true));
        }
        assert_eq!(activity.flooded.notified().now_or_never(), None);
        for _ in 0..2 {
            drop(activity.begin().answered(Body::from("not heard"), false));
        }
        assert!(activity.flooded.notified().now_or_never().is_some());
    }
}
