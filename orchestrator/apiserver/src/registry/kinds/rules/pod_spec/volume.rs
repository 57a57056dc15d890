//! Volumes of a pod spec.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::error::FieldError;
use crate::registry::meta::names;
use crate::registry::object::{items_at, str_at};

/// The names of all volumes, for mounts to refer to.
pub(super) fn validate(volumes: &[Value], path: &str, errors: &mut Vec<FieldError>) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    for (i, v) in volumes.iter().enumerate() {
        let at = format!("{path}[{i}]");
        let name = str_at(v, "/name");
        if name.is_empty() {
            errors.push(FieldError::required(format!("{at}.name"), ""));
        } else {
            if let Some(why) = names::label(name) {
                errors.push(FieldError::invalid(format!("{at}.name"), name, why));
            }
            if !seen.insert(name.to_string()) {
                errors.push(FieldError::duplicate(format!("{at}.name"), name));
            }
        }
        let sources: Vec<&String> =
            v.as_object().into_iter().flatten().map(|(k, _)| k).filter(|k| *k != "name").collect();
        match sources.as_slice() {
            [] => errors.push(FieldError::required(at.as_str(), "must specify a volume type")),
            [_] => {}
            [_, more @ ..] => {
                for kind in more {
                    errors.push(FieldError::forbidden(
                        format!("{at}.{kind}"),
                        "may not specify more than 1 volume type",
                    ));
                }
            }
        }
        source(v, &at, errors);
    }
    seen
}

fn source(v: &Value, at: &str, errors: &mut Vec<FieldError>) {
    for (kind, field) in [
        ("configMap", "name"),
        ("secret", "secretName"),
        ("persistentVolumeClaim", "claimName"),
        ("hostPath", "path"),
        ("csi", "driver"),
    ] {
        if let Some(source) = v.get(kind)
            && str_at(source, &format!("/{field}")).is_empty()
        {
            errors.push(FieldError::required(format!("{at}.{kind}.{field}"), ""));
        }
    }
    let host_path = str_at(v, "/hostPath/path");
    if host_path.split('/').any(|part| part == "..") {
        errors.push(FieldError::invalid(format!("{at}.hostPath.path"), host_path, "must not contain '..'"));
    }
    for kind in ["configMap", "secret", "projected", "downwardAPI"] {
        if let Some(mode) = v.pointer(&format!("/{kind}/defaultMode")).and_then(Value::as_i64)
            && !(0..=0o777).contains(&mode)
        {
            errors.push(FieldError::invalid(
                format!("{at}.{kind}.defaultMode"),
                mode,
                "must be a number between 0 and 0777 (octal), both inclusive",
            ));
        }
        for (i, item) in items_at(v, &format!("/{kind}/items")).iter().enumerate() {
            item_path(item, &format!("{at}.{kind}.items[{i}]"), errors);
        }
    }
    for (i, s) in items_at(v, "/projected/sources").iter().enumerate() {
        for kind in ["configMap", "secret", "downwardAPI"] {
            for (j, item) in items_at(s, &format!("/{kind}/items")).iter().enumerate() {
                item_path(item, &format!("{at}.projected.sources[{i}].{kind}.items[{j}]"), errors);
            }
        }
        if let Some(seconds) = s.pointer("/serviceAccountToken/expirationSeconds").and_then(Value::as_i64)
            && seconds < 600
        {
            errors.push(FieldError::invalid(
                format!("{at}.projected.sources[{i}].serviceAccountToken.expirationSeconds"),
                seconds,
                "may not specify a duration less than 10 minutes",
            ));
        }
    }
}

fn item_path(item: &Value, at: &str, errors: &mut Vec<FieldError>) {
    let path = str_at(item, "/path");
    if path.is_empty() {
        errors.push(FieldError::required(format!("{at}.path"), ""));
    } else if path.starts_with('/') {
        errors.push(FieldError::invalid(format!("{at}.path"), path, "must be a relative path"));
    } else if path.split('/').any(|part| part == "..") {
        errors.push(FieldError::invalid(format!("{at}.path"), path, "must not contain '..'"));
    }
}
