//! How much of the cluster's endpoints this node's kernel has, for whoever must know that a change arrived.
//!
//! It exists so that others can wait: a pod that ends is told so once every node has stopped sending it new connections.
//! One number says it for all slices, since the versions of a cluster's objects grow over all of them (KEP-5504) and one
//! watch brings them in order. It must not know what endpoints are for.

use std::sync::Arc;

use tokio::sync::watch;

/// How far the kernel is; clones share it.
#[derive(Clone)]
pub struct Programmed(Arc<watch::Sender<u64>>);

impl Default for Programmed {
    fn default() -> Self {
        Self(Arc::new(watch::channel(0).0))
    }
}

impl Programmed {
    /// Every change of any slice up to this resource version is in the kernel. Zero before the first.
    pub fn up_to(&self) -> u64 {
        *self.0.borrow()
    }

    /// Returns when every change up to this resource version is in the kernel.
    pub async fn reached(&self, resource_version: u64) {
        // The sender lives as long as `self`.
        let _ = self.0.subscribe().wait_for(|up_to| *up_to >= resource_version).await;
    }

    /// Notes that everything up to this resource version is in the kernel. What once was there was there: a later list
    /// whose newest slice is older takes nothing back.
    pub fn note(&self, resource_version: u64) {
        self.0.send_if_modified(|up_to| {
            let is_news = resource_version > *up_to;
            *up_to = resource_version.max(*up_to);
            is_news
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_waits_for_a_version_goes_on_when_the_kernel_has_it_or_a_later_one() {
        let programmed = Programmed::default();
        programmed.note(10);
        programmed.reached(10).await;
        let waiting = |version| {
            let programmed = programmed.clone();
            tokio::spawn(async move { programmed.reached(version).await })
        };
        let (near, far) = (waiting(12), waiting(14));
        programmed.note(11);
        tokio::task::yield_now().await;
        assert!(!near.is_finished());
        programmed.note(13);
        near.await.unwrap();
        assert!(!far.is_finished());
        programmed.note(9);
        assert_eq!(programmed.up_to(), 13, "nothing is taken back");
        programmed.note(14);
        far.await.unwrap();
    }
}
