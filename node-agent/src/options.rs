//! The command line.
//!
//! It exists as data, so that parser, help and defaults are one text. It must not act.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Parser, Subcommand, ValueEnum};
use ipnetwork::IpNetwork;
use penstock_dataplane::{Choice, Forwarding, Verdict};
use penstock_identity::{JoinToken, KeyHash};
use penstock_network::NodeIps;

use crate::desired::NodePortAddresses;

/// Penstock's node agent: runs the pods of a node and its network, whose service proxy is in the kernel as eBPF.
#[derive(Debug, Parser)]
#[command(name = "node-agent", version, max_term_width = 110)]
pub struct Options {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a node until told to stop (SIGTERM or SIGINT); pods and connections live on.
    Run(Box<Run>),
    /// What the kernel programs did: packets and connections by program, and drops by reason and pod.
    Counters(Counters),
    /// Where packets from outside are met: by which kind of XDP, and by which way at tc.
    Status(Inspect),
    /// What the kernel programs know: each map with its size and how full it is.
    Maps(Inspect),
    /// Who talks to whom, live from the kernel, and why a packet was dropped; until interrupted. Works without a running
    /// agent. While nobody observes it costs nothing.
    Observe(Box<Observe>),
    /// What would become of a new connection, step by step, and why; which of the client's are there already, and which
    /// backend affinity holds it to.
    Explain(Explain),
}

#[derive(Debug, Clone, Args)]
pub struct Counters {
    #[command(flatten)]
    pub inspect: Inspect,
    /// The agent's own files, which name this node's pods.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/penstock")]
    pub state_dir: PathBuf,
}

#[derive(Debug, Clone, Args)]
pub struct Explain {
    #[command(flatten)]
    pub inspect: Inspect,
    /// The agent's own files, which name this node's pods.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/penstock")]
    pub state_dir: PathBuf,
    /// From whom: a pod of this node as NAMESPACE/NAME, `host`, `outside`, or an address; with :PORT behind it to ask for one
    /// connection that is there.
    #[arg(value_name = "FROM")]
    pub source: String,
    /// To whom: ADDRESS:PORT, NAMESPACE/SERVICE:PORT or DNS-NAME:PORT, with /udp or /sctp behind it if it is not TCP.
    #[arg(value_name = "TO")]
    pub destination: String,
}

#[derive(Debug, Clone, Args)]
pub struct Observe {
    #[command(flatten)]
    pub inspect: Inspect,
    #[command(flatten)]
    pub known: Known,
    /// A pod at either end: NAMESPACE/NAME, or NAME in any namespace. Values of one filter are alternatives.
    #[arg(long, value_name = "POD,..", value_delimiter = ',', help_heading = "Filters")]
    pub pod: Vec<String>,
    /// A Service: NAMESPACE/NAME, with :PORT or without, or NAME in any namespace.
    #[arg(long, value_name = "SERVICE,..", value_delimiter = ',', help_heading = "Filters")]
    pub service: Vec<String>,
    /// Namespace of a pod at either end, or of the Service.
    #[arg(long, value_name = "NAME,..", value_delimiter = ',', help_heading = "Filters")]
    pub namespace: Vec<String>,
    /// Address or range at either end, before or after translation.
    #[arg(long, value_name = "CIDR,..", value_delimiter = ',', help_heading = "Filters")]
    pub ip: Vec<IpNetwork>,
    /// Port at either end, before or after translation.
    #[arg(long, value_name = "PORT,..", value_delimiter = ',', help_heading = "Filters")]
    pub port: Vec<u16>,
    /// TCP, UDP, SCTP or ICMP.
    #[arg(long, value_name = "NAME,..", value_delimiter = ',', help_heading = "Filters")]
    pub protocol: Vec<String>,
    /// What became of it: translated, replied, refused, dropped, masqueraded, passed [default: all but passed].
    #[arg(long, value_name = "WHAT,..", value_delimiter = ',', value_parser = verdict, help_heading = "Filters")]
    pub verdict: Vec<Verdict>,
    /// Why it was dropped, as `counters` names it; implies --verdict dropped.
    #[arg(long, value_name = "REASON,..", value_delimiter = ',', help_heading = "Filters")]
    pub reason: Vec<String>,
    /// From a pod, an address or range, or `host`.
    #[arg(long, value_name = "WHO,..", value_delimiter = ',', help_heading = "Filters")]
    pub from: Vec<String>,
    /// To a pod, a Service, an address or range.
    #[arg(long, value_name = "WHO,..", value_delimiter = ',', help_heading = "Filters")]
    pub to: Vec<String>,
    /// Every packet, not the first of each flow only; and what is nothing of ours.
    #[arg(long)]
    pub all: bool,
    /// Of all packets one in N, at random; implies --all. What is dropped or refused is always shown.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub sample: Option<u32>,
    /// End after N.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
    /// At the end the last N, instead of all as they come.
    #[arg(long, value_name = "N")]
    pub last: Option<usize>,
    /// End after so many seconds.
    #[arg(long, value_name = "SECONDS")]
    pub seconds: Option<u64>,
}

