//! The one chain every request passes: authentication → flow control → authorisation → route → registry.
//!
//! Read it top to bottom: nothing happens to a request that is not a line of [`pass`].

use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::Body;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, header};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::negotiate::{self, Encoding};
use super::query::Query;
use super::request_info::RequestInfo;
use super::{Admission, Inner, audited, deadline, health, resource, respond};
use crate::aggregation::{self, remote::Remote};
use crate::audit::Trail;
use crate::authn::certificate::Peer;
use crate::authn::{self, impersonation};
use crate::authz::Attributes;
use crate::client::InProcess;
use crate::error::ApiError;
use crate::flow_control::dump::{self, Table};
use crate::flow_control::{Asking, Classified, Seat};
use crate::registry::User;
use crate::registry::context::Annotations;
use crate::{discovery, openapi};

/// The headers that say what a request fell under, by uid: names are the administrators'.
const SCHEMA_UID: HeaderName = HeaderName::from_static("x-kubernetes-pf-flowschema-uid");
const LEVEL_UID: HeaderName = HeaderName::from_static("x-kubernetes-pf-prioritylevel-uid");

/// A request that may go on for as long as its client likes: marks its response.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LongRunning;

/// A request with everything the chain found out about it. Its body travels beside it.
pub(crate) struct Call {
    pub user: User,
    pub info: Arc<RequestInfo>,
    pub query: Query,
    pub parts: Parts,
    /// For the audit, from whoever works on the request.
    pub annotations: Annotations,
}

/// Answers a request; failures become a Status in the client's encoding.
pub(crate) async fn answer(inner: &Arc<Inner>, request: Request<Body>) -> Response<Body> {
    let started = Instant::now();
    let query = Query::parse(request.uri().query().unwrap_or_default());
    let info = Arc::new(RequestInfo::parse(request.method(), request.uri().path(), &query));
    let encoding = failure_encoding(request.headers(), &query);
    let long_running = info.is_long_running();
    let observed = inner.metrics.begin(&info);
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let id = audited::id_of(request.headers());
    let mut notes = Notes::default();
    let time = if long_running { Ok(deadline::REQUEST_TIMEOUT) } else { deadline::of(&query) };
    let answered = match time {
        Err(error) => Err(error),
        Ok(time) => {
            let wait_until = started + deadline::waiting_part(time);
            let work = pass(inner, info, query, request, &id, wait_until, &mut notes);
            if long_running {
                work.await
            } else {
                tokio::time::timeout(time, work).await.unwrap_or_else(|_| {
                    Err(ApiError::timeout(
                        "Timeout: request did not complete within the allotted timeout, but may still be processing the request",
                    ))
                })
            }
        }
    };
    let Notes { trail, classified } = notes;
    let mut failure = None;
    let mut response = answered.unwrap_or_else(|error| {
        if error.code >= 500 {
            tracing::warn!(code = error.code, %method, path, %error, "request failed");
        }
        failure = trail.is_some().then(|| error.status());
        respond::failure(inner.registry.schema(), &error, encoding)
    });
    if let Some(trail) = trail {
        let read = |headers: &HeaderMap, bytes: &[u8]| audited::object(inner, headers, bytes);
        response = trail.finish(response, failure, long_running, read).await;
    }
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert("audit-id", id);
    }
    if let Some(classified) = classified {
        for (name, uid) in [(SCHEMA_UID, classified.schema_uid), (LEVEL_UID, classified.level_uid)] {
            response.headers_mut().extend(HeaderValue::try_from(uid).ok().map(|uid| (name, uid)));
        }
    }
    if long_running {
        response.extensions_mut().insert(LongRunning);
    }
    inner.metrics.end(observed, response.status().as_u16(), started.elapsed());
    response
}

/// What is found out on the way and outlives a failure.
#[derive(Default)]
struct Notes {
    trail: Option<Trail>,
    classified: Option<Classified>,
}

async fn pass(
    inner: &Arc<Inner>,
    info: Arc<RequestInfo>,
    query: Query,
    request: Request<Body>,
    id: &str,
    wait_until: Instant,
    notes: &mut Notes,
) -> Result<Response<Body>, ApiError> {
    let Notes { trail, classified } = notes;
    let (mut parts, mut body) = request.into_parts();
    let annotations = Annotations::default();
    let caller = authenticate(inner, &parts).await;
    let user = match &caller {
        Ok(caller) => impersonation::acting_user(caller.clone(), &parts.headers, &inner.authorizer).await,
        Err(_) => Ok(User::default()),
    };
    if let Some(audit) = &inner.audit {
        let caller = caller.as_ref().cloned().unwrap_or_default();
        let acting = user.as_ref().ok().filter(|user| **user != caller).cloned();
        let asked = audited::asked(id, &info, caller, acting, &parts);
        *trail = audit.begin(asked, annotations.clone()).await;
    }
    caller?;
    let user = user?;
    authn::strip_credentials(&mut parts.headers);
    // Given back when the response's head is ready: what a watch takes then is bounded otherwise.
    let _room = admit(inner, &user, &info, &query, wait_until, classified).await?;
    authorize(inner, &user, &info, &annotations).await?;
    if let Some(trail) = trail {
        body = audited::with_request(inner, trail, &info, &parts.headers, body).await?;
    }
    let call = Call { user, info, query, parts, annotations };
    if let Some(remote) = remote(inner, &call.info) {
        return aggregation::forward::serve(&inner.aggregation, call, body, &remote).await;
    }
    if call.info.is_resource {
        resource::serve(inner, call, body).await
    } else {
        serve_path(inner, &call).await
    }
}

