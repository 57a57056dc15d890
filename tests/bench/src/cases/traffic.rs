//! Latency, CPU and throughput of whole paths, each beside the same hops with nothing on them.
//!
//! Client and server share one CPU: between two virtual CPUs the wake-up would hide the path. Every path has a world of
//! its own; the bare one is built twice, and what lies between the two is called noise.

use anyhow::{Context, Result, bail};

use crate::fleet;
use crate::peer::{Peer, Place};
use crate::report::Row;
use crate::rounds::{Figure, compare, interleave};
use crate::stage::{Scope, Stage};
use crate::worker::{Kind, Slice};
use crate::world;

/// How many services there are in the world of most paths, and in those that are compared to see whether it matters.
const USUAL: u32 = 3;
const FEW: u32 = 1;
const MANY: u32 = 50_000;

/// From where to where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    PodToService,
    PodToPod,
    NodePort,
}

const WAYS: [Way; 3] = [Way::PodToService, Way::PodToPod, Way::NodePort];
const KINDS: [Kind; 5] = [Kind::TcpRr, Kind::TcpCrr, Kind::UdpRr, Kind::UdpSendto, Kind::Bulk];

impl Way {
    fn name(self) -> &'static str {
        match self {
            Way::PodToService => "pod-to-service",
            Way::PodToPod => "pod-to-pod",
            Way::NodePort => "nodeport",
        }
    }

    /// The most that ours may take of what bare takes; of throughput the least that it may give.
    fn goal(self, kind: Kind, noise: f64) -> f64 {
        match (self, kind) {
            (Way::PodToService, Kind::TcpRr) => 1.01,
            (Way::PodToService, Kind::TcpCrr) => 1.03,
            (Way::PodToService, Kind::UdpRr | Kind::UdpSendto) => 1.02,
            (Way::PodToService, _) => 0.98,
            (Way::PodToPod, Kind::Bulk) => 1.0 - noise,
            (Way::PodToPod, _) => 1.0 + noise,
            (Way::NodePort, Kind::Bulk) => 1.0 / 1.05,
            (Way::NodePort, _) => 1.05,
        }
    }
}

/// Operations of a slice: some milliseconds of any path.
fn amount(kind: Kind) -> u32 {
    match kind {
        Kind::TcpCrr => 60,
        Kind::Bulk => 48,
        _ => 200,
    }
}

/// A path by its way, its kind and who serves it how many services.
fn case(way: Way, kind: Kind, peer: Peer, services: u32) -> String {
    format!("{} {}: {} @{services}", way.name(), kind.name(), peer.name())
}

/// Ours at the most services beside ours at the fewest.
fn flatness_case(way: Way, kind: Kind) -> String {
    format!("{} {}: {} @{MANY} beside @{FEW}", way.name(), kind.name(), Peer::Ours.name())
}

/// To a pod no service is passed, so their number matters to nobody.
fn takes_part(way: Way, services: u32) -> bool {
    way != Way::PodToPod || services == USUAL || services == 0
}

fn each_way() -> impl Iterator<Item = (Way, Kind)> {
    WAYS.into_iter().flat_map(|way| KINDS.map(|kind| (way, kind)))
}

pub fn cases(scope: &Scope) -> Vec<String> {
    let served = |peer: &Peer| *peer != Peer::Bare;
    each_way()
        .flat_map(|(way, kind)| {
            let paths = casting(scope)
                .into_iter()
                .filter(|(peer, services)| served(peer) && takes_part(way, *services));
            let flatness = (!scope.quick && way != Way::PodToPod).then(|| flatness_case(way, kind));
            paths.map(|(peer, services)| case(way, kind, peer, services)).chain(flatness).collect::<Vec<_>>()
        })
        .collect()
}

