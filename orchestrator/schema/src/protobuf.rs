//! Protobuf in and out, and the Kubernetes envelope around it.
//!
//! Every built-in type's wire form follows from the table's numbers; the few types with a form of their own
//! (times, quantities, IntOrString, raw JSON, JSON-Schema alternatives) are told apart by their [`crate::Type`].
//! Upstream's messages are proto2 in which non-pointer scalars are always present, zero or not: the table knows
//! for which fields a zero means "absent".

mod decode;
mod encode;
mod wire;

use crate::{DecodeError, EncodeError, TypeRef, Value};
use encode::Buffer;
use wire::{Reader, Wire};

/// What a protobuf body opens with.
pub const PREFIX: &[u8] = b"k8s\0";

/// The opened envelope (`runtime.Unknown`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Envelope {
    /// For example `apps/v1`.
    pub api_version: String,
    /// For example `Deployment`.
    pub kind: String,
    /// The object's own protobuf.
    pub raw: Vec<u8>,
    /// Empty for protobuf.
    pub content_type: String,
}

/// Opens `k8s\0` + `runtime.Unknown{typeMeta=1{apiVersion=1, kind=2}, raw=2, contentEncoding=3, contentType=4}`.
///
/// # Errors
/// A missing prefix, or bytes that are no protobuf.
pub fn open_envelope(bytes: &[u8]) -> Result<Envelope, DecodeError> {
    let body = bytes.strip_prefix(PREFIX).ok_or(DecodeError::NoEnvelope)?;
    let broken = |reason| DecodeError::Protobuf { path: String::new(), reason };
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).map_err(|_| broken("text is not UTF-8"));
    let mut out = Envelope::default();
    let mut reader = Reader::new(body);
    while let Some((number, wire)) = reader.tag().map_err(broken)? {
        match (number, wire) {
            (1, Wire::Bytes) => {
                let mut meta = Reader::new(reader.bytes().map_err(broken)?);
                while let Some((number, wire)) = meta.tag().map_err(broken)? {
                    match (number, wire) {
                        (1, Wire::Bytes) => out.api_version = text(meta.bytes().map_err(broken)?)?,
                        (2, Wire::Bytes) => out.kind = text(meta.bytes().map_err(broken)?)?,
                        _ => meta.skip(wire).map_err(broken)?,
                    }
                }
            }
            (2, Wire::Bytes) => out.raw = reader.bytes().map_err(broken)?.to_vec(),
            (4, Wire::Bytes) => out.content_type = text(reader.bytes().map_err(broken)?)?,
            _ => reader.skip(wire).map_err(broken)?,
        }
    }
    Ok(out)
}

/// Seals an object's protobuf into `k8s\0` + `runtime.Unknown`.
pub fn seal_envelope(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let mut buffer = Buffer::with_capacity(raw.len() + api_version.len() + kind.len() + 32);
    // Upstream always writes all four fields, the last two empty.
    buffer.bytes_field(4, b"");
    buffer.bytes_field(3, b"");
    buffer.bytes_field(2, raw);
    buffer.message_field(1, |meta| {
        meta.bytes_field(2, kind.as_bytes());
        meta.bytes_field(1, api_version.as_bytes());
    });
    buffer.prepend(PREFIX);
    buffer.finish()
}

/// Decodes the protobuf of a type. `apiVersion` and `kind` of a kind are not in it: they are the envelope's.
///
/// # Errors
/// Truncated or malformed bytes, text that is not UTF-8, JSON that is none where JSON is carried.
pub fn decode(ty: &TypeRef, raw: &[u8]) -> Result<Value, DecodeError> {
    if raw.len() > crate::json::BYTES_MAX {
        return Err(DecodeError::TooLarge { bytes: raw.len(), bytes_max: crate::json::BYTES_MAX });
    }
    decode::message(ty, raw)
}

/// Encodes an object as the protobuf of its type.
///
/// # Errors
/// A value that does not fit its field; none for what [`crate::json::decode`] returned for the type.
pub fn encode(ty: &TypeRef, v: &Value) -> Result<Vec<u8>, EncodeError> {
    encode::message(ty, v)
}
