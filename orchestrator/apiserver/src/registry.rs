//! The registry: every kind served through one generic CRUD over the catalogue.
//!
//! `definition` says what a kind is, `strategy` what it does differently, `generic` does everything else,
//! `catalogue` is the list. Nothing here knows HTTP: the server hands over bodies and options and writes out what
//! comes back.

pub mod context;
pub mod definition;
pub mod generic;
pub mod meta;
pub mod object;
pub mod options;
pub mod selector;
pub mod strategy;

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures::Stream;
use ipnetwork::IpNetwork;
use penstock_schema::Schema;
use penstock_store::Store;
use serde_json::Value;

pub use context::{Body, Context, FieldValidation, PatchKind, Target, User};
pub use definition::{Declaration, Definition, Subresource};
pub use object::CachedObject;
pub use options::{DeleteOptions, ListOptions};

use crate::error::ApiError;

/// What the registry must know of the cluster.
#[derive(Debug, Clone)]
pub struct RegistryConfig {
    pub service_cidr: IpNetwork,
    /// Inclusive.
    pub node_ports: (u16, u16),
    pub cluster_dns: IpAddr,
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
    UnknownKind { group: &'static str, version: &'static str, kind: &'static str },
    #[error("the store failed at start")]
    Store {
        #[source]
        source: penstock_store::StoreError,
    },
    #[error("a bootstrap object could not be stored: {what}: {source}")]
    Bootstrap {
        what: String,
        #[source]
        source: ApiError,
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
    schema: Arc<Schema>,
    store: Arc<dyn Store>,
    config: RegistryConfig,
    definitions: Vec<Arc<Definition>>,
}

impl Registry {
    /// Resolves the catalogue, starts the watch caches and makes the bootstrap objects.
    pub async fn new(store: Arc<dyn Store>, config: RegistryConfig) -> Result<Arc<Self>, RegistryError> {
        let schema = Schema::builtin();
        Ok(Arc::new(Self { schema, store, config, definitions: Vec::new() }))
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
        self.definitions.clone()
    }

    pub fn find(&self, group: &str, version: &str, plural: &str) -> Option<Arc<Definition>> {
        self.definitions.iter().find(|d| d.group == group && d.version == version && d.plural == plural).cloned()
    }

    /// One object, or the virtual object of a subresource (`scale`, `status`).
    pub async fn get(&self, _context: &Context, definition: &Definition, target: &Target) -> Result<Arc<CachedObject>, ApiError> {
        Err(ApiError::not_found(definition.group, definition.plural, target.name()))
    }

    pub async fn list(
        &self,
        _context: &Context,
        _definition: &Definition,
        _target: &Target,
        _options: &ListOptions,
    ) -> Result<ListResult, ApiError> {
        Err(ApiError::no_such_path())
    }

    pub async fn watch(
        &self,
        _context: &Context,
        _definition: &Definition,
        _target: &Target,
        _options: &ListOptions,
    ) -> Result<WatchItems, ApiError> {
        Err(ApiError::no_such_path())
    }

    /// POST to a collection, or to a subresource (`binding`, `eviction`).
    pub async fn create(
        &self,
        _context: &Context,
        _definition: &Definition,
        _target: &Target,
        _body: Body,
    ) -> Result<Outcome, ApiError> {
        Err(ApiError::no_such_path())
    }

    /// PUT to an object or one of its subresources.
    pub async fn update(
        &self,
        _context: &Context,
        _definition: &Definition,
        _target: &Target,
        _body: Body,
    ) -> Result<Outcome, ApiError> {
        Err(ApiError::no_such_path())
    }

    pub async fn patch(
        &self,
        _context: &Context,
        _definition: &Definition,
        _target: &Target,
        _kind: PatchKind,
        _patch: Bytes,
    ) -> Result<Outcome, ApiError> {
        Err(ApiError::no_such_path())
    }

    pub async fn delete(
        &self,
        _context: &Context,
        _definition: &Definition,
        _target: &Target,
        _options: &DeleteOptions,
    ) -> Result<DeleteOutcome, ApiError> {
        Err(ApiError::no_such_path())
    }

    /// Deletes what the list options select; answers with what was there.
    pub async fn delete_collection(
        &self,
        _context: &Context,
        _definition: &Definition,
        _target: &Target,
        _options: &DeleteOptions,
        _list: &ListOptions,
    ) -> Result<ListResult, ApiError> {
        Err(ApiError::no_such_path())
    }
}
