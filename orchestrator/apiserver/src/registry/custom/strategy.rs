//! What a custom kind does differently inside the one CRUD: its values keep to its schema.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;

use super::{CustomKind, field_error, ratchet};
use crate::error::{FieldError, FieldErrorKind};
use crate::registry::strategy::Strategy;

pub(super) struct Custom(pub Arc<CustomKind>);

impl Custom {
    fn changes(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let broken = ratchet::of_changes(self.0.validator.validate(new), new, old);
        let mut errors: Vec<FieldError> = broken.into_iter().map(field_error).collect();
        self.counts(new, &mut errors);
        self.rules(new, Some(old), &mut errors);
        errors
    }

    /// Rules are asked where values are of the types that they count on.
    fn rules(&self, new: &Value, old: Option<&Value>, errors: &mut Vec<FieldError>) {
        let Some(rules) = &self.0.rules else { return };
        let blocks = |error: &FieldError| {
            use FieldErrorKind::{NotSupported, Required, TooLong, TooMany, TypeInvalid};
            matches!(error.kind, NotSupported | Required | TooLong | TooMany | TypeInvalid)
        };
        if errors.iter().any(blocks) {
            let detail = "some validation rules were not checked because the object was invalid; \
                          correct the existing errors to complete validation";
            errors.push(FieldError::invalid("<nil>", Value::Null, detail));
            return;
        }
        errors.extend(rules.validate(new, old));
    }

    fn counts(&self, new: &Value, errors: &mut Vec<FieldError>) {
        if let Some(scale) = &self.0.scale {
            scale.validate(new, errors);
        }
    }
}

#[async_trait]
impl Strategy for Custom {
    fn validate(&self, new: &Value) -> Vec<FieldError> {
        let mut errors: Vec<FieldError> =
            self.0.validator.validate(new).into_iter().map(field_error).collect();
        self.counts(new, &mut errors);
        self.rules(new, None, &mut errors);
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        self.changes(new, old)
    }

    /// Updates are held to what they change.
    fn revalidates(&self) -> bool {
        false
    }

    fn validate_status(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        self.changes(new, old)
    }
}