/// Whether a path is measured on some way: because it is asked for, or because something is that is compared with it.
fn is_needed(stage: &Stage, way: Way, kind: Kind, peer: Peer, services: u32) -> bool {
    if !takes_part(way, services) {
        return false;
    }
    let flatness = || !stage.scope.quick && way != Way::PodToPod && stage.wants(&flatness_case(way, kind));
    match peer {
        Peer::Bare => cases(&stage.scope)
            .iter()
            .any(|case| case.starts_with(&format!("{} {}:", way.name(), kind.name())) && stage.wants(case)),
        _ => {
            stage.wants(&case(way, kind, peer, services))
                || peer == Peer::Ours && [FEW, MANY].contains(&services) && flatness()
        }
    }
}

pub fn run(stage: &Stage) -> Result<Vec<Row>> {
    let wanted: Vec<(Way, Kind)> =
        each_way().filter(|(way, kind)| is_needed(stage, *way, *kind, Peer::Bare, 0)).collect();
    let mut rows = Vec::new();
    let mut places = Vec::new();
    for (peer, services) in casting(&stage.scope) {
        if !wanted.iter().any(|(way, kind)| is_needed(stage, *way, *kind, peer, services)) {
            continue;
        }
        match Place::new(stage, peer, services) {
            Ok(place) => places.push(place),
            // Without the bare path, or ours, there is nothing to compare.
            Err(error) if matches!(peer, Peer::Bare | Peer::Ours) => return Err(error),
            Err(error) => {
                rows.push(Row::missing(format!("{} @{services}", peer.name()), "us", format!("{error:#}")));
            }
        }
    }
    for (way, kind) in wanted {
        eprintln!("  {} {}", way.name(), kind.name());
        match measure(stage, &mut places, way, kind) {
            Ok(measured) => rows.extend(measured),
            Err(error) => {
                let case = format!("{} {}", way.name(), kind.name());
                rows.push(Row::missing(case, "us", format!("{error:#}")));
            }
        }
    }
    Ok(rows)
}

/// Who takes part: bare first, and again.
fn casting(scope: &Scope) -> Vec<(Peer, u32)> {
    let mut all = vec![(Peer::Bare, 0), (Peer::Bare, 0)];
    let sizes: &[u32] = if scope.quick { &[USUAL] } else { &[USUAL, 5000] };
    for services in sizes {
        all.push((Peer::Ours, *services));
        all.extend(Peer::others(scope).map(|peer| (peer, *services)));
    }
    if !scope.quick {
        all.extend([(Peer::Ours, FEW), (Peer::Ours, MANY)]);
    }
    all
}

fn measure(stage: &Stage, places: &mut [Place], way: Way, kind: Kind) -> Result<Vec<Row>> {
    let takes_part = |place: &Place| is_needed(stage, way, kind, place.peer, place.services);
    let mut paths: Vec<&mut Place> = places.iter_mut().filter(|place| takes_part(place)).collect();
    let mut slots = Vec::new();
    for place in &mut paths {
        place.flush()?;
        let target = match (place.peer, way) {
            (Peer::Bare, _) | (_, Way::PodToPod) => world::direct(kind),
            (_, Way::PodToService) => fleet::cluster_ip(kind),
            (_, Way::NodePort) => fleet::node_port(kind),
        };
        let name = place.name();
        let client = if way == Way::NodePort { &mut place.ends.outside } else { &mut place.ends.client };
        slots.push(client.open(kind, target).with_context(|| format!("{name}: {target}"))?);
    }
    let slices = interleave(stage.rounds, paths.len(), |path| {
        let place = &mut paths[path];
        let server = place.ends.server.pid();
        let client = if way == Way::NodePort { &mut place.ends.outside } else { &mut place.ends.client };
        let slice = client.run(slots[path], amount(kind), server)?;
        if kind == Kind::TcpCrr {
            place.flush()?;
        }
        Ok(slice)
    })?;
    for place in &paths {
        prove(place, way).with_context(|| place.name())?;
    }
    let names: Vec<(Peer, String)> = paths.iter().map(|place| (place.peer, place.name())).collect();
    Ok(rows(way, kind, &names, &slices))
}

