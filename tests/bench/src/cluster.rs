//! A cluster without pods: our orchestrator, and nodes of which each runs the network half of our node agent.
//!
//! ```text
//!   control 10.240.0.1 (orchestrator) ── bridge ──┬── node-1 10.240.0.11 (node-agent; a client in its cgroup)
//!                                                 ├── node-2 10.240.0.12, ...
//!                                                 └── endpoints 10.240.0.2: every address of 11.0.0.0/8 and 12.0.0.0/8
//! ```
//! Everything passes through the API as in a cluster that is in use. But what answers at the endpoints is one thread, and
//! the API server's store is in memory.
//! Must not know what is measured.

mod agent;
pub mod objects;

use std::io::Write;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::mount::{MntFlags, umount2};
use penstock_tests::netns::{Netns, ip, sysctl};

use crate::control::Control;
use crate::stage::Stage;

pub use agent::Agent;
pub use objects::{ENDPOINT_PORT, Fleet, SERVICE_PORT, moved_prefix};

const CONTROL: Ipv4Addr = Ipv4Addr::new(10, 240, 0, 1);
const ENDPOINTS: Ipv4Addr = Ipv4Addr::new(10, 240, 0, 2);
const BRIDGE: &str = "nodes";
const CLUSTER_DNS: &str = "10.96.0.10";

/// The control plane, and the places of nodes. To be made, used and dropped in the namespace `control`.
pub struct Cluster {
    // In the order in which they are to go.
    pub nodes: Vec<Node>,
    pub control: Control,
    _endpoints: Netns,
}

/// Where a node's agent runs.
pub struct Node {
    pub name: String,
    pub address: Ipv4Addr,
    pub netns: Netns,
    pub cgroup: PathBuf,
    folder: PathBuf,
}

/// Makes a cluster with so many nodes and without agents, and hands it to a measurement.
pub fn with<T: Send>(
    stage: &Stage,
    nodes: usize,
    measure: impl FnOnce(&Cluster) -> Result<T> + Send,
) -> Result<T> {
    let control = Netns::new()?;
    control.run(|| measure(&Cluster::start(stage, nodes).context("a cluster to measure")?))
}

// === impl Cluster ===

impl Cluster {
    fn start(stage: &Stage, count: usize) -> Result<Cluster> {
        let folder = stage.folder.join(stage.fresh_name());
        std::fs::create_dir(&folder).context("a folder for a cluster")?;
        ip(&format!("link add {BRIDGE} type bridge"))?;
        ip(&format!("address add {CONTROL}/24 dev {BRIDGE}"))?;
        ip(&format!("link set {BRIDGE} up"))?;
        let endpoints = plug("endpoints", ENDPOINTS)?;
        endpoints.run(|| -> Result<()> {
            for range in objects::ENDPOINT_RANGES {
                ip(&format!("route add local {range} dev lo"))?;
            }
            Ok(())
        })?;
        let listener = endpoints.run(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, ENDPOINT_PORT)))?;
        endpoints.spawn(move || answer(&listener))?;

        let control = Control::start(&folder, CONTROL)?;
        let mut nodes = Vec::new();
        for number in 1..=count as u8 {
            let node = Node::make(stage, &folder, number)?;
            control.runtime.block_on(objects::make_node(&control.client, &node.name, node.address))?;
            nodes.push(node);
        }
        Ok(Cluster { nodes, control, _endpoints: endpoints })
    }

    /// Starts the network half of a node's agent.
    pub fn start_agent(&self, node: &Node, stage: &Stage) -> Result<Agent> {
        Agent::start(node, self.control.data(), stage)
    }
}

/// A namespace at the bridge of this one.
fn plug(name: &str, address: Ipv4Addr) -> Result<Netns> {
    let netns = Netns::new()?;
    netns.plug(name, "eth0")?;
    ip(&format!("link set {name} master {BRIDGE}"))?;
    netns.run(|| ip(&format!("address add {address}/24 dev eth0")))?;
    Ok(netns)
}

/// Says to whoever connects which address it reached.
fn answer(listener: &TcpListener) {
    for mut stream in listener.incoming().flatten() {
        if let Ok(std::net::SocketAddr::V4(reached)) = stream.local_addr() {
            let _ = stream.write_all(&reached.ip().octets());
        }
    }
}

// === impl Node ===

impl Node {
    fn make(stage: &Stage, folder: &Path, number: u8) -> Result<Node> {
        let (name, address) = (format!("node-{number}"), Ipv4Addr::new(10, 240, 0, 10 + number));
        let netns = plug(&name, address)?;
        netns.run(|| -> Result<()> {
            for range in objects::ENDPOINT_RANGES {
                ip(&format!("route add {range} via {ENDPOINTS}"))?;
            }
            // As every host has one: rules translate what the kernel was about to send somewhere.
            ip(&format!("route add default via {CONTROL}"))?;
            sysctl("net.ipv4.ip_forward", "1")
        })?;
        let cgroup = stage.cgroup_root.join(stage.fresh_name());
        std::fs::create_dir(&cgroup).with_context(|| format!("making {}", cgroup.display()))?;
        let folder = folder.join(&name);
        std::fs::create_dir(&folder).context("a folder for a node")?;
        Ok(Node { name, address, netns, cgroup, folder })
    }

    /// Where its agent keeps what it needs.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The agent's directory on its bpf file system.
    pub fn pins(&self) -> PathBuf {
        self.folder.join("bpf").join("penstock")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = umount2(&self.folder.join("bpf"), MntFlags::MNT_DETACH);
        if let Err(error) = std::fs::remove_dir(&self.cgroup) {
            eprintln!("left behind: {}: {error}", self.cgroup.display());
        }
    }
}
