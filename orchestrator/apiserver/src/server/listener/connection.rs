//! One connection: TLS, then HTTP until it ends, is idle for too long, asks for too much, or the server stops.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::super::ApiServer;
use super::super::chain::LongRunning;
use super::super::limits::Limits;
use super::activity::{Activity, Open};
use super::socket::Socket;
use super::{ClientAddress, Held};
use crate::authn::certificate::{Peer, Trust};

/// HTTP/2 flow-control windows. Bodies are small and watches many, so memory comes before throughput.
const STREAM_WINDOW_BYTES: u32 = 256 * 1024;
/// What of a response is buffered for a stream whose client does not read.
const STREAM_SEND_BYTES: usize = 256 * 1024;
/// Resets that may be unanswered at once (CVE-2023-44487); beyond, the connection is closed.
const PENDING_RESETS_MAX: usize = 50;
/// A connection that was told to end has this long.
const END_TIMEOUT: Duration = Duration::from_secs(5);

/// What connections share.
#[derive(Clone)]
pub(super) struct Serving {
    pub server: ApiServer,
    pub acceptor: TlsAcceptor,
    pub trust: Trust,
    /// Cancelled when connections are to end.
    pub closing: CancellationToken,
    pub limits: Arc<Limits>,
    pub open: Arc<Open>,
}

/// Serves a connection until it ends.
pub(super) async fn serve(serving: Serving, stream: TcpStream, from: IpAddr, held: Held) {
    let Serving { server, acceptor, trust, closing, limits, open } = serving;
    // Watch events are small writes that must not wait for more.
    let _ = stream.set_nodelay(true);
    let handshake = tokio::time::timeout(limits.handshake, acceptor.accept(stream));
    let shaken = tokio::select! {
        shaken = handshake => shaken,
        () = closing.cancelled() => return,
    };
    let stream = match shaken {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::debug!(%error, "TLS handshake failed");
            return;
        }
        Err(_) => {
            tracing::debug!(%from, "TLS handshake took too long");
            return;
        }
    };
    let session = stream.get_ref().1;
    let peer = Peer::new(session.peer_certificates().unwrap_or_default(), &trust);
    let is_http2 = session.alpn_protocol() == Some(b"h2");
    let activity = Arc::new(Activity::new(open, &limits, is_http2));
    let socket = Socket::new(stream, limits.stalled, held);
    let requests = activity.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let server = server.clone();
        let working = requests.begin();
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(peer.clone());
        request.extensions_mut().insert(ClientAddress(from));
        async move {
            let response: Response<Body> = server.handle(request).await;
            let long_running = response.extensions().get::<LongRunning>().is_some();
            let response = response.map(|body| working.answered(body, long_running));
            Ok::<_, std::convert::Infallible>(response)
        }
    });
    let builder = builder(&limits, is_http2);
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(socket), service);
    tokio::pin!(connection);
    let why = tokio::select! {
        ended = connection.as_mut() => {
            if let Err(error) = ended {
                tracing::debug!(%from, error = %error, "connection ended");
            }
            return;
        }
        () = closing.cancelled() => None,
        why = activity.over() => Some(why),
    };
    connection.as_mut().graceful_shutdown();
    match why {
        // Requests that are here are answered; the server's end bounds that.
        None => drop(connection.await),
        Some(why) => {
            tracing::debug!(%from, ?why, "connection is closed");
            drop(tokio::time::timeout(END_TIMEOUT, connection).await);
        }
    }
}

/// HTTP as both sides agreed on it: what they did not agree on is not waited for.
fn builder(limits: &Limits, is_http2: bool) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        // Runs while the connection is idle as well.
        .header_read_timeout(limits.idle)
        .max_headers(limits.headers_max)
        .max_buf_size((limits.header_bytes_max as usize).max(8 * 1024));
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams_max)
        .max_header_list_size(limits.header_bytes_max)
        .max_pending_accept_reset_streams(PENDING_RESETS_MAX)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(STREAM_WINDOW_BYTES * 4)
        .max_send_buf_size(STREAM_SEND_BYTES)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(15));
    if is_http2 { builder.http2_only() } else { builder.http1_only() }
}