/// Room for a request to be worked on in.
#[expect(dead_code, reason = "held, not read")]
enum Room {
    Seat(Seat),
    Permit(Option<OwnedSemaphorePermit>),
}

/// Waits for room. Logs, exec and the like need none: they take little, and for as long as their clients want.
async fn admit(
    inner: &Inner,
    user: &User,
    info: &Arc<RequestInfo>,
    query: &Query,
    wait_until: Instant,
    classified: &mut Option<Classified>,
) -> Result<Option<Room>, ApiError> {
    let is_watch = info.verb == "watch";
    if info.is_long_running() && !is_watch {
        return Ok(None);
    }
    match &inner.admission {
        Admission::Fair(control) => {
            let admitted = control.admit(Asking { user, info, query }, wait_until, classified).await;
            let seat = admitted.map_err(|refused| ApiError::overloaded(refused.retry_after_seconds))?;
            Ok(Some(Room::Seat(seat)))
        }
        Admission::Plain(_) if is_watch => Ok(None),
        Admission::Plain(limit) => Ok(Some(Room::Permit(limit.enter(user, info)?))),
    }
}

async fn authorize(
    inner: &Inner,
    user: &User,
    info: &RequestInfo,
    annotations: &Annotations,
) -> Result<(), ApiError> {
    let decided = inner.authorizer.authorize(user, &Attributes::of(info)).await;
    let word = if decided.is_ok() { "allow" } else { "forbid" };
    if inner.audit.is_some() {
        annotations.lock().insert("authorization.k8s.io/decision".to_owned(), word.to_owned());
    }
    decided
}

/// The extension server a request is for: one on its resources, or on what there is of them.
fn remote(inner: &Inner, info: &RequestInfo) -> Option<Arc<Remote>> {
    if info.is_resource {
        return inner.aggregation.remote(&info.group, &info.version);
    }
    match info.path.trim_matches('/').split('/').collect::<Vec<_>>()[..] {
        ["apis", group, version] => inner.aggregation.remote(group, version),
        _ => None,
    }
}

async fn authenticate(inner: &Inner, parts: &Parts) -> Result<User, ApiError> {
    if let Some(InProcess { user }) = parts.extensions.get() {
        return Ok(authn::authenticated(user.clone()));
    }
    let peer = parts.extensions.get::<Peer>().cloned().unwrap_or_default();
    inner.authenticator.authenticate(&peer, &parts.headers, parts.uri.path()).await
}

/// Everything that is not an API resource.
async fn serve_path(inner: &Arc<Inner>, call: &Call) -> Result<Response<Body>, ApiError> {
    if !matches!(call.parts.method, Method::GET | Method::HEAD) {
        return Err(ApiError::new(
            405,
            "MethodNotAllowed",
            "the server does not allow this method on the requested resource",
        ));
    }
    let headers = &call.parts.headers;
    let parts: Vec<&str> = call.info.path.trim_matches('/').split('/').collect();
    match parts.as_slice() {
        [""] => Ok(respond::json(&discovery::root(&inner.discovery))),
        ["version"] => Ok(respond::json(&health::version())),
        [probe @ ("healthz" | "livez" | "readyz"), check @ ..] => {
            Ok(health::answer(inner, probe, &check.join("/"), &call.query).await)
        }
        ["metrics"] => Ok(inner.metrics.respond()),
        ["debug", "api_priority_and_fairness", name] => {
            let details = call.query.text("includeRequestDetails").is_some();
            match (&inner.admission, Table::of(name, details)) {
                (Admission::Fair(control), Some(table)) => {
                    Ok(respond::text(200, dump::write(control, table)))
                }
                _ => Err(ApiError::no_such_path()),
            }
        }
        ["api" | "apis", ..] => discovery::answer(inner, headers, &call.query, &parts),
        ["openapi", rest @ ..] => openapi::answer(inner, headers, &call.query, rest),
        [".well-known", "openid-configuration"] => {
            let address = inner.config.advertise_address;
            let base = match inner.config.service_account_issuer.strip_suffix('/') {
                Some(issuer) => issuer.to_owned(),
                None if inner.config.service_account_issuer.starts_with("https://") => {
                    inner.config.service_account_issuer.clone()
                }
                None => format!("https://{}", SocketAddr::new(address, inner.config.listen.port())),
            };
            Ok(respond::json(&inner.issuer.configuration(&base)))
        }
        ["openid", "v1", "jwks"] => {
            let keys = inner.issuer.key_set().to_string();
            Ok(respond::bytes(200, "application/jwk-set+json", keys.into(), false))
        }
        _ => Err(ApiError::no_such_path()),
    }
}

/// The encoding of failures: what was asked for if it is understood at all, else JSON.
fn failure_encoding(headers: &HeaderMap, query: &Query) -> Encoding {
    let accept = accept(headers);
    negotiate::negotiate(accept, query.flag("pretty")).map_or(Encoding::Json, |n| n.encoding)
}

/// The Accept header, when it is text.
pub(crate) fn accept(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::ACCEPT).and_then(|v| v.to_str().ok())
}

/// Whether the client takes gzip.
pub(crate) fn takes_gzip(headers: &HeaderMap) -> bool {
    negotiate::accepts_gzip(headers.get(header::ACCEPT_ENCODING).and_then(|v| v.to_str().ok()))
}
