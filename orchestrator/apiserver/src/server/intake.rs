//! Request bodies: read whole, within the limit.

use std::error::Error;

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};

use super::negotiate::{self, BodyFormat};
use crate::error::ApiError;
use crate::registry;

/// The largest body accepted (upstream's limit).
pub const BODY_BYTES_MAX: usize = 3 * 1024 * 1024;

/// Reads a body, or says 413.
pub async fn read(body: Body) -> Result<Bytes, ApiError> {
    match Limited::new(body, BODY_BYTES_MAX).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if is_too_large(error.as_ref()) => {
            Err(ApiError::request_too_large(format!("Request entity too large: limit is {BODY_BYTES_MAX}")))
        }
        Err(error) => Err(ApiError::bad_request(format!("the request body could not be read: {error}"))),
    }
}

/// Reads an object in one of the three encodings.
pub async fn read_object(headers: &HeaderMap, body: Body) -> Result<registry::Body, ApiError> {
    let format = negotiate::body_format(content_type(headers)).ok_or_else(unsupported)?;
    let bytes = read(body).await?;
    Ok(match format {
        BodyFormat::Json => registry::Body::Json(bytes),
        BodyFormat::Yaml => registry::Body::Yaml(bytes),
        BodyFormat::Protobuf => registry::Body::Protobuf(bytes),
    })
}

/// The Content-Type header, when it is text.
pub fn content_type(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok())
}

fn unsupported() -> ApiError {
    ApiError::unsupported_media_type(format!(
        "the body of the request was in an unknown format - accepted media types include: {}, {}, {}",
        negotiate::JSON,
        negotiate::YAML,
        negotiate::PROTOBUF
    ))
}

fn is_too_large(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(e) = cause {
        if e.is::<LengthLimitError>() {
            return true;
        }
        cause = e.source();
    }
    false
}
