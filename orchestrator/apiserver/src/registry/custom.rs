//! Custom kinds: definitions made at run time from CustomResourceDefinition objects.
//!
//! [`build`] turns one into the same [`super::Definition`]s built-in kinds have, so that the one CRUD, discovery,
//! OpenAPI and tables serve them without knowing; [`follow`] keeps what is served in step with what is stored.
//! [`conditions`] decides names and conditions, [`cleanup`] empties a kind that is going.

pub(crate) mod build;
pub(crate) mod cleanup;
pub(crate) mod columns;
pub(crate) mod conditions;
pub(crate) mod conversion;
pub(crate) mod follow;
pub(crate) mod json_path;
pub(crate) mod ratchet;
pub(crate) mod rules;
pub(crate) mod scale;
mod strategy;

use penstock_schema::Text;
use penstock_schema::validation::{Rule, Validator, Violation};
use serde_json::Value;

use crate::error::{FieldError, FieldErrorKind};
use columns::PrinterColumns;
use conversion::Converter;
use json_path::JsonPath;
use rules::Rules;
use scale::ScalePaths;

pub(crate) use follow::follow;

/// Held by a definition that is being deleted until its objects are gone.
pub(crate) const CLEANUP_FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";

/// What a version of a custom kind has beyond a built-in one.
pub struct CustomKind {
    pub(crate) validator: Validator,
    /// Rules in CEL, if there are any.
    pub(crate) rules: Option<Rules>,
    pub(crate) columns: PrinterColumns,
    pub(crate) scale: Option<ScalePaths>,
    pub(crate) selectable: Vec<(Text, JsonPath)>,
    /// Stands for everything documents (OpenAPI) are made of.
    pub(crate) fingerprint: String,
    /// The definition is being deleted: nothing new may be made.
    pub(crate) terminating: bool,
    /// What clients of a deprecated version are told.
    pub(crate) deprecation: Option<String>,
    /// Who turns one version into another, when they differ in more than their name and schema.
    pub(crate) converter: Option<Converter>,
}

// === impl CustomKind ===

impl CustomKind {
    /// Values of the selectable fields; an absent one is empty.
    pub(crate) fn select(&self, object: &Value) -> Vec<(Text, String)> {
        let text = |value: Option<&Value>| match value {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Null) | None => String::new(),
            Some(other) => other.to_string(),
        };
        self.selectable.iter().map(|(label, path)| (label.clone(), text(path.first(object)))).collect()
    }
}

/// A broken rule as the API reports it.
pub(crate) fn field_error(violation: Violation) -> FieldError {
    let Violation { rule, path, value, detail } = violation;
    match rule {
        Rule::Required => FieldError::required(path, ""),
        Rule::Duplicate => FieldError::duplicate(path, value),
        Rule::TooLong(max) => FieldError::too_long(path, max),
        Rule::TooMany(max) => {
            FieldError::too_many(path, value.as_u64().and_then(|n| usize::try_from(n).ok()).unwrap_or(0), max)
        }
        Rule::Enum => FieldError { kind: FieldErrorKind::NotSupported, path, value, detail },
        Rule::Type => FieldError { kind: FieldErrorKind::TypeInvalid, path, value, detail },
        // Upstream prints a rule without a field's path as one of no field at all.
        Rule::Other if path.is_empty() => FieldError::invalid("<nil>", value, detail),
        Rule::Other => FieldError::invalid(path, value, detail),
    }
}
