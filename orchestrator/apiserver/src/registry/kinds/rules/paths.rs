//! Paths of files inside volumes and on nodes: what would lead out of where they belong is refused.

use serde_json::Value;

use crate::error::FieldError;

const MODE: &str = "must be a number between 0 and 0777 (octal), both inclusive";

/// No step up.
pub(crate) fn no_backsteps(value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let text = value.as_str().unwrap_or_default();
    if text.split('/').any(|part| part == "..") {
        errors.push(FieldError::invalid(path, text, "must not contain '..'"));
    }
}

/// Relative, and no step up.
pub(crate) fn descending(value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let text = value.as_str().unwrap_or_default();
    if text.starts_with('/') {
        errors.push(FieldError::invalid(path, text, "must be a relative path"));
    }
    no_backsteps(value, path, errors);
}

/// Relative, no step up, and no name that volumes keep for themselves.
pub(crate) fn non_reserved(value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    descending(value, path, errors);
    let text = value.as_str().unwrap_or_default();
    if text.starts_with("..") && !text.starts_with("../") {
        errors.push(FieldError::invalid(path, text, "must not start with '..'"));
    }
}

/// Permission bits of a file.
pub(crate) fn file_mode(value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    if value.as_i64().is_some_and(|mode| !(0..=0o777).contains(&mode)) {
        errors.push(FieldError::invalid(path, value.clone(), MODE));
    }
}
