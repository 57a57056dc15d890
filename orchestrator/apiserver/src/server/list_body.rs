//! Lists as a stream of shared bytes: nothing is serialised again, and a list of any size needs one buffer.
//!
//! JSON joins the items' bytes with commas; protobuf prefixes each item's bare message with its tag and length. Must
//! not know where items come from.

use std::convert::Infallible;
use std::io::Write;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{BufMut, Bytes, BytesMut};
use flate2::Compression;
use flate2::write::GzEncoder;
use http_body::{Body, Frame, SizeHint};
use serde_json::{Value, json};

use super::respond::GZIP_BYTES_MIN;
use crate::error::ApiError;
use crate::registry::{CachedObject, ListResult};

/// Bytes gathered before a frame is given to the connection.
const FRAME_BYTES: usize = 64 * 1024;

/// One item's bytes: shared with the cache where the format allows.
enum Item {
    Json(Arc<CachedObject>),
    Bytes(Bytes),
}

/// The body of a list.
pub struct ListBody {
    head: Bytes,
    items: std::vec::IntoIter<Item>,
    layout: Layout,
    tail: Bytes,
    length: u64,
    gzip: Option<GzEncoder<Vec<u8>>>,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Layout {
    Json,
    Protobuf,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Head,
    Items { first: bool },
    Done,
}

/// `metadata` of a list.
pub fn list_meta(list: &ListResult) -> Value {
    let mut meta = json!({"resourceVersion": list.resource_version.to_string()});
    if let Some(token) = &list.continue_token {
        meta["continue"] = token.as_str().into();
    }
    if let Some(remaining) = list.remaining {
        meta["remainingItemCount"] = remaining.into();
    }
    meta
}

// === impl ListBody ===

impl ListBody {
    /// `{"kind":"PodList","apiVersion":"v1","metadata":{..},"items":[..]}`.
    pub fn json(api_version: &str, kind: &str, list: ListResult) -> Self {
        let head = json_head(api_version, kind, &list_meta(&list));
        let items = list.items.into_iter().map(Item::Json).collect();
        Self::new(head, items, Layout::Json, Bytes::from_static(b"]}\n"))
    }

    /// As [`ListBody::json`], with items already laid out (metadata only).
    pub fn json_items(api_version: &str, kind: &str, meta: &Value, items: Vec<Bytes>) -> Self {
        let items = items.into_iter().map(Item::Bytes).collect();
        Self::new(json_head(api_version, kind, meta), items, Layout::Json, Bytes::from_static(b"]}\n"))
    }

    /// The list message in its envelope; `items` are bare messages.
    pub fn protobuf(
        api_version: &str,
        kind: &str,
        meta: &Value,
        items: Vec<Bytes>,
    ) -> Result<Self, ApiError> {
        let meta = encode_list_meta(meta);
        let mut list = BytesMut::new();
        put_field(&mut list, 1, &meta);
        let raw_length = list.len() + items.iter().map(|i| field_length(i.len())).sum::<usize>();
        // Sealing an empty message yields the envelope without its payload; the payload's own field follows.
        let mut head = BytesMut::from(&b"k8s\0"[..]);
        let mut type_meta = BytesMut::new();
        put_field(&mut type_meta, 1, api_version.as_bytes());
        put_field(&mut type_meta, 2, kind.as_bytes());
        put_field(&mut head, 1, &type_meta);
        head.put_u8(2 << 3 | 2);
        put_varint(&mut head, raw_length);
        head.put_slice(&list);
        let items = items.into_iter().map(Item::Bytes).collect();
        Ok(Self::new(head.freeze(), items, Layout::Protobuf, Bytes::new()))
    }

    /// Compresses the stream if it is large enough to be worth it. Returns whether it will be compressed.
    pub fn compress_if_large(&mut self) -> bool {
        let large = self.length >= GZIP_BYTES_MIN as u64;
        if large {
            self.gzip = Some(GzEncoder::new(Vec::new(), Compression::fast()));
        }
        large
    }

    /// The whole body at once, uncompressed.
    pub fn collect(&mut self) -> Vec<u8> {
        let mut whole = Vec::with_capacity(usize::try_from(self.length).unwrap_or_default());
        while let Some(chunk) = self.next_chunk() {
            whole.extend_from_slice(&chunk);
        }
        whole
    }

    fn new(head: Bytes, items: Vec<Item>, layout: Layout, tail: Bytes) -> Self {
        let separators = match layout {
            Layout::Json => items.len().saturating_sub(1),
            Layout::Protobuf => items.iter().map(|i| field_length(i.bytes().len()) - i.bytes().len()).sum(),
        };
        let length =
            head.len() + tail.len() + separators + items.iter().map(|i| i.bytes().len()).sum::<usize>();
        Self {
            head,
            items: items.into_iter(),
            layout,
            tail,
            length: length as u64,
            gzip: None,
            state: State::Head,
        }
    }

    /// The next stretch of the list; None at the end.
    fn next_chunk(&mut self) -> Option<Bytes> {
        let mut out = BytesMut::new();
        while out.len() < FRAME_BYTES {
            match self.state {
                State::Head => {
                    out.put_slice(&self.head);
                    self.state = State::Items { first: true };
                }
                State::Items { first } => match self.items.next() {
                    Some(item) => {
                        match self.layout {
                            Layout::Json if first => {}
                            Layout::Json => out.put_u8(b','),
                            Layout::Protobuf => {
                                out.put_u8(2 << 3 | 2);
                                put_varint(&mut out, item.bytes().len());
                            }
                        }
                        out.put_slice(item.bytes());
                        self.state = State::Items { first: false };
                    }
                    None => {
                        out.put_slice(&self.tail);
                        self.state = State::Done;
                    }
                },
                State::Done => break,
            }
        }
        (!out.is_empty()).then(|| out.freeze())
    }

