//! What the node shows the API server at present, and clients that follow it.
//!
//! A client changes to a new certificate with the next request it makes: that goes over new connections, while watches and
//! other answers under way go on over the old ones. Nobody has to be told.

use std::sync::Arc;

use http::header::USER_AGENT;
use http::{HeaderValue, Request, Response};
use kube::client::Body;
use kube::{Client, Config};
use parking_lot::Mutex;
use tokio::sync::watch;
use tower::{BoxError, service_fn};

/// The configuration as of now. Clones share it.
#[derive(Clone)]
pub struct Credentials(Arc<watch::Sender<Config>>);

// === impl Credentials ===

impl Credentials {
    pub fn new(config: Config) -> Self {
        Self(Arc::new(watch::Sender::new(config)))
    }

    pub fn config(&self) -> Config {
        self.0.borrow().clone()
    }

    /// Tells of every change.
    pub fn changes(&self) -> watch::Receiver<Config> {
        self.0.subscribe()
    }

    /// Everybody shows this from now on.
    pub fn take(&self, config: Config) {
        self.0.send_replace(config);
    }

    /// A client that owns fields of objects under the name `agent`.
    ///
    /// # Errors
    /// When the configuration of now cannot be used. A later one that cannot is told, and the one before stays.
    pub fn client(&self, agent: &'static str) -> Result<Client, kube::Error> {
        let namespace = self.0.borrow().default_namespace.clone();
        let following = Following::new(self.changes(), agent)?;
        let service = service_fn(move |request: Request<Body>| {
            let client = following.client();
            async move { Ok::<Response<Body>, BoxError>(client.send(request).await?) }
        });
        Ok(Client::new(service, namespace))
    }
}

/// A client, and whether it is still the one to use.
struct Following {
    agent: &'static str,
    state: Mutex<(watch::Receiver<Config>, Client)>,
}

// === impl Following ===

impl Following {
    fn new(mut changes: watch::Receiver<Config>, agent: &'static str) -> Result<Self, kube::Error> {
        let config = changes.borrow_and_update().clone();
        let client = connect(config, agent)?;
        Ok(Self { agent, state: Mutex::new((changes, client)) })
    }

    fn client(&self) -> Client {
        let mut state = self.state.lock();
        // Who gave the configurations away gives no more: the last one stays.
        if state.0.has_changed().unwrap_or(false) {
            let config = state.0.borrow_and_update().clone();
            match connect(config, self.agent) {
                Ok(client) => state.1 = client,
                Err(error) => tracing::error!(%error, "the new client certificate cannot be used"),
            }
        }
        state.1.clone()
    }
}

fn connect(mut config: Config, agent: &'static str) -> Result<Client, kube::Error> {
    config.headers.push((USER_AGENT, HeaderValue::from_static(agent)));
    Client::try_from(config)
}
