//! The listener: connections in, bounded in number and in time.
//!
//! It exists to accept, to count and to end connections; what a request means is in `forward`. It must not know
//! routes. What is accepted here is a plain stream; a TLS stage would hand `serve_connection` another kind of one.

mod body;
mod forward;
mod headers;
mod pool;
mod refusal;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use nix::sys::socket::{setsockopt, sockopt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::Routing;
use pool::Pool;

/// Pause after accepting failed: out of file descriptors, most likely, and others need time to close theirs.
const ACCEPT_AGAIN_AFTER: Duration = Duration::from_millis(100);
/// Header fields of one message.
const HEADERS_MAX: usize = 100;

/// What a client or a backend may take.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Client connections at once, tunnels included; further ones wait in the listen queue.
    pub connections_max: usize,
    /// Bytes of a request's line and headers; 431 beyond.
    pub header_bytes_max: usize,
    /// How long a client may take for a request's headers, and be silent between requests; then it is cut off.
    pub header_within: Duration,
    /// How long a client may be silent within a request's body; 408 then. Also how long it may leave a response
    /// unread.
    pub body_idle: Duration,
    /// How long connecting to an endpoint may take; the next endpoint is tried then.
    pub connect_within: Duration,
    /// How long a backend may be silent: after the last byte of the request (504), or within the response.
    pub backend_idle: Duration,
    /// Endpoints tried for one request.
    pub endpoints_tried_max: usize,
    /// Connections to backends kept for reuse, all together.
    pub idle_max: usize,
    /// Connections kept for reuse to one endpoint.
    pub idle_per_endpoint_max: usize,
    /// How long a connection is kept for reuse.
    pub idle_for: Duration,
    /// How long requests under way may take after the end was called.
    pub drain_within: Duration,
}

/// Serves until `shutdown`, and then for as long as requests under way take, at most `drain_within`. Tunnels end with
/// that.
pub async fn serve(
    listener: TcpListener,
    routing: Arc<Routing>,
    limits: Limits,
    shutdown: CancellationToken,
) {
    let slots = Arc::new(Semaphore::new(limits.connections_max));
    let desk = Arc::new(Desk {
        routing,
        pool: Arc::new(Pool::new(&limits)),
        limits,
        tunnels: TaskTracker::new(),
        cut: CancellationToken::new(),
    });
    // Whatever ends this future ends what it started.
    let _cut = desk.cut.clone().drop_guard();
    tokio::spawn(desk.cut.clone().run_until_cancelled_owned(sweep(desk.pool.clone(), desk.limits.idle_for)));
    let connections = TaskTracker::new();
    while let Some(accepted) = shutdown.run_until_cancelled(accept(&listener, &slots)).await {
        let Some((stream, peer, slot)) = accepted else {
            tokio::time::sleep(ACCEPT_AGAIN_AFTER).await;
            continue;
        };
        connections.spawn(serve_connection(desk.clone(), stream, peer, Arc::new(slot), shutdown.clone()));
    }
    drop(listener);
    connections.close();
    desk.tunnels.close();
    let all = async { tokio::join!(connections.wait(), desk.tunnels.wait()) };
    let _ = tokio::time::timeout(desk.limits.drain_within, all).await;
}

/// What all connections share.
struct Desk {
    routing: Arc<Routing>,
    pool: Arc<Pool>,
    limits: Limits,
    /// Connections that have been upgraded and are only copied.
    tunnels: TaskTracker,
    /// Ends everything at once.
    cut: CancellationToken,
}

/// A connection that holds one of the slots, which its tunnel inherits.
type Slot = Arc<OwnedSemaphorePermit>;

async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> Option<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let slot = slots.clone().acquire_owned().await.ok()?;
    let (stream, peer) = listener.accept().await.ok()?;
    Some((stream, peer, slot))
}

async fn serve_connection(
    desk: Arc<Desk>,
    stream: TcpStream,
    peer: SocketAddr,
    slot: Slot,
    shutdown: CancellationToken,
) {
    let _ = stream.set_nodelay(true);
    outlive_no_peer(&stream, desk.limits.body_idle);
    let service = service_fn(|request| forward::handle(&desk, peer, &slot, request));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(desk.limits.header_within)
        .max_headers(HEADERS_MAX)
        .max_header_size(desk.limits.header_bytes_max)
        .half_close(false)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let outcome = tokio::select! {
        outcome = connection.as_mut() => outcome,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                outcome = connection.as_mut() => outcome,
                () = desk.cut.cancelled() => return,
            }
        }
    };
    if let Err(error) = outcome {
        // What clients do wrong is no news: anybody can make them do it.
        tracing::trace!(%peer, %error, "a connection ended early");
    }
}

/// Makes the kernel give up a peer that is gone without a word, or that leaves what it is sent unread for so long.
fn outlive_no_peer(stream: &TcpStream, unread_for: Duration) {
    let milliseconds = u32::try_from(unread_for.as_millis()).unwrap_or(u32::MAX);
    let _ = setsockopt(stream, sockopt::TcpUserTimeout, &milliseconds);
    let _ = setsockopt(stream, sockopt::TcpKeepIdle, &60);
    let _ = setsockopt(stream, sockopt::TcpKeepInterval, &20);
    let _ = setsockopt(stream, sockopt::TcpKeepCount, &3);
    let _ = setsockopt(stream, sockopt::KeepAlive, &true);
}

async fn sweep(pool: Arc<Pool>, every: Duration) {
    loop {
        tokio::time::sleep(every).await;
        pool.sweep();
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 8192,
            header_bytes_max: 32 << 10,
            header_within: Duration::from_secs(30),
            body_idle: Duration::from_secs(60),
            connect_within: Duration::from_secs(3),
            backend_idle: Duration::from_secs(60),
            endpoints_tried_max: 3,
            idle_max: 1024,
            idle_per_endpoint_max: 64,
            idle_for: Duration::from_secs(30),
            drain_within: Duration::from_secs(5),
        }
    }
}
