//! Watches: events from the registry as frames on a long response.
//!
//! JSON events are lines, protobuf events length-prefixed `WatchEvent` messages. A watch ends at its timeout, at
//! shutdown, or when the registry says the watcher fell behind; the client then starts another.

use std::sync::Arc;

use axum::body::Body;
use bytes::{BufMut, Bytes, BytesMut};
use futures::StreamExt;
use http::{HeaderValue, Response, header};
use penstock_schema::Schema;
use serde_json::{Value, json};
use tokio::sync::OwnedSemaphorePermit;

use super::chain::Call;
use super::list_body::put_field;
use super::negotiate::{Encoding, Shape};
use super::options::{list_options, watch_timeout};
use super::resource::Reply;
use super::{Inner, respond, transform, websocket};
use crate::client::InProcess;
use crate::error::ApiError;
use crate::registry::{CachedObject, Context, Definition, Target, WatchItem};
use crate::tables::IncludeObject;

/// Events that are ready together go out in one frame, up to this many.
const EVENTS_PER_FRAME_MAX: usize = 32;

/// When a client that found no room for its watch may try again.
const WATCH_AGAIN_SECONDS: u32 = 5;

/// Turns events into frames.
struct Framer {
    schema: Arc<Schema>,
    definition: Arc<Definition>,
    encoding: Encoding,
    shape: Shape,
    include: IncludeObject,
    /// A Table watch sends its columns once.
    columns_sent: bool,
}

/// Starts a watch.
pub(crate) async fn serve(
    inner: &Arc<Inner>,
    call: &Call,
    definition: &Arc<Definition>,
    target: &Target,
    reply: Reply,
) -> Result<Response<Body>, ApiError> {
    let encoding = match reply.negotiated.encoding {
        // There is no stream of YAML documents upstream either; lines of JSON are YAML.
        Encoding::Yaml | Encoding::PrettyJson => Encoding::Json,
        other => other,
    };
    let mut options = list_options(&call.query)?;
    let mut collection = target.clone();
    if let Some(name) = collection.name.take() {
        // Only the deprecated /watch/ prefix names an object in the path.
        options.field_selector = Some(format!("metadata.name={name}"));
    }
    let mut framer = Framer {
        schema: inner.registry.schema().clone(),
        definition: definition.clone(),
        encoding,
        shape: reply.negotiated.shape,
        include: transform::include_object(&call.query)?,
        columns_sent: false,
    };
    let room = room(inner, call)?;
    let context = Context::new(call.user.clone());
    let lasts = watch_timeout(options.timeout_seconds);
    let stopping = inner.stopping.clone();
    let end = async move {
        tokio::select! {
            () = tokio::time::sleep(lasts) => {}
            () = stopping.cancelled() => {}
        }
    };
    let upgrade = match websocket::is_asked(&call.parts.headers) {
        true => Some(websocket::Upgrade::accept(&call.parts).await?),
        false => None,
    };
    let events = inner.registry.watch(&context, definition, &collection, &options).await?;
    let at_once = if upgrade.is_some() { 1 } else { EVENTS_PER_FRAME_MAX };
    let frames = events.take_until(Box::pin(end)).ready_chunks(at_once).map(move |events| {
        let _room = &room;
        let mut frame = BytesMut::new();
        for event in events {
            framer.put(&mut frame, &event);
        }
        Ok::<_, std::convert::Infallible>(frame.freeze())
    });
    if let Some(upgrade) = upgrade {
        return Ok(upgrade.documents(frames, encoding != Encoding::Protobuf));
    }
    let mut response = Response::new(Body::from_stream(frames));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(encoding.stream_content_type()));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    Ok(response)
}

/// Room for one more watch, as long as it lasts. The server's own loops always have some.
fn room(inner: &Inner, call: &Call) -> Result<Option<OwnedSemaphorePermit>, ApiError> {
    if call.parts.extensions.get::<InProcess>().is_some() {
        return Ok(None);
    }
    inner.watches.clone().try_acquire_owned().map(Some).map_err(|_| {
        let max = inner.config.limits.watches_max;
        ApiError::too_many_requests(
            format!("this server already has {max} watches, its limit; close some or try again later"),
            WATCH_AGAIN_SECONDS,
        )
    })
}

