//! When to look whether the programs are still in their places, and what to say of those that were not.
//!
//! The kernel tells of queueing disciplines and filters that somebody deletes, so classifiers are back within milliseconds; of links
//! it tells nobody, so they are looked at now and then. It must not know how a program is put back.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use nix::libc;
use penstock_dataplane::{Dataplane, Restored, TcKind};

use super::kernel_news::KernelNews;
use super::metrics::Programming;
use super::programs::Programs;

/// How often it is looked unasked.
const LOOK_EVERY: Duration = Duration::from_secs(15);
/// Whoever takes them off again and again is not fought with more often than this.
const PAUSE: Duration = Duration::from_millis(100);
/// Beyond as many places what was said is forgotten, and may be said again.
const SAID_MAX: usize = 1_000;

/// Runs until it is dropped.
pub async fn run(programs: Arc<Programs>, programming: Programming) {
    let dataplane = programs.wait().await;
    let news = match KernelNews::of(libc::RTMGRP_TC) {
        Ok(news) => Some(news),
        Err(error) => {
            tracing::warn!(%error, "the kernel does not tell of deleted filters; they are looked for now and then");
            None
        }
    };
    let mut said = Said::default();
    loop {
        wait(news.as_ref().filter(|_| dataplane.tc() == TcKind::Classifiers)).await;
        let restored = look(dataplane.clone()).await;
        programming.restored(restored.back.len());
        let was_restored = !restored.back.is_empty();
        said.say(restored);
        if was_restored {
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// Returns when it is time to look.
async fn wait(news: Option<&KernelNews>) {
    let told = async {
        match news {
            Some(news) => news.next().await,
            None => std::future::pending().await,
        }
    };
    let _ = tokio::time::timeout(LOOK_EVERY, told).await;
}

async fn look(dataplane: Arc<Dataplane>) -> Restored {
    let looking = tokio::task::spawn_blocking(move || dataplane.restore());
    looking.await.unwrap_or_else(|error| {
        tracing::error!(%error, "the look at the programs' places panicked");
        Restored::default()
    })
}

/// What was said, which is not said again.
#[derive(Debug, Default)]
struct Said {
    /// Places whose program was put back, at most [`SAID_MAX`]: pods' links come and go.
    back: BTreeSet<String>,
    /// Places whose program is missing.
    missing: BTreeSet<String>,
}

// === impl Said ===

impl Said {
    fn say(&mut self, restored: Restored) {
        if self.back.len() > SAID_MAX {
            self.back.clear();
        }
        for place in restored.back {
            if self.back.insert(place.clone()) {
                tracing::warn!(
                    "{place} was taken off by somebody else, and is back; from now on it is only counted"
                );
            }
        }
        let missing = restored.missing.iter().map(|(place, _)| place.clone()).collect();
        let before = std::mem::replace(&mut self.missing, missing);
        for (place, error) in restored.missing {
            if !before.contains(&place) {
                let error = anyhow::Error::from(error);
                tracing::error!(
                    "{place} was taken off by somebody else and cannot be put back, which is tried on: {error:#}"
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use penstock_tests::netns::{ip, isolated, tc};

    use super::*;

    #[test]
    fn the_kernel_tells_when_a_discipline_is_deleted() {
        // Asks for root and says so when it is not there.
        if penstock_tests::dataplane::object().is_none() {
            return;
        }
        isolated(|| {
            ip("link add v0 type veth peer name v1").unwrap();
            tc("qdisc add dev v0 clsact").unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let news = KernelNews::of(libc::RTMGRP_TC).unwrap();
                for change in [
                    "filter add dev v0 ingress protocol all prio 3 bpf bytecode \"1,6 0 0 0,\" flowid 1:1",
                    "filter del dev v0 ingress prio 3",
                    "qdisc del dev v0 clsact",
                ] {
                    tc(change).unwrap();
                    tokio::time::timeout(Duration::from_secs(60), news.next()).await.expect(change);
                }
            });
        });
    }
}
