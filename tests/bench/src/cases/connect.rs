//! Nanoseconds that translation adds to a connect(): a datagram socket made, connected and closed, without a packet.
//!
//! In the node's cgroup to the service's address, less a process outside of any hook to the backend's own address: both
//! end in the same lookup of the same route. Connecting again on one socket leaves out what the socket's storage costs.

use anyhow::Result;

use crate::fleet;
use crate::peer::{Peer, Place};
use crate::report::Row;
use crate::rounds::{compare, interleave, quantile};
use crate::stage::{Scope, Stage};
use crate::worker::Kind;
use crate::world;

const OPERATIONS: u32 = 2_000;
const GOAL_NS: f64 = 500.0;

const LABELS: [(Kind, &str); 2] =
    [(Kind::Connect, "connect() of a new socket"), (Kind::Reconnect, "connect() again on one socket")];

pub fn cases(_scope: &Scope) -> Vec<String> {
    LABELS.map(|(_, label)| label.to_owned()).into()
}

pub fn run(stage: &Stage) -> Result<Vec<Row>> {
    let sizes: &[u32] = if stage.scope.quick { &[1, 5000] } else { &[1, 5000, 50_000] };
    let mut places = vec![Place::new(stage, Peer::Bare, 0)?];
    for services in sizes {
        places.push(Place::new(stage, Peer::Ours, *services)?);
    }
    let mut rows = Vec::new();
    for (kind, label) in LABELS.into_iter().filter(|(_, label)| stage.wants(label)) {
        // Without a hook; with hooks, to a service; with hooks, to an address that is no service's.
        let mut paths = Vec::new();
        for (at, place) in places.iter_mut().enumerate() {
            if place.peer == Peer::Ours {
                paths.push((at, place.ends.client.open(kind, fleet::cluster_ip(kind))?, "to a service"));
            }
            paths.push((at, place.ends.client.open(kind, world::direct(kind))?, "to a pod"));
        }
        let slices = interleave(stage.rounds, paths.len(), |path| {
            let (at, slot, _) = paths[path];
            let place = &mut places[at];
            let server = place.ends.server.pid();
            place.ends.client.run(slot, OPERATIONS, server)
        })?;
        let mut to_service = Vec::new();
        for ((at, _, target), mine) in paths.iter().zip(&slices) {
            let Some(figure) = compare(mine, &slices[0], |it| it.p50_ns) else { continue };
            let place = &places[*at];
            if place.peer == Peer::Bare {
                rows.push(Row::of(format!("{label}: no hook"), figure.value, "ns"));
                continue;
            }
            let added = mine.iter().zip(&slices[0]).map(|(a, b)| a.p50_ns - b.p50_ns).collect();
            let added = quantile(added, 0.5).unwrap_or_default();
            let case = format!("{label}: {target}, added by {}", place.name());
            if *target == "to a service" {
                rows.push(Row::of(case, added, "ns").at_most(GOAL_NS));
                to_service.push(mine);
            } else {
                rows.push(Row::of(case, added, "ns"));
            }
        }
        if let [few, .., many] = to_service[..]
            && let (Some(figure), Some(base)) =
                (compare(many, few, |it| it.p50_ns), compare(few, few, |it| it.p50_ns))
        {
            let most = sizes.last().copied().unwrap_or_default();
            let case = format!("{label}: to a service, @{most} beside @1");
            rows.push(Row::beside(case, figure, base.value, "ns").at_most(1.03));
        }
    }
    Ok(rows)
}
