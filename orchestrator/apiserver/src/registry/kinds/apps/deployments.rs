//! Deployment: replicas of a template, replaced by rolling.

use serde_json::Value;

use crate::error::FieldError;
use crate::registry::definition::{Declaration, SCALE, STATUS};
use crate::registry::kinds::rules::{immutable, labels, not_negative};
use crate::registry::object::str_at;
use crate::registry::strategy::Strategy;
use crate::tables::workloads::DEPLOYMENTS;

pub(crate) fn declaration() -> Declaration {
    Declaration::new("apps", "v1", "Deployment", "deployments")
        .short(&["deploy"])
        .categories(&["all"])
        .generation()
        .columns(DEPLOYMENTS)
        .subresources(&[SCALE, STATUS])
        .strategy(Deployment)
}

struct Deployment;

impl Strategy for Deployment {
    fn validate(&self, new: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        for pointer in ["/spec/replicas", "/spec/minReadySeconds", "/spec/revisionHistoryLimit"] {
            not_negative(new, pointer, &mut errors);
        }
        labels::validate_workload(new, &["Always"], &mut errors);
        let kind = str_at(new, "/spec/strategy/type");
        match kind {
            "Recreate" => {
                if new.pointer("/spec/strategy/rollingUpdate").is_some() {
                    errors.push(FieldError::forbidden(
                        "spec.strategy.rollingUpdate",
                        "may not be specified when strategy `type` is 'Recreate'",
                    ));
                }
            }
            "RollingUpdate" => {
                let zero = |f: &str| {
                    let v = new.pointer(&format!("/spec/strategy/rollingUpdate/{f}"));
                    v.is_some_and(|v| v == 0 || v == "0%" || v == "0")
                };
                if zero("maxSurge") && zero("maxUnavailable") {
                    errors.push(FieldError::invalid(
                        "spec.strategy.rollingUpdate.maxUnavailable",
                        new.pointer("/spec/strategy/rollingUpdate/maxUnavailable")
                            .cloned()
                            .unwrap_or_default(),
                        "may not be 0 when `maxSurge` is 0",
                    ));
                }
            }
            "" => errors.push(FieldError::required("spec.strategy", "")),
            other => errors.push(FieldError::not_supported(
                "spec.strategy.type",
                other,
                &["Recreate", "RollingUpdate"],
            )),
        }
        let number = |pointer: &str| new.pointer(pointer).and_then(Value::as_i64);
        if let (Some(deadline), Some(ready)) =
            (number("/spec/progressDeadlineSeconds"), number("/spec/minReadySeconds"))
            && deadline <= ready
        {
            errors.push(FieldError::invalid(
                "spec.progressDeadlineSeconds",
                deadline,
                "must be greater than minReadySeconds",
            ));
        }
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        immutable(new, old, "/spec/selector", &mut errors);
        errors
    }
}
