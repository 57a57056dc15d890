//! The graph of owners: who owns whom, who is going and how. Pure; edges point by UID.
//!
//! Bound: one small node per object of the cluster.

use std::collections::{HashMap, HashSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

/// Where an object is found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    pub api_version: String,
    pub kind: String,
    /// Empty for cluster-scoped objects.
    pub namespace: String,
    pub name: String,
}

/// An object as the graph knows it.
#[derive(Clone, Debug, Default)]
pub struct Item {
    pub identity: Identity,
    /// UID of each owner, and whether the object blocks its foreground deletion.
    pub owners: Vec<(String, bool)>,
    /// Has been asked to go.
    pub deleting: bool,
    /// Goes in the foreground: waits for its dependents.
    pub waiting: bool,
    /// Goes and leaves its dependents behind.
    pub orphaning: bool,
}

/// What to do with an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Keep,
    /// Owners (by UID) that no longer hold it, while others do.
    DropOwners(HashSet<String>),
    /// No owner holds it. `foreground`: an owner waits for it and it has dependents itself; `unblock`: it is part
    /// of a cycle of waiting.
    Delete {
        foreground: bool,
        unblock: bool,
    },
}

/// See the module.
#[derive(Default)]
pub struct Graph {
    items: HashMap<String, Item>,
    /// Owner UID to dependents' UIDs; owners may be unknown.
    dependents: HashMap<String, HashSet<String>>,
}

impl Graph {
    /// The object of that UID.
    pub fn get(&self, uid: &str) -> Option<Item> {
        self.items.get(uid).cloned()
    }

    /// Takes in an object; returns the UIDs that have to be looked at.
    pub fn upsert(&mut self, identity: Identity, meta: &ObjectMeta) -> Vec<String> {
        let Some(uid) = meta.uid.clone() else {
            return Vec::new();
        };
        let has = |finalizer: &str| meta.finalizers.iter().flatten().any(|f| f == finalizer);
        let deleting = meta.deletion_timestamp.is_some();
        let owners = meta.owner_references.iter().flatten();
        let item = Item {
            identity,
            owners: owners.map(|o| (o.uid.clone(), o.block_owner_deletion == Some(true))).collect(),
            deleting,
            waiting: deleting && has(super::FOREGROUND),
            orphaning: deleting && has(super::ORPHAN),
        };
        let old = self.items.insert(uid.clone(), item.clone());
        let old_owners = old.as_ref().map(|o| o.owners.clone()).unwrap_or_default();
        for (owner, _) in &old_owners {
            self.unlink(owner, &uid);
        }
        for (owner, _) in &item.owners {
            self.dependents.entry(owner.clone()).or_default().insert(uid.clone());
        }
        let mut touched = Vec::new();
        // Owners that wait may have lost what they waited for.
        if old_owners != item.owners || (item.deleting && old.as_ref().is_some_and(|o| !o.deleting)) {
            touched.extend(self.waiting_among(old_owners.iter().map(|(o, _)| o)));
        }
        let held = item.owners.iter().all(|(owner, _)| self.items.get(owner).is_some_and(|o| !o.waiting));
        if item.waiting || item.orphaning || !held {
            touched.push(uid.clone());
        }
        if item.waiting && !old.is_some_and(|o| o.waiting) {
            touched.extend(self.dependents.get(&uid).into_iter().flatten().cloned());
        }
        touched
    }

    /// Takes out an object that is gone; returns the UIDs that have to be looked at.
    pub fn remove(&mut self, uid: &str) -> Vec<String> {
        let Some(item) = self.items.remove(uid) else {
            return Vec::new();
        };
        for (owner, _) in &item.owners {
            self.unlink(owner, uid);
        }
        let mut touched: Vec<String> = self.dependents.get(uid).into_iter().flatten().cloned().collect();
        touched.extend(self.waiting_among(item.owners.iter().map(|(o, _)| o)));
        touched
    }

    /// Takes out what a complete list of a resource does not name.
    pub fn retain(&mut self, api_version: &str, kind: &str, seen: &HashSet<String>) -> Vec<String> {
        let ours = |i: &Item| i.identity.api_version == api_version && i.identity.kind == kind;
        let gone = self.items.iter().filter(|(uid, item)| ours(item) && !seen.contains(*uid));
        let gone: Vec<String> = gone.map(|(uid, _)| uid.clone()).collect();
        gone.iter().flat_map(|uid| self.remove(uid)).collect()
    }

    /// Where the dependents of an object are.
    pub fn dependents(&self, uid: &str) -> Vec<Identity> {
        let dependents = self.dependents.get(uid).into_iter().flatten();
        dependents.filter_map(|d| self.items.get(d)).map(|i| i.identity.clone()).collect()
    }

    /// UIDs of dependents that block the object's foreground deletion.
    pub fn blocking(&self, uid: &str) -> Vec<String> {
        let dependents = self.dependents.get(uid).into_iter().flatten();
        let blocks = |d: &&String| {
            self.items.get(*d).is_some_and(|i| i.owners.iter().any(|(owner, blocks)| owner == uid && *blocks))
        };
        dependents.filter(blocks).cloned().collect()
    }

