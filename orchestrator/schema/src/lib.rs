//! Types as data: one table describes every Kubernetes kind, and each operation is written once over it.
//!
//! The table ([`Schema::builtin`]) is derived by `cargo xtask codegen`; a CRD's structural schema yields the
//! same structure at run time. Decoding, encoding, conformance checks, defaults, patches and OpenAPI all take a
//! [`TypeRef`] and a [`Value`], so they do not know (and must never know) whether a kind is built in. This crate
//! knows nothing of storage, HTTP or the registry.

pub mod check;
pub mod defaults;
mod error;
pub mod json;
mod model;
pub mod openapi;
pub mod ownership;
pub mod patch;
mod path;
pub mod protobuf;
mod scalar;
pub mod structural;
mod table;
pub mod validation;
mod walk;
pub mod yaml;

pub use error::{DecodeError, EncodeError, PatchError};
pub use model::{
    Alternative, Field, Gvk, ListKind, ProtoSlot, Schema, SchemaBuilder, Struct, StructId, Text, Type,
    TypeRef,
};
pub use path::Path;
pub use scalar::duration;
pub use scalar::quantity::Quantity;
pub use serde_json::{Map, Value};

/// A field the decoder met and could not keep.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Issue {
    /// No such field in the type; it was dropped.
    Unknown {
        /// For example `spec.template.spec.containers[0].imagee`.
        path: String,
    },
    /// The field was given more than once; the last value was kept, as upstream does.
    Duplicate {
        /// For example `spec.replicas`.
        path: String,
    },
}

impl Issue {
    /// The field's path.
    pub fn path(&self) -> &str {
        match self {
            Issue::Unknown { path } | Issue::Duplicate { path } => path,
        }
    }
}

impl std::fmt::Display for Issue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Issue::Unknown { path } => write!(f, "unknown field \"{path}\""),
            Issue::Duplicate { path } => write!(f, "duplicate field \"{path}\""),
        }
    }
}

/// What a decoder made of a document.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoded {
    /// The object, pruned: unknown fields and nulls are gone, scalars are normalised.
    pub object: Value,
    /// Unknown and duplicate fields in document order.
    pub issues: Vec<Issue>,
}
