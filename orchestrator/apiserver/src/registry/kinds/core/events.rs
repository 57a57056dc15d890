//! Event: something worth telling happened. Kept for an hour. `events.k8s.io` serves the same objects.

use serde_json::Value;

use crate::error::FieldError;
use crate::registry::definition::Declaration;
use crate::registry::field_rules::{is_empty, is_same};
use crate::registry::kinds::rules::IMMUTABLE;
use crate::registry::meta::{NameRule, names};
use crate::registry::object::{meta_str, str_at};
use crate::registry::strategy::Strategy;
use crate::tables::core::EVENTS;

const KEPT_SECONDS: u64 = 3600;

pub(crate) fn declaration() -> Declaration {
    Declaration::new("", "v1", "Event", "events")
        .short(&["ev"])
        .columns(EVENTS)
        .name_rule(NameRule::PathSegment)
        .create_on_update()
        .ttl_seconds(KEPT_SECONDS)
        .fields(
            &[
                "involvedObject.kind",
                "involvedObject.namespace",
                "involvedObject.name",
                "involvedObject.uid",
                "involvedObject.apiVersion",
                "involvedObject.resourceVersion",
                "involvedObject.fieldPath",
                "reason",
                "reportingComponent",
                "source",
                "type",
            ],
            fields,
        )
        .strategy(OfVersion {
            about: "involvedObject",
            reporter: "reportingComponent",
            note: "message",
            strict: false,
        })
}

/// Upstream's bounds (pkg/apis/core/validation/events.go).
const INSTANCE_BYTES_MAX: usize = 128;
const ACTION_BYTES_MAX: usize = 128;
const REASON_BYTES_MAX: usize = 128;
const NOTE_BYTES_MAX: usize = 1024;

/// The rules of both versions, whose fields have other names; the newer one is stricter.
pub(crate) struct OfVersion {
    pub about: &'static str,
    pub reporter: &'static str,
    pub note: &'static str,
    pub strict: bool,
}

impl OfVersion {
    /// Where an event is, and where what it is about. Errors are told in upstream's one set of names.
    fn place(&self, event: &Value, is_new_form: bool, errors: &mut Vec<FieldError>) {
        let (here, there) =
            (meta_str(event, "namespace"), event[self.about]["namespace"].as_str().unwrap_or_default());
        let good = match (there.is_empty(), is_new_form) {
            (true, false) => matches!(here, "" | "default"),
            (true, true) => matches!(here, "default" | "kube-system"),
            (false, false) => here == there,
            (false, true) => true,
        };
        if !good {
            let why = "does not match event.namespace";
            errors.push(FieldError::invalid("involvedObject.namespace", there, why));
        }
    }

    /// What an event that says when it happened says besides.
    fn new_form(&self, event: &Value, errors: &mut Vec<FieldError>) {
        let reporter = str_at(event, &format!("/{}", self.reporter));
        if reporter.is_empty() {
            errors.push(FieldError::required(self.reporter, ""));
        }
        if let Some(why) = names::qualified_name(reporter) {
            errors.push(FieldError::invalid(self.reporter, reporter, why));
        }
        for (field, told, max, required) in [
            ("reportingInstance", "reportingInstance", INSTANCE_BYTES_MAX, true),
            ("action", "action", ACTION_BYTES_MAX, true),
            ("reason", "reason", REASON_BYTES_MAX, true),
            (self.note, "message", NOTE_BYTES_MAX, false),
        ] {
            let text = str_at(event, &format!("/{field}"));
            if text.is_empty() && required {
                errors.push(FieldError::required(told, ""));
            }
            if text.len() > max {
                errors.push(FieldError::invalid(told, "", format!("can have at most {max} characters")));
            }
        }
    }

    fn series(event: &Value, errors: &mut Vec<FieldError>) {
        let series = &event["series"];
        if series.is_null() {
            return;
        }
        if series["count"].as_i64().unwrap_or(0) < 2 {
            errors.push(FieldError::invalid("series.count", "", "should be at least 2"));
        }
        if series["lastObservedTime"].is_null() {
            errors.push(FieldError::required("series.lastObservedTime", ""));
        }
    }
}

impl Strategy for OfVersion {
    fn validate(&self, new: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let is_new_form = !is_empty(&new["eventTime"]);
        self.place(new, is_new_form, &mut errors);
        if is_new_form {
            self.new_form(new, &mut errors);
        }
        errors
    }

    fn validate_create(&self, new: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        if !self.strict {
            return errors;
        }
        Self::series(new, &mut errors);
        if is_empty(&new["eventTime"]) {
            errors.push(FieldError::required("eventTime", ""));
        }
        let kind = str_at(new, "/type");
        if !["Normal", "Warning"].contains(&kind) {
            errors.push(FieldError::invalid("type", "", format!("has invalid value: {kind}")));
        }
        for (field, told) in [
            ("deprecatedFirstTimestamp", "firstTimestamp"),
            ("deprecatedLastTimestamp", "lastTimestamp"),
            ("deprecatedCount", "count"),
            ("deprecatedSource", "source"),
        ] {
            if !is_empty(&new[field]) && new[field] != 0 {
                errors.push(FieldError::invalid(told, "", "needs to be unset"));
            }
        }
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        if !self.strict {
            return errors;
        }
        if !is_same(&new["series"], &old["series"]) {
            Self::series(new, &mut errors);
        }
        for (field, told) in [
            ("regarding", "involvedObject"),
            ("reason", "reason"),
            ("note", "message"),
            ("deprecatedSource", "source"),
            ("deprecatedFirstTimestamp", "firstTimestamp"),
            ("deprecatedLastTimestamp", "lastTimestamp"),
            ("deprecatedCount", "count"),
            ("type", "type"),
            ("eventTime", "eventTime"),
            ("action", "action"),
            ("related", "related"),
            ("reportingController", "reportingController"),
            ("reportingInstance", "reportingInstance"),
        ] {
            if !is_same(&new[field], &old[field]) {
                errors.push(FieldError::invalid(told, new[field].clone(), IMMUTABLE));
            }
        }
        errors
    }
}

fn fields(o: &Value) -> Vec<(&'static str, String)> {
    let about = |f: &str| str_at(o, &format!("/involvedObject/{f}")).to_string();
    let component = str_at(o, "/source/component");
    vec![
        ("involvedObject.kind", about("kind")),
        ("involvedObject.namespace", about("namespace")),
        ("involvedObject.name", about("name")),
        ("involvedObject.uid", about("uid")),
        ("involvedObject.apiVersion", about("apiVersion")),
        ("involvedObject.resourceVersion", about("resourceVersion")),
        ("involvedObject.fieldPath", about("fieldPath")),
        ("reason", str_at(o, "/reason").to_string()),
        ("reportingComponent", str_at(o, "/reportingComponent").to_string()),
        (
            "source",
            if component.is_empty() { str_at(o, "/reportingComponent") } else { component }.to_string(),
        ),
        ("type", str_at(o, "/type").to_string()),
    ]
}
