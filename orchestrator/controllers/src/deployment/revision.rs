//! Revisions of a Deployment: which ReplicaSet is the current template's, what its annotations say, and how a
//! new one is made. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use penstock_informers::Meta;
use penstock_informers::identity::controller_reference;

use super::limits::Limits;
use crate::template_hash::hash_template;

pub(crate) const HASH_LABEL: &str = "pod-template-hash";
pub(crate) const REVISION: &str = "deployment.kubernetes.io/revision";
const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
pub(crate) const DESIRED_REPLICAS: &str = "deployment.kubernetes.io/desired-replicas";
pub(crate) const MAX_REPLICAS: &str = "deployment.kubernetes.io/max-replicas";
/// Annotations of the Deployment that say nothing about a revision.
const NOT_COPIED: &[&str] = &[
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    REVISION_HISTORY,
    DESIRED_REPLICAS,
    MAX_REPLICAS,
    "deprecated.deployment.rollback.to",
];

/// Replicas a ReplicaSet is asked for.
pub(crate) fn replicas(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1)
}

/// Replicas a ReplicaSet has available.
pub(crate) fn available(set: &ReplicaSet) -> i32 {
    set.status.as_ref().and_then(|s| s.available_replicas).unwrap_or(0)
}

/// The revision number, 0 when there is none.
pub(crate) fn revision(set: &ReplicaSet) -> i64 {
    set.annotation(REVISION).and_then(|v| v.parse().ok()).unwrap_or(0)
}

/// Whether two templates are the same but for the hash label.
pub(crate) fn same_template(a: &PodTemplateSpec, b: &PodTemplateSpec) -> bool {
    fn bare(template: &PodTemplateSpec) -> PodTemplateSpec {
        let mut template = template.clone();
        let meta = template.metadata.get_or_insert_default();
        if let Some(labels) = &mut meta.labels {
            labels.remove(HASH_LABEL);
        }
        meta.labels = meta.labels.take().filter(|l| !l.is_empty());
        meta.annotations = meta.annotations.take().filter(|a| !a.is_empty());
        meta.creation_timestamp = None;
        template
    }
    bare(a) == bare(b)
}

/// The ReplicaSet of the current template; the oldest when there are several.
pub(crate) fn find_new(spec: &DeploymentSpec, sets: &[Arc<ReplicaSet>]) -> Option<Arc<ReplicaSet>> {
    let same = |set: &&Arc<ReplicaSet>| {
        let template = set.spec.as_ref().and_then(|s| s.template.as_ref());
        template.is_some_and(|t| same_template(t, &spec.template))
    };
    sets.iter().filter(same).min_by_key(|s| (s.created_seconds(), s.name().to_owned())).cloned()
}

/// Annotations the current ReplicaSet lacks for `revision`; empty when it is up to date.
pub(crate) fn plan_annotations(
    deployment: &Deployment,
    set: Option<&ReplicaSet>,
    wanted: i64,
) -> BTreeMap<String, String> {
    let mut changes = BTreeMap::new();
    for (key, value) in deployment.metadata.annotations.iter().flatten() {
        let has = set.and_then(|s| s.annotation(key));
        if !NOT_COPIED.contains(&key.as_str()) && has != Some(value) {
            changes.insert(key.clone(), value.clone());
        }
    }
    let current = set.map_or(0, revision);
    if current < wanted {
        changes.insert(REVISION.to_owned(), wanted.to_string());
        if current > 0 {
            let history = set.and_then(|s| s.annotation(REVISION_HISTORY)).filter(|h| !h.is_empty());
            let history = history.map_or(current.to_string(), |h| format!("{h},{current}"));
            changes.insert(REVISION_HISTORY.to_owned(), history);
        }
    }
    changes
}

/// Annotations that remember what a scaling was computed from.
pub(crate) fn scale_annotations(limits: &Limits) -> BTreeMap<String, String> {
    [
        (DESIRED_REPLICAS.to_owned(), limits.replicas.to_string()),
        (MAX_REPLICAS.to_owned(), (limits.replicas + limits.max_surge).to_string()),
    ]
    .into()
}

/// A ReplicaSet for the current template.
pub(crate) fn new_set(
    deployment: &Deployment,
    spec: &DeploymentSpec,
    limits: &Limits,
    replicas: i32,
    revision: i64,
) -> ReplicaSet {
    let collisions = deployment.status.as_ref().and_then(|s| s.collision_count);
    let hash = hash_template(&spec.template, collisions);
    let mut template = spec.template.clone();
    let meta = template.metadata.get_or_insert_default();
    meta.labels.get_or_insert_default().insert(HASH_LABEL.to_owned(), hash.clone());
    let mut selector = spec.selector.clone();
    selector.match_labels.get_or_insert_default().insert(HASH_LABEL.to_owned(), hash.clone());
    let mut annotations = plan_annotations(deployment, None, revision);
    annotations.extend(scale_annotations(limits));
    ReplicaSet {
        metadata: ObjectMeta {
            name: Some(format!("{}-{hash}", deployment.name())),
            namespace: deployment.metadata.namespace.clone(),
            labels: meta.labels.clone(),
            annotations: Some(annotations),
            owner_references: Some(vec![controller_reference(deployment)]),
            ..Default::default()
        },
        spec: Some(ReplicaSetSpec {
            replicas: Some(replicas),
            min_ready_seconds: spec.min_ready_seconds,
            selector,
            template: Some(template),
        }),
        status: None,
    }
}