/// Where names come from.
#[derive(Debug, Clone, Args)]
pub struct Known {
    /// The agent's own files, which name this node's pods.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/penstock")]
    pub state_dir: PathBuf,
    /// How to reach the API server, for the names of pods on other nodes; without it they are shown by address.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
}

fn verdict(name: &str) -> Result<Verdict, String> {
    let names: Vec<_> = Verdict::ALL.iter().map(|verdict| verdict.name()).collect();
    let found = Verdict::ALL.iter().find(|verdict| verdict.name() == name);
    found.copied().ok_or_else(|| format!("there is no such verdict; there are {}", names.join(", ")))
}

#[derive(Debug, Clone, Args)]
pub struct Inspect {
    /// The bpf file system the node's agent uses.
    #[arg(long, value_name = "DIR", default_value = "/sys/fs/bpf")]
    pub bpffs: PathBuf,
    /// JSON instead of a table.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Clone, Args)]
pub struct Run {
    /// Name of the Node object [default: this machine's name].
    #[arg(long, value_name = "NAME", env = "NODE_NAME", default_value_t = host_name(), hide_default_value = true)]
    pub node_name: String,
    /// How to reach the API server, and as whom; written by joining [default: `kubeconfig` in --state-dir].
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    #[command(flatten)]
    pub join: Join,
    /// This node's address, its InternalIP; with two families one of each, the node's first one first [default: the one
    /// from which this machine reaches the API server].
    #[arg(long, value_name = "IP,..", value_delimiter = ',')]
    pub node_ip: Vec<IpAddr>,
    /// The agent's own files: address records, the CNI socket, checkpoints.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/penstock")]
    pub state_dir: PathBuf,
    /// The container runtime's CRI socket.
    #[arg(long, value_name = "URL", default_value = "unix:///run/containerd/containerd.sock")]
    pub runtime_endpoint: String,
    /// What to run: both halves, or one beside somebody else's other half.
    #[arg(long, value_delimiter = ',', value_name = "HALF,..", default_value = "pods,network")]
    pub halves: Vec<Half>,

    /// Certificate of the kubelet API on port 10250, read again when it is written anew [default: one that is asked for by
    /// request, and signed by itself until a person approves that].
    #[arg(long, value_name = "FILE", help_heading = "Pods", requires = "serving_key")]
    pub serving_cert: Option<PathBuf>,
    /// Its key.
    #[arg(long, value_name = "FILE", help_heading = "Pods", requires = "serving_cert")]
    pub serving_key: Option<PathBuf>,
    /// Who signs the clients of the kubelet API; without it every caller is refused [default: the cluster's authority, of who
    /// joined by token].
    #[arg(long, value_name = "FILE", help_heading = "Pods")]
    pub client_ca: Option<PathBuf>,
    /// Directory of static pod manifests.
    #[arg(long, value_name = "DIR", help_heading = "Pods")]
    pub manifest_dir: Option<PathBuf>,
    /// Volumes and files of pods.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/kubelet", help_heading = "Pods")]
    pub kubelet_dir: PathBuf,
    /// Container logs.
    #[arg(long, value_name = "DIR", default_value = "/var/log/pods", help_heading = "Pods")]
    pub pod_logs_dir: PathBuf,
    /// How long a pod that ends may go on, within its grace period, until no node sends it new connections and it was
    /// seen quiet: nothing unread in its sockets, no thread that wants a processor (5 s of it at most); 0 stops it at
    /// once. Only with both halves.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = wait, help_heading = "Pods")]
    pub termination_wait: Duration,

