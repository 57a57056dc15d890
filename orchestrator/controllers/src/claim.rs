//! Who controls what: adoption of orphans that match a selector, release of children that no longer do.
//!
//! The plan is pure; applying it checks the owner live first, because a stale owner must not adopt.

use std::sync::Arc;

use k8s_openapi::NamespaceResourceScope;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, Resource};
use penstock_informers::cache::{Cache, Cached};
use penstock_informers::failure::{During, gone_is_fine};
use penstock_informers::identity::controller_reference;
use penstock_informers::selector::Selector;
use penstock_informers::{Failure, Meta};

/// What to do with each candidate.
#[derive(Debug)]
pub struct Claims<C> {
    /// Children already controlled that still match.
    pub mine: Vec<Arc<C>>,
    /// Matching orphans.
    pub adopt: Vec<Arc<C>>,
    /// Controlled children that no longer match.
    pub release: Vec<Arc<C>>,
}

/// Children and orphans of a namespace that a controller with this UID has to look at.
pub fn observe_candidates<C: Cached>(cache: &Cache<C>, uid: &str, namespace: &str) -> Vec<Arc<C>> {
    let mut candidates = cache.list_controlled(uid);
    candidates.retain(|c| c.ns() == namespace);
    candidates.extend(cache.list_orphans(namespace));
    candidates
}

/// Sorts candidates into kept, adopted and released. An owner that is going adopts and releases nothing.
pub fn plan_claims<C: Resource>(
    owner_uid: &str,
    owner_deleting: bool,
    selector: &Selector,
    candidates: Vec<Arc<C>>,
    adoptable: impl Fn(&C) -> bool,
) -> Claims<C> {
    let mut claims = Claims { mine: Vec::new(), adopt: Vec::new(), release: Vec::new() };
    for child in candidates {
        let matches = selector.matches(child.meta().labels.as_ref());
        match child.controller_ref() {
            Some(owner) if owner.uid != owner_uid => {}
            Some(_) if matches => claims.mine.push(child),
            Some(_) if !owner_deleting && !child.deleting() => claims.release.push(child),
            Some(_) => {}
            None if matches && !owner_deleting && !child.deleting() && adoptable(&child) => {
                claims.adopt.push(child);
            }
            None => {}
        }
    }
    claims
}

/// Carries out adoption and release; returns the children that are now controlled.
pub async fn apply_claims<O, C>(client: &Client, owner: &O, claims: Claims<C>) -> Result<Vec<Arc<C>>, Failure>
where
    O: Cached + Resource<Scope = NamespaceResourceScope>,
    C: Cached + Resource<Scope = NamespaceResourceScope>,
{
    let mut mine = claims.mine;
    let children: Api<C> = Api::namespaced(client.clone(), owner.ns());
    if !claims.adopt.is_empty() {
        let owners: Api<O> = Api::namespaced(client.clone(), owner.ns());
        let live = owners.get_opt(owner.name()).await.during(|| format!("reading {}", owner.key()))?;
        if !live.is_some_and(|l| l.uid_str() == owner.uid_str() && !l.deleting()) {
            return Err(Failure::again(format!("{} is not the live owner", owner.key())));
        }
    }
    for child in claims.adopt {
        let patch = serde_json::json!({"metadata": {
            "uid": child.uid_str(), "ownerReferences": [controller_reference(owner)],
        }});
        let patched = children.patch(child.name(), &PatchParams::default(), &Patch::Strategic(&patch)).await;
        if let Some(adopted) = gone_is_fine(patched).during(|| format!("adopting {}", child.key()))? {
            mine.push(Arc::new(adopted));
        }
    }
    for child in claims.release {
        let patch = serde_json::json!({"metadata": {
            "uid": child.uid_str(), "ownerReferences": [{"$patch": "delete", "uid": owner.uid_str()}],
        }});
        let patched = children.patch(child.name(), &PatchParams::default(), &Patch::Strategic(&patch)).await;
        // 422: the child is another one of the same name by now.
        match patched {
            Err(kube::Error::Api(status)) if status.code == 422 => {}
            other => {
                gone_is_fine(other).during(|| format!("releasing {}", child.key()))?;
            }
        }
    }
    Ok(mine)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::tests::test_pod;
    use k8s_openapi::api::core::v1::Pod;

    fn candidate(name: &str, owner: Option<&str>, label: &str) -> Arc<Pod> {
        let mut pod = test_pod(name, None, "Running", None);
        pod.metadata.labels = Some([("app".to_owned(), label.to_owned())].into());
        let mut parent = Pod::default();
        parent.metadata.uid = owner.map(str::to_owned);
        pod.metadata.owner_references = owner.map(|_| vec![controller_reference(&parent)]);
        Arc::new(pod)
    }

    #[test]
    fn matching_orphans_are_adopted_and_strangers_released() {
        let selector = Selector::from_map(Some(&[("app".to_owned(), "x".to_owned())].into()));
        let candidates = || {
            vec![
                candidate("mine", Some("me"), "x"),
                candidate("strayed", Some("me"), "y"),
                candidate("orphan", None, "x"),
                candidate("unrelated", None, "y"),
                candidate("other", Some("you"), "x"),
            ]
        };
        let names = |pods: &[Arc<Pod>]| pods.iter().map(|p| p.name().to_owned()).collect::<Vec<_>>();
        let claims = plan_claims("me", false, &selector, candidates(), |_| true);
        assert_eq!(names(&claims.mine), ["mine"]);
        assert_eq!(names(&claims.adopt), ["orphan"]);
        assert_eq!(names(&claims.release), ["strayed"]);
        let going = plan_claims("me", true, &selector, candidates(), |_| true);
        assert!(going.adopt.is_empty() && going.release.is_empty(), "an owner that goes leaves things alone");
    }
}
