//! What every listener of the proxy has in common.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use penstock_dataplane::Choice as How;
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

    /// Whom to try for a client that asked an address: the one it had, then the one that is chosen as the Service wants it,
    /// then others at random.
    pub fn choose(&self, vip: &VipKey, peer: SocketAddr) -> Result<Choice, Refusal> {
        let client = peer.ip();
        let is_node = is_of_this_node(client);
        // Held under the table's lock: a backend that leaves from now on ends what was chosen here.
        let table = self.table.lock();
        let mut candidates = table.candidates(vip, peer, is_node)?;
        let (chosen, _) = candidates.backends.partial_shuffle(&mut rand::rng(), TRIES);
        let mut backends = chosen.to_vec();
        match (candidates.choice, candidates.by_table) {
            (How::Maglev, Some(first)) => put_first(&mut backends, first),
            (How::LeastConnections, _) => {
                let busy = |backend: &SocketAddr| self.connections.count(candidates.service, *backend);
                // Of two, as the programs do.
                if let [one, other, ..] = backends.as_mut_slice()
                    && busy(other) < busy(one)
                {
                    std::mem::swap(one, other);
                }
            }
            _ => {}
        }
        if let Some(seconds) = candidates.affinity_seconds {
            let timeout = Duration::from_secs(seconds.into());
            let kept = self.affinity.lock().kept(candidates.set, client, timeout, Instant::now());
            // What is kept may have left the set since.
            if let Some(kept) = kept.filter(|kept| candidates.backends.contains(kept)) {
                put_first(&mut backends, kept);
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

/// Has a backend be tried before the others.
fn put_first(backends: &mut Vec<SocketAddr>, first: SocketAddr) {
    backends.retain(|backend| *backend != first);
    backends.insert(0, first);
}

/// Whether a client is a process of the node: which of its addresses it comes from when it asks one that no interface has,
/// is the kernel's choice.
fn is_of_this_node(client: IpAddr) -> bool {
    client.is_loopback() || std::net::UdpSocket::bind((client, 0)).is_ok()
}
