//! Where everything of one cluster lies: paths, names and addresses, all derived from its name, index and node count.
//!
//! Pure but for [`Layout::load`], [`Layout::save`] and [`Layout::all`], which keep the description of a running cluster under `/run`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

const RUN: &str = "/run/penstock";
const DATA: &str = "/var/lib/penstock";
/// Clusters side by side on one machine; each has address ranges of its own.
pub const CLUSTERS_MAX: u8 = 8;
/// Nodes of a cluster on one machine: addresses .11 to .90 of the node network.
pub const NODES_MAX: u16 = 80;
/// NodePort of the demo's Service.
pub const DEMO_NODE_PORT: u16 = 30080;

/// The description of one cluster.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Layout {
    pub name: String,
    /// Tells the address ranges of clusters on one machine apart.
    pub index: u8,
    pub node_count: u16,
    pub port: u16,
    pub store: StoreKind,
    /// Of which families nodes, pods and Services have addresses.
    #[serde(default)]
    pub families: Families,
    /// How many of the nodes, the last ones, have everything but an agent.
    #[serde(default)]
    pub spare_count: u16,
    /// Further flags of the orchestrator.
    #[serde(default)]
    pub control_flags: Vec<String>,
    /// Our own programs that the cluster runs.
    pub binaries: PathBuf,
    /// Who serves Services in the agents' place, on every node.
    #[serde(default)]
    pub kube_proxy: Option<KubeProxy>,
}

/// A kube-proxy beside each agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KubeProxy {
    pub program: PathBuf,
    /// As its `--proxy-mode` has it.
    pub mode: String,
}

/// Of which families a cluster's addresses are. Where a description does not say, both: what is not there is not missed by
/// those who remove it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Families {
    V4,
    V6,
    /// IPv4 first.
    #[default]
    Both,
}

/// Which store the control plane keeps its objects in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum StoreKind {
    Embedded,
    Etcd,
}

/// The places and addresses of one node.
#[derive(Clone, Debug)]
pub struct NodeLayout {
    pub name: String,
    pub netns: String,
    /// One a family.
    pub addresses: Vec<IpAddr>,
    /// Sockets and pinned namespaces; gone after a reboot.
    pub run: PathBuf,
    /// Images, containers, kubelet state.
    pub data: PathBuf,
    /// The node's folder in every cgroup tree, absolute within the tree.
    pub cgroup: String,
    /// Name of the host's end of the link to the node.
    pub host_link: String,
}

impl Layout {
    /// Reads the description of a cluster that was brought up and not taken down.
    pub fn load(name: &str) -> Result<Option<Layout>> {
        let file = Path::new(RUN).join(name).join("cluster.json");
        match std::fs::read(&file) {
            Ok(bytes) => Ok(Some(
                serde_json::from_slice(&bytes).with_context(|| format!("{} is damaged", file.display()))?,
            )),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", file.display())),
        }
    }

    /// Every cluster that has a description on this machine.
    pub fn all() -> Result<Vec<Layout>> {
        let Ok(folders) = std::fs::read_dir(RUN) else {
            return Ok(Vec::new());
        };
        let mut found = Vec::new();
        for folder in folders.flatten() {
            if let Some(layout) = Layout::load(&folder.file_name().to_string_lossy())? {
                found.push(layout);
            }
        }
        Ok(found)
    }

    pub fn save(&self) -> Result<()> {
        crate::cluster::layout::make_private(&self.run())?;
        let file = self.run().join("cluster.json");
        std::fs::write(&file, serde_json::to_vec_pretty(self)?)
            .with_context(|| format!("cannot write {}", file.display()))
    }

    pub fn run(&self) -> PathBuf {
        Path::new(RUN).join(&self.name)
    }

    pub fn data(&self) -> PathBuf {
        data_of(&self.name)
    }

    pub fn logs(&self) -> PathBuf {
        self.data().join("logs")
    }

    /// The orchestrator's keys and store: what `down --keep-data` keeps.
    pub fn control(&self) -> PathBuf {
        self.data().join("control")
    }

    pub fn has_store(&self) -> bool {
        has_store_in(&self.data())
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.data().join("admin.kubeconfig")
    }

    /// Of every kube-proxy.
    pub fn proxy_kubeconfig(&self) -> PathBuf {
        self.data().join("kube-proxy.kubeconfig")
    }

    pub fn server_url(&self) -> String {
        format!("https://{}", self.server())
    }

