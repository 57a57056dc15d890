//! Who serves Services on this node: the eBPF programs, or the proxy in user space that stands in for them.
//!
//! It exists so that what is told of Services is told alike to both. It must not know when one takes the other's place.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use penstock_dataplane::{Applied, Dataplane, Listing, NodeFacts, ServiceChange};
use penstock_fallback::Fallback;

/// One of the two.
#[derive(Clone)]
pub enum Proxy {
    /// The kernel's maps.
    Programs(Arc<Dataplane>),
    /// Listeners.
    Userspace(Arc<Fallback>),
}

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Programs,
    Userspace,
}

impl Proxy {
    /// Which it is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Programs(_) => Kind::Programs,
            Self::Userspace(_) => Kind::Userspace,
        }
    }

    /// Applies, and may block the thread meanwhile. After an error, which is logged, everything is to be said again.
    pub async fn apply(
        &self,
        changes: Vec<ServiceChange>,
        facts: &NodeFacts,
        listing: Listing,
    ) -> Result<Applied, ()> {
        let started = std::time::Instant::now();
        let changed = changes.len();
        let outcome = match self {
            // A panic there is a defect of ours that must not end the agent.
            Self::Programs(dataplane) => {
                catch_unwind(AssertUnwindSafe(|| dataplane.apply_changes(&changes, facts, listing)))
            }
            Self::Userspace(fallback) => Ok(Ok(fallback.apply_changes(&changes, facts, listing).await)),
        };
        match outcome {
            Ok(Ok(applied)) => {
                let Applied { operations, services, .. } = applied;
                if operations > 0 {
                    tracing::debug!(changed, operations, services, took = ?started.elapsed(), "services applied");
                }
                Ok(applied)
            }
            Ok(Err(error)) => {
                tracing::error!("services could not be applied: {:#}", anyhow::Error::from(error));
                Err(())
            }
            Err(_) => {
                tracing::error!("applying services panicked");
                Err(())
            }
        }
    }
}
