//! The control loops of this process: elected each by its own lease, over caches they share.
//!
//! Losing a lease ends all of them for this term, and a new term begins with fresh caches: loops that were told to
//! stop must not linger in caches that live on.

use std::time::Duration;

use kube::Client;
use penstock_cloud::CloudConfig;
use penstock_controllers::ControllersConfig;
use penstock_informers::Informers;
use penstock_scheduler::SchedulerConfig;
use tokio_util::sync::CancellationToken;

use crate::election::Candidate;

const CONTROLLERS_LEASE: &str = "penstock-controllers";
const SCHEDULER_LEASE: &str = "penstock-scheduler";
/// Loops that do not stop in time are left behind: their lease will run out.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
const RELEASE_TIMEOUT: Duration = Duration::from_secs(2);
const NEXT_TERM_DELAY: Duration = Duration::from_secs(1);

/// What to run, and as whom.
pub struct Loops {
    pub client: Client,
    /// As whom the scheduler writes.
    pub scheduler_client: Client,
    pub identity: String,
    pub controllers: Option<ControllersConfig>,
    /// The cloud's loops run where the controllers do, under their lease.
    pub cloud: CloudConfig,
    pub scheduler: Option<SchedulerConfig>,
}

// === impl Loops ===

impl Loops {
    /// Runs terms until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        if self.controllers.is_none() && self.scheduler.is_none() {
            return shutdown.cancelled().await;
        }
        loop {
            self.term(&shutdown.child_token()).await;
            let pause = tokio::time::sleep(NEXT_TERM_DELAY);
            if shutdown.run_until_cancelled(pause).await.is_none() {
                return;
            }
            tracing::warn!("the control loops begin a new term");
        }
    }

    /// Runs the loops until one of them loses its lease or all are told to stop.
    async fn term(&self, over: &CancellationToken) {
        let informers = Informers::new(self.client.clone(), over.clone());
        let controllers = async {
            if let Some(config) = &self.controllers {
                let controllers =
                    penstock_controllers::run_all_shared(informers.clone(), config.clone(), over.clone());
                let cloud = penstock_cloud::run_shared(informers.clone(), self.cloud.clone(), over.clone());
                let run = async {
                    tokio::join!(controllers, cloud);
                };
                self.lead(CONTROLLERS_LEASE, run, over).await;
            }
        };
        let scheduler = async {
            if let Some(config) = &self.scheduler {
                let informers = informers.written_with(self.scheduler_client.clone());
                let run = penstock_scheduler::run_shared(informers, config.clone(), over.clone());
                self.lead(SCHEDULER_LEASE, run, over).await;
            }
        };
        tokio::join!(controllers, scheduler);
    }

    /// Runs a loop while this process holds its lease.
    async fn lead(
        &self,
        lease: &'static str,
        run: impl Future<Output = ()> + Send,
        over: &CancellationToken,
    ) {
        let candidate = Candidate::new(self.client.clone(), lease, self.identity.clone());
        if !candidate.campaign(over).await {
            return;
        }
        let mut run = std::pin::pin!(run);
        let running = tokio::select! {
            stopped = candidate.hold(over) => {
                if !stopped {
                    tracing::error!(lease, "no longer leading; stopping the control loops");
                }
                true
            },
            () = &mut run => {
                if !over.is_cancelled() {
                    tracing::error!(lease, "the control loops ended by themselves");
                }
                false
            },
        };
        over.cancel();
        if running && tokio::time::timeout(STOP_TIMEOUT, run).await.is_err() {
            tracing::warn!(lease, "the control loops did not stop in time");
            return;
        }
        drop(tokio::time::timeout(RELEASE_TIMEOUT, candidate.release()).await);
    }
}
