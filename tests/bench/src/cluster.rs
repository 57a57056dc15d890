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
mod objects;

use std::io::Write;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use penstock_tests::eventually::eventually;
use penstock_tests::netns::{Netns, ip, sysctl};
use tokio::runtime::Runtime;

use crate::process;
use crate::stage::Stage;

pub use agent::Agent;
pub use objects::{ENDPOINT_PORT, Fleet, SERVICE_PORT, moved_prefix};

const CONTROL: Ipv4Addr = Ipv4Addr::new(10, 240, 0, 1);
const ENDPOINTS: Ipv4Addr = Ipv4Addr::new(10, 240, 0, 2);
const API_PORT: u16 = 6443;
const BRIDGE: &str = "nodes";
const SERVICE_CIDR: &str = "10.96.0.0/14";
const CLUSTER_CIDR: &str = "10.244.0.0/16";
const CLUSTER_DNS: &str = "10.96.0.10";
const START_MAX: Duration = Duration::from_secs(60);
/// Control plane and agents run before ordinary processes, as `cargo xtask up` has them.
const NICE: &str = "-10";

/// The control plane, and the places of nodes. To be made, used and dropped in the namespace `control`.
pub struct Cluster {
    // In the order in which they are to go.
    pub nodes: Vec<Node>,
    pub client: kube::Client,
    pub runtime: Runtime,
    _orchestrator: Running,
    _endpoints: Netns,
    folder: PathBuf,
}

/// Where a node's agent runs.
pub struct Node {
    pub name: String,
    pub address: Ipv4Addr,
    pub netns: Netns,
    pub cgroup: PathBuf,
    folder: PathBuf,
}

/// A process that ends when it is dropped.
struct Running(Child);

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
        // Several crates bring TLS; the process decides once which cryptography they share.
        drop(rustls::crypto::ring::default_provider().install_default());
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

        // In memory: a cluster is filled by a hundred thousand writes, each of which would wait for a disk.
        let data = folder.join("control");
        std::fs::create_dir(&data).context("a folder for the control plane")?;
        mount(Some("tmpfs"), &data, Some("tmpfs"), MsFlags::empty(), Some("mode=0700"))
            .context("mounting a file system in memory")?;
        let mut orchestrator = command("orchestrator")?;
        orchestrator.arg("run").arg("--data-dir").arg(&data);
        orchestrator.args([
            format!("--listen={CONTROL}:{API_PORT}"),
            format!("--advertise-address={CONTROL}"),
            format!("--service-cidr={SERVICE_CIDR}"),
            format!("--cluster-cidr={CLUSTER_CIDR}"),
        ]);
        let here = Netns::current()?;
        let orchestrator = Running::spawn(orchestrator, &here, None, &folder.join("orchestrator.log"))?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let client = eventually(START_MAX, || {
            runtime.block_on(async {
                let client = connect(&data.join("admin.kubeconfig")).await?;
                objects::is_ready(&client).await?;
                anyhow::Ok(client)
            })
        })
        .context("the orchestrator does not serve")?;

        let mut nodes = Vec::new();
        for number in 1..=count as u8 {
            let node = Node::make(stage, &folder, number)?;
            runtime.block_on(objects::make_node(&client, &node.name, node.address))?;
            nodes.push(node);
        }
        Ok(Cluster { nodes, client, runtime, _orchestrator: orchestrator, _endpoints: endpoints, folder })
    }

    /// Starts the network half of a node's agent.
    pub fn start_agent(&self, node: &Node, stage: &Stage) -> Result<Agent> {
        Agent::start(node, &self.folder.join("control"), stage)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = umount2(&self.folder.join("control"), MntFlags::MNT_DETACH);
    }
}

async fn connect(kubeconfig: &Path) -> Result<kube::Client> {
    let kubeconfig = kube::config::Kubeconfig::read_from(kubeconfig).context("the kubeconfig")?;
    let options = kube::config::KubeConfigOptions::default();
    Ok(kube::Client::try_from(kube::Config::from_custom_kubeconfig(kubeconfig, &options).await?)?)
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

/// One of our own programs, which lie beside this one.
fn command(program: &str) -> Result<Command> {
    let beside = std::env::current_exe().context("finding this program")?.with_file_name(program);
    if !beside.is_file() {
        bail!("{} is not built: run this by `cargo xtask bench dataplane`", beside.display());
    }
    let mut command = Command::new("nice");
    command.args(["-n", NICE]).arg(beside);
    Ok(command)
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
            sysctl("net.ipv4.ip_forward", "1")
        })?;
        let cgroup = stage.cgroup_root.join(stage.fresh_name());
        std::fs::create_dir(&cgroup).with_context(|| format!("making {}", cgroup.display()))?;
        let folder = folder.join(&name);
        std::fs::create_dir(&folder).context("a folder for a node")?;
        Ok(Node { name, address, netns, cgroup, folder })
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

// === impl Running ===

impl Running {
    fn spawn(mut command: Command, netns: &Netns, cgroup: Option<&Path>, log: &Path) -> Result<Running> {
        let file = std::fs::File::create(log).with_context(|| format!("making {}", log.display()))?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file);
        process::place(&mut command, netns, cgroup)?;
        Ok(Running(command.spawn().with_context(|| format!("starting {}", command.get_program().display()))?))
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
