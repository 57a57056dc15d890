//! The scheduler: gives every pending pod a node, or a reason a person can act on.
//!
//! Queue → snapshot → filters → scores → (preemption) → bind. It knows the API through `kube::Client` only.

use kube::Client;
use penstock_informers::Informers;
use tokio_util::sync::CancellationToken;

pub mod bind;
pub mod cluster;
pub mod decide;
mod engine;
pub mod filters;
pub mod helps;
pub mod preemption;
pub mod queue;
pub mod resources;
pub mod scores;

/// How the scheduler runs.
#[derive(Clone, Debug)]
pub struct SchedulerConfig {
    /// Pods with this `spec.schedulerName` are ours. Default `default-scheduler`.
    pub scheduler_name: String,
    /// Bindings under way at once. Default 64.
    pub bindings_max: usize,
}

impl Default for SchedulerConfig {
    fn default() -> Self {
        Self { scheduler_name: "default-scheduler".into(), bindings_max: 64 }
    }
}

/// Runs the scheduler until `shutdown`.
pub async fn run(client: Client, config: SchedulerConfig, shutdown: CancellationToken) {
    run_shared(Informers::new(client, shutdown.clone()), config, shutdown).await;
}

/// The same over caches shared with other loops of the process, so that each object is held once.
pub async fn run_shared(informers: Informers, config: SchedulerConfig, shutdown: CancellationToken) {
    let engine = engine::Engine::new(&informers, config, &shutdown);
    tokio::select! {
        () = shutdown.cancelled() => return,
        () = engine.follow(&informers) => {}
    }
    engine.run(shutdown).await;
}
