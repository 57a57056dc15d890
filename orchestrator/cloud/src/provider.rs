//! What a cloud must be able to do for Services. A provider knows nothing of how Services are watched or written.

use std::net::IpAddr;

use async_trait::async_trait;

use crate::plan::{Claim, Refusal, Request};

/// Load balancers of a cloud.
#[async_trait]
pub trait LoadBalancers: Send + Sync {
    /// Makes sure the Service has a balancer; returns its addresses. The same request gives the same answer.
    async fn ensure(&self, request: &Request) -> Result<Vec<IpAddr>, Refusal>;
    /// Takes note of addresses a Service has already.
    fn note(&self, service: &str, addresses: &[IpAddr], claim: &Claim);
    /// Gives up the balancer of a Service; true if there was one.
    async fn release(&self, service: &str) -> bool;
}
