//! The long-running processes of a cluster, as data: what `supervise` keeps alive.

use std::path::PathBuf;

use super::layout::{KubeProxy, Layout, NodeLayout, StoreKind};
use super::node_namespaces;

/// One process to keep running.
#[derive(Clone, Debug)]
pub struct Process {
    pub name: String,
    pub argv: Vec<String>,
    /// Folder in the cgroup v2 tree that it starts in; what it starts stays there.
    pub cgroup: String,
    pub log: PathBuf,
    /// Processes stop in ascending order.
    pub stop_order: u8,
}

/// Runs a command before ordinary processes, as `Nice=` of a unit would. On a machine that pods or others keep busy those
/// who program the network and run the control plane wait milliseconds for each step otherwise, and a rollout waits for
/// hundreds of steps. Not for containerd, whose pods would have it too.
fn before_others(argv: Vec<String>) -> Vec<String> {
    ["nice", "-n", "-10"].map(str::to_owned).into_iter().chain(argv).collect()
}

/// Every process of the cluster, in starting order.
pub fn plan_processes(layout: &Layout) -> Vec<Process> {
    let mut processes = Vec::new();
    if layout.store == StoreKind::Etcd {
        processes.push(etcd(layout));
    }
    processes.push(orchestrator(layout));
    for node in layout.nodes() {
        processes.push(containerd(layout, &node));
        processes.extend(layout.kube_proxy.as_ref().map(|proxy| kube_proxy(layout, &node, proxy)));
    }
    processes.extend(layout.nodes_with_agent().iter().map(|node| node_agent(layout, node)));
    processes
}

const ETCD_URL: &str = "http://127.0.0.1";

fn etcd_client_port(layout: &Layout) -> u16 {
    12379 + 10 * u16::from(layout.index)
}

fn etcd(layout: &Layout) -> Process {
    let client = format!("{ETCD_URL}:{}", etcd_client_port(layout));
    let peer = format!("{ETCD_URL}:{}", etcd_client_port(layout) + 1);
    let data = layout.control().join("etcd").display().to_string();
    let argv = [
        "etcd",
        "--data-dir",
        &data,
        "--listen-client-urls",
        &client,
        "--advertise-client-urls",
        &client,
        "--listen-peer-urls",
        &peer,
        "--initial-advertise-peer-urls",
        &peer,
        "--initial-cluster",
        &format!("default={peer}"),
    ];
    Process {
        name: "etcd".to_owned(),
        argv: before_others(argv.map(str::to_owned).to_vec()),
        cgroup: format!("{}/control", layout.cgroup()),
        log: layout.logs().join("etcd.log"),
        stop_order: 3,
    }
}

fn orchestrator(layout: &Layout) -> Process {
    let mut argv = vec![
        layout.binaries.join("orchestrator").display().to_string(),
        "run".to_owned(),
        format!("--data-dir={}", layout.control().display()),
        format!("--listen={}", layout.server()),
        format!("--advertise-address={}", layout.host_address()),
        format!("--service-cidr={}", layout.service_cidrs().join(",")),
        format!("--cluster-cidr={}", layout.cluster_cidrs().join(",")),
        format!("--cluster-dns={}", layout.cluster_dns().join(",")),
    ];
    if layout.store == StoreKind::Etcd {
        argv.push("--store=etcd".to_owned());
        argv.push(format!("--etcd-endpoints={ETCD_URL}:{}", etcd_client_port(layout)));
    }
    argv.extend(layout.control_flags.iter().cloned());
    Process {
        name: "orchestrator".to_owned(),
        argv: before_others(argv),
        cgroup: format!("{}/control", layout.cgroup()),
        log: layout.logs().join("orchestrator.log"),
        stop_order: 2,
    }
}

fn containerd(layout: &Layout, node: &NodeLayout) -> Process {
    let mut argv = node_namespaces::enter(node);
    argv.extend([
        "containerd".to_owned(),
        "--config".to_owned(),
        node.run.join("containerd.toml").display().to_string(),
    ]);
    Process {
        name: format!("containerd-{}", node.name),
        argv,
        cgroup: format!("{}/system", node.cgroup),
        log: layout.logs().join(format!("containerd-{}.log", node.name)),
        stop_order: 1,
    }
}

fn node_agent(layout: &Layout, node: &NodeLayout) -> Process {
    let mut argv = node_namespaces::enter(node);
    let kubeconfig = node.kubeconfig().display().to_string();
    argv.extend([
        layout.binaries.join("node-agent").display().to_string(),
        "run".to_owned(),
        format!("--node-name={}", node.name),
        format!("--node-ip={}", node.addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")),
        format!("--kubeconfig={kubeconfig}"),
        format!("--serving-cert={kubeconfig}.serving.crt"),
        format!("--serving-key={kubeconfig}.serving.key"),
        format!("--client-ca={kubeconfig}.ca.crt"),
        format!("--state-dir={}", node.data.join("agent").display()),
        format!("--runtime-endpoint=unix://{}", node.runtime_socket().display()),
        format!("--cgroup-parent={}", node.cgroup),
        format!("--cluster-dns={}", layout.cluster_dns().join(",")),
        format!("--service-cidr={}", layout.service_cidrs().join(",")),
        format!("--cluster-cidr={}", layout.cluster_cidrs().join(",")),
        format!("--ebpf-object={}", layout.binaries.join("penstock.bpf.o").display()),
    ]);
    if layout.kube_proxy.is_some() {
        argv.push("--service-proxy=none".to_owned());
    }
    Process {
        name: format!("node-agent-{}", node.name),
        argv: before_others(argv),
        cgroup: format!("{}/system", node.cgroup),
        log: layout.logs().join(format!("node-agent-{}.log", node.name)),
        stop_order: 0,
    }
}

fn kube_proxy(layout: &Layout, node: &NodeLayout, proxy: &KubeProxy) -> Process {
    let mut argv = node_namespaces::enter(node);
    argv.extend([
        proxy.program.display().to_string(),
        format!("--proxy-mode={}", proxy.mode),
        format!("--hostname-override={}", node.name),
        format!("--kubeconfig={}", layout.proxy_kubeconfig().display()),
        format!("--cluster-cidr={}", layout.cluster_cidrs().join(",")),
        "--nodeport-addresses=primary".to_owned(),
        // Of the machine's connection tracking, which it would set up for all of its namespaces, it sees a part alone.
        "--conntrack-max-per-core=0".to_owned(),
        "--conntrack-tcp-timeout-established=0".to_owned(),
        "--conntrack-tcp-timeout-close-wait=0".to_owned(),
    ]);
    Process {
        name: format!("kube-proxy-{}", node.name),
        argv,
        cgroup: format!("{}/system", node.cgroup),
        log: layout.logs().join(format!("kube-proxy-{}.log", node.name)),
        stop_order: 0,
    }
}
