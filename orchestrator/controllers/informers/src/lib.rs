//! What every control loop stands on: one shared cache per resource type, keyed work queues with backoff,
//! a runner that turns failures into retry, wait or give up, and a recorder of events.
//!
//! Controllers, scheduler and cloud loops all use it, so that a process holds each object once. It knows the
//! Kubernetes API through `kube::Client` only, and nothing of any controller.

// Compiles what kube and serde make of them there, once.
use penstock_kinds as _;

pub mod cache;
pub mod expectations;
pub mod failure;
pub mod identity;
pub mod placement;
pub mod quantity;
pub mod queue;
pub mod recorder;
pub mod runner;
pub mod selector;
pub mod volumes;

pub use cache::{Cache, Delta, Informers};
pub use failure::Failure;
pub use identity::{Key, Meta};
pub use queue::WorkQueue;
pub use recorder::{EventType, Recorder};
pub use runner::{Next, Reconcile, run_workers};