    /// Where the API server listens.
    pub fn server(&self) -> SocketAddr {
        SocketAddr::new(self.host_address(), self.port)
    }

    pub fn bridge(&self) -> String {
        format!("penstock{}", self.index)
    }

    /// The first of [`host_addresses`](Self::host_addresses).
    pub fn host_address(&self) -> IpAddr {
        match self.families {
            Families::V4 | Families::Both => self.on_node_network_v4(1),
            Families::V6 => self.v6(0x240, 1).into(),
        }
    }

    /// Those of the machine on the node network, one a family.
    pub fn host_addresses(&self) -> Vec<IpAddr> {
        self.node_network(1)
    }

    /// Addresses of the node network that are no node's, for load balancers, one range a family.
    pub fn load_balancer_addresses(&self) -> Vec<String> {
        let (first, last) = (self.node_network(200), self.node_network(239));
        first.iter().zip(&last).map(|(first, last)| format!("{first}-{last}")).collect()
    }

    /// Of pods, one range a family.
    pub fn cluster_cidrs(&self) -> Vec<String> {
        let v4 = format!("10.{}.0.0/16", 244 + u16::from(self.index));
        self.per_family(v4, format!("{}/56", self.v6(0x244, 0)))
    }

    /// Of Services, one range a family.
    pub fn service_cidrs(&self) -> Vec<String> {
        let v4 = format!("10.{}.0.0/16", 96 + u16::from(self.index));
        self.per_family(v4, format!("{}/112", self.v6(0x96, 0)))
    }

    /// One a family.
    pub fn cluster_dns(&self) -> Vec<String> {
        self.per_family(format!("10.{}.0.10", 96 + self.index), self.v6(0x96, 10).to_string())
    }

    /// Addresses of the node network, one a family.
    fn node_network(&self, host: u8) -> Vec<IpAddr> {
        self.per_family(self.on_node_network_v4(host), self.v6(0x240, host.into()).into())
    }

    fn on_node_network_v4(&self, host: u8) -> IpAddr {
        Ipv4Addr::new(10, 240, self.index, host).into()
    }

    /// A unique local address (RFC 4193) of this cluster.
    fn v6(&self, subnet: u16, host: u16) -> Ipv6Addr {
        Ipv6Addr::new(0xfd00, subnet, u16::from(self.index), 0, 0, 0, 0, host)
    }

    /// What the cluster has of the two.
    fn per_family<T>(&self, v4: T, v6: T) -> Vec<T> {
        match self.families {
            Families::V4 => vec![v4],
            Families::V6 => vec![v6],
            Families::Both => vec![v4, v6],
        }
    }

    /// The cluster's folder in every cgroup tree.
    pub fn cgroup(&self) -> String {
        format!("/penstock/{}", self.name)
    }

    /// How many nodes have an agent.
    pub fn agent_count(&self) -> u16 {
        self.node_count.saturating_sub(self.spare_count)
    }

    /// The nodes with an agent.
    pub fn nodes_with_agent(&self) -> Vec<NodeLayout> {
        (1..=self.agent_count()).map(|number| self.node(number)).collect()
    }

    pub fn nodes(&self) -> Vec<NodeLayout> {
        (1..=self.node_count).map(|number| self.node(number)).collect()
    }

    fn node(&self, number: u16) -> NodeLayout {
        let name = format!("node-{number}");
        let last_octet = u8::try_from(10 + number).expect("NODES_MAX keeps the last octet below 91");
        NodeLayout {
            netns: format!("{}-{name}", self.bridge()),
            addresses: self.node_network(last_octet),
            run: self.run().join(&name),
            data: self.data().join("nodes").join(&name),
            cgroup: format!("{}/{name}", self.cgroup()),
            host_link: format!("ps{}n{number}", self.index),
            name,
        }
    }
}

impl NodeLayout {
    pub fn containerd_socket(&self) -> PathBuf {
        self.run.join("containerd.sock")
    }

    /// The first of its addresses, by which it is asked from outside.
    pub fn address(&self) -> IpAddr {
        self.addresses[0]
    }

    /// Files that the node's mount and UTS namespaces are pinned to.
    pub fn namespace_file(&self, kind: &str) -> PathBuf {
        self.run.join("ns").join(kind)
    }