// === impl Framer ===

impl Framer {
    fn put(&mut self, out: &mut BytesMut, event: &WatchItem) {
        let (kind, laid_out) = match event {
            WatchItem::Added(object) => ("ADDED", self.object(object)),
            WatchItem::Modified(object) => ("MODIFIED", self.object(object)),
            WatchItem::Deleted(object) => ("DELETED", self.object(object)),
            WatchItem::Bookmark(object) => ("BOOKMARK", self.object(object)),
            WatchItem::Error(error) => ("ERROR", self.error(error)),
        };
        match laid_out {
            Ok(object) => self.put_frame(out, kind, &object),
            Err(error) => {
                if let Ok(status) = self.error(&error) {
                    self.put_frame(out, "ERROR", &status);
                }
            }
        }
    }

    fn object(&mut self, object: &Arc<CachedObject>) -> Result<Bytes, ApiError> {
        match self.shape {
            Shape::Object if self.encoding == Encoding::Protobuf => object.protobuf_sealed(),
            Shape::Object => Ok(object.json().clone()),
            Shape::Partial | Shape::PartialList => {
                respond::lay_out(&self.schema, &transform::partial(object), self.encoding)
            }
            Shape::Table => {
                let meta = json!({"resourceVersion": object.resource_version.to_string()});
                let one = std::slice::from_ref(object);
                let table = transform::table(&self.definition, one, self.include, meta, !self.columns_sent);
                self.columns_sent = true;
                respond::lay_out(&self.schema, &without_empty_columns(table), self.encoding)
            }
        }
    }

    fn error(&self, error: &ApiError) -> Result<Bytes, ApiError> {
        respond::lay_out(&self.schema, &error.status(), self.encoding)
    }

    fn put_frame(&self, out: &mut BytesMut, kind: &str, object: &[u8]) {
        if self.encoding == Encoding::Protobuf {
            put_protobuf_frame(out, kind, object);
        } else {
            put_json_frame(out, kind, object);
        }
    }
}

/// Upstream sends `columnDefinitions: null` after the first event; clients keep the columns they have.
fn without_empty_columns(mut table: Value) -> Value {
    if table["columnDefinitions"].as_array().is_some_and(Vec::is_empty) {
        table["columnDefinitions"] = Value::Null;
    }
    table
}

fn put_json_frame(out: &mut BytesMut, kind: &str, object: &[u8]) {
    out.reserve(object.len() + 32);
    out.put_slice(b"{\"type\":\"");
    out.put_slice(kind.as_bytes());
    out.put_slice(b"\",\"object\":");
    out.put_slice(object);
    out.put_slice(b"}\n");
}

/// `WatchEvent{type=1, object=2: RawExtension{raw=1}}` after its length as four big-endian bytes.
fn put_protobuf_frame(out: &mut BytesMut, kind: &str, object: &[u8]) {
    let start = out.len();
    out.reserve(object.len() + 32);
    out.put_u32(0);
    put_field(out, 1, kind.as_bytes());
    let raw_length = super::list_body::field_length(object.len());
    out.put_u8(2 << 3 | 2);
    super::list_body::put_varint(out, raw_length);
    put_field(out, 1, object);
    let length = u32::try_from(out.len() - start - 4).unwrap_or(u32::MAX);
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_json_event_is_one_line() {
        let mut out = BytesMut::new();
        put_json_frame(&mut out, "ADDED", br#"{"kind":"Pod"}"#);
        assert_eq!(&out[..], b"{\"type\":\"ADDED\",\"object\":{\"kind\":\"Pod\"}}\n");
    }

    #[test]
    fn a_protobuf_event_is_prefixed_with_its_length() {
        let mut out = BytesMut::new();
        put_protobuf_frame(&mut out, "ADDED", b"k8s\0abc");
        let length = u32::from_be_bytes(out[..4].try_into().unwrap()) as usize;
        assert_eq!(length, out.len() - 4);
        assert_eq!(&out[4..], b"\x0a\x05ADDED\x12\x09\x0a\x07k8s\0abc");
    }
}