/// That our programs carried what was measured, and dropped nothing.
fn prove(place: &Place, way: Way) -> Result<()> {
    let Some(ours) = &place.ours else { return Ok(()) };
    let counters = ours.dataplane.counters()?;
    let event = match way {
        Way::PodToService => "connect_translated",
        Way::PodToPod => return Ok(()),
        Way::NodePort => "uplink_to_local",
    };
    if counters.events.get(event).is_none_or(|count| *count == 0) {
        bail!("no {event} was counted: the packets took another way");
    }
    let dropped: Vec<_> = counters.drops.iter().filter(|(_, count)| **count > 0).collect();
    if !dropped.is_empty() {
        bail!("packets were dropped: {dropped:?}");
    }
    Ok(())
}

fn rows(way: Way, kind: Kind, names: &[(Peer, String)], slices: &[Vec<Slice>]) -> Vec<Row> {
    let first = &slices[0];
    let again = compare(&slices[1], first, |it| it.p50_ns);
    let noise = again.map_or(0.0, |it| (it.ratio - 1.0).abs() + it.spread);
    let mut rows = Vec::new();
    for (index, (peer, name)) in names.iter().enumerate() {
        let (Some(p50), Some(cpu)) =
            (compare(&slices[index], first, |it| it.p50_ns), compare(&slices[index], first, |it| it.cpu_ns))
        else {
            continue;
        };
        let bare = |part: fn(&Slice) -> f64| compare(first, first, part).map_or(0.0, |it| it.value);
        let case = match (index, peer) {
            (0, _) => format!("{} {}: bare", way.name(), kind.name()),
            (_, Peer::Bare) => format!("{} {}: bare again, ±{noise:.3} is noise", way.name(), kind.name()),
            _ => format!("{} {}: {name}", way.name(), kind.name()),
        };
        let goal = (*peer == Peer::Ours).then(|| way.goal(kind, noise));
        if kind == Kind::Bulk {
            // From nanoseconds a megabyte to megabytes a second.
            let rate = Figure { value: 1e9 / p50.value, ratio: 1.0 / p50.ratio, spread: p50.spread };
            let row = Row::beside(case.clone(), rate, 1e9 / bare(|it| it.p50_ns), "MB/s");
            rows.push(goal.map_or(row.clone(), |goal| row.at_least(goal)));
            let cost = Row::beside(format!("{case}, CPU a MB"), in_us(cpu), bare(|it| it.cpu_ns) / 1e3, "us");
            rows.push(goal.map_or(cost.clone(), |goal| cost.at_most(1.0 / goal)));
        } else {
            for (figure, part, label) in [
                (p50, (|it: &Slice| it.p50_ns) as fn(&Slice) -> f64, ", p50"),
                (cpu, |it: &Slice| it.cpu_ns, ", CPU an operation"),
            ] {
                let row = Row::beside(format!("{case}{label}"), in_us(figure), bare(part) / 1e3, "us");
                rows.push(goal.map_or(row.clone(), |goal| row.at_most(goal)));
            }
        }
    }
    rows.extend(flatness(way, kind, names, slices));
    rows
}

/// Ours at the most services beside ours at one.
fn flatness(way: Way, kind: Kind, names: &[(Peer, String)], slices: &[Vec<Slice>]) -> Option<Row> {
    let find =
        |wanted: &str| names.iter().position(|(peer, name)| *peer == Peer::Ours && name.ends_with(wanted));
    let (few, many) = (find(&format!("@{FEW}"))?, find(&format!("@{MANY}"))?);
    let figure = compare(&slices[many], &slices[few], |it| it.p50_ns)?;
    let base = compare(&slices[few], &slices[few], |it| it.p50_ns)?;
    let unit = if kind == Kind::Bulk { "us/MB" } else { "us" };
    let row = Row::beside(flatness_case(way, kind), in_us(figure), base.value / 1e3, unit);
    Some(row.at_most(1.03))
}

fn in_us(figure: Figure) -> Figure {
    Figure { value: figure.value / 1e3, ..figure }
}
