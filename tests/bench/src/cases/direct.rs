//! A NodePort whose backend is on another node: with the answers by way of the node that was asked (SNAT), and from the backend's
//! node straight to the client (DSR), each beside the same hops with no program on them.
//!
//! ```text
//!                    ┌ bridge 10.240.0.1 (client) ┐
//!   node 10.240.0.11 ┘                            └ node 10.240.0.12 ── pod 10.244.2.2
//! ```
//! Bare, the client's packets go through the first node and the answers do not, as with DSR.

use std::net::{Ipv4Addr, SocketAddrV4};

use anyhow::{Context, Result, bail};
use penstock_dataplane::{Backend, Dataplane, Desired, Forwarding, PodLink, Service, ServiceKey};
use penstock_tests::netns::{Netns, ifindex, ip, sysctl};

use crate::peer::ours::Base;
use crate::report::Row;
use crate::rounds::{Figure, compare, interleave};
use crate::stage::{Scope, Stage};
use crate::worker::{Kind, SERVER_PORTS, Slice, Worker};
use crate::world::prepare_host;

const ASKED: Ipv4Addr = Ipv4Addr::new(10, 240, 0, 11);
const ANSWERS: Ipv4Addr = Ipv4Addr::new(10, 240, 0, 12);
const POD: Ipv4Addr = Ipv4Addr::new(10, 244, 2, 2);
const KINDS: [(Kind, u32); 2] = [(Kind::TcpRr, 200), (Kind::TcpCrr, 60)];
const NODE_PORTS: u16 = 30_000;

/// Who carries the packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Bare,
    Served(Forwarding),
}

const WAYS: [Way; 3] = [Way::Bare, Way::Served(Forwarding::Snat), Way::Served(Forwarding::Dsr)];

impl Way {
    fn name(self) -> &'static str {
        match self {
            Way::Bare => "bare",
            Way::Served(Forwarding::Snat) => "penstock SNAT",
            Way::Served(Forwarding::Dsr) => "penstock DSR",
        }
    }

    /// What is counted on the asked node when packets took this way.
    fn event(self) -> Option<&'static str> {
        match self {
            Way::Bare => None,
            Way::Served(Forwarding::Snat) => Some("uplink_replied"),
            Way::Served(Forwarding::Dsr) => Some("direct_told"),
        }
    }
}

fn case(kind: Kind, way: Way) -> String {
    format!("nodeport to another node {}: {}", kind.name(), way.name())
}

pub fn cases(_scope: &Scope) -> Vec<String> {
    let served = WAYS.into_iter().filter(|way| *way != Way::Bare);
    served.flat_map(|way| KINDS.map(|(kind, _)| case(kind, way))).collect()
}

/// Two nodes, and who is on them.
struct Pair {
    way: Way,
    // In the order in which they are to go.
    client: Worker,
    server: Worker,
    planes: Vec<(Dataplane, Base)>,
    _namespaces: [Netns; 4],
}

pub fn run(stage: &Stage) -> Result<Vec<Row>> {
    let mut pairs = WAYS.iter().map(|way| Pair::new(stage, *way)).collect::<Result<Vec<_>>>()?;
    let mut rows = Vec::new();
    for (kind, amount) in KINDS {
        if !WAYS.iter().any(|way| stage.wants(&case(kind, *way))) {
            continue;
        }
        let mut slots = Vec::new();
        for pair in &mut pairs {
            let name = pair.way.name();
            slots.push(pair.client.open(kind, pair.target(kind)).context(name)?);
        }
        let slices = interleave(stage.rounds, pairs.len(), |at| {
            let pair = &mut pairs[at];
            pair.client.run(slots[at], amount, pair.server.pid())
        })?;
        for (pair, mine) in pairs.iter().zip(&slices) {
            pair.prove().context(pair.way.name())?;
            rows.extend(rows_of(kind, pair.way, mine, &slices[0]));
        }
    }
    Ok(rows)
}

fn rows_of(kind: Kind, way: Way, mine: &[Slice], bare: &[Slice]) -> Vec<Row> {
    let parts = [
        (", p50", (|it: &Slice| it.p50_ns) as fn(&Slice) -> f64),
        (", CPU an operation", |it: &Slice| it.cpu_ns),
    ];
    let row = |(label, part): (&str, fn(&Slice) -> f64)| {
        let (figure, base) = (compare(mine, bare, part)?, compare(bare, bare, part)?);
        let in_us = Figure { value: figure.value / 1e3, ..figure };
        Some(Row::beside(format!("{}{label}", case(kind, way)), in_us, base.value / 1e3, "us"))
    };
    parts.into_iter().filter_map(row).collect()
}

