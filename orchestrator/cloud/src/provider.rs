//! What a cloud must be able to do for Services. A provider knows nothing of the Kubernetes API.

use std::net::IpAddr;

use async_trait::async_trait;

/// What a Service asks of a load balancer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// Namespace/name: stable identity of the balancer.
    pub service: String,
    /// The address the user wants, if any.
    pub wanted: Option<IpAddr>,
    /// Whether an address of each family is needed: IPv4, IPv6.
    pub ipv4: bool,
    pub ipv6: bool,
}

/// Why a provider cannot serve.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProviderError {
    /// No pool is configured for the family.
    #[error("no load-balancer pool has {family} addresses; give some with --load-balancer-pools")]
    NoPool { family: &'static str },
    /// All addresses are in use.
    #[error("all {family} load-balancer addresses are in use")]
    Exhausted { family: &'static str },
    /// The wanted address is in no pool.
    #[error("address {address} is in no load-balancer pool")]
    NotInPool { address: IpAddr },
    /// The wanted address serves another Service.
    #[error("address {address} is in use by {by}")]
    InUse { address: IpAddr, by: String },
}

/// Load balancers of a cloud.
#[async_trait]
pub trait LoadBalancers: Send + Sync {
    /// Makes sure the Service has a balancer; returns its addresses. The same request gives the same answer.
    async fn ensure(&self, request: &Request) -> Result<Vec<IpAddr>, ProviderError>;
    /// Takes note of addresses a Service has already.
    fn note(&self, service: &str, addresses: &[IpAddr]);
    /// Gives up the balancer of a Service, if there is one.
    async fn release(&self, service: &str) -> bool;
}
