//! What every controller is given: caches, client, configuration, and a way to ask for its own recorder.

use std::sync::Arc;

use kube::Client;
use penstock_informers::{Informers, Recorder};
use tokio_util::sync::CancellationToken;

use crate::ControllersConfig;

/// See the module; cheap to clone.
#[derive(Clone)]
pub struct Context {
    pub informers: Informers,
    pub config: Arc<ControllersConfig>,
    pub shutdown: CancellationToken,
}

impl Context {
    /// The API client.
    pub fn client(&self) -> Client {
        self.informers.client().clone()
    }

    /// A recorder that writes events under `component`.
    pub fn recorder(&self, component: &'static str) -> Recorder {
        Recorder::new(self.client(), component, self.shutdown.clone())
    }
}
