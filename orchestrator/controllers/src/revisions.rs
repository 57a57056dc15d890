//! ControllerRevisions: the templates a DaemonSet or StatefulSet has had, so that a rollout can be told apart,
//! paused half-way and undone. What a revision holds is the patch that brings the set back to it.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use penstock_informers::cache::Cache;
use penstock_informers::failure::{During, gone_is_fine, is_already_exists};
use penstock_informers::identity::controller_reference;
use penstock_informers::{Failure, Meta};
use serde_json::{Value, json};

use crate::replicas::Owner;
use crate::template_hash::hash_template;

/// The label that says which revision a pod was made from.
pub const HASH_LABEL: &str = "controller-revision-hash";
/// Old revisions kept when the set does not say.
const HISTORY_DEFAULT: i32 = 10;

/// The revisions of one kind of set.
pub(crate) struct Revisions {
    pub client: Client,
    pub cache: Arc<Cache<ControllerRevision>>,
}

/// What has to happen so that the newest revision is the template's.
#[derive(Debug)]
enum Change {
    Keep(Arc<ControllerRevision>),
    /// An older one is the newest again.
    Renumber(Arc<ControllerRevision>, i64),
    Create(Box<ControllerRevision>),
}

/// The patch a revision holds.
fn data_of(template: &PodTemplateSpec) -> Value {
    let mut template = serde_json::to_value(template).unwrap_or_default();
    if let Some(template) = template.as_object_mut() {
        template.insert("$patch".into(), "replace".into());
    }
    json!({"spec": {"template": template}})
}

/// The template a revision holds.
pub(crate) fn template_of(revision: &ControllerRevision) -> Option<PodTemplateSpec> {
    let template = revision.data.as_ref()?.0.pointer("/spec/template")?.clone();
    serde_json::from_value(template).ok()
}

fn plan_revision<O: Owner>(
    owner: &O,
    existing: &[Arc<ControllerRevision>],
    template: &PodTemplateSpec,
) -> Change {
    let data = data_of(template);
    let newest = existing.iter().map(|r| r.revision).max().unwrap_or(0);
    // Of equals the newest: there are two when a cache lagged.
    let same = existing.iter().filter(|r| r.data.as_ref().is_some_and(|d| d.0 == data));
    if let Some(same) = same.max_by_key(|r| r.revision) {
        return if same.revision == newest {
            Change::Keep(same.clone())
        } else {
            Change::Renumber(same.clone(), newest + 1)
        };
    }
    let hash = hash_template(template, None);
    let meta = template.metadata.as_ref();
    let mut labels = meta.and_then(|m| m.labels.clone()).unwrap_or_default();
    labels.insert(HASH_LABEL.into(), hash.clone());
    Change::Create(Box::new(ControllerRevision {
        metadata: ObjectMeta {
            name: Some(format!("{}-{hash}", owner.name())),
            namespace: Some(owner.ns().to_owned()),
            labels: Some(labels),
            annotations: owner.meta().annotations.clone(),
            owner_references: Some(vec![controller_reference(owner)]),
            ..Default::default()
        },
        data: Some(RawExtension(data)),
        revision: newest + 1,
    }))
}

/// Revisions no pod is of, oldest first, beyond what is kept.
fn plan_history(
    existing: &[Arc<ControllerRevision>],
    live: &BTreeSet<String>,
    limit: Option<i32>,
) -> Vec<Arc<ControllerRevision>> {
    let limit = usize::try_from(limit.unwrap_or(HISTORY_DEFAULT)).unwrap_or(0);
    let mut old: Vec<_> = existing.iter().filter(|r| !live.contains(r.name())).cloned().collect();
    old.sort_by_key(|r| r.revision);
    old.truncate(old.len().saturating_sub(limit));
    old
}

impl Revisions {
    /// All revisions of a set.
    pub(crate) fn of<O: Owner>(&self, owner: &O) -> Vec<Arc<ControllerRevision>> {
        self.cache.list_controlled(owner.uid_str())
    }

    /// Makes the template's revision the newest one, and returns it.
    pub(crate) async fn ensure<O: Owner>(
        &self,
        owner: &O,
        template: &PodTemplateSpec,
    ) -> Result<Arc<ControllerRevision>, Failure> {
        let api: Api<ControllerRevision> = Api::namespaced(self.client.clone(), owner.ns());
        let what = || format!("revision of {}", owner.key());
        match plan_revision(owner, &self.of(owner), template) {
            Change::Keep(revision) => Ok(revision),
            Change::Renumber(revision, number) => {
                let patch = Patch::Merge(json!({"revision": number}));
                let patched = api.patch(revision.name(), &PatchParams::default(), &patch).await;
                patched.map(Arc::new).during(what)
            }
            Change::Create(revision) => match api.create(&PostParams::default(), &revision).await {
                Ok(created) => Ok(Arc::new(created)),
                Err(error) if is_already_exists(&error) => {
                    let found = api.get(revision.name()).await.during(what)?;
                    if found.controlled_by(owner.uid_str()) {
                        Ok(Arc::new(found))
                    } else {
                        // A namesake's, which goes with it.
                        Err(Failure::again(format!("{} belongs to another", found.key())))
                    }
                }
                Err(error) => Err(Failure::api(what(), error)),
            },
        }
    }

    /// Deletes what history no longer keeps. `live` names revisions in use.
    pub(crate) async fn trim<O: Owner>(
        &self,
        owner: &O,
        live: &BTreeSet<String>,
        limit: Option<i32>,
    ) -> Result<(), Failure> {
        let api: Api<ControllerRevision> = Api::namespaced(self.client.clone(), owner.ns());
        for old in plan_history(&self.of(owner), live, limit) {
            let deleted = api.delete(old.name(), &DeleteParams::default()).await;
            gone_is_fine(deleted).during(|| format!("deleting revision {}", old.key()))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::apps::v1::DaemonSet;

    fn template(image: &str) -> PodTemplateSpec {
        serde_json::from_value(json!({"spec": {"containers": [{"name": "c", "image": image}]}})).unwrap()
    }

    fn created(
        owner: &DaemonSet,
        existing: &[Arc<ControllerRevision>],
        image: &str,
    ) -> Arc<ControllerRevision> {
        match plan_revision(owner, existing, &template(image)) {
            Change::Create(revision) => Arc::new(*revision),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_template_used_before_is_the_newest_again() {
        let mut owner = DaemonSet::default();
        owner.metadata.name = Some("ds".into());
        let first = created(&owner, &[], "v1");
        assert_eq!((first.revision, template_of(&first)), (1, Some(template("v1"))));
        assert!(matches!(
            plan_revision(&owner, std::slice::from_ref(&first), &template("v1")),
            Change::Keep(_)
        ));
        let second = created(&owner, std::slice::from_ref(&first), "v2");
        assert_eq!(second.revision, 2);
        let both = [first.clone(), second];
        let again = plan_revision(&owner, &both, &template("v1"));
        assert!(matches!(again, Change::Renumber(r, 3) if r.name() == first.name()));
    }

    #[test]
    fn history_keeps_the_newest_and_what_pods_are_of() {
        let mut owner = DaemonSet::default();
        owner.metadata.name = Some("ds".into());
        let mut all = Vec::new();
        for n in 0..5 {
            all.push(created(&owner, &all, &format!("v{n}")));
        }
        let live = [all[0].name().to_owned()].into();
        let gone = plan_history(&all, &live, Some(2));
        assert_eq!(gone.iter().map(|r| r.revision).collect::<Vec<_>>(), [2, 3]);
        assert!(plan_history(&all, &live, None).is_empty());
    }
}
