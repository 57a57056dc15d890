//! The HTTP side of the API server.
//!
//! A request passes one chain: TLS ([`listener`]) → authentication → authorisation → route → registry ([`chain`]).
//! The modules around it are pure readers of requests ([`request_info`], [`query`], [`options`], [`negotiate`]) and
//! writers of responses ([`respond`], [`list_body`], [`watch`]). Must not know a kind by name beyond the few whose
//! answer is not a stored object (reviews, tokens, proxies).

mod audited;
pub mod chain;
pub mod config;
mod deadline;
pub mod health;
mod in_flight;
pub mod intake;
pub mod limits;
pub mod list_body;
pub mod listener;
pub mod metrics;
pub mod negotiate;
pub mod options;
pub mod query;
pub mod request_info;
pub mod resource;
pub mod respond;
pub mod shown;
pub mod transform;
pub mod watch;
pub(crate) mod websocket;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::Body;
use http::{Request, Response};
use parking_lot::RwLock;
use penstock_tokens::{Issuer, TokenError};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::aggregation::{self, Aggregation, trust};
use crate::audit::{Audit, AuditError};
use crate::authn::Authenticator;
use crate::authn::certificate::{Trust, TrustError};
use crate::authn::configuration::{self, ConfigurationError};
use crate::authz::escalation::Escalation;
use crate::authz::policy::Policy;
use crate::authz::{Authorizer, feed};
use crate::client;
use crate::cluster_info;
use crate::discovery::Discovery;
use crate::error::ApiError;
use crate::flow_control::{self, FlowControl};
use crate::openapi::OpenApi;
use crate::proxy::Proxies;
use crate::registry::{Registry, RegistryError, User};
use config::ServerConfig;
use in_flight::InFlight;
use metrics::Metrics;
use shown::ServingKey;

/// The version this server speaks: API level 1.36.
pub const GIT_VERSION: &str = concat!("v1.36.0+penstock.", env!("CARGO_PKG_VERSION"));

