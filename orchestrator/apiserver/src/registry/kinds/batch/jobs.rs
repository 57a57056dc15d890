//! Job: pods that run to completion. Its selector is made from its own uid unless asked otherwise.

use serde_json::{Value, json};

use crate::error::FieldError;
use crate::registry::context::Context;
use crate::registry::definition::{Declaration, STATUS};
use crate::registry::field_rules::{Fixed, is_same};
use crate::registry::kinds::rules::labels::validate_selector;
use crate::registry::kinds::rules::workload::selects_template;
use crate::registry::kinds::rules::{IMMUTABLE, immutable};
use crate::registry::meta::names;
use crate::registry::object::{items_at, meta_str};
use crate::registry::selector::LabelSelector;
use crate::registry::strategy::Strategy;
use crate::tables::workloads::JOBS;

mod indexes;
pub(super) mod spec;
mod status;

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
        .fixed(&[
            Fixed::Field("spec.selector"),
            Fixed::Field("spec.completionMode"),
            Fixed::Field("spec.podFailurePolicy"),
            Fixed::Field("spec.backoffLimitPerIndex"),
            Fixed::Field("spec.managedBy"),
            Fixed::Field("spec.successPolicy"),
        ])
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
        spec::validate(&new["spec"], "spec", &mut errors);
        let selector = &new["spec"]["selector"];
        if selector.is_null() {
            errors.push(FieldError::required("spec.selector", ""));
        } else {
            validate_selector(selector, "spec.selector", &mut errors);
            selects_template(selector, &new["spec"]["template"], "spec.template", &mut errors);
        }
        errors
    }

    fn validate_create(&self, new: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        own_selector(new, &mut errors);
        let completions = new["spec"]["completions"].as_i64().unwrap_or(0);
        let name = meta_str(new, "name");
        let host = format!("{name}-{}", completions - 1);
        if new["spec"]["completionMode"] == "Indexed" && completions > 0 && names::label(&host).is_some() {
            let why = format!("will not able to create pod with invalid DNS label: {host}");
            errors.push(FieldError::invalid("metadata.name", name, why));
        }
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let (is, was) = (&new["spec"], &old["spec"]);
        if !is_same(&is["completions"], &was["completions"]) {
            if is["completionMode"] != "Indexed" {
                immutable(new, old, "/spec/completions", &mut errors);
            } else if !is["completions"].is_null() && is["completions"] != is["parallelism"] {
                let why = "can only be modified in tandem with spec.parallelism";
                errors.push(FieldError::invalid("spec.completions", is["completions"].clone(), why));
            }
        }
        let (at, template) = ("spec.template", &is["template"]);
        if !is_same(template, &permitted(template, old)) {
            errors.push(FieldError::invalid(at, template.clone(), IMMUTABLE));
        }
        errors
    }

    fn validate_status(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let before = status::state(old);
        let mut errors = status::state(new);
        errors.retain(|error| !before.contains(error));
        errors.extend(status::change(new, old));
        errors
    }
}

/// The old template with all of the new one that may differ: while a job is suspended and has no pods, where they
/// run and what they ask for.
fn permitted(new: &Value, old: &Value) -> Value {
    let mut template = old["spec"]["template"].clone();
    let suspended = old["spec"]["suspend"] == true;
    let is_idle = old["status"]["active"].as_i64().unwrap_or(0) == 0;
    let never_started = old["status"]["startTime"].is_null();
    let was_told = items_at(old, "/status/conditions")
        .iter()
        .any(|it| it["type"] == "Suspended" && it["status"] == "True");
    if !suspended || !is_idle || !(never_started || was_told) {
        return template;
    }
    for (part, fields) in [
        ("spec", &["nodeSelector", "tolerations", "schedulingGates"][..]),
        ("metadata", &["annotations", "labels"][..]),
    ] {
        for field in fields {
            take(&mut template[part], &new[part], field);
        }
    }
    let affinity = |template: &Value| template["spec"]["affinity"]["nodeAffinity"].clone();
    if affinity(&template) != affinity(new) {
        take(&mut template["spec"]["affinity"], &new["spec"]["affinity"], "nodeAffinity");
    }
    for list in ["containers", "initContainers"] {
        let wanted = items_at(new, &format!("/spec/{list}"));
        let containers = template["spec"].get_mut(list).and_then(Value::as_array_mut);
        let Some(containers) = containers else { continue };
        if containers.len() == wanted.len() {
            for (container, wanted) in containers.iter_mut().zip(wanted) {
                if container["name"] == wanted["name"] {
                    take(container, wanted, "resources");
                }
            }
        }
    }
    template
}

/// A field as it is in another object, or not at all.
fn take(into: &mut Value, from: &Value, field: &str) {
    match (from.get(field), into.as_object_mut()) {
        (Some(value), Some(object)) => _ = object.insert(field.to_owned(), value.clone()),
        (None, Some(object)) => _ = object.remove(field),
        (Some(value), None) => *into = serde_json::json!({ field: value }),
        (None, None) => {}
    }
}

/// A job that does not choose for itself has the selector the server made.
fn own_selector(job: &Value, errors: &mut Vec<FieldError>) {
    let selector = &job["spec"]["selector"];
    if job["spec"]["manualSelector"] == true || selector.is_null() {
        return;
    }
    let (uid, name) = (meta_str(job, "uid"), meta_str(job, "name"));
    let labels = [
        ("controller-uid", uid),
        ("job-name", name),
        ("batch.kubernetes.io/controller-uid", uid),
        ("batch.kubernetes.io/job-name", name),
    ];
    for (key, value) in labels {
        let (of_template, at) =
            (&job["spec"]["template"]["metadata"]["labels"], format!("spec.template.metadata.labels[{key}]"));
        let why = format!("must be '{value}'");
        match of_template[key].as_str() {
            None => errors.push(FieldError::required(at, why)),
            Some(has) if has != value => errors.push(FieldError::invalid(at, of_template.clone(), why)),
            Some(_) => {}
        }
    }
    let expected = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    if LabelSelector::from_object(selector).is_some_and(|parsed| !parsed.matches(&expected)) {
        errors.push(FieldError::invalid("spec.selector", selector.clone(), "`selector` not auto-generated"));
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

    #[test]
    fn a_suspended_job_may_be_told_where_to_run_and_what_it_has_not_stays_away() {
        let job = |spec: Value| json!({"spec": {"suspend": true, "template": {"metadata": {"labels": {"a": "b"}}, "spec": spec}}});
        let (plain, container) = (json!({"containers": [{"name": "c"}]}), json!([{"name": "c"}]));
        let old = job(plain.clone());
        let template = |job: &Value| job["spec"]["template"].clone();
        assert_eq!(permitted(&template(&old), &old), template(&old), "nothing changed");
        let near = json!({"containers": container, "nodeSelector": {"disk": "fast"},
            "affinity": {"nodeAffinity": {"required": 1}}});
        let moved = job(near);
        assert_eq!(permitted(&template(&moved), &old), template(&moved));
        assert_eq!(
            permitted(&template(&old), &moved)["spec"]["nodeSelector"],
            Value::Null,
            "and be told no longer"
        );
        let other = job(json!({"containers": container, "hostNetwork": true}));
        assert_ne!(permitted(&template(&other), &old), template(&other));
    }
}
