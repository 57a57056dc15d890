//! Proxies: requests the API server passes on to kubelets, pods and services.
//!
//! [`kubelet`] finds and dials the kubelet of a node, [`location`] turns a subresource into a path there, [`reverse`]
//! reaches pods and services, and [`relay`] moves one request and its answer, upgrades included, without looking
//! inside: SPDY and WebSocket are the same to it.

mod admission;
pub mod dial;
pub mod kubelet;
pub mod links;
pub mod location;
pub mod relay;
pub mod reverse;

use std::sync::Arc;

use axum::body::Body;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::{BodyExt, Limited};

use crate::error::ApiError;
use crate::registry::{CachedObject, Context, Definition, Registry, Target};
use crate::server::chain::Call;
use crate::server::config::ServerConfig;
use crate::server::{Inner, ServerError, websocket};
use dial::Dialer;

/// A subresource that is passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Log,
    Exec,
    Attach,
    PortForward,
    NodeProxy,
    PodProxy,
    ServiceProxy,
}

/// What all proxies share.
pub struct Proxies {
    registry: Arc<Registry>,
    dialer: Dialer,
}

/// The longest error text taken over from a kubelet.
const ERROR_BYTES_MAX: usize = 16 * 1024;

// === impl Proxies ===

impl Proxies {
    pub fn new(registry: Arc<Registry>, config: &ServerConfig) -> Result<Self, ServerError> {
        Ok(Self { registry, dialer: Dialer::new(config)? })
    }

    /// One core object.
    pub(crate) async fn find(
        &self,
        plural: &str,
        namespace: Option<&str>,
        name: &str,
    ) -> Result<Arc<CachedObject>, ApiError> {
        let definition = self.registry.find("", "v1", plural).ok_or_else(ApiError::no_such_path)?;
        self.registry.get(&Context::system(), &definition, &Target::named(namespace, name)).await
    }

    pub(crate) fn registry(&self) -> &Registry {
        &self.registry
    }

    pub(crate) fn dialer(&self) -> &Dialer {
        &self.dialer
    }
}

/// The proxy a subresource of a kind is, if it is one.
pub fn kind_of(definition: &Definition, subresource: &str) -> Option<Kind> {
    if !definition.group.is_empty() {
        return None;
    }
    match (&*definition.plural, subresource) {
        ("pods", "log") => Some(Kind::Log),
        ("pods", "exec") => Some(Kind::Exec),
        ("pods", "attach") => Some(Kind::Attach),
        ("pods", "portforward") => Some(Kind::PortForward),
        ("nodes", "proxy") => Some(Kind::NodeProxy),
        ("pods", "proxy") => Some(Kind::PodProxy),
        ("services", "proxy") => Some(Kind::ServiceProxy),
        _ => None,
    }
}

/// Passes a request on and relays the answer.
pub(crate) async fn serve(
    inner: &Arc<Inner>,
    call: Call,
    body: Body,
    definition: &Definition,
    kind: Kind,
) -> Result<Response<Body>, ApiError> {
    let proxies = &inner.proxies;
    admission::admit(proxies.registry(), definition, &call, kind).await?;
    match kind {
        Kind::NodeProxy => {
            let (node, port) = call
                .info
                .name
                .split_once(':')
                .map_or((call.info.name.as_str(), None), |(n, p)| (n, p.parse().ok()));
            let mut endpoint = kubelet::endpoint(proxies, node).await?;
            endpoint.port = port.unwrap_or(endpoint.port);
            let path = location::with_query(&format!("/{}", call.info.remainder), call.parts.uri.query());
            relay::forward(proxies.dialer(), &endpoint, call.parts, body, &path).await
        }
        Kind::PodProxy | Kind::ServiceProxy => reverse::serve(proxies, call, body, kind).await,
        Kind::Log => {
            let pod = proxies.find("pods", Some(&call.info.namespace), &call.info.name).await?.value();
            let Some(node) = location::node_of(&pod) else {
                let mut empty = Response::new(Body::empty());
                *empty.status_mut() = StatusCode::NO_CONTENT;
                return Ok(empty);
            };
            let path = location::log(&pod, &call.query)?;
            let endpoint = kubelet::endpoint(proxies, node).await?;
            let upgrade = match websocket::is_asked(&call.parts.headers) {
                true => Some(websocket::Upgrade::accept(&call.parts).await?),
                false => None,
            };
            let parts = if upgrade.is_some() { websocket::without(call.parts) } else { call.parts };
            let answer = relay::forward(proxies.dialer(), &endpoint, parts, body, &path).await?;
            let answer = checked_log(answer).await?;
            Ok(match upgrade {
                Some(upgrade) => upgrade.bytes(answer.into_body().into_data_stream()),
                None => answer,
            })
        }
        Kind::Exec | Kind::Attach | Kind::PortForward => {
            if !relay::is_upgrade(&call.parts.headers) {
                return Err(ApiError::bad_request("Upgrade request required"));
            }
            let pod = proxies.find("pods", Some(&call.info.namespace), &call.info.name).await?.value();
            let Some(node) = location::node_of(&pod) else {
                return Err(ApiError::bad_request(format!(
                    "pod {} does not have a host assigned",
                    call.info.name
                )));
            };
            let path = match kind {
                Kind::Exec => location::exec(&pod, &call.query)?,
                Kind::Attach => location::attach(&pod, &call.query)?,
                _ => location::port_forward(&pod, &call.query),
            };
            let endpoint = kubelet::endpoint(proxies, node).await?;
            relay::forward(proxies.dialer(), &endpoint, call.parts, body, &path).await
        }
    }
}

/// Logs as plain text; what the kubelet refuses becomes a Status with its words.
async fn checked_log(answer: Response<Body>) -> Result<Response<Body>, ApiError> {
    if answer.status().is_success() {
        let mut answer = answer;
        answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        return Ok(answer);
    }
    let code = answer.status().as_u16();
    let text = match Limited::new(answer.into_body(), ERROR_BYTES_MAX).collect().await {
        Ok(body) => String::from_utf8_lossy(&body.to_bytes()).trim().to_owned(),
        Err(_) => String::new(),
    };
    Err(match code {
        400 => ApiError::bad_request(text),
        404 => ApiError::new(404, "NotFound", text),
        403 => ApiError::new(403, "Forbidden", text),
        _ => ApiError::internal(text),
    })
}
