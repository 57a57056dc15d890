//! What a CronJob needs now: a Job or none, Jobs that go, and its status. Pure.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{CronJob, CronJobStatus, Job};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use penstock_informers::Meta;
use penstock_informers::identity::{controller_reference, object_reference};

use super::schedule::Schedule;
use crate::job::plan::{is_over, is_true};

const SCHEDULED_AT: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";
/// Times missed longer ago than this are not made up for.
const LOOK_BACK: SignedDuration = SignedDuration::from_hours(24 * 100);

pub(crate) struct Observed {
    pub cron_job: Arc<CronJob>,
    /// Jobs it owns.
    pub jobs: Vec<Arc<Job>>,
    pub now: Timestamp,
}

/// What a pass does.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub create: Option<Box<Job>>,
    pub delete: Vec<Arc<Job>>,
    /// A time that passed without a Job, because one still runs.
    pub skipped: bool,
    pub status: CronJobStatus,
    pub next: Option<Duration>,
}

pub(crate) fn plan(observed: &Observed, schedule: Option<&Schedule>) -> Plan {
    let cron_job = &observed.cron_job;
    let spec = &cron_job.spec;
    let mut plan = Plan { status: cron_job.status.clone().unwrap_or_default(), ..Default::default() };
    let mut running: Vec<Arc<Job>> = observed.jobs.iter().filter(|j| !is_over(j)).cloned().collect();
    running.sort_by_key(|j| j.name().to_owned());
    let successes = observed.jobs.iter().filter_map(|j| j.status.as_ref()?.completion_time.clone());
    plan.status.last_successful_time =
        successes.chain(plan.status.last_successful_time.take()).max_by_key(|t| t.0);
    let old = |kind: &str, limit: Option<i32>, default: i32| {
        let mut over: Vec<_> = observed.jobs.iter().filter(|j| is_true(j, kind)).cloned().collect();
        over.sort_by_key(|j| (j.created_seconds(), j.name().to_owned()));
        let keep = usize::try_from(limit.unwrap_or(default)).unwrap_or(0);
        over.truncate(over.len().saturating_sub(keep));
        over.retain(|j| !j.deleting());
        over
    };
    plan.delete = old("Complete", spec.successful_jobs_history_limit, 3);
    plan.delete.extend(old("Failed", spec.failed_jobs_history_limit, 1));
    if let Some(schedule) = schedule
        && spec.suspend != Some(true)
        && !cron_job.deleting()
    {
        plan_run(observed, schedule, &mut running, &mut plan);
    }
    // Without versions: a Job's progress is no news here.
    let reference = |j: &Arc<Job>| ObjectReference { resource_version: None, ..object_reference(j.as_ref()) };
    let active: Vec<_> = running.iter().map(reference).collect();
    plan.status.active = (!active.is_empty()).then_some(active);
    plan
}

fn plan_run(observed: &Observed, schedule: &Schedule, running: &mut Vec<Arc<Job>>, plan: &mut Plan) {
    let cron_job = &observed.cron_job;
    let spec = &cron_job.spec;
    let wait = schedule.next(observed.now).map(|at| at.duration_since(observed.now));
    // A little late rather than a little early: early finds nothing to do.
    plan.next = wait.map(|w| w.unsigned_abs() + Duration::from_millis(50));
    let last = plan.status.last_schedule_time.as_ref().or(cron_job.metadata.creation_timestamp.as_ref());
    let mut since = last.map_or(observed.now, |t| t.0);
    let mut no_earlier = |limit: SignedDuration| {
        since = since.max(observed.now.checked_sub(limit).unwrap_or(since));
    };
    no_earlier(LOOK_BACK);
    if let Some(seconds) = spec.starting_deadline_seconds {
        no_earlier(SignedDuration::from_secs(seconds));
    }
    let Some(at) = schedule.latest(since, observed.now) else {
        return;
    };
    let job = plan_job(cron_job, schedule, at);
    if running.iter().any(|j| j.name() == job.name()) {
        plan.status.last_schedule_time = Some(Time(at));
        return;
    }
    match spec.concurrency_policy.as_deref() {
        Some("Forbid") if !running.is_empty() => {
            plan.skipped = true;
            return;
        }
        Some("Replace") => plan.delete.append(running),
        _ => {}
    }
    plan.create = Some(Box::new(job));
    plan.status.last_schedule_time = Some(Time(at));
}

