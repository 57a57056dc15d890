//! CronJob: jobs on a schedule.

use jiff::tz::TimeZone;
use serde_json::Value;

use super::jobs;
use crate::error::FieldError;
use crate::registry::definition::{Declaration, STATUS};
use crate::registry::field_rules::{Check, Rule, at};
use crate::registry::kinds::rules::shapes::NOT_BELOW_ZERO;
use crate::registry::object::{meta_str, str_at};
use crate::registry::strategy::Strategy;
use crate::tables::workloads::CRON_JOBS;

mod schedule;

pub(crate) fn declaration() -> Declaration {
    Declaration::new("batch", "v1", "CronJob", "cronjobs")
        .columns(CRON_JOBS)
        .short(&["cj"])
        .categories(&["all"])
        .generation()
        .subresources(&[STATUS])
        .rules(RULES)
        .strategy(CronJob)
}

/// A job's name adds eleven bytes to this one, and has to be a label.
const NAME_BYTES_MAX: usize = 52;

const RULES: &[Rule] = &[
    at("spec.schedule", Check::Required("")),
    at("spec.schedule", Check::Name(schedule::check)),
    at("spec.startingDeadlineSeconds", NOT_BELOW_ZERO),
    at("spec.timeZone", Check::Text(time_zone)),
    at("spec.concurrencyPolicy", Check::OneOf(&["Allow", "Forbid", "Replace"])),
    at("spec.jobTemplate", Check::Judge(template)),
    at("spec.successfulJobsHistoryLimit", NOT_BELOW_ZERO),
    at("spec.failedJobsHistoryLimit", NOT_BELOW_ZERO),
];

fn time_zone(name: &str) -> Option<String> {
    let is_part = |part: &str| {
        (1..=14).contains(&part.len())
            && !matches!(part, "." | "..")
            && !part.starts_with('-')
            && part.bytes().all(|c| c.is_ascii_alphanumeric() || b".-_+".contains(&c))
    };
    if name.is_empty() {
        Some("timeZone must be nil or non-empty string".into())
    } else if !name.split('/').all(is_part) {
        Some(format!("unknown time zone {name}"))
    } else if name.eq_ignore_ascii_case("local") {
        let zones = "https://www.iana.org/time-zones";
        Some(format!("timeZone must be an explicit time zone as defined in {zones}"))
    } else {
        TimeZone::get(name).err().map(|_| format!("unknown time zone {name}"))
    }
}

fn template(template: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let (spec, at) = (&template["spec"], format!("{path}.spec"));
    jobs::spec::validate(spec, &at, errors);
    if !spec["selector"].is_null() {
        let why = "`selector` will be auto-generated";
        errors.push(FieldError::invalid(format!("{at}.selector"), spec["selector"].clone(), why));
    }
    if spec["manualSelector"] == true {
        errors.push(FieldError::not_supported(format!("{at}.manualSelector"), true, &["nil", "false"]));
    }
}

struct CronJob;

impl Strategy for CronJob {
    fn validate(&self, new: &Value) -> Vec<FieldError> {
        let schedule = str_at(new, "/spec/schedule");
        let why = match (schedule.contains("TZ"), new["spec"]["timeZone"].is_null()) {
            (false, _) => return Vec::new(),
            (true, true) => "cannot use TZ or CRON_TZ in schedule, use timeZone field instead",
            (true, false) => "cannot use both timeZone field and TZ or CRON_TZ in schedule",
        };
        vec![FieldError::invalid("spec.schedule", schedule, why)]
    }

    fn validate_create(&self, new: &Value) -> Vec<FieldError> {
        let name = meta_str(new, "name");
        if name.len() <= NAME_BYTES_MAX {
            return Vec::new();
        }
        let why = format!("must be no more than {NAME_BYTES_MAX} characters");
        vec![FieldError::invalid("metadata.name", name, why)]
    }
}
