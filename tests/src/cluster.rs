//! A whole cluster for tests: brought up and taken down by `cargo xtask`, driven by the stock kubectl.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::complaints::Mark;

/// How long anything that a cluster does may take in a test. Generous: hosts are shared.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// A running cluster; taken down when dropped.
pub struct Cluster {
    name: String,
    nodes: u16,
    /// As `--ip-families` has them; with none, those it chooses by itself.
    families: Option<String>,
    /// Further words for `up`.
    more: Vec<String>,
    xtask: PathBuf,
    pub kubeconfig: PathBuf,
}

impl Cluster {
    /// Why no cluster can be made here, if so.
    pub fn missing() -> Option<String> {
        if std::env::var_os("PENSTOCK_CLUSTER_TESTS").is_none() {
            return Some("cluster tests run from `cargo xtask test`, as root".to_owned());
        }
        let kubectl = Command::new("kubectl").arg("version").arg("--client").output();
        if !kubectl.is_ok_and(|output| output.status.success()) {
            return Some("kubectl is not on the PATH".to_owned());
        }
        None
    }

    /// Of the address families that PENSTOCK_IP_FAMILIES names.
    pub fn up(name: &str, nodes: u16) -> Result<Cluster> {
        Cluster::make(name, nodes, std::env::var("PENSTOCK_IP_FAMILIES").ok(), Vec::new())
    }

    /// Of these address families.
    pub fn up_with(name: &str, nodes: u16, families: &str) -> Result<Cluster> {
        Cluster::make(name, nodes, Some(families.to_owned()), Vec::new())
    }

    /// Two machines with addresses of IPv4, of which the second has no agent, and a control plane with these flags.
    pub fn up_spare(name: &str, control_flags: &[&str]) -> Result<Cluster> {
        let flags = control_flags.iter().map(|flag| format!("--control-flag={flag}"));
        let more = ["--spare=1".to_owned()].into_iter().chain(flags).collect();
        Cluster::make(name, 2, Some("ipv4".to_owned()), more)
    }

    /// With this kube-proxy on every node.
    pub fn up_beside(name: &str, nodes: u16, kube_proxy: &Path) -> Result<Cluster> {
        let more = vec!["--kube-proxy".to_owned(), kube_proxy.display().to_string()];
        Cluster::make(name, nodes, Some("ipv4".to_owned()), more)
    }

    fn make(name: &str, nodes: u16, families: Option<String>, more: Vec<String>) -> Result<Cluster> {
        let xtask = PathBuf::from(
            std::env::var_os("PENSTOCK_XTASK").context("PENSTOCK_XTASK does not name cargo xtask")?,
        );
        let mut cluster =
            Cluster { name: name.to_owned(), nodes, families, more, xtask, kubeconfig: PathBuf::new() };
        cluster.start()?;
        Ok(cluster)
    }

    /// `cargo xtask up`.
    pub fn start(&mut self) -> Result<String> {
        let nodes = self.nodes.to_string();
        let mut words = vec!["up", "--name", &self.name, "--nodes", &nodes];
        words.extend(self.families.iter().flat_map(|families| ["--ip-families", families.as_str()]));
        words.extend(self.more.iter().map(String::as_str));
        let said = self.xtask(&words)?;
        self.kubeconfig = PathBuf::from(self.xtask(&["kubeconfig", "--name", &self.name])?.trim());
        Ok(said)
    }

    /// `cargo xtask down`.
    pub fn stop(&self, keep_data: bool) -> Result<String> {
        let mut words = vec!["down", "--name", &self.name];
        if keep_data {
            words.push("--keep-data");
        }
        self.xtask(&words)
    }

    fn xtask(&self, words: &[&str]) -> Result<String> {
        succeeded(Command::new(&self.xtask).args(words).stdin(Stdio::null()).output()?, "cargo xtask", words)
    }

    /// Runs kubectl and returns what it printed; an error holds what it said on standard error.
    pub fn kubectl(&self, words: &[&str]) -> Result<String> {
        succeeded(self.kubectl_command(words).stdin(Stdio::null()).output()?, "kubectl", words)
    }

    /// Runs kubectl with `input` on its standard input.
    pub fn kubectl_with(&self, words: &[&str], input: &str) -> Result<String> {
        let mut child = self
            .kubectl_command(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        child.stdin.take().context("kubectl has no standard input")?.write_all(input.as_bytes())?;
        succeeded(child.wait_with_output()?, "kubectl", words)
    }

    /// A kubectl that is not started yet, for commands that run for a while.
    pub fn kubectl_command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("kubectl");
        command.arg("--kubeconfig").arg(&self.kubeconfig).arg("--request-timeout=60s").args(words);
        command
    }

