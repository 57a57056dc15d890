//! The API server: the Kubernetes API over the one generic registry.
//!
//! [`server`] speaks HTTP and nothing else, [`authn`] says who asks, [`authz`] whether they may, [`registry`] what
//! happens, [`flow_control`] who comes first when there is too much. [`client`] gives the rest of the process a `kube::Client` over the same router, without a socket.

pub mod admission;
mod aggregation;
pub mod audit;
pub mod authn;
pub mod authz;
pub mod client;
mod cluster_info;
pub mod discovery;
pub mod error;
mod flow_control;
pub mod openapi;
mod outbound;
pub mod proxy;
pub mod registry;
mod remembered;
pub mod reviews;
pub mod server;
mod shapes;
pub mod tables;
pub(crate) mod token_request;

pub use error::ApiError;
pub use outbound::kubeconfig::{KubeconfigError, Webhook};
pub use registry::{Registry, RegistryConfig, User};
pub use server::config::{ClusterInfo, DEFAULT_ISSUER, ServerConfig, StaticToken};
pub use server::limits::Limits;
pub use server::shown::{Certificates, Pair};
pub use server::{ApiServer, ServerError};
