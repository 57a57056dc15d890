//! Deletes finished Jobs when the time they are kept for has passed.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use kube::api::{DeleteParams, Preconditions};
use kube::{Api, Client};
use penstock_informers::cache::Cache;
use penstock_informers::failure::{During, gone_is_fine};
use penstock_informers::{Failure, Key, Meta, Next, Reconcile, WorkQueue, run_workers};

use crate::context::Context;

/// Runs the controller.
pub async fn run(context: Context) {
    let controller = Arc::new(Controller { client: context.client(), jobs: context.informers.cache() });
    let queue = Arc::new(WorkQueue::new());
    controller.jobs.wait_synced().await;
    let adder = queue.clone();
    controller.jobs.subscribe(move |delta| adder.add(delta.object().key()));
    run_workers(controller, queue, 1, context.shutdown).await;
}

struct Controller {
    client: Client,
    jobs: Arc<Cache<Job>>,
}

/// Seconds until the Job is to go; `None`: it stays.
fn plan_end(job: &Job, now: Timestamp) -> Option<u64> {
    let keep = job.spec.as_ref()?.ttl_seconds_after_finished?;
    let conditions = job.status.as_ref()?.conditions.as_ref()?;
    let finished = conditions
        .iter()
        .find(|c| matches!(c.type_.as_str(), "Complete" | "Failed") && c.status == "True")?;
    let since = finished.last_transition_time.as_ref()?.0.as_second();
    Some(u64::try_from(since + i64::from(keep) - now.as_second()).unwrap_or(0))
}

impl Reconcile for Controller {
    type Key = Key;
    const NAME: &'static str = "ttl-after-finished";

    async fn reconcile(&self, key: &Key) -> Result<Next, Failure> {
        let Some(job) = self.jobs.get(key).filter(|j| !j.deleting()) else {
            return Ok(Next::Done);
        };
        match plan_end(&job, Timestamp::now()) {
            None => Ok(Next::Done),
            Some(seconds) if seconds > 0 => Ok(Next::After(Duration::from_secs(seconds))),
            Some(_) => {
                let params = DeleteParams {
                    preconditions: Some(Preconditions {
                        uid: job.metadata.uid.clone(),
                        resource_version: job.metadata.resource_version.clone(),
                    }),
                    ..DeleteParams::foreground()
                };
                let api: Api<Job> = Api::namespaced(self.client.clone(), job.ns());
                gone_is_fine(api.delete(job.name(), &params).await)
                    .during(|| format!("deleting job {key}"))?;
                Ok(Next::Done)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_finished_jobs_with_a_limit_go() {
        let job = |ttl: Option<i32>, kind: &str| -> Job {
            serde_json::from_value(serde_json::json!({
                "metadata": {"name": "j"},
                "spec": {"template": {}, "ttlSecondsAfterFinished": ttl},
                "status": {"conditions": [{"type": kind, "status": "True", "lastTransitionTime": "1970-01-01T00:01:40Z"}]},
            }))
            .unwrap()
        };
        let now = Timestamp::from_second(105).unwrap();
        assert_eq!(plan_end(&job(Some(10), "Complete"), now), Some(5));
        assert_eq!(plan_end(&job(Some(1), "Failed"), now), Some(0));
        assert_eq!(plan_end(&job(None, "Complete"), now), None);
        assert_eq!(plan_end(&job(Some(1), "Suspended"), now), None);
    }
}
