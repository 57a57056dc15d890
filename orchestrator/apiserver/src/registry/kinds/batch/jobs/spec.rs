//! The spec of a Job, as a Job has it and as a CronJob keeps it for its jobs.

use std::collections::BTreeSet;

use serde_json::Value;

use super::indexes;
use crate::error::FieldError;
use crate::registry::field_rules::{self, Check, Rule, at, when, within};
use crate::registry::kinds::rules::pod_spec::validate_pod_template;
use crate::registry::kinds::rules::shapes::{NOT_BELOW_ZERO, quoted};
use crate::registry::meta::names;
use crate::registry::object::{items_at, str_at};

/// Upstream's bounds (pkg/apis/batch/validation).
const PARALLELISM_MAX: i64 = 100_000;
const FAILED_INDEXES_MAX: i64 = 100_000;
const COMPLETIONS_SOFT_MAX: i64 = 100_000;
const OF_MANY_COMPLETIONS_MAX: i64 = 10_000;

const ACTIONS: &[&str] = &["Count", "FailIndex", "FailJob", "Ignore"];
const STATUSES: &[&str] = &["False", "True", "Unknown"];
const OPERATORS: &[&str] = &["In", "NotIn"];

const SPEC: &[Rule] = &[
    at("parallelism", NOT_BELOW_ZERO),
    at("completions", NOT_BELOW_ZERO),
    at("activeDeadlineSeconds", NOT_BELOW_ZERO),
    at("backoffLimit", NOT_BELOW_ZERO),
    at("ttlSecondsAfterFinished", NOT_BELOW_ZERO),
    at("backoffLimitPerIndex", NOT_BELOW_ZERO),
    at("maxFailedIndexes", NOT_BELOW_ZERO),
    at("managedBy", Check::Name(names::domain_prefixed_path)),
    at("managedBy", Check::BytesMax(63)),
    at("completionMode", Check::OneOf(&["Indexed", "NonIndexed"])),
    when("completionMode", &["Indexed"], &[at("", Check::Judge(indexed))]),
    when(
        "completionMode",
        &["", "NonIndexed"],
        &[
            at("backoffLimitPerIndex", Check::Judge(needs_indexes)),
            at("maxFailedIndexes", Check::Judge(needs_indexes)),
            at("successPolicy", Check::Judge(needs_indexes)),
        ],
    ),
    within("podFailurePolicy", &[at("rules", Check::ItemsMax(20))]),
];

/// `path` is usually `spec`. The selector is the caller's.
pub(in crate::registry::kinds::batch) fn validate(spec: &Value, path: &str, errors: &mut Vec<FieldError>) {
    field_rules::judge(SPEC, spec, path, errors);
    if !spec["maxFailedIndexes"].is_null() && spec["backoffLimitPerIndex"].is_null() {
        let why = "when maxFailedIndexes is specified";
        errors.push(FieldError::required(format!("{path}.backoffLimitPerIndex"), why));
    }
    for (i, rule) in items_at(spec, "/podFailurePolicy/rules").iter().enumerate() {
        failure_rule(spec, rule, &format!("{path}.podFailurePolicy.rules[{i}]"), errors);
    }
    let fails = !spec["podFailurePolicy"].is_null();
    let replacements: &[&str] = if fails { &["Failed"] } else { &["Failed", "TerminatingOrFailed"] };
    let replacement = str_at(spec, "/podReplacementPolicy");
    if !replacement.is_empty() && !replacements.contains(&replacement) {
        errors.push(FieldError::not_supported(
            format!("{path}.podReplacementPolicy"),
            replacement,
            replacements,
        ));
    }
    validate_pod_template(&spec["template"], &format!("{path}.template"), errors);
    let at = format!("{path}.template.spec.restartPolicy");
    match str_at(spec, "/template/spec/restartPolicy") {
        "" | "Always" => {
            errors.push(FieldError::required(at, "valid values: \"OnFailure\", \"Never\""));
        }
        "Never" => {}
        "OnFailure" => {
            if fails {
                let why = "only \"Never\" is supported when podFailurePolicy is specified";
                errors.push(FieldError::invalid(at, "OnFailure", why));
            }
        }
        other => errors.push(FieldError::not_supported(at, other, &["OnFailure", "Never"])),
    }
}

