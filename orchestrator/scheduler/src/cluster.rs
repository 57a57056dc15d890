//! The scheduler's picture of the cluster: nodes, the pods on them, and pods it has just placed but the API does
//! not show there yet. Nodes are shared by `Arc`, so that a what-if copy costs a map of pointers.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use penstock_informers::{Key, Meta};

use crate::resources::{Resources, allocatable, requests, requests_with_defaults};

/// A port of the node a pod takes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostPort {
    /// Empty for all addresses.
    pub address: String,
    pub protocol: String,
    pub port: i32,
}

impl HostPort {
    /// Whether the two cannot be open at once.
    pub fn clashes(&self, other: &Self) -> bool {
        self.port == other.port
            && self.protocol == other.protocol
            && (self.address == other.address || self.address.is_empty() || other.address.is_empty())
    }
}

/// The host ports a pod takes.
pub fn host_ports(pod: &Pod) -> Vec<HostPort> {
    let Some(spec) = &pod.spec else { return Vec::new() };
    let sidecars =
        spec.init_containers.iter().flatten().filter(|c| c.restart_policy.as_deref() == Some("Always"));
    let ports = spec.containers.iter().chain(sidecars).flat_map(|c| c.ports.iter().flatten());
    ports
        .filter_map(|p| {
            let port = p.host_port.filter(|p| *p > 0)?;
            let address = p.host_ip.clone().filter(|a| a != "0.0.0.0" && a != "::").unwrap_or_default();
            Some(HostPort { address, protocol: p.protocol.clone().unwrap_or_else(|| "TCP".into()), port })
        })
        .collect()
}

/// A pod with what was worked out of it once.
#[derive(Clone, Debug)]
pub struct Placed {
    pub pod: Arc<Pod>,
    pub requests: Arc<Resources>,
    pub scored_requests: Arc<Resources>,
    pub ports: Arc<Vec<HostPort>>,
}

impl Placed {
    /// Works out what a pod takes.
    pub fn new(pod: Arc<Pod>) -> Self {
        Self {
            requests: Arc::new(requests(&pod)),
            scored_requests: Arc::new(requests_with_defaults(&pod)),
            ports: Arc::new(host_ports(&pod)),
            pod,
        }
    }
}

/// A node and what is on it.
#[derive(Clone, Debug)]
pub struct NodeState {
    pub node: Arc<Node>,
    pub allocatable: Resources,
    pub requested: Resources,
    pub scored_requested: Resources,
    /// By UID.
    pub pods: BTreeMap<String, Placed>,
}

impl NodeState {
    /// An empty node.
    pub fn new(node: Arc<Node>) -> Self {
        Self {
            allocatable: allocatable(&node),
            node,
            requested: Resources::default(),
            scored_requested: Resources::default(),
            pods: BTreeMap::new(),
        }
    }

    /// The node's name.
    pub fn name(&self) -> &str {
        self.node.name()
    }

    /// The value of a label of the node.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.node.metadata.labels.as_ref()?.get(key).map(String::as_str)
    }

    /// Puts a pod on the node, or replaces what is known of it.
    pub fn put(&mut self, placed: Placed) {
        self.take(placed.pod.uid_str());
        self.requested.add(&placed.requests);
        self.scored_requested.add(&placed.scored_requests);
        self.pods.insert(placed.pod.uid_str().to_owned(), placed);
    }

    /// Takes a pod off the node.
    pub fn take(&mut self, uid: &str) -> Option<Placed> {
        let placed = self.pods.remove(uid)?;
        self.requested.subtract(&placed.requests);
        self.scored_requested.subtract(&placed.scored_requests);
        Some(placed)
    }
}

/// Everything a scheduling decision looks at.
#[derive(Clone, Default)]
pub struct Cluster {
    pub nodes: BTreeMap<String, Arc<NodeState>>,
    /// Pods bound to nodes that are not there (yet), by node.
    pub strays: HashMap<String, BTreeMap<String, Placed>>,
    /// Which node each placed pod (by UID) is on.
    pub node_of: HashMap<String, String>,
    /// Pods that have been promised room on a node by preemption, by node.
    pub nominated: HashMap<String, Vec<Placed>>,
    pub namespace_labels: HashMap<String, BTreeMap<String, String>>,
    pub claims: HashMap<Key, Arc<PersistentVolumeClaim>>,
    pub volumes: HashMap<String, Arc<PersistentVolume>>,
    pub classes: HashMap<String, Arc<StorageClass>>,
}

impl Cluster {
    /// Takes in a node that appeared or changed.
    pub fn put_node(&mut self, node: Arc<Node>) {
        let mut state = NodeState::new(node);
        let name = state.name().to_owned();
        let pods = match self.nodes.get(&name) {
            Some(old) => old.pods.clone(),
            None => self.strays.remove(&name).unwrap_or_default(),
        };
        pods.into_values().for_each(|p| state.put(p));
        self.nodes.insert(name, Arc::new(state));
    }

    /// Takes out a node; its pods stay known in case it returns.
    pub fn remove_node(&mut self, name: &str) {
        if let Some(state) = self.nodes.remove(name)
            && !state.pods.is_empty()
        {
            self.strays.insert(name.to_owned(), state.pods.clone());
        }
    }

    /// Puts a pod on a node, whether bound or only assumed.
    pub fn put_pod(&mut self, node: &str, placed: Placed) {
        let uid = placed.pod.uid_str().to_owned();
        if let Some(before) = self.node_of.insert(uid.clone(), node.to_owned())
            && before != node
        {
            self.take_from(&before, &uid);
        }
        match self.nodes.get_mut(node) {
            Some(state) => Arc::make_mut(state).put(placed),
            None => {
                self.strays.entry(node.to_owned()).or_default().insert(uid, placed);
            }
        }
    }

    /// Takes a pod away from wherever it is; returns the node it was on.
    pub fn remove_pod(&mut self, uid: &str) -> Option<String> {
        let node = self.node_of.remove(uid)?;
        self.take_from(&node, uid);
        Some(node)
    }

    fn take_from(&mut self, node: &str, uid: &str) {
        if let Some(state) = self.nodes.get_mut(node) {
            Arc::make_mut(state).take(uid);
        } else if let Some(pods) = self.strays.get_mut(node) {
            pods.remove(uid);
            if pods.is_empty() {
                self.strays.remove(node);
            }
        }
    }

    /// Promises a pod room on a node.
    pub fn nominate(&mut self, node: &str, placed: Placed) {
        self.withdraw(placed.pod.uid_str());
        self.nominated.entry(node.to_owned()).or_default().push(placed);
    }

    /// Ends a promise.
    pub fn withdraw(&mut self, uid: &str) {
        self.nominated.retain(|_, pods| {
            pods.retain(|p| p.pod.uid_str() != uid);
            !pods.is_empty()
        });
    }

    /// The cluster with one node changed: what would be if.
    pub fn with_node(&self, state: Arc<NodeState>) -> Self {
        let mut nodes = self.nodes.clone();
        nodes.insert(state.name().to_owned(), state);
        Self {
            nodes,
            strays: HashMap::new(),
            node_of: HashMap::new(),
            nominated: HashMap::new(),
            namespace_labels: self.namespace_labels.clone(),
            claims: self.claims.clone(),
            volumes: self.volumes.clone(),
            classes: self.classes.clone(),
        }
    }
}
