//! Label selectors inside objects.

use serde_json::Value;

use crate::error::FieldError;
use crate::registry::meta::names;
use crate::registry::object::items_at;

/// A metav1 LabelSelector at `path`.
pub(crate) fn validate_selector(selector: &Value, path: &str, errors: &mut Vec<FieldError>) {
    if let Some(labels) = selector.get("matchLabels").and_then(Value::as_object) {
        crate::registry::meta::validate_labels(labels, &format!("{path}.matchLabels"), errors);
    }
    for (i, e) in items_at(selector, "/matchExpressions").iter().enumerate() {
        let at = format!("{path}.matchExpressions[{i}]");
        let key = e["key"].as_str().unwrap_or_default();
        let values = items_at(e, "/values");
        match e["operator"].as_str().unwrap_or_default() {
            "In" | "NotIn" => {
                if values.is_empty() {
                    errors.push(FieldError::required(
                        format!("{at}.values"),
                        "must be specified when `operator` is 'In' or 'NotIn'",
                    ));
                }
            }
            "Exists" | "DoesNotExist" => {
                if !values.is_empty() {
                    errors.push(FieldError::forbidden(
                        format!("{at}.values"),
                        "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
                    ));
                }
            }
            other => errors.push(FieldError::invalid(
                format!("{at}.operator"),
                other,
                "not a valid selector operator",
            )),
        }
        if let Some(why) = names::qualified_name(key) {
            errors.push(FieldError::invalid(format!("{at}.key"), key, why));
        }
        for (j, v) in values.iter().enumerate() {
            if let Some(why) = names::label_value(v.as_str().unwrap_or_default()) {
                errors.push(FieldError::invalid(format!("{at}.values[{j}]"), v.clone(), why));
            }
        }
    }
}
