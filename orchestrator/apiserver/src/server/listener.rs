//! Sockets: accepts connections, and ends them in order.
//!
//! HTTP/1.1 (with upgrades) and HTTP/2 share the port by ALPN; [`connection`] serves one, [`socket`] is its bytes,
//! [`activity`] knows what it is doing. When the server stops, it says that it is not ready, accepts on for a while,
//! closes the port, ends watches and idle connections, and waits for requests that are being answered.

mod activity;
mod connection;
mod socket;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig as TlsConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::limits::Limits;
use super::shown::ServingKey;
use super::{ApiServer, ServerError};
use crate::authn::certificate::{AcceptAnyHolder, Trust};
use activity::Open;
use connection::Serving;

/// How often the end is looked for while the server drains.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Where a request's connection comes from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ClientAddress(pub IpAddr);

/// What a connection holds of the server for as long as its socket is open, also when it became something else than
/// HTTP.
pub(crate) struct Held {
    _room: OwnedSemaphorePermit,
    _open: TaskTrackerToken,
}

/// How clients are met: with what `serving` shows at that moment.
pub(crate) fn acceptor(serving: Arc<ServingKey>, trust: Trust) -> Result<TlsAcceptor, ServerError> {
    if !serving.is_there() {
        return Err(ServerError::Certificate { why: "there is none".to_owned() });
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = TlsConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|source| ServerError::Tls { source })?
        .with_client_cert_verifier(Arc::new(AcceptAnyHolder::new(trust)))
        .with_cert_resolver(serving);
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(tls)))
}

/// Accepts until `shutdown`, then drains.
pub async fn serve(
    server: ApiServer,
    listener: TcpListener,
    acceptor: TlsAcceptor,
    trust: Trust,
    shutdown: CancellationToken,
) {
    let limits = server.inner.config.limits.clone();
    let connections = TaskTracker::new();
    let room = Arc::new(Semaphore::new(limits.connections_max));
    let closing = CancellationToken::new();
    let open = Arc::new(Open::default());
    let serving = Serving {
        server: server.clone(),
        acceptor,
        trust,
        closing: closing.clone(),
        limits: Arc::new(limits.clone()),
        open: open.clone(),
    };
    let leave = async {
        shutdown.cancelled().await;
        server.begin_leaving();
        tokio::time::sleep(limits.shutdown_delay).await;
    };
    tokio::pin!(leave);
    loop {
        let accepted = tokio::select! {
            () = &mut leave => break,
            accepted = accept(&listener, &room) => accepted,
        };
        let Some((stream, from, room)) = accepted else {
            continue;
        };
        let held = Held { _room: room, _open: connections.token() };
        connections.spawn(connection::serve(serving.clone(), stream, from, held));
    }
    drop(listener);
    closing.cancel();
    server.inner.stopping.cancel();
    connections.close();
    drain(&connections, &open, &limits).await;
}

/// Waits until nothing is open, or what is open need not be waited for any longer.
async fn drain(connections: &TaskTracker, open: &Open, limits: &Limits) {
    let began = Instant::now();
    while !connections.is_empty() {
        let time = began.elapsed();
        if time >= limits.drain || (time >= limits.linger && open.short_requests() == 0) {
            let (connections, requests) = (connections.len(), open.short_requests());
            tracing::warn!(connections, requests, "connections were still open when the server stopped");
            return;
        }
        tokio::select! {
            () = connections.wait() => {}
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}

async fn accept(
    listener: &TcpListener,
    room: &Arc<Semaphore>,
) -> Option<(TcpStream, IpAddr, OwnedSemaphorePermit)> {
    let permit = room.clone().acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, from)) => Some((stream, from.ip(), permit)),
        Err(error) => {
            // Out of file descriptors, mostly: give others time to close theirs.
            tracing::warn!(%error, "accept failed");
            tokio::time::sleep(Duration::from_millis(50)).await;
            None
        }
    }
}
