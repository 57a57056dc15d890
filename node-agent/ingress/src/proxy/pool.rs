//! Connections to endpoints, kept for a while for the next request.
//!
//! It exists apart from hyper-util's client so that connecting comes before a request is given away: an endpoint that
//! cannot be reached costs a try and not the request. It must not know requests.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::body::Watched;
use super::{HEADERS_MAX, Limits};

/// Bytes of a response's line and headers.
const RESPONSE_HEADER_BYTES_MAX: usize = 64 << 10;

/// Why an endpoint cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// It did not answer.
    #[error("no answer for {} s", within.as_secs())]
    Timeout {
        /// For how long it was waited for.
        within: Duration,
    },
    /// The network said no.
    #[error("connecting")]
    Refused {
        /// What the kernel says.
        #[source]
        source: io::Error,
    },
    /// hyper said no, which it has no reason for.
    #[error("starting HTTP")]
    Handshake {
        /// What hyper says.
        #[source]
        source: hyper::Error,
    },
}

/// A connection that is used for one request at a time.
pub struct Connection {
    /// Takes the request.
    pub sender: SendRequest<Watched>,
    /// Whether it carried a request before; the endpoint may have closed it in the meantime.
    pub is_reused: bool,
}

/// Connections nobody uses at the moment.
pub struct Pool {
    idle: Mutex<Idle>,
    limits: Limits,
}

#[derive(Default)]
struct Idle {
    /// By endpoint, the newest last.
    connections: HashMap<SocketAddr, Vec<(SendRequest<Watched>, Instant)>>,
    total: usize,
}

// === impl Pool ===

impl Pool {
    /// An empty pool.
    pub fn new(limits: &Limits) -> Self {
        Self { idle: Mutex::default(), limits: limits.clone() }
    }

    /// A connection that is kept, if there is one.
    pub fn take(&self, to: SocketAddr) -> Option<Connection> {
        let mut idle = self.idle.lock();
        let mut found = None;
        let mut dropped = 0;
        let kept = idle.connections.get_mut(&to)?;
        while let Some((sender, since)) = kept.pop() {
            dropped += 1;
            if sender.is_ready() && since.elapsed() < self.limits.idle_for {
                found = Some(Connection { sender, is_reused: true });
                break;
            }
        }
        if kept.is_empty() {
            idle.connections.remove(&to);
        }
        idle.total -= dropped;
        found
    }

    /// A new connection.
    pub async fn connect(&self, to: SocketAddr) -> Result<Connection, ConnectError> {
        let within = self.limits.connect_within;
        let stream = tokio::time::timeout(within, TcpStream::connect(to))
            .await
            .map_err(|_| ConnectError::Timeout { within })?
            .map_err(|source| ConnectError::Refused { source })?;
        let _ = stream.set_nodelay(true);
        super::outlive_no_peer(&stream, self.limits.backend_idle);
        let (sender, connection) = http1::Builder::new()
            .max_headers(HEADERS_MAX)
            .max_buf_size(RESPONSE_HEADER_BYTES_MAX)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|source| ConnectError::Handshake { source })?;
        // Ends when the sender is dropped and the response was read, or the endpoint closes.
        tokio::spawn(connection.with_upgrades());
        Ok(Connection { sender, is_reused: false })
    }

    /// Keeps a connection once its response was read to the end; closes it when there are enough.
    pub fn put_back(self: &Arc<Self>, to: SocketAddr, mut sender: SendRequest<Watched>) {
        if sender.is_ready() {
            return self.keep(to, sender);
        }
        let pool = self.clone();
        tokio::spawn(async move {
            if sender.ready().await.is_ok() {
                pool.keep(to, sender);
            }
        });
    }

    /// Closes what was kept for long enough.
    pub fn sweep(&self) {
        let mut idle = self.idle.lock();
        let mut total = 0;
        idle.connections.retain(|_, kept| {
            kept.retain(|(sender, since)| sender.is_ready() && since.elapsed() < self.limits.idle_for);
            total += kept.len();
            !kept.is_empty()
        });
        idle.total = total;
    }

    fn keep(&self, to: SocketAddr, sender: SendRequest<Watched>) {
        let mut idle = self.idle.lock();
        if idle.total >= self.limits.idle_max {
            return;
        }
        let kept = idle.connections.entry(to).or_default();
        if kept.len() < self.limits.idle_per_endpoint_max {
            kept.push((sender, Instant::now()));
            idle.total += 1;
        }
    }
}
