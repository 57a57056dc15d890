//! Sockets: accepts connections, speaks TLS, and hands requests to the chain.
//!
//! HTTP/1.1 (with upgrades) and HTTP/2 share the port by ALPN. On shutdown, listeners close first, watches end, and
//! open requests get a while to finish.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustls::ServerConfig as TlsConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::config::ServerConfig;
use super::{ApiServer, ServerError};
use crate::authn::certificate::{AcceptAnyHolder, Peer, Trust};

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long open requests may take after shutdown began.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections at once; more wait in the kernel's backlog.
const CONNECTIONS_MAX: usize = 16_384;
/// Streams a client may have open on one HTTP/2 connection (upstream's default is 100, too few for busy informers).
const STREAMS_MAX: u32 = 1000;
const HEADER_BYTES_MAX: u32 = 64 * 1024;
/// HTTP/2 flow-control windows. Bodies are small and watches many, so memory comes before throughput.
const STREAM_WINDOW_BYTES: u32 = 256 * 1024;

/// Where a request's connection comes from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ClientAddress(pub IpAddr);

/// The TLS side of the configuration.
pub fn acceptor(config: &ServerConfig, trust: Trust) -> Result<TlsAcceptor, ServerError> {
    let unusable = |e: rustls::pki_types::pem::Error| ServerError::Certificate { why: e.to_string() };
    let chain = CertificateDer::pem_slice_iter(&config.serving_certificate_pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(unusable)?;
    let key = PrivateKeyDer::from_pem_slice(&config.serving_key_pem).map_err(unusable)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = TlsConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|source| ServerError::Tls { source })?
        .with_client_cert_verifier(Arc::new(AcceptAnyHolder::new(trust)))
        .with_single_cert(chain, key)
        .map_err(|source| ServerError::Tls { source })?;
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
    let connections = TaskTracker::new();
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = accept(&listener, &room) => accepted,
        };
        let Some((stream, from, permit)) = accepted else {
            continue;
        };
        let (server, acceptor, trust, shutdown) =
            (server.clone(), acceptor.clone(), trust.clone(), shutdown.clone());
        connections.spawn(async move {
            connection(server, stream, from, acceptor, trust, shutdown).await;
            drop(permit);
        });
    }
    drop(listener);
    server.inner.stopping.cancel();
    connections.close();
    if tokio::time::timeout(DRAIN_TIMEOUT, connections.wait()).await.is_err() {
        tracing::warn!(open = connections.len(), "connections were still open when the server stopped");
    }
}

async fn accept(
    listener: &TcpListener,
    room: &Arc<Semaphore>,
) -> Option<(TcpStream, IpAddr, tokio::sync::OwnedSemaphorePermit)> {
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

async fn connection(
    server: ApiServer,
    stream: TcpStream,
    from: IpAddr,
    acceptor: TlsAcceptor,
    trust: Trust,
    shutdown: CancellationToken,
) {
    // Watch events are small writes that must not wait for more.
    let _ = stream.set_nodelay(true);
    let stream = match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::debug!(%error, "TLS handshake failed");
            return;
        }
        Err(_) => return,
    };
    let peer = Peer::new(stream.get_ref().1.peer_certificates().unwrap_or_default(), &trust);
    let service = service_fn(move |request: Request<Incoming>| {
        let server = server.clone();
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(peer.clone());
        request.extensions_mut().insert(ClientAddress(from));
        async move { Ok::<_, std::convert::Infallible>(server.handle(request).await) }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs(30))
        .max_buf_size(HEADER_BYTES_MAX as usize * 2);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEADER_BYTES_MAX)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(STREAM_WINDOW_BYTES * 4)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(15));
    let serving = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    tokio::pin!(serving);
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = shutdown.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(error = %error, "connection ended");
    }
}