    /// Cgroup of this node, below which its pods run; the root when it is the machine's only node.
    #[arg(long, value_name = "PATH", default_value = "", hide_default_value = true)]
    pub cgroup_parent: String,
    /// Address of the cluster's DNS, served on this node; with two families one of each.
    #[arg(long, value_name = "IP,..", value_delimiter = ',', default_value = "10.96.0.10")]
    pub cluster_dns: Vec<IpAddr>,
    /// Domain of the cluster's names.
    #[arg(long, value_name = "NAME", default_value = "cluster.local")]
    pub cluster_domain: String,
    /// Where names outside the cluster are asked for.
    #[arg(long, value_name = "FILE", default_value = "/etc/resolv.conf")]
    pub resolv_conf: PathBuf,

    /// Ranges of Service addresses.
    #[arg(
        long,
        value_name = "CIDR,..",
        value_delimiter = ',',
        default_value = "10.96.0.0/16",
        help_heading = "Network"
    )]
    pub service_cidr: Vec<IpNetwork>,
    /// Ranges of pod addresses of all nodes.
    #[arg(
        long,
        value_name = "CIDR,..",
        value_delimiter = ',',
        default_value = "10.244.0.0/16",
        help_heading = "Network"
    )]
    pub cluster_cidr: Vec<IpNetwork>,
    /// What serves Services: the eBPF programs; a proxy in user space; `auto`, the programs, and the proxy for as long
    /// as they cannot be loaded; or `none`, somebody else beside this agent, such as kube-proxy.
    #[arg(long, value_enum, default_value_t, value_name = "WHAT", help_heading = "Network")]
    pub service_proxy: ServiceProxy,
    /// Whether what pods send out of the cluster leaves with the node's address.
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set, help_heading = "Network")]
    pub masquerade: bool,
    /// Range whose hosts know the way to pods and see their own addresses; may be given several times.
    #[arg(long, value_name = "CIDR", help_heading = "Network")]
    pub non_masquerade_cidr: Vec<IpNetwork>,
    /// Device that leads to other nodes [default: the one that has --node-ip].
    #[arg(long, value_name = "DEVICE", help_heading = "Network")]
    pub uplink: Option<String>,
    /// How packets from outside are met before the kernel makes socket buffers of them; those that need more, and all where
    /// there is no XDP, are met at tc.
    #[arg(long, value_enum, default_value_t, value_name = "KIND", help_heading = "Network")]
    pub xdp: Xdp,
    /// By which way programs are attached at interfaces behind XDP.
    #[arg(long, value_enum, default_value_t, value_name = "WAY", help_heading = "Network")]
    pub tc: Tc,
    /// Log every packet that the programs drop, with its addresses and the reason. Counting needs no flag.
    #[arg(long, help_heading = "Network")]
    pub log_drops: bool,
    /// How many ports of Services this node can serve to begin with; more when that is nearly full, up to 262144. Those that
    /// exist take memory, not those that may.
    #[arg(long, value_name = "N", default_value_t = 65_536, help_heading = "Network")]
    pub services_max: u32,
    /// How many addresses Services can be reached by on this node, each with its port; more when that is nearly full, up to
    /// 1048576.
    #[arg(long, value_name = "N", default_value_t = 131_072, help_heading = "Network")]
    pub service_addresses_max: u32,
    /// How connections get their backends where a Service does not say (annotation penstock.io/load-balancing):
    /// random, maglev or least-connections.
    #[arg(long, value_name = "HOW", default_value = "random", help_heading = "Network")]
    pub load_balancing: Choice,
    /// Who answers a client from outside whose backend is on another node, where a Service does not say (annotation
    /// penstock.io/forwarding): snat, the node that was asked; dsr, the backend's node.
    #[arg(long, value_name = "HOW", default_value = "snat", help_heading = "Network")]
    pub forwarding: Forwarding,
    /// On which of the node's addresses NodePorts are served: ranges, or the word primary for --node-ip.
    #[arg(long, value_name = "CIDR,..", default_value = "primary", help_heading = "Network")]
    pub nodeport_addresses: NodePortAddresses,
    /// Where load balancers ask whether this node's service proxy works (/healthz, /livez); nowhere when empty [default:
    /// port 10256 of every address; nowhere with --service-proxy none].
    #[arg(long, value_name = "IP:PORT", help_heading = "Network")]
    pub healthz_bind_address: Option<String>,
    /// Where Prometheus asks for /metrics; nowhere when empty [default: 127.0.0.1:10249; nowhere with --service-proxy none,
    /// for there kube-proxy's are].
    #[arg(long, value_name = "IP:PORT", help_heading = "Network")]
    pub metrics_bind_address: Option<String>,
    /// When pods' packets between nodes go through VXLAN.
    #[arg(long, value_enum, default_value_t, value_name = "WHEN", help_heading = "Network")]
    pub overlay: Overlay,
    /// Where the runtime looks for network configurations.
    #[arg(long, value_name = "DIR", default_value = "/etc/cni/net.d", help_heading = "Network")]
    pub cni_conf_dir: PathBuf,
    /// Where the runtime looks for network plugins.
    #[arg(long, value_name = "DIR", default_value = "/opt/cni/bin", help_heading = "Network")]
    pub cni_bin_dir: PathBuf,
    /// The plugin to install there [default: `cni` beside this program].
    #[arg(long, value_name = "FILE", help_heading = "Network")]
    pub cni_plugin: Option<PathBuf>,
    /// The bpf file system, mounted if it is not.
    #[arg(long, value_name = "DIR", default_value = "/sys/fs/bpf", help_heading = "Network")]
    pub bpffs: PathBuf,
    /// The eBPF programs [default: `penstock.bpf.o` beside this program].
    #[arg(long, value_name = "FILE", help_heading = "Network")]
    pub ebpf_object: Option<PathBuf>,
    /// Serve Ingress objects over HTTP on this address, without TLS yet; off when empty.
    #[arg(
        long,
        value_name = "IP:PORT",
        default_value = "",
        hide_default_value = true,
        help_heading = "Network"
    )]
    pub ingress_listen: String,

    /// UDP port by which nodes notice each other's death, to take over load-balancer addresses; the same on all nodes.
    /// With 0 this node announces none.
    #[arg(long, value_name = "PORT", default_value_t = 10_299, help_heading = "Network")]
    pub announce_port: u16,

    /// How to write the log.
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    pub log_format: LogFormat,
}

