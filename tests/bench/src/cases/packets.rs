//! Nanoseconds a packet: the programs at the interfaces, run on packets that are put back as they were each time.
//!
//! What putting back and calling cost is measured with an empty program in the place of ours, in turn with it, and taken
//! off.

use std::os::fd::{AsFd, OwnedFd};

use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;

use anyhow::{Context, Result, bail};
use aya::programs::Program;
use penstock_dataplane::{Dataplane, FlowTable, Xdp};
use penstock_tests::dataplane::{Early, run_early};
use penstock_tests::netns::{ifindex, ip};
use penstock_tests::packet::{ACK, Packet, SYN, Transport};

use crate::bpf::{self, Hook, Restorer};
use crate::fleet::{self, fleet};
use crate::peer::ours::Ours;
use crate::report::Row;
use crate::rounds::median;
use crate::stage::{Scope, Stage};
use crate::worker::{self, Kind, SERVER_PORTS};
use crate::world::{CLIENT_POD, NODE, POD_LINKS, SERVER_POD, UPLINK, World};

const REPEAT: u32 = 20_000;
/// Of a client outside whose flow is there before each case.
const CLIENT_PORT: u16 = 40_000;
/// Verdicts of these programs that mean the packet goes on: to the kernel (TCX_NEXT), or out by a redirect.
const NEXT: i32 = -1;
pub(super) const REDIRECT: i32 = 7;
/// The same at XDP.
const XDP_PASS: i32 = 2;
const XDP_TX: i32 = 3;
const XDP: &str = "uplink_xdp";
/// How many backends that service has: a first packet finds one source port in ten taken at most, not most of them.
const REMOTE_BACKENDS: u8 = 40;
/// Of the service whose backends are on another node.
const REMOTE_PORT: u16 = 32_767;

/// One packet at one program.
pub(super) struct Case {
    pub name: &'static str,
    pub program: &'static str,
    pub link: &'static str,
    pub frame: Vec<u8>,
    /// Whether each packet is of another flow.
    pub vary: bool,
    /// Whether the map of flows is emptied before, so that nothing need be evicted.
    pub room: bool,
    pub verdict: i32,
    pub goal_ns: Option<f64>,
}

/// The names of what [`packets`] gives.
const NAMES: [&str; 14] = [
    "XDP NodePort, established",
    "XDP reply",
    "XDP arriving, not ours",
    "tc NodePort of another node, established",
    "tc NodePort, established",
    "tc reply",
    "tc pod to service, established",
    "tc pod to pod, not ours",
    "tc arriving, not ours",
    "tc leaving, not ours",
    "tc NodePort, first packet",
    "tc NodePort, first packet, map of flows full",
    "XDP NodePort, first packet",
    "XDP NodePort, first packet, map of flows full",
];

fn sizes(quick: bool) -> &'static [u32] {
    if quick { &[3] } else { &[3, 50_000] }
}

pub fn cases(scope: &Scope) -> Vec<String> {
    sizes(scope.quick).iter().flat_map(|services| NAMES.map(|name| full_name(name, *services))).collect()
}

fn full_name(name: &str, services: u32) -> String {
    format!("packets: {name} @{services}")
}

pub fn run(stage: &Stage) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for &services in sizes(stage.scope.quick) {
        if !NAMES.iter().any(|name| stage.wants(&full_name(name, services))) {
            continue;
        }
        let world = World::new()?;
        world.node.run(know_neighbours)?;
        let mut fleet = fleet(services, 2);
        fleet.push(remote());
        let ours = Ours::serve(stage, &world, &fleet, Xdp::Generic)?;
        rows.extend(world.node.run(|| measure(stage, &ours, services))?);
    }
    Ok(rows)
}

