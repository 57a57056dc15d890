//! The registry: every kind served through one generic CRUD over the catalogue.
//!
//! `definition` says what a kind is, `strategy` what it does differently, `generic` does everything else,
//! `catalogue` is the list. Nothing here knows HTTP: the server hands over bodies and options and writes out what
//! comes back.

pub(crate) mod bootstrap;
mod catalogue;
pub mod context;
mod continuation;
pub mod custom;
pub mod definition;
mod field_rules;
pub mod generic;
pub(crate) mod kinds;
pub mod meta;
pub mod object;
pub mod options;
pub(crate) mod ownership;
pub mod selector;
mod served;
pub mod strategy;
pub(crate) mod subresource;

use std::collections::HashSet;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Weak};

use futures::Stream;
use ipnetwork::IpNetwork;
use parking_lot::{Mutex, RwLock};
use penstock_schema::{Schema, Text, TypeRef};
use penstock_store::Store;
use penstock_store::cache::Feed;
use serde_json::Value;
use tokio_util::sync::{CancellationToken, DropGuard};

pub use context::{Body, Context, FieldValidation, PatchKind, Target, User};
pub(crate) use custom::build::preference as version_preference;
pub use definition::{Declaration, Definition, Subresource};
pub use object::CachedObject;
pub use options::{DeleteOptions, ListOptions};

use crate::admission::{Chain, policies};
use crate::error::ApiError;
use crate::outbound::Outbound;
use kinds::core::services::Ledger as ServiceLedger;
use served::Served;

/// What the registry must know of the cluster.
#[derive(Debug, Clone)]
pub struct RegistryConfig {
    /// One a family; Services that do not say get an address of the first.
    pub service_cidrs: Vec<IpNetwork>,
    /// Inclusive.
    pub node_ports: (u16, u16),
    /// At most one a family, the first of the first range.
    pub cluster_dns: Vec<IpAddr>,
    pub cluster_domain: String,
    /// Where the `kubernetes` Service's endpoints point to.
    pub advertise_address: IpAddr,
    pub advertise_port: u16,
}

/// Why the registry could not start.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The catalogue names a kind the schema table lacks.
    #[error("the schema has no type for {group}/{version} {kind}")]
    UnknownKind { group: Text, version: Text, kind: Text },
    #[error("the store failed at start")]
    Store {
        #[source]
        source: penstock_store::StoreError,
    },
    #[error("the definitions of custom kinds could not be read: {source}")]
    CustomKinds { source: ApiError },
    #[error("the admission policies could not be read: {source}")]
    Policies { source: ApiError },
    #[error("a bootstrap object could not be stored: {what}: {source}")]
    Bootstrap {
        what: String,
        #[source]
        source: Box<ApiError>,
    },
}

/// What a write answered.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The object, or the Status or Scale a subresource answers with.
    pub object: Arc<CachedObject>,
    /// 201 instead of 200.
    pub created: bool,
}

/// What a delete answered.
#[derive(Debug, Clone)]
pub enum DeleteOutcome {
    /// The object: still there (finalizers, grace), or gone for kinds that answer with what they removed.
    Object { object: Arc<CachedObject>, accepted: bool },
    /// Gone: a Status of success.
    Status(Value),
}

/// A page of a list.
#[derive(Debug, Clone)]
pub struct ListResult {
    pub items: Vec<Arc<CachedObject>>,
    /// The revision the page is of.
    pub resource_version: u64,
    /// For the next page; `None` on the last.
    pub continue_token: Option<String>,
    pub remaining: Option<u64>,
}

/// One event of a watch. Errors end the stream.
#[derive(Debug, Clone)]
pub enum WatchItem {
    Added(Arc<CachedObject>),
    Modified(Arc<CachedObject>),
    Deleted(Arc<CachedObject>),
    /// An otherwise empty object of the kind with a resourceVersion (and the initial-events-end annotation).
    Bookmark(Arc<CachedObject>),
    Error(ApiError),
}

pub type WatchItems = Pin<Box<dyn Stream<Item = WatchItem> + Send>>;

/// Every kind, over one store.
pub struct Registry {
    /// This registry, for what outlives the call that began it.
    this: Weak<Registry>,
    schema: Arc<Schema>,
    store: Arc<dyn Store>,
    config: RegistryConfig,
    feed: Arc<Feed>,
    /// What is served now; replaced whole when custom kinds come and go.
    served: RwLock<Arc<Served>>,
    /// Ends what the registry runs in the background.
    background: CancellationToken,
    _stop_background: DropGuard,
    /// Definitions whose objects are being deleted.
    cleanups: Mutex<HashSet<String>>,
    admission: Chain,
    outbound: Outbound,
    /// Whoever allocates addresses or node ports holds this until they are stored.
    allocations: Arc<tokio::sync::Mutex<ServiceLedger>>,
}

