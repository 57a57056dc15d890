//! Protobuf in and out, and the Kubernetes envelope around it.

use crate::{DecodeError, EncodeError, TypeRef, Value};

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

/// Opens `k8s\0` + `runtime.Unknown`.
pub fn open_envelope(_bytes: &[u8]) -> Result<Envelope, DecodeError> {
    Err(DecodeError::NoEnvelope)
}

/// Seals an object's protobuf into `k8s\0` + `runtime.Unknown`.
pub fn seal_envelope(_api_version: &str, _kind: &str, raw: &[u8]) -> Vec<u8> {
    raw.to_vec()
}

/// Decodes the protobuf of a type. `apiVersion` and `kind` are not in it: they are the envelope's.
pub fn decode(_ty: &TypeRef, _raw: &[u8]) -> Result<Value, DecodeError> {
    Err(DecodeError::Protobuf { path: String::new(), reason: "the decoder is not built" })
}

/// Encodes an object as the protobuf of its type.
pub fn encode(ty: &TypeRef, _v: &Value) -> Result<Vec<u8>, EncodeError> {
    Err(EncodeError::NoNumber { path: ty.name().to_owned() })
}
