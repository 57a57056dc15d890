//! CronJob: makes a Job at every time of a schedule, and keeps a short history of those that are over.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::api::{DeleteParams, PostParams};
use kube::{Api, Client};
use penstock_informers::cache::Cache;
use penstock_informers::failure::{During, gone_is_fine, is_already_exists, is_namespace_terminating};
use penstock_informers::identity::object_reference;
use penstock_informers::{EventType, Failure, Key, Meta, Next, Reconcile, Recorder, WorkQueue, run_workers};

use crate::context::Context;

pub mod plan;
mod schedule;

use plan::{Observed, plan};
use schedule::Schedule;

/// Runs the controller.
pub async fn run(context: Context) {
    let controller = Arc::new(Controller {
        client: context.client(),
        cron_jobs: context.informers.cache(),
        jobs: context.informers.cache(),
        recorder: context.recorder("cronjob-controller"),
    });
    tokio::join!(controller.cron_jobs.wait_synced(), controller.jobs.wait_synced());
    let queue = Arc::new(WorkQueue::new());
    let adder = queue.clone();
    controller.cron_jobs.subscribe(move |delta| adder.add(delta.object().key()));
    let adder = queue.clone();
    controller.jobs.subscribe(move |delta| {
        let job = delta.object();
        if let Some(owner) = job.controller_ref().filter(|o| o.kind == "CronJob") {
            adder.add(Key::new(job.ns(), owner.name.clone()));
        }
    });
    run_workers(controller, queue, 2, context.shutdown).await;
}

struct Controller {
    client: Client,
    cron_jobs: Arc<Cache<CronJob>>,
    jobs: Arc<Cache<Job>>,
    recorder: Recorder,
}

impl Controller {
    fn schedule(&self, cron_job: &CronJob) -> Option<Schedule> {
        let spec = &cron_job.spec;
        match Schedule::parse(&spec.schedule, spec.time_zone.as_deref()) {
            Ok(schedule) => Some(schedule),
            Err(error) => {
                let message = format!("unparseable schedule: {:?} : {error}", spec.schedule);
                self.recorder.record(cron_job, EventType::Warning, "UnparseableSchedule", message);
                None
            }
        }
    }

    /// The Job as made; `None` when there is one of that name.
    async fn create(&self, cron_job: &CronJob, job: &Job) -> Result<Option<Job>, Failure> {
        let api: Api<Job> = Api::namespaced(self.client.clone(), cron_job.ns());
        match api.create(&PostParams::default(), job).await {
            Ok(created) => {
                let message = format!("Created job {}", created.name());
                self.recorder.record(cron_job, EventType::Normal, "SuccessfulCreate", message);
                Ok(Some(created))
            }
            Err(error) if is_already_exists(&error) => Ok(None),
            Err(error) => {
                if !is_namespace_terminating(&error) {
                    let message = format!("Error creating job: {error}");
                    self.recorder.record(cron_job, EventType::Warning, "FailedCreate", message);
                }
                Err(Failure::api(format!("creating {}", job.key()), error))
            }
        }
    }

    async fn delete(&self, cron_job: &CronJob, job: &Job) -> Result<(), Failure> {
        let api: Api<Job> = Api::namespaced(self.client.clone(), job.ns());
        let deleted = api.delete(job.name(), &DeleteParams::background()).await;
        gone_is_fine(deleted).during(|| format!("deleting {}", job.key()))?;
        let message = format!("Deleted job {}", job.name());
        self.recorder.record(cron_job, EventType::Normal, "SuccessfulDelete", message);
        Ok(())
    }
}

impl Reconcile for Controller {
    type Key = Key;
    const NAME: &'static str = "cron-job";

    async fn reconcile(&self, key: &Key) -> Result<Next, Failure> {
        let Some(cron_job) = self.cron_jobs.get(key) else {
            return Ok(Next::Done);
        };
        let schedule = self.schedule(&cron_job);
        let observed = Observed {
            cron_job: cron_job.clone(),
            jobs: self.jobs.list_controlled(cron_job.uid_str()),
            now: Timestamp::now(),
        };
        let mut plan = plan(&observed, schedule.as_ref());
        for old in &plan.delete {
            self.delete(&cron_job, old).await?;
        }
        if plan.skipped {
            let message =
                "Not starting job because prior execution is running and concurrency policy is Forbid";
            self.recorder.record(cron_job.as_ref(), EventType::Normal, "JobAlreadyActive", message);
        }
        if let Some(job) = &plan.create
            && let Some(created) = self.create(&cron_job, job).await?
        {
            let active = plan.status.active.get_or_insert_default();
            active.push(ObjectReference { resource_version: None, ..object_reference(&created) });
        }
        if cron_job.status.as_ref() != Some(&plan.status) {
            let changed = CronJob { status: Some(plan.status), ..cron_job.as_ref().clone() };
            let api: Api<CronJob> = Api::namespaced(self.client.clone(), cron_job.ns());
            let written = api.replace_status(cron_job.name(), &PostParams::default(), &changed).await;
            gone_is_fine(written).during(|| format!("status of {key}"))?;
        }
        Ok(plan.next.map_or(Next::Done, Next::After))
    }
}