fn needs_indexes(value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    if !value.is_null() {
        errors.push(FieldError::invalid(path, value.clone(), "requires indexed completion mode"));
    }
}

fn indexed(spec: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let number = |field: &str| spec[field].as_i64();
    let at = |field: &str| format!("{path}.{field}");
    let mut refuse = |field: &str, n: i64, why: String| errors.push(FieldError::invalid(at(field), n, why));
    let (completions, parallelism, failed) =
        (number("completions"), number("parallelism"), number("maxFailedIndexes"));
    if let Some(n) = parallelism.filter(|n| *n > PARALLELISM_MAX) {
        let why = format!("must be less than or equal to {PARALLELISM_MAX} when completion mode is Indexed");
        refuse("parallelism", n, why);
    }
    if let (Some(n), Some(most)) = (failed, completions)
        && n > most
    {
        refuse("maxFailedIndexes", n, "must be less than or equal to completions".into());
    }
    if let Some(n) = failed.filter(|n| *n > FAILED_INDEXES_MAX) {
        refuse("maxFailedIndexes", n, format!("must be less than or equal to {FAILED_INDEXES_MAX}"));
    }
    let many =
        completions.is_some_and(|n| n > COMPLETIONS_SOFT_MAX) && number("backoffLimitPerIndex").is_some();
    if many {
        let why = format!(
            "must be less than or equal to {OF_MANY_COMPLETIONS_MAX} when completions are above {COMPLETIONS_SOFT_MAX} and used with backoff limit per index"
        );
        for (field, n) in [("parallelism", parallelism), ("maxFailedIndexes", failed)] {
            if let Some(n) = n.filter(|n| *n > OF_MANY_COMPLETIONS_MAX) {
                refuse(field, n, why.clone());
            }
        }
        if failed.is_none() {
            let why = format!("must be specified when completions is above {COMPLETIONS_SOFT_MAX}");
            errors.push(FieldError::required(at("maxFailedIndexes"), why));
        }
    }
    match completions {
        None => errors.push(FieldError::required(at("completions"), "when completion mode is Indexed")),
        Some(completions) if !spec["successPolicy"].is_null() => {
            success_policy(&spec["successPolicy"], completions, &at("successPolicy"), errors);
        }
        Some(_) => {}
    }
}

fn success_policy(policy: &Value, completions: i64, path: &str, errors: &mut Vec<FieldError>) {
    let rules = items_at(policy, "/rules");
    let at = format!("{path}.rules");
    if rules.is_empty() {
        let why = "at least one rules must be specified when the successPolicy is specified";
        errors.push(FieldError::required(at.as_str(), why));
    }
    if rules.len() > 20 {
        errors.push(FieldError::too_many(at.as_str(), rules.len(), 20));
    }
    for (i, rule) in rules.iter().enumerate() {
        let at = format!("{at}[{i}]");
        let (count, listed) = (rule["succeededCount"].as_i64(), rule["succeededIndexes"].as_str());
        if count.is_none() && listed.is_none() {
            let why = "at least one of succeededCount or succeededIndexes must be specified";
            errors.push(FieldError::required(at.as_str(), why));
        }
        let mut total = None;
        if let Some(text) = listed {
            let at = format!("{at}.succeededIndexes");
            if text.len() > 64 * 1024 {
                errors.push(FieldError::too_long(at.as_str(), 64 * 1024));
            }
            match indexes::count(text, completions) {
                Ok(count) => total = Some(count),
                Err(why) => {
                    let why = format!("error parsing succeededIndexes: {why}");
                    errors.push(FieldError::invalid(at, text, why));
                }
            }
        }
        let Some(count) = count else { continue };
        let at = format!("{at}.succeededCount");
        if count < 0 {
            errors.push(FieldError::invalid(at.as_str(), count, "must be greater than or equal to 0"));
        }
        if count > completions {
            let why =
                format!("must be less than or equal to {completions} (the number of specified completions)");
            errors.push(FieldError::invalid(at.as_str(), count, why));
        }
        if let Some(total) = total.filter(|total| count > *total) {
            let why = format!(
                "must be less than or equal to {total} (the number of indexes in the specified succeededIndexes field)"
            );
            errors.push(FieldError::invalid(at, count, why));
        }
    }
}