    /// Decides on an object by its owners as they are live; `exists` says which of them are there.
    pub fn judge(&self, uid: &str, owners: &[OwnerReference], exists: &HashMap<String, bool>) -> Verdict {
        let there = |o: &OwnerReference| exists.get(&o.uid).copied().unwrap_or(true);
        let waits = |o: &OwnerReference| {
            self.items.get(&o.uid).is_some_and(|i| i.waiting) && o.block_owner_deletion == Some(true)
        };
        // An owner in foreground deletion holds nothing, blocked or not.
        let going = |o: &OwnerReference| self.items.get(&o.uid).is_some_and(|i| i.waiting);
        let solid = owners.iter().any(|o| there(o) && !going(o));
        let gone: HashSet<String> =
            owners.iter().filter(|o| !there(o) || going(o)).map(|o| o.uid.clone()).collect();
        match (solid, gone.is_empty()) {
            (true, true) => Verdict::Keep,
            (true, false) => Verdict::DropOwners(gone),
            (false, true) => Verdict::Keep,
            (false, false) => {
                let dependents: Vec<_> = self.dependents.get(uid).into_iter().flatten().collect();
                let foreground = owners.iter().any(|o| there(o) && waits(o)) && !dependents.is_empty();
                let cycle = dependents.iter().any(|d| self.items.get(*d).is_some_and(|i| i.waiting));
                Verdict::Delete { foreground, unblock: foreground && cycle }
            }
        }
    }

    fn waiting_among<'a>(&self, owners: impl Iterator<Item = &'a String>) -> Vec<String> {
        owners.filter(|o| self.items.get(*o).is_some_and(|i| i.waiting)).cloned().collect()
    }

    fn unlink(&mut self, owner: &str, dependent: &str) {
        if let Some(dependents) = self.dependents.get_mut(owner) {
            dependents.remove(dependent);
            if dependents.is_empty() {
                self.dependents.remove(owner);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::tests::time;

    fn meta(uid: &str, owners: &[&str], finalizer: Option<&str>) -> ObjectMeta {
        ObjectMeta {
            uid: Some(uid.into()),
            name: Some(uid.into()),
            owner_references: Some(owners.iter().map(|o| reference(o)).collect()),
            deletion_timestamp: finalizer.map(|_| time(1)),
            finalizers: finalizer.map(|f| vec![f.to_owned()]),
            ..Default::default()
        }
    }

    fn reference(uid: &str) -> OwnerReference {
        OwnerReference { uid: uid.into(), block_owner_deletion: Some(true), ..Default::default() }
    }

    fn judge(graph: &Graph, uid: &str, owners: &[&str]) -> Verdict {
        let references: Vec<_> = owners.iter().map(|o| reference(o)).collect();
        let exists = owners.iter().map(|o| ((*o).to_owned(), graph.get(o).is_some())).collect();
        graph.judge(uid, &references, &exists)
    }

    #[test]
    fn the_last_owner_takes_its_dependents_along() {
        let mut graph = Graph::default();
        graph.upsert(Identity::default(), &meta("a", &[], None));
        graph.upsert(Identity::default(), &meta("b", &[], None));
        graph.upsert(Identity::default(), &meta("pod", &["a", "b"], None));
        assert_eq!(judge(&graph, "pod", &["a", "b"]), Verdict::Keep);
        assert_eq!(graph.remove("a"), ["pod"]);
        assert_eq!(judge(&graph, "pod", &["a", "b"]), Verdict::DropOwners(["a".to_owned()].into()));
        graph.remove("b");
        assert_eq!(judge(&graph, "pod", &["a", "b"]), Verdict::Delete { foreground: false, unblock: false });
    }

    #[test]
    fn a_foreground_owner_waits_for_what_blocks_it() {
        let mut graph = Graph::default();
        graph.upsert(Identity::default(), &meta("rs", &[], None));
        graph.upsert(Identity::default(), &meta("pod", &["rs"], None));
        let touched = graph.upsert(Identity::default(), &meta("rs", &[], Some(crate::garbage::FOREGROUND)));
        assert!(touched.contains(&"pod".to_owned()) && touched.contains(&"rs".to_owned()));
        assert_eq!(graph.blocking("rs"), ["pod"]);
        assert_eq!(judge(&graph, "pod", &["rs"]), Verdict::Delete { foreground: false, unblock: false });
        assert_eq!(graph.remove("pod"), ["rs"], "the owner is looked at again");
        assert!(graph.blocking("rs").is_empty());
    }

    #[test]
    fn a_cycle_of_waiting_is_broken() {
        let mut graph = Graph::default();
        graph.upsert(Identity::default(), &meta("a", &["b"], Some(crate::garbage::FOREGROUND)));
        graph.upsert(Identity::default(), &meta("b", &["a"], None));
        assert_eq!(judge(&graph, "b", &["a"]), Verdict::Delete { foreground: true, unblock: true });
    }

    #[test]
    fn an_object_with_an_unknown_owner_is_looked_at() {
        let mut graph = Graph::default();
        assert_eq!(graph.upsert(Identity::default(), &meta("pod", &["nobody"], None)), ["pod"]);
        assert!(graph.upsert(Identity::default(), &meta("free", &[], None)).is_empty());
    }
}
