//! Versions of a definition: names, storage, subresources, columns, selectable fields, conversion.

use serde_json::Value;

use super::schema;
use crate::error::FieldError;
use crate::registry::custom::json_path::JsonPath;
use crate::registry::kinds::rules::client_config;
use crate::registry::meta::names::label_1035;
use crate::registry::object::{items_at, str_at};

/// Upstream's limit.
const SELECTABLE_FIELDS_MAX: usize = 8;
const COLUMN_TYPES: [&str; 5] = ["boolean", "date", "integer", "number", "string"];
const COLUMN_FORMATS: [&str; 9] =
    ["byte", "date", "date-time", "double", "float", "int32", "int64", "name", "password"];

pub(super) fn validate(crd: &Value, errors: &mut Vec<FieldError>) {
    let versions = items_at(crd, "/spec/versions");
    let listed = || Value::Array(versions.to_vec());
    for (index, version) in versions.iter().enumerate() {
        let path = format!("spec.versions[{index}]");
        let name = str_at(version, "/name");
        if let Some(why) = label_1035(name) {
            errors.push(FieldError::invalid(format!("{path}.name"), name, why));
        }
        validate_deprecation(version, &path, errors);
        if version["schema"]["openAPIV3Schema"].is_object() {
            let status = version["subresources"]["status"].is_object();
            let at = format!("{path}.schema.openAPIV3Schema");
            schema::validate(&version["schema"]["openAPIV3Schema"], &at, status, errors);
        } else {
            errors.push(FieldError::required(format!("{path}.schema.openAPIV3Schema"), ""));
        }
        validate_scale(&version["subresources"]["scale"], &format!("{path}.subresources.scale"), errors);
        for (at, column) in items_at(version, "/additionalPrinterColumns").iter().enumerate() {
            validate_column(column, &format!("{path}.additionalPrinterColumns[{at}]"), errors);
        }
        validate_selectable(version, &format!("{path}.selectableFields"), errors);
    }
    let mut names: Vec<&Value> = versions.iter().map(|v| &v["name"]).collect();
    names.sort_by_key(|name| name.to_string());
    names.dedup();
    if names.len() != versions.len() {
        errors.push(FieldError::invalid("spec.versions", listed(), "must contain unique version names"));
    }
    if versions.iter().filter(|v| v["storage"] == true).count() != 1 {
        let why = "must have exactly one version marked as storage version";
        errors.push(FieldError::invalid("spec.versions", listed(), why));
    }
    if crd["spec"]["preserveUnknownFields"] == true {
        errors.push(FieldError::invalid(
            "spec.preserveUnknownFields",
            true,
            "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead",
        ));
    }
    validate_conversion(&crd["spec"]["conversion"], "spec.conversion", errors);
    validate_stored(crd, errors);
}

/// Versions that objects may be stored in must stay known.
pub(super) fn validate_stored(crd: &Value, errors: &mut Vec<FieldError>) {
    let path = "status.storedVersions";
    let stored = items_at(crd, "/status/storedVersions");
    let versions = items_at(crd, "/spec/versions");
    let whole = || Value::Array(stored.to_vec());
    if stored.is_empty() {
        errors.push(FieldError::invalid(path, whole(), "must have at least one stored version"));
        return;
    }
    for version in versions.iter().filter(|v| v["storage"] == true && !stored.contains(&v["name"])) {
        let why = format!("must have the storage version {}", str_at(version, "/name"));
        errors.push(FieldError::invalid(path, whole(), why));
    }
    for (index, name) in stored.iter().enumerate() {
        if versions.iter().all(|v| v["name"] != *name) {
            let v = name.as_str().unwrap_or_default();
            let why = format!(
                "missing from spec.versions; {v} was previously a storage version, and must remain in spec.versions until a storage migration ensures no data remains persisted in {v} and removes {v} from status.storedVersions"
            );
            errors.push(FieldError::invalid(format!("{path}[{index}]"), v, why));
        }
    }
}

fn validate_deprecation(version: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let Some(warning) = version["deprecationWarning"].as_str() else { return };
    let at = format!("{path}.deprecationWarning");
    if version["deprecated"] != true {
        errors.push(FieldError::invalid(&*at, warning, "can only be set for deprecated versions"));
    }
    if warning.len() > 256 {
        errors.push(FieldError::invalid(&*at, warning, "must be <= 256 characters long"));
    }
    if warning.is_empty() {
        errors.push(FieldError::invalid(&*at, warning, "must not be an empty string"));
    }
    if let Some((index, _)) = warning.char_indices().find(|(_, c)| c.is_control()) {
        let why = format!(
            "must only contain printable UTF-8 characters; non-printable character found at index {index}"
        );
        errors.push(FieldError::invalid(&*at, warning, why));
    }
}

