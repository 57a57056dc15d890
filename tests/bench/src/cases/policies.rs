//! What network policy costs a packet: to a pod without any, with one, and with ten thousand.
//!
//! All but the one that allows the packet are of other blocks of addresses, by a port each, so that the pod's table has as many ranges.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::Result;
use ipnetwork::IpNetwork;
use penstock_dataplane::Xdp;
use penstock_policy::{Block, Peer, Planner, Pod, PodName, Policy, Port, Ports, Protocol, Rule};
use penstock_tests::netns::ifindex;
use penstock_tests::packet::{ACK, Packet, SYN, Transport};

use super::packets::{Case, REDIRECT, cost};
use crate::fleet::fleet;
use crate::peer::ours::Ours;
use crate::report::Row;
use crate::stage::{Scope, Stage};
use crate::worker;
use crate::world::{POD_LINKS, SERVER_POD, UPLINK, World};

const POLICIES: [u32; 3] = [0, 1, 10_000];
const NAMES: [&str; 2] = ["tc arriving for a pod, established", "tc arriving for a pod, first packet"];
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 240, 0, 1);

pub fn cases(_: &Scope) -> Vec<String> {
    POLICIES.iter().flat_map(|policies| NAMES.map(|name| full_name(name, *policies))).collect()
}

fn full_name(name: &str, policies: u32) -> String {
    format!("policies: {name} @{policies}")
}

pub fn run(stage: &Stage) -> Result<Vec<Row>> {
    let world = World::new()?;
    let ours = Ours::serve(stage, &world, &fleet(3, 2), Xdp::Off)?;
    world.node.run(|| measure(stage, &ours))
}

fn measure(stage: &Stage, ours: &Ours) -> Result<Vec<Row>> {
    worker::pin(stage.cpu)?;
    let mut planner = Planner::default();
    let name = PodName::new("bench", "server");
    let addresses = vec![IpAddr::V4(SERVER_POD)];
    planner.set_pod(name.clone(), Some(Pod { addresses, ..Pod::default() }));
    planner.set_link(ifindex(POD_LINKS[1].0)?, Some(name));
    let mut rows = Vec::new();
    for policies in POLICIES {
        for number in 0..policies {
            planner.set_policy(PodName::new("bench", format!("{number}")), Some(policy(number)));
        }
        ours.dataplane.write_policies(&planner.plan())?;
        let packet =
            |flags| Packet::new(Transport::Tcp(flags), &format!("{CLIENT}:9"), &format!("{SERVER_POD}:9000"));
        for (name, vary, flags) in [(NAMES[0], false, ACK), (NAMES[1], true, SYN)] {
            let full = full_name(name, policies);
            if !stage.wants(&full) {
                continue;
            }
            let case = Case {
                name,
                program: "uplink_ingress",
                link: UPLINK,
                frame: packet(flags).bytes(),
                vary,
                room: false,
                verdict: REDIRECT,
                goal_ns: None,
            };
            rows.push(match cost(stage, ours, &case) {
                Ok(ns) => Row::of(full, ns, "ns"),
                Err(error) => Row::missing(full, "ns", format!("{error:#}")),
            });
        }
    }
    Ok(rows)
}

/// The first allows the client; each other one a block of its own by a port of its own.
fn policy(number: u32) -> Policy {
    let (cidr, ports) = match number {
        0 => (IpNetwork::from(IpAddr::V4(CLIENT)), Vec::new()),
        _ => {
            let port = 1 + (number % 60_000) as u16;
            let range = Ipv4Addr::from(0x2000_0000 + (number << 8));
            let ports = vec![Port { protocol: Protocol::Tcp, ports: Ports::Range(port, port) }];
            (IpNetwork::new(range.into(), 24).unwrap_or(IpNetwork::from(IpAddr::V4(range))), ports)
        }
    };
    let peer = Peer { namespaces: None, pods: None, block: Some(Block { cidr, except: Vec::new() }) };
    Policy { ingress: Some(vec![Rule { peers: vec![peer], ports }]), ..Policy::default() }
}