impl Registry {
    /// Resolves the catalogue, starts the watch caches and makes the bootstrap objects.
    pub async fn new(store: Arc<dyn Store>, config: RegistryConfig) -> Result<Arc<Self>, RegistryError> {
        let registry = Self::without_bootstrap(store, config)?;
        bootstrap::ensure(&registry).await?;
        custom::follow(&registry).await.map_err(|source| RegistryError::CustomKinds { source })?;
        policies::follow(&registry).await.map_err(|source| RegistryError::Policies { source })?;
        Ok(registry)
    }

    /// The catalogue over a store as it is.
    pub(crate) fn without_bootstrap(
        store: Arc<dyn Store>,
        config: RegistryConfig,
    ) -> Result<Arc<Self>, RegistryError> {
        let schema = Schema::builtin();
        let feed = Feed::new(store.clone());
        let mut definitions = Vec::new();
        for declaration in catalogue::declarations() {
            let (group, version, kind) =
                (declaration.group.clone(), declaration.version.clone(), declaration.kind.clone());
            let resolved = declaration.resolve(&schema);
            definitions.push(Arc::new(resolved.ok_or(RegistryError::UnknownKind {
                group,
                version,
                kind,
            })?));
        }
        let served = Served::built_in(definitions, &feed);
        let background = CancellationToken::new();
        Ok(Arc::new_cyclic(|this| Self {
            this: this.clone(),
            schema,
            store,
            config,
            feed,
            served: RwLock::new(Arc::new(served)),
            _stop_background: background.clone().drop_guard(),
            background,
            cleanups: Mutex::default(),
            admission: Chain::default(),
            outbound: Outbound::default(),
            allocations: Arc::default(),
        }))
    }

    /// What is served at this moment.
    pub(crate) fn served(&self) -> Arc<Served> {
        self.served.read().clone()
    }

    /// Replaces what one CustomResourceDefinition adds to what is served; none takes it away.
    pub(crate) fn serve_custom(&self, name: &str, custom: Option<Arc<served::Custom>>) {
        let mut served = self.served.write();
        if custom.is_some() || served.custom(name).is_some() {
            let next = served.with_custom(name, custom, &self.feed);
            *served = Arc::new(next);
        }
    }

    /// Cancelled when the registry is dropped.
    pub(crate) fn background(&self) -> CancellationToken {
        self.background.clone()
    }

    /// Whether nobody was cleaning up after this definition.
    pub(crate) fn begin_cleanup(&self, name: &str) -> bool {
        self.cleanups.lock().insert(name.to_owned())
    }

    pub(crate) fn end_cleanup(&self, name: &str) {
        self.cleanups.lock().remove(name);
    }

    pub(crate) fn allocations(&self) -> Arc<tokio::sync::Mutex<ServiceLedger>> {
        self.allocations.clone()
    }

    /// The admission chain, for the check the server adds to it.
    pub(crate) fn admission(&self) -> &Chain {
        &self.admission
    }

    /// This registry, held on to by nobody.
    pub(crate) fn handle(&self) -> Weak<Self> {
        self.this.clone()
    }

    /// Whom the server itself asks.
    pub(crate) fn outbound(&self) -> &Outbound {
        &self.outbound
    }

    pub fn schema(&self) -> &Arc<Schema> {
        &self.schema
    }

    pub fn config(&self) -> &RegistryConfig {
        &self.config
    }

    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// All kinds in discovery order.
    pub fn definitions(&self) -> Vec<Arc<Definition>> {
        self.served().definitions().to_vec()
    }

    pub fn find(&self, group: &str, version: &str, plural: &str) -> Option<Arc<Definition>> {
        self.served().find(group, version, plural)
    }

    /// The type of a kind, built in or custom, or of a list of it.
    pub fn type_of(&self, group: &str, version: &str, kind: &str) -> Option<TypeRef> {
        self.schema.kind(group, version, kind).or_else(|| self.served().custom_type(group, version, kind))
    }

    /// Changes whenever what is served does.
    pub fn generation(&self) -> u64 {
        self.served().generation()
    }
}
