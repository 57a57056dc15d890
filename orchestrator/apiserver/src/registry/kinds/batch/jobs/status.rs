//! What the status of a Job may say, and how it may change. What somebody wrote before is let be.

use std::collections::BTreeSet;

use serde_json::Value;

use super::indexes;
use crate::error::FieldError;
use crate::registry::field_rules::is_same;
use crate::registry::kinds::rules::NOT_NEGATIVE;
use crate::registry::object::{items_at, str_at};

fn holds(job: &Value, condition: &str) -> bool {
    items_at(job, "/status/conditions").iter().any(|it| it["type"] == condition && it["status"] == "True")
}

/// Errors of the status alone.
pub(super) fn state(job: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let status = &job["status"];
    for field in ["active", "succeeded", "failed", "ready", "terminating"] {
        if let Some(n) = status[field].as_i64().filter(|n| *n < 0) {
            errors.push(FieldError::invalid(format!("status.{field}"), n, NOT_NEGATIVE));
        }
    }
    uncounted(status, &mut errors);
    let count = |field: &str| status[field].as_i64().unwrap_or(0);
    let (complete, failed) = (holds(job, "Complete"), holds(job, "Failed"));
    let (met, target) = (holds(job, "SuccessCriteriaMet"), holds(job, "FailureTarget"));
    for (wrong, why) in [
        (complete && failed, "cannot set Complete=True and Failed=true conditions"),
        (complete && target, "cannot set Complete=True and FailureTarget=true conditions"),
        (failed && !target, "cannot set Failed=True condition without the FailureTarget=true condition"),
        (
            complete && !met,
            "cannot set Complete=True condition without the SuccessCriteriaMet=true condition",
        ),
        (met && failed, "cannot set SuccessCriteriaMet=True and Failed=true conditions"),
        (met && target, "cannot set SuccessCriteriaMet=True and FailureTarget=true conditions"),
    ] {
        if wrong {
            errors.push(FieldError::invalid_unshown("status.conditions", why));
        }
    }
    let (started, completed) = (str_at(status, "/startTime"), str_at(status, "/completionTime"));
    let at = "status.completionTime";
    if !completed.is_empty() && !complete {
        let why = "cannot set completionTime when there is no Complete=True condition";
        errors.push(FieldError::invalid(at, completed, why));
    }
    if completed.is_empty() && complete {
        errors.push(FieldError::required(at, "completionTime is required for Complete jobs"));
    }
    // Both are in the one form times are stored in, so that they compare as texts.
    if !started.is_empty() && !completed.is_empty() && completed < started {
        errors.push(FieldError::invalid(at, completed, "must be equal to or after `startTime`"));
    }
    if complete || failed {
        for (field, why) in [
            ("active", "active>0 is invalid for finished job"),
            ("terminating", "terminating>0 is invalid for finished job"),
        ] {
            if count(field) > 0 {
                errors.push(FieldError::invalid(format!("status.{field}"), count(field), why));
            }
        }
        if started.is_empty() {
            errors.push(FieldError::required("status.startTime", "startTime is required for finished job"));
        }
        let waiting = &status["uncountedTerminatedPods"];
        if ["succeeded", "failed"].iter().any(|list| !items_at(waiting, &format!("/{list}")).is_empty()) {
            let why = "must be empty for finished job";
            errors.push(FieldError::invalid("status.uncountedTerminatedPods", waiting.clone(), why));
        }
    }
    if count("ready") > count("active") {
        let why = "cannot set more ready pods than active";
        errors.push(FieldError::invalid("status.ready", count("ready"), why));
    }
    index_sets(job, &mut errors);
    errors
}

fn uncounted(status: &Value, errors: &mut Vec<FieldError>) {
    let mut seen = BTreeSet::new();
    for list in ["succeeded", "failed"] {
        for (i, uid) in items_at(&status["uncountedTerminatedPods"], &format!("/{list}")).iter().enumerate() {
            let (at, text) =
                (format!("status.uncountedTerminatedPods.{list}[{i}]"), uid.as_str().unwrap_or_default());
            if text.is_empty() {
                errors.push(FieldError::invalid(at, "", "must not be empty"));
            } else if !seen.insert(text) {
                errors.push(FieldError::duplicate(at, text));
            }
        }
    }
}

fn index_sets(job: &Value, errors: &mut Vec<FieldError>) {
    let (spec, status) = (&job["spec"], &job["status"]);
    let (done, lost) = (str_at(status, "/completedIndexes"), status["failedIndexes"].as_str());
    let at = |field: &str| format!("status.{field}");
    if !done.is_empty() && spec["completionMode"] != "Indexed" {
        let why = "cannot set non-empty completedIndexes when non-indexed completion mode";
        errors.push(FieldError::invalid(at("completedIndexes"), done, why));
    }
    if let Some(lost) = lost
        && spec["backoffLimitPerIndex"].is_null()
    {
        let why = "cannot set non-null failedIndexes when backoffLimitPerIndex is null";
        errors.push(FieldError::invalid(at("failedIndexes"), lost, why));
    }
    let Some(completions) = spec["completions"].as_i64() else { return };
    let mut read = |field: &str, text: &str| match indexes::parse(text, completions) {
        Ok(found) => found,
        Err(why) => {
            let why = format!("error parsing {field}: {why}");
            errors.push(FieldError::invalid(at(field), text, why));
            Vec::new()
        }
    };
    let done = read("completedIndexes", done);
    let Some(text) = lost else { return };
    let lost = read("failedIndexes", text);
    if let Some(index) = indexes::overlap(&done, &lost) {
        let why = format!("failedIndexes and completedIndexes overlap at index: {index}");
        errors.push(FieldError::invalid(at("failedIndexes"), text, why));
    }
}

/// Errors of the change.
pub(super) fn change(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for condition in ["Failed", "Complete", "FailureTarget"] {
        if holds(old, condition) && !holds(new, condition) {
            let why = format!("cannot disable the terminal {condition}=True condition");
            errors.push(FieldError::invalid_unshown("status.conditions", why));
        }
    }
    if holds(old, "SuccessCriteriaMet") && !holds(new, "SuccessCriteriaMet") {
        let why = "cannot disable the SuccessCriteriaMet=True condition";
        errors.push(FieldError::invalid_unshown("status.conditions", why));
    }
    for field in ["failed", "succeeded"] {
        let count = |job: &Value| job["status"][field].as_i64().unwrap_or(0);
        if count(new) < count(old) {
            let why = format!("cannot decrease the {field} counter");
            errors.push(FieldError::invalid(format!("status.{field}"), count(new), why));
        }
    }
    let time = |job: &Value, field: &str| job["status"][field].clone();
    let (is, was) = (time(new, "completionTime"), time(old, "completionTime"));
    if !is.is_null() && !was.is_null() && is != was {
        errors.push(FieldError::invalid("status.completionTime", is, "field is immutable"));
    }
    let (is, was) = (time(new, "startTime"), time(old, "startTime"));
    if !was.is_null() && !is_same(&is, &was) && new["spec"]["suspend"] != true {
        let why = "field is immutable for unsuspended job once set";
        errors.push(FieldError::invalid("status.startTime", is, why));
    }
    errors
}