fn measure(stage: &Stage, ours: &Ours, services: u32) -> Result<Vec<Row>> {
    worker::pin(stage.cpu)?;
    let (mut rows, mut missing) = (Vec::<Row>::new(), Vec::new());
    for case in &packets(ours)? {
        let name = full_name(case.name, services);
        if !stage.wants(&name) {
            continue;
        }
        match cost(stage, ours, case) {
            Ok(ns) => {
                let row = Row::of(name, ns, "ns");
                rows.push(match case.goal_ns {
                    Some(goal) => row.at_most(goal),
                    None => row,
                });
            }
            Err(error) => missing.push(Row::missing(name, "ns", format!("{error:#}"))),
        }
    }
    missing.retain(|row: &Row| rows.iter().all(|measured| measured.case != row.case));
    rows.extend(missing);
    Ok(rows)
}

/// A NodePort whose backends are on another node: what XDP sends on.
fn remote() -> fleet::Port {
    fleet::Port {
        name: "remote".into(),
        vip: fleet::VIP,
        port: REMOTE_PORT,
        udp: false,
        node_port: Some(REMOTE_PORT),
        backends: (1..=REMOTE_BACKENDS)
            .map(|host| SocketAddrV4::new(Ipv4Addr::new(10, 244, 2, host), 8080))
            .collect(),
    }
}

/// The link addresses of both neighbours, which XDP cannot ask for.
fn know_neighbours() -> Result<()> {
    ip("route add 10.244.2.0/24 via 10.240.0.12")?;
    for host in ["10.240.0.1", "10.240.0.12"] {
        ip(&format!("neighbour replace {host} lladdr 02:00:00:00:01:01 dev {UPLINK} nud permanent"))?;
    }
    Ok(())
}

fn ask_remote(flags: u8, port: u16) -> Packet {
    Packet::new(Transport::Tcp(flags), &format!("10.240.0.1:{port}"), &format!("{NODE}:{REMOTE_PORT}"))
}

fn ask(flags: u8, port: u16) -> Packet {
    let to = fleet::node_port(Kind::TcpRr).to_string();
    Packet::new(Transport::Tcp(flags), &format!("10.240.0.1:{port}"), &to)
}

fn packets(served: &Ours) -> Result<Vec<Case>> {
    let service = fleet::cluster_ip(Kind::TcpRr).to_string();
    let server = |base: u16| format!("{SERVER_POD}:{}", base + Kind::TcpRr.port_offset());
    let (client, port) = (format!("{CLIENT_POD}:40000"), CLIENT_PORT);
    let (client_link, server_link) = (POD_LINKS[0].0, POD_LINKS[1].0);
    let tcp = |flags, from: &str, to: &str| Packet::new(Transport::Tcp(flags), from, to).bytes();
    let case = |name, program, link, frame, verdict| Case {
        name,
        program,
        link,
        frame,
        vary: false,
        room: false,
        verdict,
        goal_ns: None,
    };
    let outside = format!("10.240.0.1:{port}");
    let first = |name, room| Case {
        vary: true,
        room,
        ..case(name, "uplink_ingress", UPLINK, ask(SYN, port).bytes(), REDIRECT)
    };
    let xdp = |name, frame, goal| Case { goal_ns: Some(goal), ..case(name, XDP, UPLINK, frame, XDP_TX) };
    let xdp_first = |name, room| Case { vary: true, room, ..xdp(name, ask_remote(SYN, port).bytes(), 300.0) };
    let [one, other] = SERVER_PORTS.map(server);
    let (verdict, sent) = run_early(&served.dataplane, ifindex(UPLINK)?, &ask_remote(ACK, port).bytes());
    if verdict != Early::Send {
        bail!("XDP does not send a NodePort's packet on: {verdict:?}");
    }
    Ok(vec![
        xdp("XDP NodePort, established", ask_remote(ACK, port).bytes(), 120.0),
        xdp("XDP reply", Packet::read(&sent).reply().bytes(), 120.0),
        case("XDP arriving, not ours", XDP, UPLINK, tcp(ACK, "10.240.0.1:9", &one), XDP_PASS),
        case(
            "tc NodePort of another node, established",
            "uplink_ingress",
            UPLINK,
            ask_remote(ACK, port).bytes(),
            REDIRECT,
        ),
        case("tc NodePort, established", "uplink_ingress", UPLINK, ask(ACK, port).bytes(), REDIRECT),
        // One of the two backends has the flow, and it is not known which: the other's is a packet that is not ours.
        case("tc reply", "pod_ingress", server_link, tcp(ACK, &one, &outside), REDIRECT),
        case("tc reply", "pod_ingress", server_link, tcp(ACK, &other, &outside), REDIRECT),
        case(
            "tc pod to service, established",
            "pod_ingress",
            client_link,
            tcp(ACK, &client, &service),
            REDIRECT,
        ),
        case("tc pod to pod, not ours", "pod_ingress", client_link, tcp(ACK, &client, &one), REDIRECT),
        case("tc arriving, not ours", "uplink_ingress", UPLINK, tcp(ACK, "10.240.0.1:9", &one), REDIRECT),
        case("tc leaving, not ours", "uplink_egress", UPLINK, tcp(ACK, &one, "10.240.0.1:9"), NEXT),
        first("tc NodePort, first packet", true),
        first("tc NodePort, first packet, map of flows full", false),
        xdp_first("XDP NodePort, first packet", true),
        xdp_first("XDP NodePort, first packet, map of flows full", false),
    ])
}

