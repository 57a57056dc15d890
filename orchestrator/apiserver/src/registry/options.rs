//! Options of list, watch and delete, as the registry takes them.

use serde_json::Value;

use crate::error::ApiError;

/// Query parameters of list and watch, unparsed where upstream's errors need the original text.
#[derive(Debug, Clone, Default)]
pub struct ListOptions {
    pub label_selector: Option<String>,
    pub field_selector: Option<String>,
    pub resource_version: Option<String>,
    /// `Exact` or `NotOlderThan`.
    pub resource_version_match: Option<String>,
    pub limit: Option<u64>,
    pub continue_token: Option<String>,
    /// Watch-list: first the present state as ADDED events, then an annotated bookmark.
    pub send_initial_events: Option<bool>,
    pub allow_watch_bookmarks: bool,
    pub timeout_seconds: Option<u64>,
}

/// What a delete may say, from query parameters or a `DeleteOptions` body.
#[derive(Debug, Clone, Default)]
pub struct DeleteOptions {
    pub grace_period_seconds: Option<i64>,
    pub precondition_uid: Option<String>,
    pub precondition_resource_version: Option<String>,
    /// `Orphan`, `Background` or `Foreground`.
    pub propagation_policy: Option<String>,
    /// Deprecated twin of `propagation_policy`.
    pub orphan_dependents: Option<bool>,
    pub dry_run: bool,
}

impl DeleteOptions {
    /// Reads a decoded metav1 `DeleteOptions`.
    pub fn from_value(v: &Value) -> Result<Self, ApiError> {
        let text = |v: &Value| v.as_str().map(str::to_string);
        let dry_run = match v.get("dryRun").and_then(Value::as_array) {
            Some(list) if list.iter().any(|d| d.as_str() != Some("All")) => {
                return Err(ApiError::bad_request("DeleteOptions.dryRun: only \"All\" is supported"));
            }
            Some(list) => !list.is_empty(),
            None => false,
        };
        Ok(Self {
            grace_period_seconds: v.get("gracePeriodSeconds").and_then(Value::as_i64),
            precondition_uid: v.pointer("/preconditions/uid").and_then(text),
            precondition_resource_version: v.pointer("/preconditions/resourceVersion").and_then(text),
            propagation_policy: v.get("propagationPolicy").and_then(text),
            orphan_dependents: v.get("orphanDependents").and_then(Value::as_bool),
            dry_run,
        })
    }

    /// Refuses contradictions before anything is read.
    pub fn validate(&self) -> Result<(), ApiError> {
        use crate::error::FieldError;
        let mut errors = Vec::new();
        if self.orphan_dependents.is_some() && self.propagation_policy.is_some() {
            errors.push(FieldError::invalid(
                "propagationPolicy",
                self.propagation_policy.as_deref().unwrap_or_default(),
                "orphanDependents and deletionPropagation cannot be both set",
            ));
        }
        if let Some(policy) = &self.propagation_policy {
            let allowed = ["Foreground", "Background", "Orphan"];
            if !allowed.contains(&policy.as_str()) {
                errors.push(FieldError::not_supported("propagationPolicy", policy.as_str(), &allowed));
            }
        }
        if errors.is_empty() {
            Ok(())
        } else {
            Err(ApiError::invalid("meta.k8s.io", "DeleteOptions", "", errors))
        }
    }
}