/// How to become a node. `orchestrator token create` prints the flags.
#[derive(Debug, Clone, Args)]
#[group(skip)]
pub struct Join {
    /// Join the cluster of this API server with a token, unless there is a kubeconfig that can be used.
    #[arg(long = "join", value_name = "HOST:PORT", requires = "ca_hash", help_heading = "Joining")]
    pub server: Option<String>,
    /// The token.
    #[arg(long, value_name = "TOKEN", requires = "server", help_heading = "Joining")]
    pub token: Option<JoinToken>,
    /// A file that holds it, for others not to see it among this program's arguments.
    #[arg(
        long,
        value_name = "FILE",
        requires = "server",
        conflicts_with = "token",
        help_heading = "Joining"
    )]
    pub token_file: Option<PathBuf>,
    /// The hash of the public key of the cluster's authority, by which it is recognised; one of several will do.
    #[arg(
        long,
        value_name = "sha256:HEX,..",
        value_delimiter = ',',
        requires = "server",
        help_heading = "Joining"
    )]
    pub ca_hash: Vec<KeyHash>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Half {
    /// Register the node and run its pods.
    Pods,
    /// Services, pod network, DNS, ingress.
    Network,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum ServiceProxy {
    /// The eBPF programs, and a proxy in user space for as long as they cannot be loaded.
    #[default]
    Auto,
    /// The eBPF programs or nothing.
    Ebpf,
    /// A proxy in user space, even where the programs could be loaded.
    Userspace,
    /// Somebody else. The programs masquerade what pods send out of the cluster, and lead host ports to their pods; everything
    /// else takes the kernel's way.
    None,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Overlay {
    /// To nodes that are not on the uplink's subnet.
    #[default]
    Auto,
    /// Not at all.
    Never,
    /// To every node.
    Always,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Xdp {
    /// In the driver where it can, otherwise in the kernel's stack; on a veth not at all, where tc costs less.
    #[default]
    Auto,
    /// In the driver; the node serves no Services if it cannot.
    Native,
    /// In the kernel's stack.
    Generic,
    /// Not at all.
    Off,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Tc {
    /// By links where the kernel has them (tcx, Linux 6.6), otherwise as classifiers.
    #[default]
    Auto,
    /// By links.
    Links,
    /// As classifiers: filters of a clsact queueing discipline.
    Classifiers,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

// === impl Run ===

impl Run {
    /// Whether this half is to run.
    pub fn has(&self, half: Half) -> bool {
        self.halves.contains(&half)
    }

    /// The node's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.kubeconfig.clone().unwrap_or_else(|| self.state_dir.join("kubeconfig"))
    }

    /// Where joining puts the cluster's authority.
    pub fn joined_authority(&self) -> PathBuf {
        let mut name = self.kubeconfig().into_os_string();
        name.push(".ca.crt");
        name.into()
    }

    /// Refuses none, and more than one address of a family.
    pub fn check_node_ips(&self) -> anyhow::Result<()> {
        match self.node_ip[..] {
            [_] => Ok(()),
            [a, b] if a.is_ipv4() != b.is_ipv4() => Ok(()),
            _ => anyhow::bail!("--node-ip takes one address, or one of IPv4 and one of IPv6"),
        }
    }

    /// The node's addresses by family.
    pub fn node_ips_by_family(&self) -> anyhow::Result<NodeIps> {
        NodeIps::of(&self.node_ip).context("--node-ip: the node needs an address")
    }

    /// Every address of the node, of all families it has, for servers to listen on.
    pub fn every_address(&self) -> IpAddr {
        let only_v6 = std::fs::read_to_string("/proc/sys/net/ipv6/bindv6only");
        every_address(&self.node_ip, only_v6.is_ok_and(|value| value.trim() == "1"))
    }

    /// A file that is installed beside this program.
    pub fn beside(name: &str) -> PathBuf {
        let program = std::env::current_exe().unwrap_or_default();
        program.with_file_name(name)
    }
}

/// This machine's name, as nodes are named.
fn host_name() -> String {
    let name = nix::unistd::gethostname().unwrap_or_default();
    name.to_string_lossy().trim().to_lowercase()
}

/// A socket at `::` takes what comes over IPv4 too, unless the machine has it otherwise (net.ipv6.bindv6only); of two
/// families one has to go without then.
fn every_address(node_ips: &[IpAddr], only_v6: bool) -> IpAddr {
    let has_v4 = node_ips.iter().any(IpAddr::is_ipv4);
    let has_v6 = node_ips.iter().any(IpAddr::is_ipv6);
    if has_v6 && !(has_v4 && only_v6) { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() }
}

/// A time such as `2s`, `500ms` or `0`.
fn wait(text: &str) -> Result<Duration, String> {
    let (number, unit_ms) = match (text.strip_suffix("ms"), text.strip_suffix('s')) {
        (Some(number), _) => (number, 1),
        (None, Some(number)) => (number, 1000),
        (None, None) if text == "0" => (text, 1),
        (None, None) => return Err("is no time such as 2s or 500ms".to_owned()),
    };
    let number: u64 = number.parse().map_err(|_| "is no time such as 2s or 500ms".to_owned())?;
    match number.checked_mul(unit_ms) {
        Some(ms) if ms <= 60_000 => Ok(Duration::from_millis(ms)),
        _ => Err("is more than 60s".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Options::command().debug_assert();
    }

    #[test]
    fn a_node_has_the_machines_name_and_a_kubeconfig_among_its_own_files_unless_told_otherwise() {
        let parse = |more: &[&str]| {
            let parsed = Options::try_parse_from([&["node-agent", "run"], more].concat());
            parsed.map(|options| match options.command {
                Command::Run(run) => run,
                _ => panic!(),
            })
        };
        let run = parse(&[]).unwrap();
        assert!(run.has(Half::Pods) && run.has(Half::Network));
        assert_eq!(run.cluster_dns[0].to_string(), "10.96.0.10");
        assert_eq!(run.kubeconfig(), PathBuf::from("/var/lib/penstock/kubeconfig"));
        assert!(!run.node_name.is_empty() && run.node_name == run.node_name.to_lowercase());
        let told = parse(&["--node-name=n", "--kubeconfig=/k"]).unwrap();
        assert_eq!((told.kubeconfig(), told.joined_authority()), ("/k".into(), "/k.ca.crt".into()));
    }

    #[test]
    fn joining_takes_a_server_a_token_and_a_hash() {
        let hash = format!("--ca-hash=sha256:{}", "0".repeat(64));
        let (server, token) = ("--join=10.0.0.1:6443", "--token=abcdef.0123456789abcdef");
        let parse = |more: &[&str]| Options::try_parse_from([&["node-agent", "run"], more].concat());
        let Command::Run(run) = parse(&[server, token, &hash]).unwrap().command else { panic!() };
        assert_eq!((run.join.ca_hash.len(), run.join.token.unwrap().id()), (1, "abcdef"));
        assert!(parse(&[server, "--token-file=/t", &hash]).is_ok());
        for (wrong, part) in [
            (&[server, token][..], "--ca-hash"),
            (&[token, &hash], "--join"),
            (&[server, &hash, "--token=abc"], "orchestrator token create"),
            (&[server, token, "--ca-hash=sha256:12"], "hexadecimal"),
            (&[server, token, &hash, "--token-file=/t"], "--token-file"),
        ] {
            let told = parse(wrong).unwrap_err().to_string();
            assert!(told.contains(part), "{wrong:?}: {told}");
        }
    }

    #[test]
    fn services_are_chosen_for_and_node_ports_placed_as_asked_and_nonsense_is_explained() {
        let parse = |more: &[&str]| {
            let least = ["node-agent", "run", "--node-name=n", "--node-ip=10.240.0.11", "--kubeconfig=/k"];
            Options::try_parse_from([&least, more].concat()).map(|options| match options.command {
                Command::Run(run) => run,
                _ => panic!(),
            })
        };
        let run = parse(&["--load-balancing=least-connections", "--nodeport-addresses=10.0.0.0/8,::/0"]);
        let run = run.unwrap();
        assert_eq!(run.load_balancing, Choice::LeastConnections);
        assert!(matches!(run.nodeport_addresses, NodePortAddresses::Within(ranges) if ranges.len() == 2));
        assert_eq!(parse(&[]).unwrap().nodeport_addresses, NodePortAddresses::Primary);
        for (wrong, part) in [("--load-balancing=fair", "maglev"), ("--nodeport-addresses=eth0", "CIDRs")] {
            let error = parse(&[wrong]).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn a_wait_has_a_unit_and_a_bound() {
        assert_eq!(wait("2s"), Ok(Duration::from_secs(2)));
        assert_eq!(wait("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(wait("0"), Ok(Duration::ZERO));
        for wrong in ["", "2", "s", "-1s", "61s", "2m", "18446744073709551615s"] {
            assert!(wait(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn one_half_can_be_asked_for() {
        let line =
            ["node-agent", "run", "--node-name=n", "--node-ip=::1", "--kubeconfig=/k", "--halves=pods"];
        let Command::Run(run) = Options::try_parse_from(line).unwrap().command else { panic!() };
        assert!(!run.has(Half::Network));
        assert!(run.has(Half::Pods));
    }

    #[test]
    fn servers_listen_on_every_address_of_the_families_that_the_node_has() {
        let on = |ips: &[&str], only_v6| {
            let ips: Vec<IpAddr> = ips.iter().map(|ip| ip.parse().unwrap()).collect();
            every_address(&ips, only_v6).to_string()
        };
        assert_eq!(on(&["10.240.0.11"], false), "0.0.0.0");
        assert_eq!(on(&["fd00::11"], false), "::");
        assert_eq!(on(&["fd00::11"], true), "::");
        assert_eq!(on(&["10.240.0.11", "fd00::11"], false), "::");
        assert_eq!(on(&["10.240.0.11", "fd00::11"], true), "0.0.0.0");
    }

    #[test]
    fn a_node_has_at_most_one_address_of_each_family() {
        let parse = |ips: &str| {
            let ips = format!("--node-ip={ips}");
            let line = ["node-agent", "run", "--node-name=n", &ips, "--kubeconfig=/k"];
            let Command::Run(run) = Options::try_parse_from(line).unwrap().command else { panic!() };
            run
        };
        let both = parse("fd00::11,10.240.0.11");
        both.check_node_ips().unwrap();
        let ips = both.node_ips_by_family().unwrap();
        assert_eq!(ips, NodeIps::Both("10.240.0.11".parse().unwrap(), "fd00::11".parse().unwrap()));
        let alone = parse("fd00::11");
        alone.check_node_ips().unwrap();
        assert_eq!(alone.node_ips_by_family().unwrap(), NodeIps::V6("fd00::11".parse().unwrap()));
        for wrong in ["10.0.0.1,10.0.0.2", "10.0.0.1,fd00::1,fd00::2"] {
            assert!(parse(wrong).check_node_ips().is_err(), "{wrong}");
        }
    }
}
