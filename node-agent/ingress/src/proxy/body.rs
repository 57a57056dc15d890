//! A body on its way through, with an eye on the clock.
//!
//! It exists because hyper bounds the time for headers only: a body that stops half way would hold its connections
//! for ever. It must not look into the bytes.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use parking_lot::Mutex;
use tokio::time::{Instant, Sleep};

/// Why a body ended early.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// Its sender broke off, or sent nonsense.
    #[error("the body broke off")]
    Broken {
        /// What hyper says.
        #[source]
        source: hyper::Error,
    },
    /// Its sender is silent.
    #[error("the body made no progress for {} s", idle.as_secs())]
    Stalled {
        /// For how long it was waited for.
        idle: Duration,
    },
}

/// A body that fails when its sender is silent for too long.
#[derive(Debug)]
pub struct Watched {
    inner: Option<Incoming>,
    idle: Duration,
    /// Runs while the sender is waited for.
    timer: Option<Pin<Box<Sleep>>>,
    is_waiting: bool,
    progress: Arc<Progress>,
}

/// How far a body is, for those who wait for what comes after it.
#[derive(Debug)]
pub struct Progress {
    state: Mutex<(Instant, bool)>,
}

// === impl Watched ===

impl Watched {
    /// Watches a body.
    pub fn new(inner: Incoming, idle: Duration) -> Self {
        let inner = Some(inner).filter(|inner| !inner.is_end_stream());
        Self { inner, idle, timer: None, is_waiting: false, progress: Arc::default() }
    }

    /// A body of no bytes.
    pub fn empty() -> Self {
        Self { inner: None, idle: Duration::ZERO, timer: None, is_waiting: false, progress: Arc::default() }
    }

    /// How far it is; stays true after the body went elsewhere.
    pub fn progress(&self) -> Arc<Progress> {
        self.progress.clone()
    }
}

impl Body for Watched {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let Some(inner) = &mut this.inner else {
            return Poll::Ready(None);
        };
        if let Poll::Ready(frame) = Pin::new(inner).poll_frame(context) {
            this.is_waiting = false;
            this.progress.advance();
            return Poll::Ready(frame.map(|frame| frame.map_err(|source| BodyError::Broken { source })));
        }
        let deadline = Instant::now() + this.idle;
        let timer = this.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if !std::mem::replace(&mut this.is_waiting, true) {
            timer.as_mut().reset(deadline);
        }
        if timer.as_mut().poll(context).is_pending() {
            return Poll::Pending;
        }
        this.progress.state.lock().1 = true;
        this.inner = None;
        Poll::Ready(Some(Err(BodyError::Stalled { idle: this.idle })))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map_or(SizeHint::with_exact(0), Body::size_hint)
    }
}

// === impl Progress ===

impl Default for Progress {
    fn default() -> Self {
        Self { state: Mutex::new((Instant::now(), false)) }
    }
}

impl Progress {
    /// Whether the body's sender fell silent.
    pub fn is_stalled(&self) -> bool {
        self.state.lock().1
    }

    /// Waits for `response` until the body has not moved for `limit`; `None` then. A long upload is not a silent
    /// backend.
    pub async fn wait<F: Future>(&self, limit: Duration, response: F) -> Option<F::Output> {
        let mut response = std::pin::pin!(response);
        loop {
            let deadline = self.state.lock().0 + limit;
            if let Ok(output) = tokio::time::timeout_at(deadline, response.as_mut()).await {
                return Some(output);
            }
            if self.state.lock().0 + limit <= deadline {
                return None;
            }
        }
    }

    fn advance(&self) {
        self.state.lock().0 = Instant::now();
    }
}
