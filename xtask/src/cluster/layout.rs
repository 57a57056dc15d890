//! Where everything of one cluster lies: paths, names and addresses, all derived from its name, index and node count.
//!
//! Pure but for [`Layout::load`], [`Layout::save`] and [`Layout::all`], which keep the description of a running cluster under `/run`.

use std::net::{Ipv4Addr, Ipv6Addr};
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
    /// Whether nodes, pods and Services have IPv6 addresses beside those of IPv4.
    #[serde(default)]
    pub dual_stack: bool,
    /// Our own programs that the cluster runs.
    pub binaries: PathBuf,
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
    pub address: Ipv4Addr,
    /// In a cluster of two families.
    pub address_v6: Option<Ipv6Addr>,
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

    pub fn server_url(&self) -> String {
        format!("https://{}:{}", self.host_address(), self.port)
    }

    pub fn bridge(&self) -> String {
        format!("penstock{}", self.index)
    }

    pub fn host_address(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 240, self.index, 1)
    }

    /// Addresses of the node network that are no node's, for load balancers, one range a family.
    pub fn load_balancer_addresses(&self) -> Vec<String> {
        let second =
            self.v6(0x240, 200).zip(self.v6(0x240, 239)).map(|(first, last)| format!("{first}-{last}"));
        [format!("10.240.{0}.200-10.240.{0}.239", self.index)].into_iter().chain(second).collect()
    }

    pub fn host_address_v6(&self) -> Option<Ipv6Addr> {
        self.v6(0x240, 1)
    }

    /// Of pods, one range a family.
    pub fn cluster_cidrs(&self) -> Vec<String> {
        let second = self.v6(0x244, 0).map(|address| format!("{address}/56"));
        [format!("10.{}.0.0/16", 244 + u16::from(self.index))].into_iter().chain(second).collect()
    }

    /// Of Services, one range a family.
    pub fn service_cidrs(&self) -> Vec<String> {
        let second = self.v6(0x96, 0).map(|address| format!("{address}/112"));
        [format!("10.{}.0.0/16", 96 + u16::from(self.index))].into_iter().chain(second).collect()
    }

    /// One a family.
    pub fn cluster_dns(&self) -> Vec<String> {
        let second = self.v6(0x96, 10).map(|address| address.to_string());
        [Ipv4Addr::new(10, 96 + self.index, 0, 10).to_string()].into_iter().chain(second).collect()
    }

    /// A unique local address (RFC 4193) of this cluster.
    fn v6(&self, subnet: u16, host: u16) -> Option<Ipv6Addr> {
        let address = Ipv6Addr::new(0xfd00, subnet, u16::from(self.index), 0, 0, 0, 0, host);
        self.dual_stack.then_some(address)
    }

    /// The cluster's folder in every cgroup tree.
    pub fn cgroup(&self) -> String {
        format!("/penstock/{}", self.name)
    }

    pub fn nodes(&self) -> Vec<NodeLayout> {
        (1..=self.node_count).map(|number| self.node(number)).collect()
    }

    fn node(&self, number: u16) -> NodeLayout {
        let name = format!("node-{number}");
        let last_octet = u8::try_from(10 + number).expect("NODES_MAX keeps the last octet below 91");
        NodeLayout {
            netns: format!("{}-{name}", self.bridge()),
            address: Ipv4Addr::new(10, 240, self.index, last_octet),
            address_v6: self.v6(0x240, u16::from(last_octet)),
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

    /// Its addresses as the agent is told them.
    pub fn addresses(&self) -> String {
        let second = self.address_v6.map(|address| format!(",{address}"));
        format!("{}{}", self.address, second.unwrap_or_default())
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
            dual_stack: true,
            binaries,
        }
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
            assert_ne!(layout(0).host_address_v6(), layout(index).host_address_v6());
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
