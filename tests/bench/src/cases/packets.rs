//! Nanoseconds a packet: the programs at the interfaces, run on packets that are put back as they were each time.
//!
//! What putting back and calling cost is measured with an empty program in the place of ours, in turn with it, and taken
//! off.

use std::os::fd::{AsFd, OwnedFd};

use std::path::Path;

use anyhow::{Context, Result, bail};
use aya::maps::{HashMap, Map, MapData};
use aya::programs::Program;
use penstock_dataplane::Dataplane;
use penstock_ebpf_common::{FlowKey, FlowValue, map};
use penstock_tests::netns::ifindex;
use penstock_tests::packet::{ACK, Packet, SYN, Transport};

use crate::bpf::{self, Restorer};
use crate::fleet::{self, fleet};
use crate::peer::ours::Ours;
use crate::report::Row;
use crate::rounds::median;
use crate::stage::Stage;
use crate::worker::{self, Kind, SERVER_PORTS};
use crate::world::{CLIENT_POD, POD_LINKS, SERVER_POD, UPLINK, World};

const REPEAT: u32 = 20_000;
/// Of a client outside whose flow is there before each case.
const CLIENT_PORT: u16 = 40_000;
/// Verdicts of these programs that mean the packet goes on: to the kernel (TCX_NEXT), or out by a redirect.
const NEXT: i32 = -1;
const REDIRECT: i32 = 7;

/// One packet at one program.
struct Case {
    name: &'static str,
    program: &'static str,
    link: &'static str,
    frame: Vec<u8>,
    /// Whether each packet is of another flow.
    vary: bool,
    /// Whether the map of flows is emptied before, so that nothing need be evicted.
    room: bool,
    verdict: i32,
}

pub fn run(stage: &Stage) -> Result<Vec<Row>> {
    if !stage.wants("packets") {
        return Ok(Vec::new());
    }
    let mut rows = Vec::new();
    for services in if stage.quick { vec![3] } else { vec![3, 50_000] } {
        let world = World::new()?;
        let ours = Ours::serve(stage, &world, &fleet(services, 2))?;
        rows.extend(world.node.run(|| measure(stage, &ours, services))?);
    }
    for case in ["established", "first packet"] {
        rows.push(Row::missing(
            format!("packets: XDP NodePort, {case}"),
            "ns",
            "there is no XDP program yet",
        ));
    }
    Ok(rows)
}

fn measure(stage: &Stage, ours: &Ours, services: u32) -> Result<Vec<Row>> {
    worker::pin(stage.cpu)?;
    let (mut rows, mut missing) = (Vec::<Row>::new(), Vec::new());
    for case in &cases() {
        let name = format!("packets: {} @{services}", case.name);
        match cost(stage, ours, case) {
            Ok(ns) => {
                let row = Row::of(name, ns, "ns");
                rows.push(row);
            }
            Err(error) => missing.push(Row::missing(name, "ns", format!("{error:#}"))),
        }
    }
    missing.retain(|row: &Row| rows.iter().all(|measured| measured.case != row.case));
    rows.extend(missing);
    Ok(rows)
}

fn ask(flags: u8, port: u16) -> Packet {
    let to = fleet::node_port(Kind::TcpRr).to_string();
    Packet::new(Transport::Tcp(flags), &format!("10.240.0.1:{port}"), &to)
}

fn cases() -> Vec<Case> {
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
    };
    let outside = format!("10.240.0.1:{port}");
    let first = |name, room| Case {
        vary: true,
        room,
        ..case(name, "uplink_ingress", UPLINK, ask(SYN, port).bytes(), NEXT)
    };
    let [one, other] = SERVER_PORTS.map(server);
    vec![
        case("tc NodePort, established", "uplink_ingress", UPLINK, ask(ACK, port).bytes(), NEXT),
        // One of the two backends has the flow, and it is not known which: the other's is a packet that is not ours.
        case("tc reply", "pod_ingress", server_link, tcp(ACK, &one, &outside), REDIRECT),
        case("tc reply", "pod_ingress", server_link, tcp(ACK, &other, &outside), REDIRECT),
        case("tc pod to service, established", "pod_ingress", client_link, tcp(ACK, &client, &service), NEXT),
        case("tc pod to pod, not ours", "pod_ingress", client_link, tcp(ACK, &client, &one), NEXT),
        case("tc arriving, not ours", "uplink_ingress", UPLINK, tcp(ACK, "10.240.0.1:9", &one), NEXT),
        case("tc leaving, not ours", "uplink_egress", UPLINK, tcp(ACK, &one, "10.240.0.1:9"), NEXT),
        first("tc NodePort, first packet", true),
        first("tc NodePort, first packet, map of flows full", false),
    ]
}

/// Forgets every flow.
fn forget_flows(bpffs: &Path) -> Result<()> {
    let pin = bpffs.join("maps").join(map::FLOWS);
    let data = MapData::from_pin(&pin).with_context(|| format!("opening {}", pin.display()))?;
    let mut flows = HashMap::<MapData, FlowKey, FlowValue>::try_from(Map::from_map_data(data)?)?;
    let keys: Vec<_> = flows.keys().filter_map(Result::ok).collect();
    for key in keys {
        let _ = flows.remove(&key);
    }
    Ok(())
}

/// Nanoseconds of one run, less those of an empty program in its place.
fn cost(stage: &Stage, served: &Ours, case: &Case) -> Result<f64> {
    let (dataplane, bpffs) = (&served.dataplane, &served.base.options.bpffs);
    let restorer = Restorer::new(case.vary).context("loading the program that restores packets")?;
    let once = Restorer::new(false)?;
    // The way back of a flow is known only once the flow is.
    let asked = ask(ACK, CLIENT_PORT).bytes();
    once.set_frame(&asked)?;
    once.set_callee(program(dataplane, "uplink_ingress")?.as_fd())?;
    once.run(&asked, ifindex(UPLINK)?, 1)?;
    let (ours, empty) = (program(dataplane, case.program)?, bpf::empty().context("an empty program")?);
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
        _ => bail!("there is no program {name}"),
    }
}
