//! This node's pods as the slices list them: which get new connections, and since when they do not.
//!
//! It exists because whoever ends a pod knows it by its UID and must learn what the slices say of it. Only this node's
//! pods are kept. It must not know nodes, nor what is programmed.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use tokio::sync::watch;

use crate::cluster::{Event, ObjectName, PodView, SliceView};

/// What is known; clones share it.
#[derive(Clone)]
pub struct OwnEndpoints(Arc<watch::Sender<Listed>>);

/// What the slices say. Pure.
#[derive(Debug, Default)]
struct Listed {
    /// By UID, then by slice.
    pods: HashMap<Box<str>, BTreeMap<ObjectName, Entry>>,
    /// The pods of each slice that has some of this node.
    slices: BTreeMap<ObjectName, Vec<Box<str>>>,
    /// The newest version of any slice.
    newest: u64,
    /// Whether all slices were listed once.
    complete: bool,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    in_rotation: bool,
    /// The version of the slice that says so.
    since: u64,
}

/// How a pod stands with its Services.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// New connections are sent to it.
    In,
    /// They are not, as of this resource version.
    Out(u64),
    /// No slice lists it.
    Unlisted,
}

// === impl OwnEndpoints ===

impl Default for OwnEndpoints {
    fn default() -> Self {
        Self(Arc::new(watch::channel(Listed::default()).0))
    }
}

impl OwnEndpoints {
    /// Takes note of a slice, and what it says of this node's pods from it.
    pub fn see(&self, event: &mut Event<SliceView>) {
        self.0.send_if_modified(|listed| listed.see(event));
    }

    /// Returns when no slice says any more that a pod is to get new connections, with the resource version by which
    /// none did; none when it is in no Service.
    pub async fn left(&self, uid: &str) -> Option<u64> {
        let mut changes = self.0.subscribe();
        // The sender lives as long as `self`.
        let _ = changes.wait_for(|listed| listed.complete).await;
        let mut was_listed = false;
        loop {
            let (standing, newest) = {
                let listed = changes.borrow_and_update();
                (listed.standing(uid), listed.newest)
            };
            match standing {
                Standing::Out(since) => return Some(since),
                // It was taken out by a change that has been seen.
                Standing::Unlisted => return was_listed.then_some(newest),
                Standing::In => was_listed = true,
            }
            if changes.changed().await.is_err() {
                return None;
            }
        }
    }
}

// === impl Listed ===

impl Listed {
    /// Whether anything about this node's pods is different.
    fn see(&mut self, event: &mut Event<SliceView>) -> bool {
        match event {
            Event::Is(name, slice) => {
                self.newest = self.newest.max(slice.resource_version);
                let own = std::mem::take(&mut slice.pods);
                // A slice without a Service sends nobody anything.
                let own = if slice.service.is_some() { own } else { Vec::new() };
                self.put(name, own, slice.resource_version)
            }
            Event::Gone(name) => self.put(name, Vec::new(), 0),
            Event::Listing => false,
            Event::All(all) => {
                let gone: BTreeSet<_> =
                    self.slices.keys().filter(|name| !all.contains(*name)).cloned().collect();
                let changed =
                    gone.iter().fold(false, |changed, name| self.put(name, Vec::new(), 0) | changed);
                !std::mem::replace(&mut self.complete, true) | changed
            }
        }
    }

    fn put(&mut self, name: &ObjectName, own: Vec<PodView>, since: u64) -> bool {
        let former = self.slices.remove(name).unwrap_or_default();
        let changed = !former.is_empty() || !own.is_empty();
        for uid in former {
            if let Some(slices) = self.pods.get_mut(&uid) {
                slices.remove(name);
                if slices.is_empty() {
                    self.pods.remove(&uid);
                }
            }
        }
        for pod in &own {
            let entry = Entry { in_rotation: pod.in_rotation, since };
            self.pods.entry(pod.uid.clone()).or_default().insert(name.clone(), entry);
        }
        if !own.is_empty() {
            self.slices.insert(name.clone(), own.into_iter().map(|pod| pod.uid).collect());
        }
        changed
    }

    fn standing(&self, uid: &str) -> Standing {
        let Some(slices) = self.pods.get(uid) else { return Standing::Unlisted };
        if slices.values().any(|entry| entry.in_rotation) {
            return Standing::In;
        }
        Standing::Out(slices.values().map(|entry| entry.since).max().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(name: &str) -> ObjectName {
        ObjectName { namespace: "a".into(), name: name.into() }
    }

    fn slice(of: &str, pods: &[(&str, bool)], resource_version: u64) -> Event<SliceView> {
        let pods = pods.iter().map(|(uid, in_rotation)| PodView {
            node: "here".into(),
            uid: (*uid).into(),
            in_rotation: *in_rotation,
        });
        let pods = pods.collect();
        let view = SliceView { service: Some("web".into()), resource_version, pods, ..SliceView::default() };
        Event::Is(name(of), view)
    }

    fn all(names: &[&str]) -> Event<SliceView> {
        Event::All(names.iter().map(|it| name(it)).collect())
    }

    #[tokio::test]
    async fn a_pod_has_left_when_no_slice_sends_it_anything_and_one_that_is_in_none_need_not_leave() {
        let endpoints = OwnEndpoints::default();
        let see = |mut event| endpoints.see(&mut event);
        let left = |uid: &'static str| {
            let endpoints = endpoints.clone();
            tokio::spawn(async move { endpoints.left(uid).await })
        };
        see(slice("web-1", &[("p", true), ("q", true)], 7));
        let early = left("nobody");
        tokio::task::yield_now().await;
        assert!(!early.is_finished(), "its slice may still come");
        see(slice("other-1", &[("p", true)], 5));
        see(all(&["web-1", "other-1"]));
        assert_eq!(early.await.unwrap(), None);

        let (p, q) = (left("p"), left("q"));
        see(slice("web-1", &[("p", false), ("q", true)], 9));
        tokio::task::yield_now().await;
        assert!(!p.is_finished(), "the other Service still sends it something");
        see(slice("other-1", &[("p", false)], 8));
        assert_eq!(p.await.unwrap(), Some(9));
        see(slice("web-1", &[("p", false)], 11));
        assert_eq!(q.await.unwrap(), Some(11), "it is listed no more");
        see(Event::Gone(name("other-1")));
        see(Event::Gone(name("web-1")));
        assert_eq!(endpoints.left("p").await, None);
    }

    #[test]
    fn a_list_takes_out_what_is_not_in_it() {
        let mut listed = Listed::default();
        assert!(listed.see(&mut slice("web-1", &[("p", true)], 7)));
        assert_eq!(listed.standing("p"), Standing::In);
        assert!(listed.see(&mut all(&[])));
        assert_eq!(listed.standing("p"), Standing::Unlisted);
        assert!(!listed.see(&mut slice("far-1", &[], 8)), "nothing of this node");
    }
}
