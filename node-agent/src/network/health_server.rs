//! Small answers over HTTP/1.1: to load balancers that ask whether to send traffic here, to Prometheus.
//!
//! It exists so that health checks and metrics are served by one code with one set of limits. It must not know what
//! they ask about.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// Connections at a time; the next waits in the listener's queue.
const CONNECTIONS_MAX: usize = 64;
/// How long a client may take to ask.
const ASK_MAX: Duration = Duration::from_secs(5);
/// How long a connection lives, whatever is asked over it.
const CONNECTION_MAX: Duration = Duration::from_secs(60);
/// Pause after a connection could not be accepted, for want of files.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// What a request is answered with.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    pub status: StatusCode,
    /// JSON; a bare string is sent as it is, as plain text.
    pub body: Value,
    /// `X-Load-Balancing-Endpoint-Weight`.
    pub weight: Option<usize>,
}

/// Answers until it is dropped. The answer follows from the path alone.
pub async fn serve(listener: TcpListener, answer: impl Fn(&str) -> Reply + Send + Sync + 'static) {
    let (answer, room) = (Arc::new(answer), Arc::new(Semaphore::new(CONNECTIONS_MAX)));
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let Ok(place) = room.clone().acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(_) => {
                tokio::time::sleep(RETRY_AFTER).await;
                continue;
            }
        };
        while connections.try_join_next().is_some() {}
        let answer = answer.clone();
        connections.spawn(async move {
            let service = service_fn(|request: Request<Incoming>| {
                let reply = answer(request.uri().path());
                async { Ok::<_, Infallible>(response(reply)) }
            });
            let mut server = hyper::server::conn::http1::Builder::new();
            server.timer(TokioTimer::new()).header_read_timeout(ASK_MAX);
            // A client that breaks off has its answer, or wants none.
            let serving = server.serve_connection(TokioIo::new(stream), service);
            let _ = tokio::time::timeout(CONNECTION_MAX, serving).await;
            drop(place);
        });
    }
}

fn response(reply: Reply) -> Response<Full<Bytes>> {
    let (body, kind) = match reply.body {
        Value::String(text) => (text, "text/plain; version=0.0.4; charset=utf-8"),
        json => (json.to_string(), "application/json"),
    };
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = reply.status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Some(weight) = reply.weight {
        headers.insert(HeaderName::from_static("x-load-balancing-endpoint-weight"), weight.into());
    }
    response
}
