//! What can be wrong with a document, an object or a patch. Every message names the field by its path.

/// Why a document could not become an object.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The text is not JSON at all.
    #[error("invalid JSON at line {line} column {column}: {reason}")]
    Syntax { line: usize, column: usize, reason: String },
    /// The text is not YAML at all.
    #[error("error converting YAML to JSON: yaml: {reason}")]
    Yaml { reason: String },
    /// A value has the wrong JSON type for its field.
    #[error("json: cannot unmarshal {found} into Go struct field {owner}.{path} of type {expected}")]
    Type { owner: String, path: String, expected: String, found: String },
    /// A value has the right JSON type but is not of the field's form, such as a quantity or a time.
    #[error("{path}: {reason}")]
    Form { path: String, reason: String },
    /// Nesting beyond [`crate::json::DEPTH_MAX`].
    #[error("{path}: exceeded max depth of {depth_max}")]
    TooDeep { path: String, depth_max: usize },
    /// More values than [`crate::json::VALUES_MAX`].
    #[error("the document has more than {values_max} values")]
    TooMany { values_max: usize },
    /// A document beyond [`crate::json::BYTES_MAX`].
    #[error("the document has {bytes} bytes, the limit is {bytes_max}")]
    TooLarge { bytes: usize, bytes_max: usize },
    /// Bytes that are not the protobuf of the type.
    #[error("invalid protobuf at {path:?}: {reason}")]
    Protobuf { path: String, reason: &'static str },
    /// A protobuf body that does not open with `k8s\0`.
    #[error("the body does not start with the Kubernetes protobuf prefix")]
    NoEnvelope,
}

/// Why an object could not become protobuf.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// The value does not fit its field. Run [`crate::check::conform`] on objects of unknown origin first.
    #[error("{path}: cannot encode {found} as {expected}")]
    Mismatch { path: String, expected: String, found: String },
    /// The field has no protobuf number, so this type speaks JSON only.
    #[error("{path}: the field has no protobuf number")]
    NoNumber { path: String },
    /// YAML could not be written.
    #[error("cannot write YAML: {reason}")]
    Yaml { reason: String },
}

/// Why a patch could not be applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// The patch document itself is wrong: 400 on the wire.
    #[error("{reason}")]
    Malformed { reason: String },
    /// The patch is well formed but does not fit the object: 422 on the wire.
    #[error("{reason}")]
    Conflict { reason: String },
    /// As that: a `test` of a JSON patch does not hold.
    #[error("{reason}")]
    TestFailed { reason: String },
    /// Too many operations: 413 on the wire.
    #[error("the allowed maximum operations in a JSON patch is {operations_max}, got {operations}")]
    TooMany { operations: usize, operations_max: usize },
}