/// The Job of one scheduled time. Its name follows from the time, so that no time gets two.
fn plan_job(cron_job: &CronJob, schedule: &Schedule, at: Timestamp) -> Job {
    let template = cron_job.spec.job_template.clone();
    let meta = template.metadata.unwrap_or_default();
    let mut annotations = meta.annotations.unwrap_or_default();
    let local = at.to_zoned(schedule.zone().clone());
    let offset = if local.offset().is_zero() { "Z".to_owned() } else { local.strftime("%:z").to_string() };
    annotations.insert(SCHEDULED_AT.into(), format!("{}{offset}", local.strftime("%Y-%m-%dT%H:%M:%S")));
    Job {
        metadata: ObjectMeta {
            name: Some(format!("{}-{}", cron_job.name(), at.as_second() / 60)),
            namespace: Some(cron_job.ns().to_owned()),
            labels: meta.labels,
            annotations: Some(annotations),
            owner_references: Some(vec![controller_reference(cron_job)]),
            ..Default::default()
        },
        spec: template.spec,
        status: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn observed(policy: &str, last: &str, jobs: Vec<Job>) -> Observed {
        let cron_job = json!({
            "metadata": {"name": "tick", "namespace": "ns", "uid": "u", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"schedule": "*/5 * * * *", "concurrencyPolicy": policy, "jobTemplate": {"spec": {"template": {}}}},
            "status": {"lastScheduleTime": last},
        });
        Observed {
            cron_job: Arc::new(serde_json::from_value(cron_job).unwrap()),
            jobs: jobs.into_iter().map(Arc::new).collect(),
            now: at("2026-01-01T10:06:00Z"),
        }
    }

    fn job(name: &str, condition: Option<&str>) -> Job {
        let conditions: Vec<_> = condition.iter().map(|c| json!({"type": c, "status": "True"})).collect();
        let job =
            json!({"metadata": {"name": name, "namespace": "ns"}, "status": {"conditions": conditions}});
        serde_json::from_value(job).unwrap()
    }

    fn run(observed: &Observed) -> Plan {
        plan(observed, Some(&Schedule::parse("*/5 * * * *", Some("Europe/Berlin")).unwrap()))
    }

    #[test]
    fn only_the_latest_missed_time_gets_a_job() {
        let plan = run(&observed("Allow", "2026-01-01T09:00:00Z", vec![job("old", None)]));
        let made = plan.create.expect("a job");
        assert_eq!(made.name(), format!("tick-{}", at("2026-01-01T10:05:00Z").as_second() / 60));
        assert_eq!(made.annotation(SCHEDULED_AT), Some("2026-01-01T11:05:00+01:00"));
        assert_eq!(plan.status.last_schedule_time, Some(Time(at("2026-01-01T10:05:00Z"))));
        assert_eq!(plan.next.map(|n| n.as_secs()), Some(240));
        assert!(run(&observed("Allow", "2026-01-01T10:05:00Z", vec![])).create.is_none());
    }

    #[test]
    fn what_still_runs_is_respected_or_replaced() {
        let forbid = run(&observed("Forbid", "2026-01-01T10:00:00Z", vec![job("old", None)]));
        assert!(forbid.create.is_none() && forbid.skipped);
        let replace = run(&observed("Replace", "2026-01-01T10:00:00Z", vec![job("old", None)]));
        assert_eq!((replace.create.is_some(), replace.delete.len()), (true, 1));
        assert!(replace.status.active.is_none());
    }

    #[test]
    fn old_jobs_go_beyond_the_history_that_is_kept() {
        let done = |n: usize, kind| (0..n).map(move |i| job(&format!("{kind}-{i}"), Some(kind)));
        let jobs = done(5, "Complete").chain(done(2, "Failed")).collect();
        let plan = run(&observed("Allow", "2026-01-01T10:05:00Z", jobs));
        let names: Vec<&str> = plan.delete.iter().map(|j| j.name()).collect();
        assert_eq!(names, ["Complete-0", "Complete-1", "Failed-0"]);
    }
}
