//! Nodes and pods as network namespaces, removed when dropped, also after a panic.
//!
//! It exists so that the tests beside it read as stories. It must not send a packet outside its namespaces.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use penstock_network::{Netns, Network, NetworkConfig, NodeIps, Overlay, PodHooks, PodRanges};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

/// Whether the tests can run; says so loudly when not.
pub fn is_root() -> bool {
    let root = nix::unistd::Uid::effective().is_root();
    if !root {
        println!("SKIPPED: network namespaces need root");
    }
    root
}

/// No step takes as long, also where others have the processors for seconds.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A network namespace bound to a file.
pub struct Namespace {
    path: PathBuf,
    _dir: tempfile::TempDir,
}

impl Namespace {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("net");
        std::fs::write(&path, "").unwrap();
        let target = path.clone();
        let made = std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            mount(Some("/proc/thread-self/ns/net"), &target, None::<&str>, MsFlags::MS_BIND, None::<&str>)
                .unwrap();
        });
        made.join().unwrap();
        Self { path, _dir: dir }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn netns(&self) -> Netns {
        Netns::At(self.path.clone())
    }

    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.netns().run(work).unwrap()
    }

    /// Runs `ip` inside; panics with its message when it fails.
    pub fn ip(&self, line: &str) -> String {
        self.program("ip", line)
    }

    /// Runs `tc` inside, the same way.
    pub fn tc(&self, line: &str) -> String {
        self.program("tc", line)
    }

    fn program(&self, program: &str, line: &str) -> String {
        let output = self.run(|| Command::new(program).args(line.split_whitespace()).output().unwrap());
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program} {line}: {error}");
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = umount2(&self.path, MntFlags::MNT_DETACH);
    }
}

/// A node: its namespace, its state on disk, and an agent that can be stopped and started.
pub struct Node {
    pub namespace: Namespace,
    pub state: tempfile::TempDir,
    pub config: NetworkConfig,
    pub range: String,
    pub range_v6: Option<String>,
    agent: Option<(Arc<Network>, CancellationToken, tokio::task::JoinHandle<()>)>,
}

impl Node {
    /// A node whose uplink leads nowhere.
    pub fn alone() -> Self {
        let node = Self::new("a", "10.240.0.11", "10.244.1.0/24", Overlay::Auto);
        node.namespace.ip("link add eth0 type veth peer name fabric");
        node.up("10.240.0.11/24");
        node.namespace.ip("link set fabric up");
        node
    }

    pub fn new(name: &str, address: &str, range: &str, overlay: Overlay) -> Self {
        let namespace = Namespace::new();
        namespace.ip("link set lo up");
        let state = tempfile::tempdir().unwrap();
        let config = NetworkConfig {
            node: name.into(),
            node_ips: NodeIps::of(&[address.parse().unwrap()]).unwrap(),
            uplink: None,
            state_dir: state.path().to_path_buf(),
            conf_dir: Some(state.path().join("net.d")),
            bin_dir: Some(state.path().join("bin")),
            plugin: plugin(),
            overlay,
            fenced: vec!["10.244.0.0/16".parse().unwrap(), "fd00:244::/48".parse().unwrap()],
            netns: namespace.netns(),
        };
        Self { namespace, state, config, range: range.into(), range_v6: None, agent: None }
    }

    /// Gives the node a second family, before it is started: an address, and the range `number` for its pods.
    pub fn with_v6(mut self, number: u8, address: &str) -> Self {
        let second = address.split('/').next().unwrap().parse().unwrap();
        self.config.node_ips = NodeIps::of(&[self.config.node_ips.first(), second]).unwrap();
        self.range_v6 = Some(format!("fd00:244:0:{number}::/64"));
        self.namespace.ip(&format!("addr add {address} dev eth0 nodad"));
        self
    }

    pub fn up(&self, address: &str) {
        let unasked = if address.contains(':') { "nodad" } else { "" };
        self.namespace.ip(&format!("addr add {address} dev eth0 {unasked}"));
        self.namespace.ip("link set eth0 up");
    }

    /// Starts an agent that knows its range.
    pub async fn start(&mut self, hooks: Arc<dyn PodHooks>) -> Arc<Network> {
        let network = self.start_without_range(hooks).await;
        network.set_pod_ranges(self.ranges()).await.unwrap();
        network
    }

    pub fn ranges(&self) -> PodRanges {
        let ranges = [Some(&self.range), self.range_v6.as_ref()].into_iter().flatten();
        PodRanges::of(&ranges.map(|range| range.parse().unwrap()).collect::<Vec<_>>()).unwrap()
    }

    pub async fn start_without_range(&mut self, hooks: Arc<dyn PodHooks>) -> Arc<Network> {
        let network = Network::open(self.config.clone(), hooks).await.unwrap();
        let listener = network.bind().unwrap();
        let shutdown = CancellationToken::new();
        let serving = tokio::spawn(network.clone().serve(listener, shutdown.clone()));
        self.agent = Some((network.clone(), shutdown, serving));
        network
    }

