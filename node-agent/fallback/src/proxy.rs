//! The proxy as the agent holds it: told of changes, it opens and closes listeners and routes.
//!
//! Listeners follow the table: an address with backends has one, an address without has none, so that its clients are
//! refused at once. A listener that cannot be opened is a [`Trouble`] of its service alone, and is tried again.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use ipnetwork::IpNetwork;
use penstock_dataplane::{Applied, Listing, NodeFacts, Protocol, ServiceChange};
use penstock_ebpf_common::{PROTOCOL_TCP, PROTOCOL_UDP, VipKey};
use tokio::sync::{Mutex, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::connections::Ending;
use crate::routes::{RouteError, Routes};
use crate::shared::Shared;
use crate::table::{is_proxied, socket_address};
use crate::trouble::{Trouble, Why};
use crate::{Limits, listen, tcp, udp};

/// When to try again to open what could not be opened.
const RETRY_EVERY: Duration = Duration::from_secs(5);
/// How long connections that are told to end may take. Nothing they wait for takes any time, but a turn on a processor
/// that has much else to do.
const END_TIMEOUT: Duration = Duration::from_secs(10);

/// The proxy. Dropping it closes its listeners; its routes stay until [`Fallback::stop`], or for the next.
#[derive(Debug)]
pub struct Fallback {
    shared: Arc<Shared>,
    routes: Routes,
    limits: Limits,
    state: Mutex<State>,
    troubles: watch::Sender<Arc<Vec<Trouble>>>,
}

#[derive(Debug, Default)]
struct State {
    open: BTreeMap<VipKey, Listener>,
    refused: BTreeMap<VipKey, Why>,
    /// Addresses that have a route, with how many of the table's addresses need it.
    routed: BTreeMap<IpAddr, usize>,
    /// Of the table's addresses, those that are counted in there.
    counted: BTreeSet<VipKey>,
    /// Addresses that should have a route and have none, with the reason.
    unrouted: BTreeMap<IpAddr, String>,
    /// The node's own addresses need no route.
    own: BTreeSet<IpAddr>,
}

/// A task that serves an address, ended with this.
#[derive(Debug)]
struct Listener {
    task: JoinHandle<()>,
    closing: CancellationToken,
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Listener {
    /// Returns when the address is free: a socket is closed when the task that has it gets its turn, and not before.
    async fn close(mut self) {
        self.closing.cancel();
        if let Err(error) = (&mut self.task).await {
            tracing::error!(%error, "a listener of the userspace proxy failed");
        }
    }
}

// === impl Fallback ===

impl Fallback {
    /// Starts with no services, in the calling thread's network namespace. Must be called within a tokio runtime.
    pub fn start(limits: Limits) -> Result<Arc<Self>, RouteError> {
        let limits = limits.within_open_files();
        tracing::debug!(?limits, "the userspace proxy's bounds");
        Ok(Arc::new(Self {
            shared: Arc::new(Shared::new(&limits)),
            routes: Routes::open()?,
            limits,
            state: Mutex::default(),
            troubles: watch::Sender::default(),
        }))
    }

    /// Says which clients are pods of this node: they count as inside.
    pub fn set_inside(&self, ranges: Vec<IpNetwork>) {
        self.shared.table.lock().set_inside(ranges);
    }

    /// What is not served, and why; the newest is always there.
    pub fn troubles(&self) -> watch::Receiver<Arc<Vec<Trouble>>> {
        self.troubles.subscribe()
    }

    /// Has these Services be what they are said to be. What cannot be served is a trouble, not an error.
    pub async fn apply_changes(
        &self,
        changes: &[ServiceChange],
        facts: &NodeFacts,
        listing: Listing,
    ) -> Applied {
        let mut state = self.state.lock().await;
        state.own = facts.node_addresses.iter().copied().collect();
        let changed = self.shared.table.lock().change(changes, facts, listing);
        // Before their addresses stop being ours: a reset from an address that is not is sent nowhere.
        let ending = changed
            .ended
            .iter()
            .filter_map(|(service, backend)| self.shared.connections.end(*service, *backend));
        let sockets_destroyed = ended(ending.collect()).await;
        self.route(&mut state, &changed.vips).await;
        for vip in &changed.vips {
            self.follow(&mut state, vip).await;
        }
        if listing == Listing::Complete
            && let Err(error) = self.forget_foreign_routes(&state).await
        {
            tracing::warn!(%error, "routes of an earlier userspace proxy may be left");
        }
        self.tell(&state);
        Applied { sockets_destroyed, ..changed.applied }
    }

    /// Tries again and again to open what could not be opened. Never returns.
    pub async fn retry(&self) {
        loop {
            tokio::time::sleep(RETRY_EVERY).await;
            let mut state = self.state.lock().await;
            let again: Vec<_> = state.refused.iter().filter(|(_, why)| **why != Why::Protocol).collect();
            let again: Vec<_> = again.into_iter().map(|(vip, _)| *vip).collect();
            for vip in &again {
                self.follow(&mut state, vip).await;
            }
            let unrouted: Vec<_> = state.unrouted.keys().copied().collect();
            for address in &unrouted {
                self.ensure_route(&mut state, *address).await;
            }
            if !again.is_empty() || !unrouted.is_empty() {
                self.tell(&state);
            }
        }
    }

    /// Closes every listener, ends every connection and removes every route: somebody else serves from now on.
    pub async fn stop(&self) -> Result<(), RouteError> {
        let mut state = self.state.lock().await;
        join_all(std::mem::take(&mut *state).open.into_values().map(Listener::close)).await;
        ended(self.shared.connections.end_all()).await;
        self.tell(&state);
        for address in self.routes.observe().await? {
            self.routes.remove(address).await?;
        }
        Ok(())
    }

    /// Opens or closes an address's listener, as the table has it.
    async fn follow(&self, state: &mut State, vip: &VipKey) {
        if !self.shared.table.lock().is_answered(vip) {
            if let Some(listener) = state.open.remove(vip) {
                // The address may be wanted again at once, by this proxy or by another process.
                listener.close().await;
            }
            state.refused.remove(vip);
            return;
        }
        if state.open.contains_key(vip) {
            return;
        }
        match self.open(state.open.len(), vip) {
            Ok(listener) => {
                state.open.insert(*vip, listener);
                state.refused.remove(vip);
            }
            Err(why) => drop(state.refused.insert(*vip, why)),
        }
    }

    fn open(&self, already: usize, vip: &VipKey) -> Result<Listener, Why> {
        if !is_proxied(vip) {
            return Err(Why::Protocol);
        }
        if already >= self.limits.listeners_max {
            return Err(Why::Limit);
        }
        let address = socket_address((vip.address, vip.port));
        let refused = |error: std::io::Error| match error.kind() {
            std::io::ErrorKind::AddrInUse => Why::InUse,
            _ => Why::Refused(format!("the kernel does not let us listen: {error}")),
        };
        let (vip, shared, closing) = (*vip, self.shared.clone(), CancellationToken::new());
        let until = closing.clone();
        let task = match vip.protocol {
            PROTOCOL_UDP => {
                tokio::spawn(udp::serve(listen::udp(address).map_err(refused)?, vip, shared, until))
            }
            _ => tokio::spawn(tcp::serve(listen::tcp(address).map_err(refused)?, vip, shared, until)),
        };
        Ok(Listener { task, closing })
    }

    /// Makes the addresses of changed keys the node's own, or no more.
    async fn route(&self, state: &mut State, vips: &BTreeSet<VipKey>) {
        let (mut wanted, mut unwanted) = (Vec::new(), Vec::new());
        for vip in vips {
            let address = IpAddr::from(vip.address);
            let needs =
                self.shared.table.lock().has(vip) && !address.is_loopback() && !state.own.contains(&address);
            match (needs, state.counted.contains(vip)) {
                (true, false) => {
                    state.counted.insert(*vip);
                    let count = state.routed.entry(address).or_insert(0);
                    *count += 1;
                    if *count == 1 {
                        wanted.push(address);
                    }
                }
                (false, true) => {
                    state.counted.remove(vip);
                    if let Some(count) = state.routed.get_mut(&address) {
                        *count -= 1;
                        if *count == 0 {
                            state.routed.remove(&address);
                            unwanted.push(address);
                        }
                    }
                }
                _ => {}
            }
        }
        for address in unwanted {
            state.unrouted.remove(&address);
            // What one service gave up may be another's by now.
            if !state.routed.contains_key(&address)
                && let Err(error) = self.routes.remove(address).await
            {
                tracing::warn!(%error, "an address stays the node's own");
            }
        }
        for address in wanted {
            self.ensure_route(state, address).await;
        }
    }

    async fn ensure_route(&self, state: &mut State, address: IpAddr) {
        match self.routes.ensure(address).await {
            Ok(()) => drop(state.unrouted.remove(&address)),
            Err(error) => {
                let cause = std::error::Error::source(&error).map_or(String::new(), |it| format!(": {it}"));
                state.unrouted.insert(address, format!("{error}{cause}"));
            }
        }
    }

    /// Removes the routes of an earlier proxy that nobody needs.
    async fn forget_foreign_routes(&self, state: &State) -> Result<(), RouteError> {
        for address in self.routes.observe().await? {
            if !state.routed.contains_key(&address) {
                self.routes.remove(address).await?;
            }
        }
        Ok(())
    }

    /// Publishes what is not served, if that is news.
    fn tell(&self, state: &State) {
        let table = self.shared.table.lock();
        let unrouted = state.open.keys().filter_map(|vip| {
            let reason = state.unrouted.get(&vip.address.into())?;
            Some((vip, Why::Refused(reason.clone())))
        });
        let refused = state.refused.iter().map(|(vip, why)| (vip, why.clone()));
        let troubles = refused.chain(unrouted).filter_map(|(vip, why)| {
            Some(Trouble {
                service: (*table.name(vip)?).clone(),
                address: socket_address((vip.address, vip.port)),
                protocol: match vip.protocol {
                    PROTOCOL_TCP => Protocol::Tcp,
                    PROTOCOL_UDP => Protocol::Udp,
                    _ => Protocol::Sctp,
                },
                why,
            })
        });
        let troubles: Arc<Vec<_>> = Arc::new(troubles.collect());
        self.troubles.send_if_modified(|known| {
            let news = *known != troubles;
            if news {
                *known = troubles;
            }
            news
        });
    }
}

/// Waits for what ends, but not for ever. Returns how many connections that were.
async fn ended(ending: Vec<Ending>) -> usize {
    let count = ending.iter().map(Ending::count).sum();
    let all = async {
        for ending in &ending {
            ending.wait().await;
        }
    };
    if tokio::time::timeout(END_TIMEOUT, all).await.is_err() {
        tracing::warn!("some connections of backends that are gone do not end");
    }
    count
}
