//! Jobs and cron jobs.

use super::{Hook, Object, child, each, fill, fill_zero, has};
use crate::Value;

pub(super) const HOOKS: &[(&str, Hook)] = &[
    ("io.k8s.api.batch.v1.Job", job),
    ("io.k8s.api.batch.v1.CronJob", cron_job),
    ("io.k8s.api.batch.v1.PodFailurePolicyOnPodConditionsPattern", |o| fill_zero(o, "status", "True")),
];

fn job(job: &mut Object) {
    let labels = job.get("spec").and_then(|s| s.pointer("/template/metadata/labels")).cloned();
    if let Some(labels) = labels.filter(|l| l.as_object().is_some_and(|l| !l.is_empty()))
        && let Some(metadata) = child(job, "metadata")
        && metadata.get("labels").and_then(Value::as_object).is_none_or(serde_json::Map::is_empty)
    {
        metadata.insert("labels".into(), labels);
    }
    let Some(spec) = child(job, "spec") else { return };
    // A parallelism alone means a work queue, which has no number of completions.
    if !has(spec, "completions") && !has(spec, "parallelism") {
        fill(spec, "completions", 1);
    }
    fill(spec, "parallelism", 1);
    let backoff_limit = if has(spec, "backoffLimitPerIndex") { i32::MAX } else { 6 };
    fill(spec, "backoffLimit", backoff_limit);
    fill(spec, "completionMode", "NonIndexed");
    fill(spec, "suspend", false);
    let replacement = if has(spec, "podFailurePolicy") { "Failed" } else { "TerminatingOrFailed" };
    fill(spec, "podReplacementPolicy", replacement);
    if let Some(policy) = super::existing(spec, "podFailurePolicy") {
        each(policy, "rules", |rule| {
            each(rule, "onPodConditions", |pattern| fill_zero(pattern, "status", "True"))
        });
    }
}

fn cron_job(cron_job: &mut Object) {
    let Some(spec) = child(cron_job, "spec") else {
        return;
    };
    fill_zero(spec, "concurrencyPolicy", "Allow");
    fill(spec, "suspend", false);
    fill(spec, "successfulJobsHistoryLimit", 3);
    fill(spec, "failedJobsHistoryLimit", 1);
}
