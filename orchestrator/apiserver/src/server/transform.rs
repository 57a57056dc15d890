//! Objects in another shape than their own: Tables and metadata alone.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::query::Query;
use crate::error::ApiError;
use crate::registry::{CachedObject, Definition};
use crate::tables::{self, IncludeObject};

/// What of each object a Table carries (`?includeObject=`).
pub fn include_object(query: &Query) -> Result<IncludeObject, ApiError> {
    match query.text("includeObject") {
        None | Some("Metadata") => Ok(IncludeObject::Metadata),
        Some("None") => Ok(IncludeObject::None),
        Some("Object") => Ok(IncludeObject::Object),
        Some(other) => Err(ApiError::bad_request(format!("unrecognized includeObject value: {other:?}"))),
    }
}

/// A Table of some objects of one kind.
pub fn table(
    definition: &Definition,
    objects: &[Arc<CachedObject>],
    include: IncludeObject,
    list_meta: Value,
    with_columns: bool,
) -> Value {
    tables::table(definition, objects, include, list_meta, with_columns, Timestamp::now())
}

/// `PartialObjectMetadata` of an object.
pub fn partial(object: &CachedObject) -> Value {
    let mut value = object.value();
    let metadata = value.get_mut("metadata").map(Value::take).unwrap_or_default();
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata})
}
