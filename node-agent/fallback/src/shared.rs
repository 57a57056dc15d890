//! What every listener of the proxy has in common.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use penstock_ebpf_common::VipKey;
use rand::seq::SliceRandom;
use tokio::sync::Semaphore;

use crate::Limits;
use crate::affinity::Affinity;
use crate::connections::{Connections, Held};
use crate::table::{Refusal, Table};

/// How many backends one client is tried with, one after another.
pub const TRIES: usize = 3;

/// The table, and what is under way.
#[derive(Debug)]
pub struct Shared {
    pub table: Mutex<Table>,
    affinity: Mutex<Affinity>,
    pub connections: Arc<Connections>,
    /// One permit a TCP connection.
    pub tcp: Arc<Semaphore>,
    /// One permit a UDP session.
    pub udp: Arc<Semaphore>,
}

/// Whom to try for a client.
#[derive(Debug)]
pub struct Choice {
    /// In this order, each held; at least one.
    pub backends: Vec<(SocketAddr, Held)>,
    /// The set that wants the client to keep its backend, if it does.
    pub affinity: Option<u32>,
}

impl Shared {
    pub fn new(limits: &Limits) -> Self {
        Self {
            table: Mutex::new(Table::new(limits.services_max)),
            affinity: Mutex::new(Affinity::new(limits.affinity_max)),
            connections: Arc::default(),
            tcp: Arc::new(Semaphore::new(limits.connections_max)),
            udp: Arc::new(Semaphore::new(limits.sessions_max)),
        }
    }

    /// Whom to try for a client that asked an address: the one it had, then others at random.
    pub fn choose(&self, vip: &VipKey, client: IpAddr) -> Result<Choice, Refusal> {
        let is_node = is_of_this_node(client);
        // Held under the table's lock: a backend that leaves from now on ends what was chosen here.
        let table = self.table.lock();
        let mut candidates = table.candidates(vip, client, is_node)?;
        let (chosen, _) = candidates.backends.partial_shuffle(&mut rand::rng(), TRIES);
        let mut backends = chosen.to_vec();
        if let Some(seconds) = candidates.affinity_seconds {
            let timeout = Duration::from_secs(seconds.into());
            let kept = self.affinity.lock().kept(candidates.set, client, timeout, Instant::now());
            // What is kept may have left the set since.
            if let Some(kept) = kept.filter(|kept| candidates.backends.contains(kept)) {
                backends.retain(|backend| *backend != kept);
                backends.insert(0, kept);
            }
        }
        let hold = |backend| (backend, self.connections.hold(candidates.service, backend));
        let backends = backends.into_iter().map(hold).collect();
        drop(table);
        Ok(Choice { backends, affinity: candidates.affinity_seconds.map(|_| candidates.set) })
    }

    /// Notes which backend a client got.
    pub fn chosen(&self, affinity: Option<u32>, client: IpAddr, backend: SocketAddr) {
        if let Some(set) = affinity {
            self.affinity.lock().keep(set, client, backend, Instant::now());
        }
    }
}

/// Whether a client is a process of the node: which of its addresses it comes from when it asks one that no interface has,
/// is the kernel's choice.
fn is_of_this_node(client: IpAddr) -> bool {
    client.is_loopback() || std::net::UdpSocket::bind((client, 0)).is_ok()
}
