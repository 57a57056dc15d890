//! What a class hands to its driver: words the API server cannot judge, within bounds.

use serde_json::Value;

use crate::error::FieldError;
use crate::registry::meta::annotation_bytes;

const COUNT_MAX: usize = 512;
const BYTES_MAX: usize = 256 * 1024;

pub(super) fn validate(parameters: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let Some(map) = parameters.as_object() else { return };
    if map.len() > COUNT_MAX {
        errors.push(FieldError::too_long(path, COUNT_MAX));
        return;
    }
    if map.contains_key("") {
        errors.push(FieldError::invalid(path, "", "field can not be empty."));
    }
    if annotation_bytes(map) > BYTES_MAX {
        errors.push(FieldError::too_long(path, BYTES_MAX));
    }
}
