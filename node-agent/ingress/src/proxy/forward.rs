//! One request: decide, forward, answer.
//!
//! It exists to put the parts in order: route, endpoint, connection, and what each can do wrong. It must not hold
//! bodies: they stream from one side to the other.

use std::convert::Infallible;
use std::net::SocketAddr;

use bytes::Bytes;
use http::header::{HOST, HeaderValue};
use http::uri::PathAndQuery;
use http::{Method, Request, Response, StatusCode, Uri, Version};
use http_body::Body as _;
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper::upgrade::{OnUpgrade, on};
use hyper_util::rt::TokioIo;

use super::body::Watched;
use super::headers::{forward_headers, set_forwarded, upgrade};
use super::pool::{ConnectError, Connection};
use super::refusal::Refusal;
use super::{Desk, Slot};
use crate::spec::{Name, Port};
use crate::table::{Decision, Target};
use crate::upstream::Candidates;

/// What a client is answered with: a backend's body, or a sentence of our own.
pub type ResponseBody = Either<Watched, Full<Bytes>>;

/// Answers a request.
pub async fn handle(
    desk: &Desk,
    peer: SocketAddr,
    slot: &Slot,
    request: Request<Incoming>,
) -> Result<Response<ResponseBody>, Infallible> {
    Ok(forward(desk, peer, slot, request).await.unwrap_or_else(|refusal| {
        // Anybody can cause these as often as they like, so they are not for the usual log.
        tracing::debug!(%peer, status = refusal.status().as_u16(), "{refusal}");
        refusal.response().map(Either::Right)
    }))
}

/// Where a request goes.
struct Destination {
    service: Name,
    port: Port,
    candidates: Candidates,
}

/// How sending on one connection went.
enum Attempt {
    Answered(Response<Incoming>),
    /// Nobody has read it, or it may be read twice.
    Unread(Request<Watched>),
}

async fn forward(
    desk: &Desk,
    peer: SocketAddr,
    slot: &Slot,
    mut request: Request<Incoming>,
) -> Result<Response<ResponseBody>, Refusal> {
    let host = host_of(&request)?;
    let target = target_of(&request)?;
    let mut destination = decide(desk, &host, target.path())?;

    // HTTP/1.0 cannot change protocols.
    let wanted = upgrade(request.headers()).filter(|_| request.version() == Version::HTTP_11);
    let client = wanted.is_some().then(|| on(&mut request));
    let (mut head, body) = request.into_parts();
    head.uri = Uri::from(target);
    head.version = Version::HTTP_11;
    head.extensions = http::Extensions::new();
    forward_headers(&mut head.headers, wanted);
    set_forwarded(&mut head.headers, peer.ip(), &host);
    let request = Request::from_parts(head, Watched::new(body, desk.limits.body_idle));

    let mut response = destination.send(desk, request).await?;
    let switched = match response.status() {
        StatusCode::SWITCHING_PROTOCOLS => {
            let client = client.ok_or_else(|| destination.switched())?;
            tunnel(desk, slot.clone(), client, on(&mut response));
            upgrade(response.headers())
        }
        _ => None,
    };
    let (mut head, body) = response.into_parts();
    head.version = Version::HTTP_11;
    head.extensions = http::Extensions::new();
    forward_headers(&mut head.headers, switched);
    Ok(Response::from_parts(head, Either::Left(Watched::new(body, desk.limits.backend_idle))))
}

/// The host asked for. A target with a host in it counts more than the header (RFC 9112, section 3.2.2).
fn host_of(request: &Request<Incoming>) -> Result<HeaderValue, Refusal> {
    let mut headers = request.headers().get_all(HOST).iter();
    let header = match (headers.next(), headers.next()) {
        (Some(header), None) => Some(header.clone()),
        (None, _) => None,
        (Some(_), Some(_)) => return Err(Refusal::Host),
    };
    match request.uri().authority() {
        // Name and password, which the form allows, are not part of a host.
        Some(authority) if authority.as_str().contains('@') => Err(Refusal::Host),
        Some(authority) => HeaderValue::from_str(authority.as_str()).map_err(|_| Refusal::Host),
        None => header.filter(|header| header.to_str().is_ok()).ok_or(Refusal::Host),
    }
}

/// The target as backends want it: path and query.
fn target_of(request: &Request<Incoming>) -> Result<PathAndQuery, Refusal> {
    if request.method() == Method::CONNECT {
        return Err(Refusal::Connect);
    }
    let target = request.uri().path_and_query().ok_or(Refusal::Target)?;
    if !target.path().starts_with('/') {
        return Err(Refusal::Target);
    }
    Ok(target.clone())
}