/// Forgets every flow.
fn forget_flows(bpffs: &Path) -> Result<()> {
    let flows = FlowTable::open(bpffs)?.memory()?;
    let mut keys = Vec::new();
    flows.each(|key, _| keys.push(*key));
    for key in &keys {
        flows.remove(key);
    }
    Ok(())
}

/// Nanoseconds of one run, less those of an empty program in its place.
pub(super) fn cost(stage: &Stage, served: &Ours, case: &Case) -> Result<f64> {
    let (dataplane, bpffs) = (&served.dataplane, &served.base.options.bpffs);
    let hook = if case.program == XDP { Hook::Xdp } else { Hook::Tc };
    let restorer = Restorer::new(hook, case.vary).context("loading the program that restores packets")?;
    let once = Restorer::new(Hook::Tc, false)?;
    // The way back of a flow is known only once the flow is.
    let asked = ask(ACK, CLIENT_PORT).bytes();
    once.set_frame(&asked)?;
    once.set_callee(program(dataplane, "uplink_ingress")?.as_fd())?;
    once.run(&asked, ifindex(UPLINK)?, 1)?;
    let (ours, empty) = (program(dataplane, case.program)?, bpf::empty(hook).context("an empty program")?);
    let ifindex = ifindex(case.link)?;
    restorer.set_frame(&case.frame)?;
    let mut differences = Vec::new();
    let rounds = stage.rounds.min(if case.vary { 5 } else { 31 });
    for round in 0..=rounds {
        if case.room {
            forget_flows(bpffs)?;
        }
        restorer.set_callee(ours.as_fd()).context("calling our program from another")?;
        let (with, verdict) = restorer.run(&case.frame, ifindex, REPEAT).context("running our program")?;
        if verdict != case.verdict {
            bail!(
                "the verdict is {verdict}, not {}: the packet did not take the measured path",
                case.verdict
            );
        }
        restorer.set_callee(empty.as_fd())?;
        let (without, _) = restorer.run(&case.frame, ifindex, REPEAT).context("running an empty program")?;
        // The first round warms up.
        if round > 0 {
            differences.push(f64::from(with) - f64::from(without));
        }
    }
    median(differences)
}

fn program(dataplane: &Dataplane, name: &str) -> Result<OwnedFd> {
    match dataplane.program(name).as_deref() {
        Some(Program::SchedClassifier(program)) => Ok(program.fd()?.as_fd().try_clone_to_owned()?),
        Some(Program::Xdp(program)) => Ok(program.fd()?.as_fd().try_clone_to_owned()?),
        _ => bail!("there is no program {name}"),
    }
}
