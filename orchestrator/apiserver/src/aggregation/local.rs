//! APIServices of what this server serves itself: which there must be. Pure.
//!
//! They tell priorities to whoever orders groups, and whose a group is. Those of built-in groups are put right at
//! start and again when somebody removes them; those of custom groups come and go with their definitions.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::registry::object::{items_at, meta_str};

/// Says that this server makes, keeps and removes an APIService.
pub(super) const MANAGED: &str = "kube-aggregator.kubernetes.io/automanaged";
const ON_START: &str = "onstart";
const CONTINUOUSLY: &str = "true";

/// Of groups made by CustomResourceDefinitions: behind everything built in.
const CUSTOM_GROUP_PRIORITY: i64 = 1000;
const CUSTOM_VERSION_PRIORITY: i64 = 100;

/// Priorities of built-in groups (upstream's, `DefaultGenericAPIServicePriorities`), and of their first version.
const BUILT_IN: [(&str, i64, i64); 21] = [
    ("", 18000, 1),
    ("apps", 17800, 15),
    ("events.k8s.io", 17750, 15),
    ("authentication.k8s.io", 17700, 15),
    ("authorization.k8s.io", 17600, 15),
    ("autoscaling", 17500, 30),
    ("batch", 17400, 15),
    ("certificates.k8s.io", 17300, 15),
    ("networking.k8s.io", 17200, 15),
    ("policy", 17100, 15),
    ("rbac.authorization.k8s.io", 17000, 15),
    ("storage.k8s.io", 16800, 15),
    ("apiextensions.k8s.io", 16700, 15),
    ("admissionregistration.k8s.io", 16700, 15),
    ("scheduling.k8s.io", 16600, 15),
    ("coordination.k8s.io", 16500, 15),
    ("node.k8s.io", 16300, 15),
    ("discovery.k8s.io", 16200, 15),
    ("flowcontrol.apiserver.k8s.io", 16100, 21),
    ("resource.k8s.io", 15900, 15),
    ("apiregistration.k8s.io", 18000, 1),
];

/// A version of a group served here.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Served {
    pub group: String,
    pub version: String,
    pub custom: bool,
}

/// What to do about one APIService.
#[derive(Debug, PartialEq)]
pub(super) enum Change {
    Create(Value),
    /// Give it this spec and these labels.
    Mend(Value),
    Remove(String),
}

pub(super) fn group_priority(group: &str) -> i64 {
    BUILT_IN
        .iter()
        .find(|(name, ..)| *name == group)
        .map_or(CUSTOM_GROUP_PRIORITY, |(_, priority, _)| *priority)
}

pub(super) fn version_priority(group: &str, version: &str) -> i64 {
    match BUILT_IN.iter().find(|(name, ..)| *name == group) {
        None => CUSTOM_VERSION_PRIORITY,
        Some(_) if (group, version) == ("autoscaling", "v1") => 15,
        Some((.., priority)) => *priority,
    }
}

pub(super) fn is_built_in(group: &str) -> bool {
    BUILT_IN.iter().any(|(name, ..)| *name == group)
}

/// The APIService of what is served here.
fn wanted(served: &Served) -> Value {
    let managed = if served.custom { CONTINUOUSLY } else { ON_START };
    let (group, version) = (&served.group, &served.version);
    json!({
        "apiVersion": "apiregistration.k8s.io/v1",
        "kind": "APIService",
        "metadata": {"name": format!("{version}.{group}"), "labels": {MANAGED: managed}},
        "spec": {
            "group": group,
            "version": version,
            "groupPriorityMinimum": group_priority(group),
            "versionPriority": version_priority(group, version),
        },
    })
}

/// How what there is becomes what there must be. What somebody took into their own hands, by another label or a
/// service, is theirs.
pub(super) fn plan(served: &[Served], present: &BTreeMap<String, Value>) -> Vec<Change> {
    let mut changes = Vec::new();
    let wanted: BTreeMap<String, Value> = served
        .iter()
        // The group of APIServices needs none: upstream has none either.
        .filter(|served| served.group != "apiregistration.k8s.io")
        .map(wanted)
        .map(|object| (meta_str(&object, "name").to_owned(), object))
        .collect();
    for (name, want) in &wanted {
        match present.get(name) {
            None => changes.push(Change::Create(want.clone())),
            Some(have) if is_managed(have) && !is_same(have, want) => {
                changes.push(Change::Mend(want.clone()))
            }
            Some(_) => {}
        }
    }
    for (name, have) in present {
        if is_managed(have) && !wanted.contains_key(name) {
            changes.push(Change::Remove(name.clone()));
        }
    }
    changes
}

fn is_managed(object: &Value) -> bool {
    object["metadata"]["labels"][MANAGED].is_string()
}

fn is_same(have: &Value, want: &Value) -> bool {
    have["metadata"]["labels"][MANAGED] == want["metadata"]["labels"][MANAGED]
        && ["group", "version", "groupPriorityMinimum", "versionPriority"]
            .iter()
            .all(|field| have["spec"][field] == want["spec"][field])
}

/// What is served here is there as long as we are.
pub(super) fn is_said_available(object: &Value) -> bool {
    items_at(object, "/status/conditions")
        .iter()
        .any(|c| c["type"] == "Available" && c["status"] == "True" && c["reason"] == "Local")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn served(group: &str, version: &str, custom: bool) -> Served {
        Served { group: group.into(), version: version.into(), custom }
    }

    #[test]
    fn what_is_served_has_an_apiservice_and_nothing_else_of_ours_has() {
        let apps = wanted(&served("apps", "v1", false));
        let gone = wanted(&served("gone.example.com", "v1", true));
        let mut theirs = gone.clone();
        theirs["metadata"]["name"] = "v1.theirs".into();
        theirs["metadata"]["labels"] = json!({});
        let mut bent = apps.clone();
        bent["spec"]["versionPriority"] = 1.into();
        let present: BTreeMap<String, Value> =
            [bent, gone, theirs].into_iter().map(|o| (meta_str(&o, "name").to_owned(), o)).collect();
        let plan = plan(&[served("apps", "v1", false), served("new.example.com", "v2", true)], &present);
        assert_eq!(
            plan,
            [
                Change::Mend(apps),
                Change::Create(wanted(&served("new.example.com", "v2", true))),
                Change::Remove("v1.gone.example.com".into())
            ]
        );
    }

    #[test]
    fn the_core_group_has_upstreams_name_and_priority() {
        let core = wanted(&served("", "v1", false));
        assert_eq!(
            (&core["metadata"]["name"], &core["spec"]["groupPriorityMinimum"]),
            (&json!("v1."), &json!(18000))
        );
        assert_eq!(version_priority("autoscaling", "v1"), 15);
    }
}
