//! Job: pods that run to completion. Its selector is made from its own uid unless asked otherwise.

use serde_json::{Value, json};

use crate::error::FieldError;
use crate::registry::context::Context;
use crate::registry::definition::{Declaration, STATUS};
use crate::registry::kinds::rules::{immutable, labels, not_negative};
use crate::registry::object::meta_str;
use crate::registry::strategy::Strategy;
use crate::tables::workloads::JOBS;

pub(crate) fn declaration() -> Declaration {
    Declaration::new("batch", "v1", "Job", "jobs")
        .categories(&["all"])
        .generation()
        .columns(JOBS)
        .subresources(&[STATUS])
        .fields(&["status.successful"], |o| {
            let n = o.pointer("/status/succeeded").and_then(Value::as_i64).unwrap_or(0);
            vec![("status.successful", n.to_string())]
        })
        .strategy(Job)
}

struct Job;

impl Strategy for Job {
    fn prepare_create(&self, _context: &Context, new: &mut Value) {
        if new.pointer("/spec/manualSelector") != Some(&Value::Bool(true)) && new["spec"].is_object() {
            select_own_pods(new);
        }
    }

    fn validate(&self, new: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        for field in
            ["parallelism", "completions", "activeDeadlineSeconds", "backoffLimit", "ttlSecondsAfterFinished"]
        {
            not_negative(new, &format!("/spec/{field}"), &mut errors);
        }
        labels::validate_workload(new, &["OnFailure", "Never"], &mut errors);
        if new.pointer("/spec/completionMode") == Some(&json!("Indexed"))
            && new.pointer("/spec/completions").is_none()
        {
            errors.push(FieldError::required("spec.completions", "when completion mode is Indexed"));
        }
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        immutable(new, old, "/spec/selector", &mut errors);
        immutable(new, old, "/spec/completionMode", &mut errors);
        immutable(new, old, "/spec/podFailurePolicy", &mut errors);
        immutable(new, old, "/spec/backoffLimitPerIndex", &mut errors);
        let suspended = |v: &Value| v.pointer("/spec/suspend") == Some(&Value::Bool(true));
        // A suspended job that never started may still be told where to run.
        let may_move = suspended(old) && old.pointer("/status/startTime").is_none();
        if !may_move {
            immutable(new, old, "/spec/template", &mut errors);
        }
        let indexed = new.pointer("/spec/completionMode") == Some(&json!("Indexed"));
        if !indexed || new.pointer("/spec/completions") != new.pointer("/spec/parallelism") {
            immutable(new, old, "/spec/completions", &mut errors);
        }
        errors
    }
}

fn select_own_pods(job: &mut Value) {
    let (uid, name) = (meta_str(job, "uid").to_string(), meta_str(job, "name").to_string());
    let spec = &mut job["spec"];
    if !spec["template"].is_object() {
        return;
    }
    if !spec["template"]["metadata"].is_object() {
        spec["template"]["metadata"] = json!({});
    }
    if !spec["template"]["metadata"]["labels"].is_object() {
        spec["template"]["metadata"]["labels"] = json!({});
    }
    let labels = &mut spec["template"]["metadata"]["labels"];
    for (key, value) in [
        ("controller-uid", &uid),
        ("job-name", &name),
        ("batch.kubernetes.io/controller-uid", &uid),
        ("batch.kubernetes.io/job-name", &name),
    ] {
        labels[key] = value.as_str().into();
    }
    if !spec["selector"].is_object() {
        spec["selector"] = json!({});
    }
    if !spec["selector"]["matchLabels"].is_object() {
        spec["selector"]["matchLabels"] = json!({});
    }
    spec["selector"]["matchLabels"]["batch.kubernetes.io/controller-uid"] = uid.into();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_selects_its_own_pods() {
        let mut job = json!({"metadata": {"name": "j", "uid": "u"}, "spec": {"template": {"spec": {}}}});
        select_own_pods(&mut job);
        assert_eq!(job["spec"]["selector"]["matchLabels"]["batch.kubernetes.io/controller-uid"], "u");
        assert_eq!(job["spec"]["template"]["metadata"]["labels"]["job-name"], "j");
    }
}