    pub fn node_names(&self) -> Vec<String> {
        (1..=self.nodes).map(|number| format!("node-{number}")).collect()
    }

    /// What its programs complain of from now on.
    pub fn mark(&self) -> Mark {
        Mark::now(Path::new(&format!("/var/lib/penstock/{}/logs", self.name)))
    }

    /// InternalIP of every node, of IPv4.
    pub fn node_addresses(&self) -> Result<Vec<String>> {
        let mut all = self.all_node_addresses()?;
        all.retain(|address| !address.contains(':'));
        Ok(all)
    }

    /// Every InternalIP of every node.
    pub fn all_node_addresses(&self) -> Result<Vec<String>> {
        let path = "jsonpath={.items[*].status.addresses[?(@.type==\"InternalIP\")].address}";
        Ok(self.kubectl(&["get", "nodes", "-o", path])?.split_whitespace().map(str::to_owned).collect())
    }

    /// Where a node's agent keeps its own files.
    pub fn agent_state_dir(&self, node: &str) -> String {
        format!("/var/lib/penstock/{}/nodes/{node}/agent", self.name)
    }

    /// Runs a program inside a node's namespaces.
    pub fn in_node(&self, node: &str, words: &[&str]) -> Result<String> {
        succeeded(self.in_node_command(node, words)?.output()?, "nsenter", words)
    }

    /// The same, not started yet.
    pub fn in_node_command(&self, node: &str, words: &[&str]) -> Result<Command> {
        let run = Path::new("/run/penstock").join(&self.name).join(node).join("ns");
        let netns = format!("penstock{}-{node}", self.index()?);
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net=/run/netns/{netns}"))
            .arg(format!("--mount={}", run.join("mnt").display()))
            .arg("--")
            .args(words)
            .stdin(Stdio::null());
        Ok(command)
    }

    /// What the programs of a node counted, as its agent tells it.
    pub fn counters(&self, node: &str) -> Result<serde_json::Value> {
        let own = std::env::current_exe()?;
        let target = own.ancestors().nth(2).context("no target folder")?;
        let agent = target.join("node-agent").display().to_string();
        let said = self.in_node(node, &[&agent, "counters", "--json"])?;
        serde_json::from_str(&said).context(said)
    }

    /// The host's end of the link to a node.
    pub fn host_link(&self, node: &str) -> Result<String> {
        let number = node.strip_prefix("node-").with_context(|| format!("{node} is no node of ours"))?;
        Ok(format!("ps{}n{number}", self.index()?))
    }

    /// What tells this cluster's addresses and links from others'.
    fn index(&self) -> Result<u64> {
        let description = std::fs::read(Path::new("/run/penstock").join(&self.name).join("cluster.json"))?;
        let description: serde_json::Value = serde_json::from_slice(&description)?;
        description["index"].as_u64().context("the cluster's description has no index")
    }

    /// The range of IPv4 that pods have addresses of.
    pub fn pod_range(&self) -> Result<String> {
        Ok(format!("10.{}.0.0/16", 244 + self.index()?))
    }

    /// Kills a process of the cluster with SIGKILL: `part` is `control` or a node's name, `program` as in /proc/PID/comm.
    pub fn kill_9(&self, part: &str, program: &str) -> Result<Pid> {
        let pid = self.pid(part, program)?;
        kill(pid, Signal::SIGKILL).with_context(|| format!("cannot kill {program}"))?;
        Ok(pid)
    }

    pub fn pid(&self, part: &str, program: &str) -> Result<Pid> {
        let folder = match part {
            "control" => format!("penstock/{}/control", self.name),
            node => format!("penstock/{}/{node}/system", self.name),
        };
        let file = cgroup_v2()?.join(folder).join("cgroup.procs");
        let pids =
            std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        for pid in pids.lines() {
            let comm = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            if comm.trim() == program {
                return Ok(Pid::from_raw(pid.parse()?));
            }
        }
        bail!("no process {program} in {}", file.display())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Err(error) = self.stop(false) {
            eprintln!("{error:#}");
        }
    }
}

fn cgroup_v2() -> Result<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mounts")?;
    let line = mounts.lines().find(|line| line.split(' ').nth(2) == Some("cgroup2"));
    line.and_then(|line| line.split(' ').nth(1)).map(PathBuf::from).context("cgroup v2 is not mounted")
}

fn succeeded(output: Output, program: &str, words: &[&str]) -> Result<String> {
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complained = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "{program} {} failed: {}{}",
        words.join(" "),
        said.trim(),
        complained.trim()
    );
    Ok(said)
}
