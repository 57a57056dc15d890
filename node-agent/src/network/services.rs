//! From changes of Services and slices to the kernel, to DNS and to ingress.
//!
//! It exists to gather changes for a few milliseconds, so that a rollout is a handful of map updates and one change
//! still arrives at once. It must not know the API's rules; `desired` does.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use penstock_dataplane::{Dataplane, Desired};
use penstock_network::Attachment;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::ingress::Upstreams;
use super::names::Names;
use super::programs::Programs;
use crate::cluster::{Event, ServiceView, SliceView};
use crate::desired::{Services, compile_host_ports, service_name};

/// How long to wait for more after a first change.
const GATHER: Duration = Duration::from_millis(3);
/// When to try again what the kernel refused.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// One thing learnt.
#[derive(Debug)]
pub enum Change {
    /// About a Service.
    Service(Event<ServiceView>),
    /// About a slice.
    Slice(Event<SliceView>),
}

/// What is kept up to date, and for which node.
pub struct Plane {
    pub node: String,
    pub node_ip: IpAddr,
    pub dns_ip: IpAddr,
    pub programs: Arc<Programs>,
    pub zone: Names,
    /// Where ingress is served.
    pub upstreams: Option<Upstreams>,
    pub attachments: watch::Receiver<Arc<Vec<Attachment>>>,
}

/// Runs until the watches end.
pub async fn run(mut plane: Plane, mut changes: mpsc::Receiver<Change>) {
    let mut services = Services::default();
    let mut desired = Desired { node_addresses: vec![plane.node_ip], ..Desired::default() };
    desired.never_translated.insert(plane.dns_ip);
    // Whether the kernel has what is desired.
    let mut applied = false;
    loop {
        tokio::select! {
            change = changes.recv() => match change {
                Some(change) => see(&mut services, change),
                None => return,
            },
            Ok(()) = plane.attachments.changed() => {}
            // The programs came late, or refused what was desired.
            _ = plane.programs.wait(), if services.is_complete() && !applied => {}
        }
        if !gather(&mut services, &mut changes).await {
            continue;
        }
        let dirty = services.take_dirty();
        let attachments = plane.attachments.borrow_and_update().clone();
        let before = desired.services.len();
        compile_host_ports(&mut desired, &attachments, plane.node_ip);
        for name in &dirty {
            services.compile_into(&mut desired, name, &plane.node);
        }
        plane.zone.update(|zone| {
            for name in &dirty {
                match services.compile_record(name) {
                    Some(record) => zone.insert(record),
                    None => zone.remove(&service_name(name)),
                }
            }
        });
        if let Some(upstreams) = &plane.upstreams {
            dirty.iter().for_each(|name| upstreams.set(name, services.compile_upstream(name)));
            upstreams.all_listed();
        }
        tracing::debug!(changed = dirty.len(), before, now = desired.services.len(), "services");
        if let Some(dataplane) = plane.programs.get() {
            let outcome;
            (desired, outcome) = apply(dataplane, desired).await;
            applied = outcome == Outcome::Applied;
            if !applied {
                tokio::time::sleep(RETRY_AFTER).await;
            }
            if outcome == Outcome::Lost {
                desired.node_addresses.push(plane.node_ip);
                desired.never_translated.insert(plane.dns_ip);
                services.mark_all();
            }
        }
    }
}

/// How applying went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// The kernel has it.
    Applied,
    /// The kernel refused; the value is as it was.
    Refused,
    /// It panicked and took the value with it: everything is to be compiled again.
    Lost,
}

/// Takes what else comes within [`GATHER`]. Whether everything was listed, so that it can be acted on.
async fn gather(services: &mut Services, changes: &mut mpsc::Receiver<Change>) -> bool {
    let until = Instant::now() + GATHER;
    while let Ok(Some(change)) = tokio::time::timeout_at(until, changes.recv()).await {
        see(services, change);
    }
    services.is_complete()
}

fn see(services: &mut Services, change: Change) {
    match change {
        Change::Service(event) => services.see_service(event),
        Change::Slice(event) => services.see_slice(event),
    }
}

/// Applies where blocking is allowed; the value comes back so that it need not be copied.
async fn apply(dataplane: Arc<Dataplane>, desired: Desired) -> (Desired, Outcome) {
    let kept = tokio::task::spawn_blocking(move || {
        let started = std::time::Instant::now();
        let outcome = dataplane.apply(&desired);
        (desired, outcome, started.elapsed())
    });
    match kept.await {
        Ok((desired, Ok(applied), took)) => {
            if applied.operations > 0 {
                tracing::info!(
                    operations = applied.operations,
                    services = applied.services,
                    ?took,
                    "services applied"
                );
            }
            (desired, Outcome::Applied)
        }
        Ok((desired, Err(error), _)) => {
            tracing::error!("services could not be applied: {:#}", anyhow::Error::from(error));
            (desired, Outcome::Refused)
        }
        Err(error) => {
            tracing::error!(%error, "applying services panicked");
            (Desired::default(), Outcome::Lost)
        }
    }
}
