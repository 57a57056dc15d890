//! From Nodes to this node's range and to routes.
//!
//! It exists to say when: at once when a node changes, now and then to repair what others changed, again soon after
//! a failure. It must not know what a route is.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use penstock_network::{Network, Peer, PodRanges};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::condition::{Condition, Part};
use super::programs::Programs;
use crate::cluster::{Event, NodeView, ObjectName};
use crate::rotation::Nodes;

/// How long to wait for more after a change: a cluster that starts changes many nodes at once.
const GATHER: Duration = Duration::from_millis(20);
/// How often routes are compared without a change.
const REPAIR_EVERY: Duration = Duration::from_secs(30);
/// When to try again after a failure.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// Runs until the watch ends.
pub async fn run(
    network: Arc<Network>,
    node: String,
    programs: Arc<Programs>,
    mut events: mpsc::Receiver<Event<NodeView>>,
    known: Nodes,
    condition: Condition,
) {
    let mut nodes: BTreeMap<ObjectName, NodeView> = BTreeMap::new();
    let (mut listed, mut synced) = (false, false);
    let mut due = Instant::now() + REPAIR_EVERY;
    loop {
        match tokio::time::timeout_at(due, events.recv()).await {
            Ok(None) => return,
            Ok(Some(event)) => {
                listed |= matches!(event, Event::All(_));
                // Status of nodes changes all the time; addresses and ranges hardly ever.
                let changed = see(&mut nodes, event);
                if changed {
                    known.set(&node, &nodes);
                }
                if listed && (changed || !synced) {
                    due = due.min(Instant::now() + GATHER);
                }
                continue;
            }
            Err(_) if !listed => {
                due = Instant::now() + REPAIR_EVERY;
                continue;
            }
            Err(_) => {}
        }
        synced = true;
        let outcome = sync(&network, &node, &programs, &nodes).await;
        due = Instant::now() + if outcome.is_ok() { REPAIR_EVERY } else { RETRY_AFTER };
        let outcome = outcome.map_err(|error| format!("{error:#}"));
        if let Err(message) = &outcome
            && condition.set(Part::PodNetwork, Err(message.clone()))
        {
            tracing::warn!("the pod network is not complete: {message}");
        } else if outcome.is_ok() && condition.set(Part::PodNetwork, Ok(())) {
            tracing::info!("the pod network is ready");
        }
    }
}

async fn sync(
    network: &Network,
    node: &str,
    programs: &Programs,
    nodes: &BTreeMap<ObjectName, NodeView>,
) -> anyhow::Result<()> {
    let own =
        nodes.iter().find(|(name, _)| name.name == node).and_then(|(_, view)| PodRanges::of(&view.pod_cidrs));
    if let Some(ranges) = own {
        network.set_pod_ranges(ranges).await?;
    }
    if let Some(dataplane) = programs.get() {
        let addresses: Vec<IpAddr> = nodes.values().flat_map(|view| view.addresses.iter().copied()).collect();
        dataplane.know_nodes(&addresses)?;
    }
    let peers: Vec<Peer> = nodes
        .iter()
        .map(|(name, view)| Peer {
            node: name.name.clone(),
            addresses: view.addresses.clone(),
            pod_cidrs: view.pod_cidrs.clone(),
        })
        .collect();
    let applied = network.sync_routes(&peers).await?;
    if let Some(dataplane) = programs.get() {
        dataplane.know_tunnel(network.tunnel_index())?;
    }
    if applied > 0 {
        tracing::info!(changes = applied, "routes to other nodes");
    }
    match own {
        Some(_) => Ok(()),
        None => anyhow::bail!("the node has no range of pod addresses yet (spec.podCIDRs)"),
    }
}

/// Takes note of a node. Whether anything is different now.
fn see(nodes: &mut BTreeMap<ObjectName, NodeView>, event: Event<NodeView>) -> bool {
    match event {
        Event::Is(name, view) => {
            let differs = nodes.get(&name) != Some(&view);
            nodes.insert(name, view);
            differs
        }
        Event::Gone(name) => nodes.remove(&name).is_some(),
        Event::Listing => false,
        Event::All(all) => {
            let before = nodes.len();
            nodes.retain(|name, _| all.contains(name));
            nodes.len() != before
        }
    }
}
