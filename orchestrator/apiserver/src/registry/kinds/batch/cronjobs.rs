//! CronJob: jobs on a schedule.

use crate::registry::definition::{Declaration, STATUS};
use crate::tables::workloads::CRON_JOBS;

pub(crate) fn declaration() -> Declaration {
    Declaration::new("batch", "v1", "CronJob", "cronjobs")
        .columns(CRON_JOBS)
        .short(&["cj"])
        .categories(&["all"])
        .generation()
        .subresources(&[STATUS])
}
