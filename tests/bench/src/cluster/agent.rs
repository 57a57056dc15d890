//! A node agent with its network half alone, and how far it is.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use aya::maps::{HashMap, Map, MapData};
use penstock_ebpf_common::{Address, VipKey, VipValue, map};

use super::{CLUSTER_DNS, CONTROL, Node, SERVICE_PORT};
use crate::control::{API_PORT, CLUSTER_CIDR, SERVICE_CIDR};
use crate::process::{self, Running};
use crate::programmed::{PROGRAM_MAX, programmed_at};
use crate::stage::Stage;

const TCP: u8 = 6;

/// A running agent.
pub struct Agent {
    process: Running,
    /// By the clock on the wall.
    started: Duration,
    pins: PathBuf,
}

impl Agent {
    pub(super) fn start(node: &Node, control: &Path, stage: &Stage) -> Result<Agent> {
        let kubeconfig = node.folder.join("kubeconfig");
        let mut credentials = Command::new(std::env::current_exe()?.with_file_name("orchestrator"));
        credentials.args(["credentials", "node", &node.name, "--data-dir"]).arg(control);
        credentials.arg(format!("--server=https://{CONTROL}:{API_PORT}"));
        credentials.arg(format!("--address={}", node.address)).arg("--out").arg(&kubeconfig);
        let output = credentials.output().context("issuing a node's credentials")?;
        if !output.status.success() {
            bail!("a node's credentials: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        let at = |name: &str| node.folder.join(name);
        let cgroup = node.cgroup.strip_prefix(&stage.cgroup_root).context("a cgroup elsewhere")?;
        let mut agent = process::command("node-agent")?;
        agent.args(["run", "--halves=network"]).args([
            format!("--node-name={}", node.name),
            format!("--node-ip={}", node.address),
            format!("--cgroup-parent={}", cgroup.display()),
            format!("--cluster-dns={CLUSTER_DNS}"),
            format!("--service-cidr={SERVICE_CIDR}"),
            format!("--cluster-cidr={CLUSTER_CIDR}"),
        ]);
        for (option, path) in [
            ("--kubeconfig", kubeconfig),
            ("--state-dir", at("state")),
            ("--cni-conf-dir", at("cni-conf")),
            ("--cni-bin-dir", at("cni-bin")),
            ("--bpffs", at("bpf")),
            ("--ebpf-object", stage.object.clone()),
        ] {
            agent.arg(option).arg(path);
        }
        let started = SystemTime::now().duration_since(UNIX_EPOCH)?;
        let process = Running::spawn(agent, &node.netns, at("agent.log"))?;
        Ok(Agent { process, started, pins: node.pins() })
    }

    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Waits until the kernel has every Service, of which the last by name has this address. Returns the seconds from the
    /// start of the process until then, as the agent noted it.
    pub fn wait_until_programmed(&self, node: &Node, last: Ipv4Addr) -> Result<f64> {
        let deadline = Instant::now() + PROGRAM_MAX;
        // At first only one key is looked up: to ask for metrics takes the agent time that is measured.
        while !self.has_address(last) {
            self.wait_a_little(deadline)?;
        }
        loop {
            let at = node.netns.run(programmed_at);
            match at {
                Ok(at) if at > 0.0 => return Ok(at - self.started.as_secs_f64()),
                _ => self.wait_a_little(deadline)?,
            }
        }
    }

    fn wait_a_little(&self, deadline: Instant) -> Result<()> {
        self.process.wait_a_little(deadline).context("the agent did not program its services")
    }

    fn has_address(&self, vip: Ipv4Addr) -> bool {
        let vips = || -> Result<HashMap<MapData, VipKey, VipValue>> {
            let data = MapData::from_pin(self.pins.join("maps").join(map::VIPS))?;
            Ok(HashMap::try_from(Map::from_map_data(data)?)?)
        };
        let address = Address::from(std::net::IpAddr::V4(vip));
        let key = VipKey { address, port: SERVICE_PORT.to_be(), protocol: TCP, ..VipKey::default() };
        vips().is_ok_and(|vips| vips.get(&key, 0).is_ok())
    }

    /// CPU nanoseconds until now, when nothing of a change is under way any more.
    pub fn settled_cpu_ns(&self) -> Result<u64> {
        process::wait_until_settled(self.pid())?;
        Ok(process::cpu_ns(self.pid()))
    }
}