    /// Where the agent looks for containerd. A link, made when containerd has every image it is to have before pods come: a pod
    /// that comes before its image would wait for a back-off to end.
    pub fn runtime_socket(&self) -> PathBuf {
        self.run.join("runtime.sock")
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.data.join("agent").join("kubeconfig")
    }
}

pub fn data_of(name: &str) -> PathBuf {
    Path::new(DATA).join(name)
}

/// Whether a cluster's folder holds objects of an earlier run, whichever store kept them.
pub fn has_store_in(data: &Path) -> bool {
    ["store", "etcd"].iter().any(|store| data.join("control").join(store).exists())
}

/// The name of a cluster becomes part of paths and cgroups: a short DNS label.
pub fn check_name(name: &str) -> Result<()> {
    let fits = !name.is_empty()
        && name.len() <= 16
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
        && !name.starts_with('-');
    if !fits {
        bail!("`{name}` cannot name a cluster: use 1 to 16 lower-case letters, digits and hyphens");
    }
    Ok(())
}

/// The lowest index that no running cluster has.
pub fn free_index(taken: &[Layout]) -> Result<u8> {
    (0..CLUSTERS_MAX)
        .find(|index| taken.iter().all(|it| it.index != *index))
        .with_context(|| format!("{CLUSTERS_MAX} clusters run on this machine already; take one down first"))
}

/// Makes a folder that only root reads.
pub fn make_private(folder: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .with_context(|| format!("cannot make the folder {}", folder.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(index: u8) -> Layout {
        let binaries = PathBuf::from("/bin");
        Layout {
            name: format!("c{index}"),
            index,
            node_count: NODES_MAX,
            port: 6443,
            store: StoreKind::Embedded,
            families: Families::Both,
            spare_count: 0,
            control_flags: Vec::new(),
            binaries,
            kube_proxy: None,
        }
    }

    #[test]
    fn the_last_nodes_are_the_spare_ones() {
        let layout = Layout { node_count: 3, spare_count: 1, ..layout(0) };
        let names: Vec<_> = layout.nodes_with_agent().into_iter().map(|node| node.name).collect();
        assert_eq!((names, layout.nodes().len()), (vec!["node-1".to_owned(), "node-2".to_owned()], 3));
    }

    #[test]
    fn no_two_clusters_share_an_address_range() {
        for index in 1..CLUSTERS_MAX {
            let ranges = |index| {
                let layout = layout(index);
                [layout.cluster_cidrs(), layout.service_cidrs(), layout.cluster_dns()].concat()
            };
            assert!(ranges(0).iter().zip(ranges(index)).all(|(one, other)| *one != other));
            assert_ne!(layout(0).host_address(), layout(index).host_address());
            assert_ne!(layout(0).host_addresses()[1], layout(index).host_addresses()[1]);
        }
    }

    #[test]
    fn a_cluster_has_addresses_of_its_families_and_of_no_others() {
        for (families, first, ranges) in [
            (Families::V4, "10.240.2.1:6443", 1),
            (Families::V6, "[fd00:240:2::1]:6443", 1),
            (Families::Both, "10.240.2.1:6443", 2),
        ] {
            let layout = Layout { families, ..layout(2) };
            assert_eq!(layout.server().to_string(), first);
            assert_eq!(layout.host_address(), layout.host_addresses()[0]);
            let lists = [
                layout.cluster_cidrs(),
                layout.service_cidrs(),
                layout.cluster_dns(),
                layout.load_balancer_addresses(),
            ];
            for list in lists {
                assert_eq!(list.len(), ranges, "{list:?}");
                assert_eq!(list[0].contains(':'), families == Families::V6, "{list:?}");
            }
            assert_eq!(layout.nodes()[0].addresses.len(), ranges);
        }
    }

    #[test]
    fn link_names_fit_the_kernel() {
        for node in layout(CLUSTERS_MAX - 1).nodes() {
            assert!(node.host_link.len() <= 15, "{}", node.host_link);
        }
    }

    #[test]
    fn a_free_index_is_the_lowest_one() {
        assert_eq!(free_index(&[layout(0), layout(2)]).unwrap(), 1);
        assert!(free_index(&(0..CLUSTERS_MAX).map(layout).collect::<Vec<_>>()).is_err());
    }

    #[test]
    fn names_that_would_leave_their_folder_are_refused() {
        for bad in ["", "..", "a/b", "Upper", "-x", "seventeen-letters"] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
        check_name("default").unwrap();
    }
}