fn failure_rule(spec: &Value, rule: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let action = str_at(rule, "/action");
    let at = format!("{path}.action");
    if action.is_empty() {
        errors.push(FieldError::required(
            at,
            format!("valid values: [{}]", quoted(ACTIONS).replace(", ", " ")),
        ));
    } else if action == "FailIndex" {
        if spec["backoffLimitPerIndex"].is_null() {
            let why = "requires the backoffLimitPerIndex to be set";
            errors.push(FieldError::invalid(at, action, why));
        }
    } else if !ACTIONS.contains(&action) {
        errors.push(FieldError::not_supported(at, action, ACTIONS));
    }
    let (codes, conditions) = (&rule["onExitCodes"], items_at(rule, "/onPodConditions"));
    if !codes.is_null() {
        exit_codes(spec, codes, &format!("{path}.onExitCodes"), errors);
    }
    if conditions.len() > 20 {
        errors.push(FieldError::too_many(format!("{path}.onPodConditions"), conditions.len(), 20));
    }
    for (i, condition) in conditions.iter().enumerate() {
        let at = format!("{path}.onPodConditions[{i}]");
        let (kind, status) = (str_at(condition, "/type"), str_at(condition, "/status"));
        if let Some(why) = names::qualified_name(kind) {
            errors.push(FieldError::invalid(format!("{at}.type"), kind, why));
        }
        one_of(status, STATUSES, &format!("{at}.status"), errors);
    }
    let why = match (codes.is_null(), conditions.is_empty()) {
        (false, false) => "specifying both OnExitCodes and OnPodConditions is not supported",
        (true, true) => "specifying one of OnExitCodes and OnPodConditions is required",
        _ => return,
    };
    errors.push(FieldError::invalid_unshown(path, why));
}

fn one_of(said: &str, allowed: &[&str], at: &str, errors: &mut Vec<FieldError>) {
    if said.is_empty() {
        let listed = quoted(allowed).replace(", ", " ");
        errors.push(FieldError::required(at, format!("valid values: [{listed}]")));
    } else if !allowed.contains(&said) {
        errors.push(FieldError::not_supported(at, said, allowed));
    }
}

fn exit_codes(spec: &Value, codes: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let operator = str_at(codes, "/operator");
    one_of(operator, OPERATORS, &format!("{path}.operator"), errors);
    if let Some(name) = codes["containerName"].as_str() {
        let lists = ["/template/spec/containers", "/template/spec/initContainers"];
        if !lists.iter().any(|list| items_at(spec, list).iter().any(|it| it["name"] == name)) {
            let why = "must be one of the container or initContainer names in the pod template";
            errors.push(FieldError::invalid(format!("{path}.containerName"), name, why));
        }
    }
    let values: Vec<i64> = items_at(codes, "/values").iter().filter_map(Value::as_i64).collect();
    let at = format!("{path}.values");
    if values.is_empty() {
        errors.push(FieldError::invalid(at.as_str(), values.clone(), "at least one value is required"));
    } else if values.len() > 255 {
        errors.push(FieldError::too_many(at.as_str(), values.len(), 255));
    }
    let mut seen = BTreeSet::new();
    for (i, code) in values.iter().enumerate() {
        if operator == "In" && *code == 0 {
            let why = "must not be 0 for the In operator";
            errors.push(FieldError::invalid(format!("{at}[{i}]"), *code, why));
        }
        if !seen.insert(code) {
            errors.push(FieldError::duplicate(format!("{at}[{i}]"), *code));
        }
    }
    if !values.is_sorted() {
        errors.push(FieldError::invalid(at, values, "must be ordered"));
    }
}