fn validate_scale(scale: &Value, path: &str, errors: &mut Vec<FieldError>) {
    if !scale.is_object() {
        return;
    }
    let rules: [(&str, bool, &[&str], &str); 3] = [
        ("specReplicasPath", true, &[".spec."], "should be a json path under .spec"),
        ("statusReplicasPath", true, &[".status."], "should be a json path under .status"),
        (
            "labelSelectorPath",
            false,
            &[".spec.", ".status."],
            "should be a json path under either .spec or .status",
        ),
    ];
    for (key, required, roots, why) in rules {
        let at = format!("{path}.{key}");
        match scale[key].as_str().unwrap_or_default() {
            "" if required => errors.push(FieldError::required(at, "")),
            "" => {}
            text if !text.starts_with('.') => {
                errors.push(FieldError::invalid(at, text, "must be a simple json path starting with ."));
            }
            text if !roots.iter().any(|root| text.starts_with(root)) => {
                errors.push(FieldError::invalid(at, text, why));
            }
            _ => {}
        }
    }
}

fn validate_column(column: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let text = |key: &str| column[key].as_str().unwrap_or_default();
    let one_of = |all: &[&str]| format!("must be one of {}", all.join(","));
    if text("name").is_empty() {
        errors.push(FieldError::required(format!("{path}.name"), ""));
    }
    match text("type") {
        "" => errors.push(FieldError::required(format!("{path}.type"), one_of(&COLUMN_TYPES))),
        kind if !COLUMN_TYPES.contains(&kind) => {
            errors.push(FieldError::invalid(format!("{path}.type"), kind, one_of(&COLUMN_TYPES)));
        }
        _ => {}
    }
    let format_ = text("format");
    if !format_.is_empty() && !COLUMN_FORMATS.contains(&format_) {
        errors.push(FieldError::invalid(format!("{path}.format"), format_, one_of(&COLUMN_FORMATS)));
    }
    // Upstream spells this path as its Go field.
    let at = format!("{path}.JSONPath");
    match text("jsonPath") {
        "" => errors.push(FieldError::required(at, "")),
        path if !path.starts_with('.') => {
            errors.push(FieldError::invalid(at, path, "must be a simple json path starting with ."));
        }
        _ => {}
    }
}

fn validate_selectable(version: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let fields = items_at(version, "/selectableFields");
    let mut seen: Vec<&str> = Vec::new();
    for (index, field) in fields.iter().enumerate() {
        let at = format!("{path}[{index}].jsonPath");
        let text = field["jsonPath"].as_str().unwrap_or_default();
        if text.is_empty() {
            errors.push(FieldError::required(at, ""));
            continue;
        }
        let parsed = JsonPath::parse(text);
        let Some(steps) = parsed.as_ref().and_then(JsonPath::fields) else {
            errors.push(FieldError::invalid(at, text, "is an invalid path: does not refer to a valid field"));
            continue;
        };
        if steps.first() == Some(&"metadata") {
            errors.push(FieldError::invalid(&*at, text, "must not point to fields in metadata"));
        }
        let root = &version["schema"]["openAPIV3Schema"];
        let found = steps.iter().try_fold(root, |node, step| node["properties"].get(*step));
        match found {
            None => errors.push(FieldError::invalid(
                &*at,
                text,
                "is an invalid path: does not refer to a valid field",
            )),
            Some(node) if !matches!(node["type"].as_str(), Some("string" | "boolean" | "integer")) => {
                errors.push(FieldError::invalid(
                    &*at,
                    text,
                    "must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed.",
                ));
            }
            Some(_) => {}
        }
        if seen.contains(&text) {
            errors.push(FieldError::duplicate(at, text));
        } else {
            seen.push(text);
        }
    }
    if seen.len() > SELECTABLE_FIELDS_MAX {
        errors.push(FieldError::too_many(path, seen.len(), SELECTABLE_FIELDS_MAX));
    }
}

fn validate_conversion(conversion: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let webhook = &conversion["webhook"];
    match conversion["strategy"].as_str().unwrap_or_default() {
        "" | "None" => {
            if webhook["clientConfig"].is_object() {
                let why = "should not be set when strategy is not set to Webhook";
                errors.push(FieldError::forbidden(format!("{path}.webhookClientConfig"), why));
            }
        }
        "Webhook" => {
            let at = format!("{path}.webhookClientConfig");
            let config = &webhook["clientConfig"];
            if !config.is_object() {
                errors.push(FieldError::required(at, "required when strategy is set to Webhook"));
            } else {
                client_config::validate(config, &at, errors);
            }
            let at = format!("{path}.conversionReviewVersions");
            let versions = items_at(webhook, "/conversionReviewVersions");
            if versions.is_empty() {
                errors.push(FieldError::required(at, ""));
            } else if !versions.iter().any(|version| version == "v1" || version == "v1beta1") {
                let why = "must include at least one of v1, v1beta1";
                errors.push(FieldError::invalid(at, versions.to_vec(), why));
            }
        }
        other => {
            errors.push(FieldError::not_supported(format!("{path}.strategy"), other, &["None", "Webhook"]))
        }
    }
}
