//! Requests that are not answered by a backend, and what their clients are told.
//!
//! It exists so that every refusal has one status and one sentence that names what was wrong. Addresses of endpoints
//! stay in the log: they are nobody's business outside. It must not know how the refusal came about.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use http::{Response, StatusCode};
use http_body_util::Full;

use crate::spec::{Name, Port};
use crate::upstream::Unavailable;

/// Why a request is refused. Service and Ingress are the route's.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    #[error("the request names no host, or several")]
    Host,
    #[error("the request's target is not a path")]
    Target,
    #[error("CONNECT is not for this server")]
    Connect,
    #[error("no Ingress names host {host:?}")]
    NoHost { host: String },
    #[error("no Ingress has a path of host {host:?} that matches {path:?}")]
    NoPath { host: String, path: String },
    #[error("Ingress {ingress} leads to {what}, which is not a Service")]
    Unsupported { ingress: Name, what: String },
    #[error("Service {service}, which Ingress {ingress} names, {}", reason(*why, port))]
    Unavailable { ingress: Name, service: Name, port: Port, why: Unavailable },
    #[error("no endpoint of Service {service} port {port} can be reached")]
    Unreachable { service: Name, port: Port },
    #[error("an endpoint of Service {service} port {port} broke off before it answered")]
    Broken { service: Name, port: Port },
    #[error("an endpoint of Service {service} port {port} changed to a protocol nobody asked for")]
    Switched { service: Name, port: Port },
    #[error("no endpoint of Service {service} port {port} answered in time")]
    Silent { service: Name, port: Port },
    #[error("the request's body did not come in time")]
    SlowClient,
}

fn reason(why: Unavailable, port: &Port) -> String {
    match why {
        Unavailable::NoService => "is not there".into(),
        Unavailable::NoPort => format!("has no TCP port {port}"),
        Unavailable::NoEndpoint => format!("has no ready endpoint for port {port}"),
    }
}

// === impl Refusal ===

impl Refusal {
    /// 503 where no backend has seen the request, so that it is safe to send it again; 502 and 504 where one may
    /// have.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Host | Self::Target => StatusCode::BAD_REQUEST,
            Self::Connect => StatusCode::METHOD_NOT_ALLOWED,
            Self::NoHost { .. } | Self::NoPath { .. } => StatusCode::NOT_FOUND,
            Self::Unsupported { .. } | Self::Unavailable { .. } | Self::Unreachable { .. } => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::Broken { .. } | Self::Switched { .. } => StatusCode::BAD_GATEWAY,
            Self::Silent { .. } => StatusCode::GATEWAY_TIMEOUT,
            Self::SlowClient => StatusCode::REQUEST_TIMEOUT,
        }
    }

    /// The response.
    pub fn response(&self) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::from(format!("{self}\n")));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        // The text repeats what the client sent.
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        response
    }
}
