//! What the audit is told of a request: who asks from where, and the objects in bodies of any encoding.

use axum::body::Body;
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, header};
use jiff::Timestamp;
use penstock_schema::{protobuf, yaml};
use serde_json::Value;

use super::listener::ClientAddress;
use super::negotiate::{self, BodyFormat};
use super::request_info::RequestInfo;
use super::{Inner, intake};
use crate::audit::Trail;
use crate::audit::event::Asked;
use crate::error::ApiError;
use crate::registry::User;

/// Longer ones are not taken over from clients.
const ID_BYTES_MAX: usize = 64;
const ID: &str = "audit-id";

/// The client's own name for the request, or a new one.
pub fn id_of(headers: &HeaderMap) -> String {
    let given = headers.get(ID).and_then(|id| id.to_str().ok()).filter(|id| !id.is_empty());
    match given.filter(|id| id.len() <= ID_BYTES_MAX) {
        Some(id) => id.to_owned(),
        None => uuid::Uuid::new_v4().to_string(),
    }
}

pub fn asked(id: &str, info: &RequestInfo, user: User, impersonated: Option<User>, parts: &Parts) -> Asked {
    let text = |name: header::HeaderName| {
        parts.headers.get(name).and_then(|it| it.to_str().ok()).unwrap_or_default()
    };
    // Proxies on the way say whom they speak for; who called us comes last.
    let forwarded = parts.headers.get("x-forwarded-for").and_then(|it| it.to_str().ok()).unwrap_or_default();
    let forwarded = forwarded.split(',').map(str::trim).filter(|ip| ip.parse::<std::net::IpAddr>().is_ok());
    let mut source_ips: Vec<String> = forwarded.map(str::to_owned).collect();
    if let Some(ClientAddress(ip)) = parts.extensions.get() {
        let ip = ip.to_canonical().to_string();
        if !source_ips.contains(&ip) {
            source_ips.push(ip);
        }
    }
    Asked {
        id: id.to_owned(),
        uri: parts.uri.path_and_query().map(ToString::to_string).unwrap_or_default(),
        info: info.clone(),
        user,
        impersonated,
        source_ips,
        user_agent: text(header::USER_AGENT).to_owned(),
        received: Timestamp::now(),
    }
}

/// Keeps what is sent with a write for the trail, if it wants it; the body goes on as it came.
pub async fn with_request(
    inner: &Inner,
    trail: &mut Trail,
    info: &RequestInfo,
    headers: &HeaderMap,
    body: Body,
) -> Result<Body, ApiError> {
    let sends = matches!(&*info.verb, "create" | "update" | "patch" | "delete" | "deletecollection");
    if !trail.wants_request() || !info.is_resource || !sends || info.is_long_running() {
        return Ok(body);
    }
    let bytes: Bytes = intake::read(body).await?;
    trail.set_request(object(inner, headers, &bytes));
    Ok(Body::from(bytes))
}

/// The object in a body, whatever it is encoded in; `None` where there is none.
pub fn object(inner: &Inner, headers: &HeaderMap, bytes: &[u8]) -> Option<Value> {
    if bytes.is_empty() || headers.contains_key(header::CONTENT_ENCODING) {
        return None;
    }
    let content_type = intake::content_type(headers);
    match negotiate::body_format(content_type) {
        Some(BodyFormat::Protobuf) => {
            let envelope = protobuf::open_envelope(bytes).ok()?;
            let (group, version) =
                envelope.api_version.split_once('/').unwrap_or(("", &envelope.api_version));
            let ty = inner.registry.type_of(group, version, &envelope.kind)?;
            protobuf::decode(&ty, &envelope.raw).ok()
        }
        Some(BodyFormat::Yaml) => yaml::decode_untyped(bytes).ok(),
        // Patches have types of their own, and are JSON, or YAML for an apply.
        _ => serde_json::from_slice(bytes).ok().or_else(|| yaml::decode_untyped(bytes).ok()),
    }
}