    fn next_compressed(&mut self) -> Option<Bytes> {
        loop {
            let chunk = self.next_chunk();
            let encoder = self.gzip.as_mut()?;
            match chunk {
                // Writing to a Vec cannot fail.
                Some(chunk) => {
                    let _ = encoder.write_all(&chunk);
                    if encoder.get_ref().len() >= FRAME_BYTES / 4 {
                        return Some(Bytes::from(std::mem::take(encoder.get_mut())));
                    }
                }
                None => {
                    let rest = self.gzip.take()?.finish().unwrap_or_default();
                    return Some(Bytes::from(rest));
                }
            }
        }
    }
}

impl Body for ListBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = self.get_mut();
        let chunk = if this.gzip.is_some() { this.next_compressed() } else { this.next_chunk() };
        Poll::Ready(chunk.map(|bytes| Ok(Frame::data(bytes))))
    }

    fn size_hint(&self) -> SizeHint {
        if self.gzip.is_some() { SizeHint::default() } else { SizeHint::with_exact(self.length) }
    }
}

impl Item {
    fn bytes(&self) -> &Bytes {
        match self {
            Self::Json(object) => object.json(),
            Self::Bytes(bytes) => bytes,
        }
    }
}

fn json_head(api_version: &str, kind: &str, meta: &Value) -> Bytes {
    Bytes::from(format!(
        r#"{{"kind":{},"apiVersion":{},"metadata":{meta},"items":["#,
        Value::from(kind),
        Value::from(api_version)
    ))
}

/// `ListMeta`: resourceVersion = 2, continue = 3, remainingItemCount = 4 (generated.proto of meta/v1).
fn encode_list_meta(meta: &Value) -> BytesMut {
    let mut out = BytesMut::new();
    for (number, key) in [(2, "resourceVersion"), (3, "continue")] {
        if let Some(text) = meta.get(key).and_then(Value::as_str) {
            put_field(&mut out, number, text.as_bytes());
        }
    }
    if let Some(remaining) = meta.get("remainingItemCount").and_then(Value::as_u64) {
        out.put_u8(4 << 3);
        put_varint(&mut out, usize::try_from(remaining).unwrap_or(usize::MAX));
    }
    out
}

/// Writes a length-delimited field. `number` must be below 16.
pub(super) fn put_field(out: &mut BytesMut, number: u8, payload: &[u8]) {
    out.put_u8(number << 3 | 2);
    put_varint(out, payload.len());
    out.put_slice(payload);
}

pub(super) fn put_varint(out: &mut BytesMut, mut value: usize) {
    while value >= 0x80 {
        out.put_u8((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

/// Length of a field (number below 16) with a payload of `length` bytes.
pub(super) fn field_length(length: usize) -> usize {
    1 + varint_length(length) + length
}

fn varint_length(value: usize) -> usize {
    (usize::BITS - (value | 1).leading_zeros()).div_ceil(7) as usize
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn drained(mut body: ListBody) -> Vec<u8> {
        let mut out = Vec::new();
        while let Some(chunk) = if body.gzip.is_some() { body.next_compressed() } else { body.next_chunk() } {
            out.extend_from_slice(&chunk);
        }
        out
    }

    fn items(count: usize) -> Vec<Bytes> {
        (0..count)
            .map(|i| Bytes::from(json!({"metadata": {"name": format!("{i:0>2000}")}}).to_string()))
            .collect()
    }

    #[test]
    fn a_json_list_is_valid_and_as_long_as_announced() {
        for count in [0, 1, 2, 500] {
            let body = ListBody::json_items("v1", "PodList", &json!({"resourceVersion": "7"}), items(count));
            let announced = body.length;
            let bytes = drained(body);
            assert_eq!(bytes.len() as u64, announced);
            let value: Value = serde_json::from_slice(&bytes).unwrap();
            assert_eq!(value["items"].as_array().unwrap().len(), count);
            assert_eq!(value["metadata"]["resourceVersion"], "7");
        }
    }

    #[test]
    fn a_compressed_list_inflates_to_the_same() {
        let list = || ListBody::json_items("v1", "PodList", &json!({}), items(500));
        let mut compressed = list();
        assert!(compressed.compress_if_large());
        let mut inflated = Vec::new();
        flate2::read::GzDecoder::new(&drained(compressed)[..]).read_to_end(&mut inflated).unwrap();
        assert_eq!(inflated, drained(list()));
    }

    #[test]
    fn a_protobuf_list_is_as_long_as_announced() {
        for count in [0, 1, 300] {
            let body =
                ListBody::protobuf("v1", "PodList", &json!({"resourceVersion": "7"}), items(count)).unwrap();
            let announced = body.length;
            let bytes = drained(body);
            assert_eq!(bytes.len() as u64, announced);
            assert!(bytes.starts_with(b"k8s\0"));
        }
    }

    #[test]
    fn varints_are_as_long_as_counted() {
        for value in [0, 1, 127, 128, 16_383, 16_384, 3 << 20, usize::MAX] {
            let mut out = BytesMut::new();
            put_varint(&mut out, value);
            assert_eq!(out.len(), varint_length(value), "{value}");
        }
    }
}
