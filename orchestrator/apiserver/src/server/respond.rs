//! Responses: one object, one status, one document, in the representation the client negotiated.
//!
//! Lists and watches have their own files because they stream. Must not know verbs.

use std::io::Write;
use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use penstock_schema::Schema;
use serde_json::Value;

use super::negotiate::{self, Encoding};
use crate::error::ApiError;
use crate::registry::CachedObject;

/// Bodies below this are never compressed (upstream's threshold).
pub const GZIP_BYTES_MIN: usize = 128 * 1024;

/// A whole body with its type. Compressed when large and `gzip` is wanted.
pub fn bytes(code: u16, content_type: &str, body: Bytes, gzip: bool) -> Response<Body> {
    let compressed = (gzip && body.len() >= GZIP_BYTES_MIN).then(|| compress(&body)).flatten();
    let is_compressed = compressed.is_some();
    let mut response = Response::new(Body::from(compressed.unwrap_or(body)));
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::from_str(content_type) {
        headers.insert(header::CONTENT_TYPE, value);
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    if is_compressed {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        headers.insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    }
    response
}

/// Plain text, as health checks and version answer.
pub fn text(code: u16, body: impl Into<String>) -> Response<Body> {
    let mut response = bytes(code, "text/plain; charset=utf-8", Bytes::from(body.into()), false);
    response.headers_mut().insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    response
}

/// A JSON document that is no API object.
pub fn json(value: &Value) -> Response<Body> {
    bytes(200, negotiate::JSON, Bytes::from(value.to_string()), false)
}

/// A stored object, from its shared bytes.
pub fn object(
    code: u16,
    object: &Arc<CachedObject>,
    encoding: Encoding,
    gzip: bool,
) -> Result<Response<Body>, ApiError> {
    let body = match encoding {
        Encoding::Json => object.json().clone(),
        Encoding::Protobuf => object.protobuf_sealed()?,
        Encoding::PrettyJson | Encoding::Yaml => lay_out_text(&object.value(), encoding)?,
    };
    Ok(bytes(code, encoding.content_type(), body, gzip))
}

/// An API object made on the spot. Protobuf when the schema knows its kind, else 406.
pub fn value(
    code: u16,
    schema: &Arc<Schema>,
    value: &Value,
    encoding: Encoding,
    gzip: bool,
) -> Result<Response<Body>, ApiError> {
    Ok(bytes(code, encoding.content_type(), lay_out(schema, value, encoding)?, gzip))
}

/// A failure. The client gets it in its own encoding if that is possible, in JSON otherwise.
pub fn failure(schema: &Arc<Schema>, error: &ApiError, encoding: Encoding) -> Response<Body> {
    let status = error.status();
    let mut response = value(error.code, schema, &status, encoding, false)
        .unwrap_or_else(|_| bytes(error.code, negotiate::JSON, Bytes::from(status.to_string()), false));
    if let Some(seconds) = error.retry_after_seconds {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    if error.code == 401 {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

/// An object that carries `apiVersion` and `kind`, in an encoding.
pub fn lay_out(schema: &Arc<Schema>, value: &Value, encoding: Encoding) -> Result<Bytes, ApiError> {
    match encoding {
        Encoding::Json => Ok(Bytes::from(value.to_string())),
        Encoding::Yaml | Encoding::PrettyJson => lay_out_text(value, encoding),
        Encoding::Protobuf => {
            let text = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default();
            let (api_version, kind) = (text("apiVersion"), text("kind"));
            let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
            let missing = || not_acceptable();
            let ty = schema.kind(group, version, kind).ok_or_else(missing)?;
            let raw = penstock_schema::protobuf::encode(&ty, value).map_err(|_| missing())?;
            Ok(Bytes::from(penstock_schema::protobuf::seal_envelope(api_version, kind, &raw)))
        }
    }
}

/// The 406 of an `Accept` header nothing satisfies.
pub fn not_acceptable() -> ApiError {
    ApiError::not_acceptable(format!(
        "only the following media types are accepted: {}, {}, {}",
        negotiate::JSON,
        negotiate::YAML,
        negotiate::PROTOBUF
    ))
}

/// Adds `Warning: 299` headers.
pub fn add_warnings(headers: &mut HeaderMap, warnings: &[String]) {
    for warning in warnings {
        let quoted: String = warning
            .chars()
            .filter(|c| !c.is_control())
            .flat_map(|c| if matches!(c, '"' | '\\') { vec!['\\', c] } else { vec![c] })
            .collect();
        if let Ok(value) = HeaderValue::from_bytes(format!("299 - \"{quoted}\"").as_bytes()) {
            headers.append(header::WARNING, value);
        }
    }
}

fn lay_out_text(value: &Value, encoding: Encoding) -> Result<Bytes, ApiError> {
    let text = if encoding == Encoding::Yaml {
        penstock_schema::yaml::encode(value).map_err(ApiError::internal)?
    } else {
        serde_json::to_string_pretty(value).map_err(ApiError::internal)?
    };
    Ok(Bytes::from(text))
}

fn compress(body: &[u8]) -> Option<Bytes> {
    // Level 1, as upstream: the network is rarely slower than a better ratio is worth.
    let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 4), Compression::fast());
    encoder.write_all(body).ok()?;
    encoder.finish().ok().map(Bytes::from)
}