/// Why the server could not start or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    #[error("the serving certificate or key cannot be used: {why}")]
    Certificate { why: String },
    #[error(transparent)]
    Trust(#[from] TrustError),
    #[error(transparent)]
    Audit(#[from] AuditError),
    #[error("the service-account key cannot be used")]
    ServiceAccountKey {
        #[source]
        source: TokenError,
    },
    #[error("the TLS configuration is refused")]
    Tls {
        #[source]
        source: rustls::Error,
    },
    #[error("cannot listen on {address}")]
    Listen {
        address: SocketAddr,
        #[source]
        source: std::io::Error,
    },
    #[error(transparent)]
    Authentication(#[from] ConfigurationError),
    #[error("the policy could not be read: {source}")]
    Policy { source: ApiError },
    #[error("the configuration of priority and fairness could not be read: {source}")]
    FlowControl { source: ApiError },
    #[error("what others must know of this server could not be published")]
    Publish {
        #[source]
        source: Box<RegistryError>,
    },
}

/// An API server over a registry. Clones share everything.
#[derive(Clone)]
pub struct ApiServer {
    pub(crate) inner: Arc<Inner>,
}

/// What handlers share.
pub(crate) struct Inner {
    pub registry: Arc<Registry>,
    pub config: ServerConfig,
    pub authenticator: Authenticator,
    pub authorizer: Arc<Authorizer>,
    pub issuer: Arc<Issuer>,
    pub discovery: Discovery,
    pub openapi: OpenApi,
    /// What clients are shown.
    pub serving: Arc<ServingKey>,
    pub proxies: Proxies,
    pub aggregation: Arc<Aggregation>,
    pub metrics: Metrics,
    pub audit: Option<Arc<Audit>>,
    pub admission: Admission,
    /// Room for watches from outside.
    pub watches: Arc<Semaphore>,
    /// Cancelled when the server says that it is not ready any more.
    pub leaving: CancellationToken,
    /// Ends watches and background work; cancelled when the server stops.
    pub stopping: CancellationToken,
    _stop_background: DropGuard,
}

/// Who is worked on when there is too much to do.
pub(crate) enum Admission {
    Fair(Arc<FlowControl>),
    Plain(InFlight),
}

// === impl ApiServer ===

impl ApiServer {
    /// Checks the configuration, reads the policy, and starts following it.
    pub async fn new(registry: Arc<Registry>, config: ServerConfig) -> Result<Self, ServerError> {
        let issuer =
            Issuer::new(&config.service_account_key_pem, &config.service_account_issuer, &config.audiences)
                .map_err(|source| ServerError::ServiceAccountKey { source })?;
        let issuer = Arc::new(issuer);
        let background = CancellationToken::new();
        let policy = Arc::new(RwLock::new(Policy::default()));
        feed::spawn(registry.clone(), policy.clone(), background.clone())
            .await
            .map_err(|source| ServerError::Policy { source })?;
        let authorizer = Arc::new(Authorizer::new(registry.clone(), policy, &config.authorization));
        registry.admission().set_authorizer(Arc::downgrade(&authorizer));
        registry.admission().set_authorization(Box::new(Escalation::new(Arc::downgrade(&authorizer))));
        trust::publish(&registry, &config)
            .await
            .map_err(|source| ServerError::Publish { source: Box::new(source) })?;
        if let Some(info) = &config.cluster_info {
            cluster_info::publish(&registry, info)
                .await
                .map_err(|source| ServerError::Publish { source: Box::new(source) })?;
        }
        let certificates = config.certificates();
        let serving = Arc::new(ServingKey::default());
        if !certificates.serving.is_empty() {
            serving.show(&certificates.serving)?;
        }
        let identity = certificates.front_proxy_client.identity();
        let aggregation = Arc::new(Aggregation::new(registry.clone(), identity));
        aggregation::follow(&aggregation, background.clone());
        let authenticator = Authenticator::new(registry.clone(), issuer.clone(), &config)
            .map_err(|errors| configuration::invalid("the authentication configuration", errors))?;
        authenticator.bearer().prime(&background);
        let mut metrics = Metrics::new();
        let (reading_max, mutating_max) =
            (config.max_requests_inflight, config.max_mutating_requests_inflight);
        let admission = if config.priority_and_fairness {
            let seats = reading_max.saturating_add(mutating_max);
            let control = Arc::new(FlowControl::new(registry.clone(), seats));
            metrics.extend(|exposition| control.register(exposition));
            flow_control::follow::spawn(&control, registry.clone(), background.clone())
                .await
                .map_err(|source| ServerError::FlowControl { source })?;
            Admission::Fair(control)
        } else {
            Admission::Plain(InFlight::new(reading_max, mutating_max))
        };
        let inner = Inner {
            authenticator,
            authorizer,
            issuer,
            discovery: Discovery::new(registry.clone(), aggregation.clone()),
            openapi: OpenApi::new(registry.clone(), aggregation.clone()),
            aggregation,
            serving,
            proxies: Proxies::new(registry.clone(), &config)?,
            metrics,
            admission,
            watches: Arc::new(Semaphore::new(config.limits.watches_max)),
            leaving: CancellationToken::new(),
            audit: config.audit.as_ref().map(Audit::open).transpose()?.map(Arc::new),
            stopping: background.clone(),
            _stop_background: background.drop_guard(),
            registry,
            config,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The whole server as a router, for embedding and for tests without TLS. Requests are authenticated from their
    /// headers alone.
    pub fn router(&self) -> axum::Router {
        let server = self.clone();
        axum::Router::new().fallback(move |request: Request<Body>| {
            let server = server.clone();
            async move { server.handle(request).await }
        })
    }

    /// A client inside this process that acts as `user`: no socket, no TLS, no authentication.
    pub fn client(&self, user: User) -> kube::Client {
        client::in_process(self.clone(), user)
    }

    /// Says from now on that it is not ready, and goes on serving: who chooses among servers may choose another before
    /// this one closes.
    pub fn begin_leaving(&self) {
        self.inner.leaving.cancel();
    }

    /// Serves on the configured address until `shutdown`.
    pub async fn serve(self, shutdown: CancellationToken) -> Result<(), ServerError> {
        let address = self.inner.config.listen;
        let listener =
            TcpListener::bind(address).await.map_err(|source| ServerError::Listen { address, source })?;
        self.serve_on(listener, shutdown).await
    }

    /// Serves on a socket that is already bound (port 0 in tests, sockets handed over).
    pub async fn serve_on(
        self,
        listener: TcpListener,
        shutdown: CancellationToken,
    ) -> Result<(), ServerError> {
        let trust =
            Trust::new(&self.inner.config.client_ca_pem, self.inner.config.front_proxy_ca_pem.as_deref())?;
        let acceptor = listener::acceptor(self.inner.serving.clone(), trust.clone())?;
        listener::serve(self, listener, acceptor, trust, shutdown).await;
        Ok(())
    }

    /// Answers one request. The peer's certificate and, in process, the user travel in the request's extensions.
    pub(crate) async fn handle(&self, request: Request<Body>) -> Response<Body> {
        chain::answer(&self.inner, request).await
    }
}