impl Pair {
    fn new(stage: &Stage, way: Way) -> Result<Pair> {
        let (outside, asked, answers, pod) = (Netns::new()?, Netns::new()?, Netns::new()?, Netns::new()?);
        asked.run(|| outside.plug("eth0", "port1"))?;
        answers.run(|| outside.plug("eth0", "port2"))?;
        outside.run(|| -> Result<()> {
            for words in [
                "link add br0 type bridge",
                "link set port1 master br0",
                "link set port2 master br0",
                "address add 10.240.0.1/24 dev br0",
                "link set br0 up",
                "route add 10.244.2.0/24 via 10.240.0.11",
            ] {
                ip(words)?;
            }
            // The node that is asked sends back by the link that packets came by, and would say so.
            sysctl("net.ipv4.conf.br0.accept_redirects", "0")?;
            sysctl("net.ipv4.conf.all.accept_redirects", "0")
        })?;
        asked.run(|| -> Result<()> {
            ip("address add 10.240.0.11/24 dev eth0")?;
            ip("route add 10.244.2.0/24 via 10.240.0.12")?;
            prepare_router()
        })?;
        answers.run(|| -> Result<()> {
            ip("address add 10.240.0.12/24 dev eth0")?;
            pod.join("pod0", "10.244.2.1/24", "eth0", "10.244.2.2/24")?;
            prepare_router()
        })?;
        pod.run(|| ip("route add default via 10.244.2.1"))?;
        outside.run(prepare_host)?;
        pod.run(prepare_host)?;
        let mut planes = Vec::new();
        if let Way::Served(forwarding) = way {
            planes.push(asked.run(|| serve(stage, ASKED, forwarding))?);
            planes.push(answers.run(|| -> Result<_> {
                let (plane, base) = serve(stage, ANSWERS, forwarding)?;
                let link =
                    PodLink { ifindex: ifindex("pod0")?, addresses: vec![POD.into()], pod_mac: [0; 6] };
                plane.attach_pod(&link).context("attaching to the pod's link")?;
                Ok((plane, base))
            })?);
        }
        Ok(Pair {
            way,
            client: Worker::client(&outside, None, stage.cpu)?,
            server: Worker::server(&pod, None, stage.cpu, POD)?,
            planes,
            _namespaces: [outside, asked, answers, pod],
        })
    }

    fn target(&self, kind: Kind) -> SocketAddrV4 {
        match self.way {
            Way::Bare => SocketAddrV4::new(POD, SERVER_PORTS[0] + kind.port_offset()),
            Way::Served(_) => SocketAddrV4::new(ASKED, NODE_PORTS + kind.port_offset()),
        }
    }

    /// That packets took the way they were to take, and none was dropped.
    fn prove(&self) -> Result<()> {
        for (plane, _) in &self.planes {
            let drops = plane.counters()?.drops;
            let dropped: Vec<_> = drops.iter().filter(|(_, count)| **count > 0).collect();
            if !dropped.is_empty() {
                bail!("packets were dropped: {dropped:?}");
            }
        }
        let Some(((asked, _), event)) = self.planes.first().zip(self.way.event()) else { return Ok(()) };
        if asked.counters()?.events.get(event).is_none_or(|count| *count == 0) {
            bail!("no {event} was counted: the packets took another way");
        }
        Ok(())
    }
}

/// A data plane in this thread's namespace, of the node with this address.
fn serve(stage: &Stage, node: Ipv4Addr, forwarding: Forwarding) -> Result<(Dataplane, Base)> {
    let services = KINDS.map(|(kind, _)| {
        let service = Service {
            cluster_ips: vec![Ipv4Addr::new(10, 96, 0, 8).into()],
            port: 8000 + kind.port_offset(),
            node_port: Some(NODE_PORTS + kind.port_offset()),
            forwarding,
            backends: vec![Backend {
                address: POD.into(),
                port: SERVER_PORTS[0] + kind.port_offset(),
                local: node == ANSWERS,
                ..Backend::default()
            }],
            ..Service::default()
        };
        (ServiceKey::new("bench", format!("remote-{}", kind.port_offset()), ""), service)
    });
    let wanted = Desired {
        services: services.into_iter().collect(),
        node_addresses: vec![node.into()],
        ..Desired::default()
    };
    let mut base = Base::new(stage, 1, Some(ifindex("eth0")?))?;
    base.options.node_ips = vec![node.into()];
    let plane = base.load()?;
    // Who tells of a NodePort of another node is believed if it is one.
    plane.know_nodes(&[ASKED.into(), ANSWERS.into()]).context("telling of the nodes")?;
    plane.apply(&wanted).context("telling the data plane of its services")?;
    Ok((plane, base))
}

fn prepare_router() -> Result<()> {
    sysctl("net.ipv4.ip_forward", "1")?;
    sysctl("net.ipv4.conf.all.send_redirects", "0")?;
    sysctl("net.ipv4.conf.eth0.send_redirects", "0")?;
    sysctl("net.ipv4.conf.eth0.rp_filter", "2")
}
