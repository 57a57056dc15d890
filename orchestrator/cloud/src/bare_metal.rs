//! Bare metal: load-balancer addresses from pools, those of the cluster and those of the command line. Announcing
//! them on the network is the node agents' work.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use ipnetwork::IpNetwork;
use jiff::Timestamp;
use penstock_informers::Cache;

use crate::address_pool::{AddressPool, AddressPoolStatus};
use crate::plan::{Claim, Ledger, Pool, Refusal, Request, plan_addresses};
use crate::pools;
use crate::provider::LoadBalancers;

/// See the module.
pub struct BareMetal {
    configured: Vec<IpNetwork>,
    objects: Arc<Cache<AddressPool>>,
    ledger: Mutex<Ledger>,
}

// === impl BareMetal ===

impl BareMetal {
    /// A provider that gives addresses from these ranges and from the pools in the cache.
    pub fn new(configured: Vec<IpNetwork>, objects: Arc<Cache<AddressPool>>) -> Self {
        Self { configured, objects, ledger: Mutex::default() }
    }

    /// The status a pool should have now.
    pub fn status_of(&self, object: &AddressPool, now: Timestamp) -> AddressPoolStatus {
        pools::plan_status(object, &self.pools(), &self.ledger(), now)
    }

    fn pools(&self) -> Vec<Pool> {
        let objects = self.objects.list();
        pools::pools(&self.configured, objects.iter().map(AsRef::as_ref))
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(|e| e.into_inner())
    }
}

#[async_trait]
impl LoadBalancers for BareMetal {
    async fn ensure(&self, request: &Request) -> Result<Vec<IpAddr>, Refusal> {
        let pools = self.pools();
        let mut ledger = self.ledger();
        let addresses = plan_addresses(&pools, &ledger, request)?;
        ledger.set(&request.service, &addresses, &request.claim);
        Ok(addresses)
    }

    fn note(&self, service: &str, addresses: &[IpAddr], claim: &Claim) {
        self.ledger().set(service, addresses, claim);
    }

    async fn release(&self, service: &str) -> bool {
        self.ledger().release(service)
    }
}
