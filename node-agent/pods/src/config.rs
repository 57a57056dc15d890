//! What the kubelet half needs to be told. Filled from flags by the binary; no file or environment is read here.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// Settings of [`crate::run`]. [`PodsConfig::new`] has the cluster's defaults for all but three.
#[derive(Debug, Clone)]
pub struct PodsConfig {
    /// Name of the Node object.
    pub node_name: String,
    /// InternalIPs, and the addresses of pods in the host's network: at least one, at most one a family.
    pub node_ips: Vec<IpAddr>,
    /// Private files of the agent.
    pub state_dir: PathBuf,
    /// Volumes and managed files of pods: `<kubelet_dir>/pods/<uid>/…`.
    pub kubelet_dir: PathBuf,
    /// Container logs: `<dir>/<namespace>_<name>_<uid>/<container>/<n>.log`.
    pub pod_logs_dir: PathBuf,
    /// Directory of static pod manifests, if any.
    pub manifest_dir: Option<PathBuf>,
    /// Cgroup all pods live below, as a path from the cgroup root, for example `/penstock/node-1`; empty for the root.
    pub cgroup_parent: String,
    /// Resolvers of pods with `dnsPolicy: ClusterFirst`.
    pub cluster_dns: Vec<IpAddr>,
    /// Domain of the cluster's names.
    pub cluster_domain: String,
    /// The node's resolver file.
    pub resolv_conf: PathBuf,
    /// Where the kubelet API listens.
    pub listen: SocketAddr,
    /// PEM chain and key of the kubelet API; it shows one signed by itself while there are no such files, and new ones when
    /// they are written.
    pub serving_cert: Option<PathBuf>,
    /// See `serving_cert`.
    pub serving_key: Option<PathBuf>,
    /// PEM of the CA whose client certificates are accepted; without it every caller is refused.
    pub client_ca: Option<PathBuf>,
    /// How long a pod that ends is kept running at most until no node sends it new connections; zero stops it at once.
    pub termination_wait: Duration,
    /// Most pods the node takes.
    pub pods_max: u32,
    /// Labels put on the Node at registration, besides the usual ones.
    pub labels: BTreeMap<String, String>,
    /// Taints put on the Node at registration, as `key[=value]:effect`.
    pub taints: Vec<String>,
    /// Cloud or bare-metal id of the machine, if known.
    pub provider_id: Option<String>,
}

impl PodsConfig {
    /// The contract's defaults.
    pub fn new(node_name: impl Into<String>, node_ips: Vec<IpAddr>, state_dir: impl Into<PathBuf>) -> Self {
        Self {
            node_name: node_name.into(),
            node_ips,
            state_dir: state_dir.into(),
            kubelet_dir: "/var/lib/kubelet".into(),
            pod_logs_dir: "/var/log/pods".into(),
            manifest_dir: None,
            cgroup_parent: String::new(),
            cluster_dns: vec![IpAddr::from([10, 96, 0, 10])],
            cluster_domain: "cluster.local".to_string(),
            resolv_conf: "/etc/resolv.conf".into(),
            listen: SocketAddr::from(([0, 0, 0, 0], 10250)),
            serving_cert: None,
            serving_key: None,
            client_ca: None,
            termination_wait: Duration::from_secs(10),
            pods_max: 110,
            labels: BTreeMap::new(),
            taints: Vec::new(),
            provider_id: None,
        }
    }

    /// The node's addresses as the API writes them, the first one first.
    pub fn node_ip_texts(&self) -> Vec<String> {
        self.node_ips.iter().map(ToString::to_string).collect()
    }

    /// The first of them; empty when there is none.
    pub fn node_ip_text(&self) -> String {
        self.node_ips.first().map(ToString::to_string).unwrap_or_default()
    }
}