    /// Ends the agent like a kill: nothing that it does is waited for, and when this returns nobody listens.
    pub async fn kill(&mut self) {
        let (_, shutdown, serving) = self.agent.take().unwrap();
        serving.abort();
        let _ = serving.await;
        shutdown.cancel();
    }

    /// Calls the plugin as a runtime does.
    pub async fn cni(&self, verb: &str, container: &str, netns: Option<&Path>, extra: Value) -> Answer {
        let call = Call::new(self, verb, container, netns, extra);
        tokio::task::spawn_blocking(move || call.run()).await.unwrap()
    }

    pub async fn add(&self, container: &str, pod: &Namespace) -> IpAddr {
        let answer = self.cni("ADD", container, Some(pod.path()), json!({})).await;
        assert_eq!(answer.code, 0, "{}", answer.output);
        address_of(&answer.output)
    }

    pub fn records(&self) -> Vec<String> {
        let dir = self.state.path().join("ipam");
        let entries = std::fs::read_dir(dir).unwrap();
        let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    pub fn pod_links(&self) -> usize {
        let links = self.namespace.ip("-o link show type veth");
        links.lines().filter(|line| line.contains(penstock_network::HOST_LINK_PREFIX)).count()
    }
}

/// What the plugin said.
pub struct Answer {
    pub code: i32,
    pub output: Value,
}

/// One call of the plugin, ready to run on any thread.
pub struct Call {
    program: PathBuf,
    variables: Vec<(&'static str, String)>,
    config: Value,
}

impl Call {
    pub fn new(node: &Node, verb: &str, container: &str, netns: Option<&Path>, extra: Value) -> Self {
        let mut config = json!({"cniVersion": "1.1.0", "name": "penstock", "type": "penstock", "socket": node.config.state_dir.join("cni.sock")});
        for (key, value) in extra.as_object().unwrap() {
            config[key] = value.clone();
        }
        let mut variables = vec![
            ("CNI_COMMAND", verb.to_string()),
            ("CNI_CONTAINERID", container.to_string()),
            ("CNI_IFNAME", "eth0".to_string()),
            ("CNI_PATH", "/none".to_string()),
            ("CNI_ARGS", format!("K8S_POD_NAMESPACE=default;K8S_POD_NAME={container}")),
        ];
        if let Some(netns) = netns {
            variables.push(("CNI_NETNS", netns.display().to_string()));
        }
        Self { program: plugin(), variables, config }
    }

    pub fn run(self) -> Answer {
        let mut command = Command::new(self.program);
        command.env_clear().envs(self.variables).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(self.config.to_string().as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        Answer {
            code: output.status.code().unwrap(),
            output: if text.is_empty() { Value::Null } else { serde_json::from_str(&text).unwrap() },
        }
    }
}

/// The first address, which the pod has for itself.
pub fn address_of(result: &Value) -> IpAddr {
    let (address, length) = result["ips"][0]["address"].as_str().unwrap().split_once('/').unwrap();
    assert_eq!(length, if address.contains(':') { "128" } else { "32" });
    address.parse().unwrap()
}

/// The plugin, built once a test run.
pub fn plugin() -> PathBuf {
    static PLUGIN: OnceLock<PathBuf> = OnceLock::new();
    let build = || {
        let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
        let output = Command::new(cargo)
            .args(["build", "--quiet", "--package", "cni", "--message-format=json-render-diagnostics"])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .stderr(Stdio::inherit())
            .output()
            .unwrap();
        assert!(output.status.success(), "the plugin does not build");
        let messages = String::from_utf8(output.stdout).unwrap();
        let mut messages = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let path = messages.find_map(|message| message["executable"].as_str().map(PathBuf::from));
        path.expect("cargo names the plugin it built")
    };
    PLUGIN.get_or_init(build).clone()
}

/// Whether `from` reaches a server that `to` runs at `address`, over TCP with an answer.
pub fn reaches(from: &Namespace, to: &Namespace, address: impl Into<IpAddr>) -> bool {
    let address = address.into();
    // Takes both families.
    let listener = to.run(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0))).unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = listener.try_clone().unwrap();
    let server = std::thread::spawn(move || {
        if let Ok((mut stream, _)) = server.accept() {
            let _ = stream.write_all(b"hello");
        }
    });
    let answered = from.run(|| {
        let mut stream = TcpStream::connect_timeout(&SocketAddr::from((address, port)), PATIENCE).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        Some(text)
    });
    // Ends the wait of a server that nobody reached.
    nix::sys::socket::shutdown(listener.as_raw_fd(), nix::sys::socket::Shutdown::Both).unwrap();
    server.join().unwrap();
    answered.as_deref() == Some("hello")
}
