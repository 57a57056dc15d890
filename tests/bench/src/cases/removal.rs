//! How long connected sockets hang on a backend that is gone: from the change until the last has failed, in many namespaces.
//!
//! At the level of the library, as `programming`. Clients are ordinary processes in the node's cgroup, the backends are the
//! node's own addresses.

use std::net::{Ipv4Addr, SocketAddrV4};

use anyhow::{Context, Result};
use penstock_dataplane::{Desired, monotonic_ns};
use penstock_tests::netns::{Netns, ip, sysctl};

use crate::fleet::{Port, VIP, desired};
use crate::peer::ours::Base;
use crate::report::Row;
use crate::rounds::{median, quantile};
use crate::stage::{Scope, Stage};
use crate::worker::Worker;

const NAMESPACES: u8 = 20;
const SOCKETS_EACH: usize = 100;
const GOAL_MS: f64 = 10.0;
/// A round is some tenths of a second, most of it for connecting.
const ROUNDS_MAX: usize = 15;
const BACKENDS: [SocketAddrV4; 2] = [
    SocketAddrV4::new(Ipv4Addr::new(10, 245, 0, 2), 8080),
    SocketAddrV4::new(Ipv4Addr::new(10, 245, 0, 3), 8080),
];
const SERVICE: SocketAddrV4 = SocketAddrV4::new(VIP, 80);

fn case() -> String {
    format!(
        "removal of a backend: {} connected sockets in {NAMESPACES} namespaces",
        usize::from(NAMESPACES) * SOCKETS_EACH
    )
}

pub fn cases(_scope: &Scope) -> Vec<String> {
    vec![case()]
}

/// The one service, with one of the backends.
fn wanted(backend: SocketAddrV4) -> Desired {
    desired(&[Port {
        name: "held".to_owned(),
        vip: VIP,
        port: SERVICE.port(),
        udp: false,
        node_port: None,
        backends: vec![backend],
    }])
}

pub fn run(stage: &Stage) -> Result<Vec<Row>> {
    let node = Netns::new()?;
    let base = Base::new(stage, 1, None)?;
    let pods = node.run(|| -> Result<Vec<Netns>> {
        sysctl("net.ipv4.ip_forward", "1")?;
        for backend in BACKENDS {
            ip(&format!("address add {}/32 dev lo", backend.ip()))?;
        }
        (1..=NAMESPACES).map(plug_pod).collect()
    })?;
    let dataplane = node.run(|| base.load())?;
    dataplane.apply(&wanted(BACKENDS[0])).context("telling the data plane of its service")?;
    let _server = Worker::holder(&node, &BACKENDS)?;
    let cgroup = &base.options.cgroup_v2;
    let mut crowds: Vec<Worker> = pods.iter().map(|pod| Worker::crowd(pod, cgroup)).collect::<Result<_>>()?;
    let mut lasted = Vec::new();
    for round in 0..stage.rounds.min(ROUNDS_MAX) {
        for crowd in &mut crowds {
            crowd.hold(SOCKETS_EACH, SERVICE)?;
        }
        let next = wanted(BACKENDS[(round + 1) % BACKENDS.len()]);
        let began = monotonic_ns();
        // Programs are attached to the node's namespace, which the removal begins in.
        node.run(|| dataplane.apply(&next)).context("telling the data plane that the backend is gone")?;
        let mut last = began;
        for crowd in &mut crowds {
            last = last.max(crowd.seen_at_ns()?);
        }
        lasted.push((last - began) as f64 / 1e6);
    }
    let worst = quantile(lasted.clone(), 1.0).context("nothing was measured")?;
    Ok(vec![
        Row::of(format!("{}: the last failed, p50", case()), median(lasted)?, "ms").at_most(GOAL_MS),
        Row::of(format!("{}: the last failed, worst", case()), worst, "ms"),
    ])
}

/// A pod of this thread's namespace.
fn plug_pod(number: u8) -> Result<Netns> {
    let pod = Netns::new()?;
    let (here, there) = (format!("10.244.{number}.1/24"), format!("10.244.{number}.2/24"));
    pod.join(&format!("pod{number}"), &here, "eth0", &there)?;
    pod.run(|| ip(&format!("route add default via 10.244.{number}.1")))?;
    Ok(pod)
}
