//! Leases shared between records: one for all that are given the same time to live within a short while.
//!
//! A lease costs etcd memory and a timer, and a busy cluster writes hundreds of events a second that all live an
//! hour. A record may outlive its time by the sharing window, never the other way round.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use etcd_client::LeaseClient;
use tokio::sync::Mutex;

use super::call;
use crate::StoreError;

/// Deleting the keys of one lease is one transaction in etcd: keep it small.
const LEASE_KEYS_MAX: u32 = 500;
/// A lease is shared for this fraction of its time to live.
const WINDOW_FRACTION: u64 = 20;
/// Different times to live remembered at once; the rest get leases of their own.
const TTLS_MAX: usize = 64;

pub(super) struct Leases {
    client: LeaseClient,
    /// By time to live in seconds. The lock is held while a lease is granted, so that it is granted once.
    shared: Mutex<HashMap<u64, Lease>>,
}

struct Lease {
    id: i64,
    granted: Instant,
    keys: u32,
}

// === impl Leases ===

impl Leases {
    pub(super) fn new(client: LeaseClient) -> Self {
        Self { client, shared: Mutex::new(HashMap::new()) }
    }

    /// A lease that lasts at least so long.
    pub(super) async fn obtain(&self, ttl_seconds: u64) -> Result<i64, StoreError> {
        let window = Duration::from_secs(ttl_seconds / WINDOW_FRACTION);
        let mut shared = self.shared.lock().await;
        if let Some(lease) = shared.get_mut(&ttl_seconds)
            && lease.keys < LEASE_KEYS_MAX
            && lease.granted.elapsed() < window
        {
            lease.keys += 1;
            return Ok(lease.id);
        }
        let granted = Instant::now();
        let seconds = i64::try_from(ttl_seconds.max(1).saturating_add(window.as_secs())).unwrap_or(i64::MAX);
        let id = call("grant a lease", self.client.clone().grant(seconds, None)).await?.id();
        if !window.is_zero() && (shared.len() < TTLS_MAX || shared.contains_key(&ttl_seconds)) {
            shared.insert(ttl_seconds, Lease { id, granted, keys: 1 });
        }
        Ok(id)
    }

    /// The lease turned out to be gone.
    pub(super) async fn forget(&self, ttl_seconds: u64, id: i64) {
        let mut shared = self.shared.lock().await;
        if shared.get(&ttl_seconds).is_some_and(|lease| lease.id == id) {
            shared.remove(&ttl_seconds);
        }
    }
}
