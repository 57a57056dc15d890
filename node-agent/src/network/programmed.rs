//! What this node's kernel has of the cluster's endpoints, for whoever must know that a change arrived.
//!
//! It exists so that others can wait: a pod that ends may be told so once every node has stopped sending it new
//! connections. It must not know what endpoints are for.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::cluster::{ObjectName, SliceVersion};
use crate::desired::Seen;

/// Which versions of slices are programmed; clones share it.
#[derive(Clone)]
pub struct Programmed {
    slices: Arc<Mutex<HashMap<Arc<ObjectName>, SliceVersion>>>,
    up_to: Arc<watch::Sender<Progress>>,
}

/// How far the kernel is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Every change of any slice up to this resource version is in the kernel. Zero before the first.
    pub up_to: u64,
    /// Grows whenever anything was programmed, also where `up_to` cannot tell: a deletion has no version.
    pub step: u64,
}

impl Default for Programmed {
    fn default() -> Self {
        Self { slices: Arc::default(), up_to: Arc::new(watch::channel(Progress::default()).0) }
    }
}

// Half of it is for those who publish it.
#[cfg_attr(not(test), allow(dead_code))]
impl Programmed {
    /// Changes with every step; the newest is always there.
    pub fn subscribe(&self) -> watch::Receiver<Progress> {
        self.up_to.subscribe()
    }

    /// Which version of a slice is in the kernel; none when it is not, or no more.
    pub fn slice(&self, name: &ObjectName) -> Option<SliceVersion> {
        self.slices.lock().get(name).copied()
    }

    /// Returns when the kernel has a slice as it is in this version, or as it became later, or when the slice is gone.
    pub async fn reached(&self, name: &ObjectName, generation: i64) {
        let mut progress = self.subscribe();
        let is_there = || match self.slice(name) {
            Some(version) => version.generation >= generation,
            None => self.up_to.borrow().up_to > 0,
        };
        while !is_there() && progress.changed().await.is_ok() {}
    }

    /// Notes that what was seen is in the kernel now.
    pub fn note(&self, seen: Seen) {
        let is_news = !seen.slices.is_empty() || self.up_to.borrow().up_to != seen.up_to;
        {
            let mut slices = self.slices.lock();
            for (name, version) in seen.slices {
                match version {
                    Some(version) => slices.insert(name, version),
                    None => slices.remove(&name),
                };
            }
        }
        if is_news {
            self.up_to.send_modify(|progress| {
                *progress = Progress { up_to: seen.up_to, step: progress.step + 1 };
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(name: &str) -> ObjectName {
        ObjectName { namespace: "a".into(), name: name.into() }
    }

    fn seen(slice: &str, generation: Option<i64>, up_to: u64) -> Seen {
        let version = generation.map(|generation| SliceVersion { generation, resource_version: up_to });
        Seen { slices: [(Arc::new(name(slice)), version)].into(), up_to }
    }

    #[tokio::test]
    async fn who_waits_for_a_generation_goes_on_when_the_kernel_has_it_or_the_slice_is_gone() {
        let programmed = Programmed::default();
        programmed.note(seen("web-1", Some(1), 10));
        let waiting = |generation| {
            let programmed = programmed.clone();
            tokio::spawn(async move { programmed.reached(&name("web-1"), generation).await })
        };
        let (second, third) = (waiting(2), waiting(3));
        programmed.note(seen("other", Some(7), 11));
        tokio::task::yield_now().await;
        assert!(!second.is_finished());
        programmed.note(seen("web-1", Some(2), 12));
        second.await.unwrap();
        assert!(!third.is_finished());
        programmed.note(seen("web-1", None, 12));
        third.await.unwrap();
        assert_eq!(programmed.slice(&name("web-1")), None);
        assert_eq!(*programmed.subscribe().borrow(), Progress { up_to: 12, step: 4 });
    }
}