fn decide(desk: &Desk, host: &HeaderValue, path: &str) -> Result<Destination, Refusal> {
    let host = host.to_str().unwrap_or_default();
    let table = desk.routing.table.load();
    let route = match table.route(host, path) {
        Decision::To(route) => route,
        Decision::NoHost => return Err(Refusal::NoHost { host: host.into() }),
        Decision::NoPath => {
            return Err(Refusal::NoPath { host: host.into(), path: path.into() });
        }
    };
    let ingress = || route.ingress.clone();
    match &route.target {
        Target::Unsupported(what) => Err(Refusal::Unsupported { ingress: ingress(), what: what.clone() }),
        Target::Service { service, port } => {
            let (service, port) = (service.clone(), port.clone());
            match desk.routing.upstreams.candidates(&service, &port) {
                Ok(candidates) => Ok(Destination { service, port, candidates }),
                Err(why) => Err(Refusal::Unavailable { ingress: ingress(), service, port, why }),
            }
        }
    }
}

// === impl Destination ===

impl Destination {
    /// Sends the request to the first endpoint that takes it. Only a request no endpoint has begun to read goes to
    /// another one, or one that has no body and may be repeated, on a kept connection its endpoint just closed.
    async fn send(
        &mut self,
        desk: &Desk,
        mut request: Request<Watched>,
    ) -> Result<Response<Incoming>, Refusal> {
        let mut refusal = self.unreachable();
        for _ in 0..desk.limits.endpoints_tried_max {
            let Some(address) = self.candidates.next() else { break };
            if let Some(kept) = desk.pool.take(address) {
                match self.attempt(desk, address, kept, request).await? {
                    Attempt::Answered(response) => return Ok(response),
                    Attempt::Unread(again) => request = again,
                }
            }
            let connection = match desk.pool.connect(address).await {
                Ok(connection) => connection,
                Err(error) => {
                    tracing::debug!(%address, service = %self.service, "an endpoint cannot be reached: {error}");
                    if matches!(error, ConnectError::Timeout { .. }) {
                        refusal = self.silent();
                    }
                    continue;
                }
            };
            match self.attempt(desk, address, connection, request).await? {
                Attempt::Answered(response) => return Ok(response),
                Attempt::Unread(again) => request = again,
            }
            refusal = self.broken();
        }
        Err(refusal)
    }

    /// Sends the request on one connection.
    async fn attempt(
        &self,
        desk: &Desk,
        address: SocketAddr,
        mut connection: Connection,
        request: Request<Watched>,
    ) -> Result<Attempt, Refusal> {
        let progress = request.body().progress();
        let copy = connection.is_reused.then(|| repeatable(&request)).flatten();
        let sent = connection.sender.try_send_request(request);
        let Some(sent) = progress.wait(desk.limits.backend_idle, sent).await else {
            return Err(self.silent());
        };
        let mut error = match sent {
            Ok(response) => {
                if response.status() != StatusCode::SWITCHING_PROTOCOLS {
                    desk.pool.put_back(address, connection.sender);
                }
                return Ok(Attempt::Answered(response));
            }
            Err(error) => error,
        };
        if progress.is_stalled() {
            return Err(Refusal::SlowClient);
        }
        if let Some(unread) = error.take_message().or(copy) {
            return Ok(Attempt::Unread(unread));
        }
        tracing::debug!(%address, service = %self.service, "an endpoint broke off: {}", error.error());
        Err(self.broken())
    }

    fn unreachable(&self) -> Refusal {
        Refusal::Unreachable { service: self.service.clone(), port: self.port.clone() }
    }

    fn silent(&self) -> Refusal {
        Refusal::Silent { service: self.service.clone(), port: self.port.clone() }
    }

    fn broken(&self) -> Refusal {
        Refusal::Broken { service: self.service.clone(), port: self.port.clone() }
    }

    fn switched(&self) -> Refusal {
        Refusal::Switched { service: self.service.clone(), port: self.port.clone() }
    }
}

/// A copy of a request that may be sent twice: its method is safe and there is no body.
fn repeatable(request: &Request<Watched>) -> Option<Request<Watched>> {
    let is_safe = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    if !is_safe || !request.body().is_end_stream() {
        return None;
    }
    let mut copy = Request::new(Watched::empty());
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    Some(copy)
}

/// Copies both ways once both sides have changed protocols. It keeps the connection's slot until it ends.
fn tunnel(desk: &Desk, slot: Slot, client: OnUpgrade, backend: OnUpgrade) {
    let cut = desk.cut.clone();
    desk.tunnels.spawn(async move {
        let copying = async {
            let (Ok(client), Ok(backend)) = tokio::join!(client, backend) else {
                return;
            };
            let (mut client, mut backend) = (TokioIo::new(client), TokioIo::new(backend));
            let _ = tokio::io::copy_bidirectional(&mut client, &mut backend).await;
        };
        cut.run_until_cancelled(copying).await;
        drop(slot);
    });
}
