//! Restricted: what hardening asks of a pod, beyond the baseline.

use serde_json::Value;

use super::baseline::{self, seccomp_said};
use super::subject::{Finding, Subject, Values, containers_named, one_or_more, quoted, uses};
use crate::registry::object::items_at;

const VOLUMES: &[&str] = &[
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
];

pub fn escalation(subject: &Subject<'_>) -> Option<Finding> {
    let bad = subject.containers_that(|it| it["securityContext"]["allowPrivilegeEscalation"] != false);
    (!bad.is_empty()).then(|| {
        let detail =
            format!("{} must set securityContext.allowPrivilegeEscalation=false", containers_named(&bad));
        Finding::new("allowPrivilegeEscalation != false", detail)
    })
}

pub fn escalation_not_on_windows(subject: &Subject<'_>) -> Option<Finding> {
    if subject.is_for_windows() { None } else { escalation(subject) }
}

pub fn capabilities(subject: &Subject<'_>) -> Option<Finding> {
    let has = |container: &Value, list: &str, name: &str| {
        items_at(container, &format!("/securityContext/capabilities/{list}")).iter().any(|it| it == name)
    };
    let keeping = subject.containers_that(|container| !has(container, "drop", "ALL"));
    let mut added = Values::new();
    let adding = subject.containers_that(|container| {
        let all = items_at(container, "/securityContext/capabilities/add").iter().filter_map(Value::as_str);
        let beyond: Vec<String> = all.filter(|it| *it != "NET_BIND_SERVICE").map(str::to_owned).collect();
        let is_bad = !beyond.is_empty();
        added.extend(beyond);
        is_bad
    });
    let mut details = Vec::new();
    if !keeping.is_empty() {
        details.push(format!(
            "{} must set securityContext.capabilities.drop=[\"ALL\"]",
            containers_named(&keeping)
        ));
    }
    if !adding.is_empty() {
        let named = containers_named(&adding);
        details
            .push(format!("{named} must not include {} in securityContext.capabilities.add", quoted(&added)));
    }
    (!details.is_empty()).then(|| Finding::new("unrestricted capabilities", details.join("; ")))
}

pub fn capabilities_not_on_windows(subject: &Subject<'_>) -> Option<Finding> {
    if subject.is_for_windows() { None } else { capabilities(subject) }
}

pub fn volumes(subject: &Subject<'_>) -> Option<Finding> {
    let kind = |volume: &Value| {
        let fields = volume.as_object().into_iter().flatten();
        let mut kinds =
            fields.filter(|(field, value)| *field != "name" && !value.is_null()).map(|(field, _)| field);
        kinds.next().cloned().unwrap_or_else(|| "unknown".to_owned())
    };
    let bad = items_at(subject.spec, "/volumes").iter().map(|volume| (volume, kind(volume)));
    let bad: Vec<(&Value, String)> = bad.filter(|(_, kind)| !VOLUMES.contains(&&**kind)).collect();
    if bad.is_empty() {
        return None;
    }
    let names: Vec<&str> = bad.iter().filter_map(|(volume, _)| volume["name"].as_str()).collect();
    let kinds: Values = bad.iter().map(|(_, kind)| kind.clone()).collect();
    let detail = format!(
        "{} {} {} {} {}",
        one_or_more("volume", bad.len()),
        quoted(&names),
        uses(bad.len()),
        one_or_more("restricted volume type", kinds.len()),
        quoted(&kinds)
    );
    Some(Finding::new("restricted volume types", detail))
}

pub fn non_root(subject: &Subject<'_>) -> Option<Finding> {
    const REASON: &str = "runAsNonRoot != true";
    let setters = subject.setters(|context| context["runAsNonRoot"] == false);
    if !setters.is_empty() {
        let who = setters.join(" and ");
        return Some(Finding::new(REASON, format!("{who} must not set securityContext.runAsNonRoot=false")));
    }
    let silent = silent(subject, |context| context.get("runAsNonRoot").and_then(Value::as_bool));
    (!silent.is_empty()).then(|| {
        let named = containers_named(&silent);
        Finding::new(REASON, format!("pod or {named} must set securityContext.runAsNonRoot=true"))
    })
}

/// Containers that say nothing where their pod does not say it for them.
fn silent<'a>(subject: &Subject<'a>, said: impl Fn(&Value) -> Option<bool>) -> Vec<&'a str> {
    let by_pod = said(&subject.spec["securityContext"]) == Some(true);
    subject.containers_that(|container| !by_pod && said(&container["securityContext"]).is_none())
}

pub fn non_root_without_own_users(subject: &Subject<'_>) -> Option<Finding> {
    if subject.has_own_users() { None } else { non_root(subject) }
}

pub fn user(subject: &Subject<'_>) -> Option<Finding> {
    let setters = subject.setters(|context| context["runAsUser"] == 0);
    (!setters.is_empty())
        .then(|| Finding::new("runAsUser=0", format!("{} must not set runAsUser=0", setters.join(" and "))))
}

pub fn user_without_own_users(subject: &Subject<'_>) -> Option<Finding> {
    if subject.has_own_users() { None } else { user(subject) }
}

pub fn seccomp(subject: &Subject<'_>) -> Option<Finding> {
    if let Some(finding) = baseline::seccomp(subject) {
        return Some(finding);
    }
    let silent = silent(subject, seccomp_said);
    (!silent.is_empty()).then(|| {
        let detail = format!(
            "pod or {} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"",
            containers_named(&silent)
        );
        Finding::new("seccompProfile", detail)
    })
}

pub fn seccomp_not_on_windows(subject: &Subject<'_>) -> Option<Finding> {
    if subject.is_for_windows() { None } else { seccomp(subject) }
}
