//! One control plane in this process, gone with the test.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod, ServiceAccount};
use k8s_openapi::{ClusterResourceScope, NamespaceResourceScope};
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use kube::{Client, Resource};
use penstock_apiserver::{ApiServer, ClusterInfo, Registry, RegistryConfig, ServerConfig, User};
use penstock_cloud::CloudConfig;
use penstock_controllers::{ControllersConfig, Secret};
use penstock_informers::cache::Cached;
use penstock_informers::{Informers, Meta};
use penstock_scheduler::SchedulerConfig;
use penstock_store::embedded::Embedded;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::stand_in;

/// Longer than any step takes on a slow machine; a test that waits so long fails.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A running control plane.
pub struct Cluster {
    pub client: Client,
    _stop: DropGuard,
    _directory: TempDir,
}

// === impl Cluster ===

impl Cluster {
    /// A control plane with the usual settings and these ready nodes.
    pub async fn start(nodes: &[&str]) -> Self {
        Self::start_with(nodes, ControllersConfig::default(), CloudConfig::default()).await
    }

    pub async fn start_with(nodes: &[&str], mut controllers: ControllersConfig, cloud: CloudConfig) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let store = Embedded::open(&directory.path().join("store.redb")).await.expect("a store");
        let localhost = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let config = RegistryConfig {
            service_cidrs: vec!["10.96.0.0/16".parse().expect("a range")],
            node_ports: (30000, 32767),
            cluster_dns: vec!["10.96.0.10".parse().expect("an address")],
            cluster_domain: "cluster.local".into(),
            advertise_address: localhost,
            advertise_port: 6443,
        };
        let registry = Registry::new(store, config).await.expect("a registry");
        let mut config = ServerConfig::new((localhost, 0).into(), localhost);
        let key = rcgen::KeyPair::generate().expect("a key");
        config.service_account_key_pem = key.serialize_pem().into_bytes();
        config.cluster_info = Some(ClusterInfo {
            server: "https://127.0.0.1:6443".into(),
            authority_pem: "the authority".into(),
        });
        controllers.token_key_pem = Some(Secret(key.serialize_pem()));
        controllers.root_ca_pem = Some("the authority".to_owned());
        let server = ApiServer::new(registry, config).await.expect("an API server");
        let client = server.client(User {
            name: "system:kube-controller-manager".into(),
            groups: vec!["system:masters".into(), "system:authenticated".into()],
            ..User::default()
        });

        let stop = CancellationToken::new();
        let informers = Informers::new(client.clone(), stop.clone());
        tokio::spawn(penstock_controllers::run_all_shared(informers.clone(), controllers, stop.clone()));
        tokio::spawn(penstock_scheduler::run_shared(
            informers.clone(),
            SchedulerConfig::default(),
            stop.clone(),
        ));
        tokio::spawn(penstock_cloud::run_shared(informers.clone(), cloud, stop.clone()));
        tokio::spawn(stand_in::run(informers, stop.clone()));
        let cluster = Self { client, _stop: stop.drop_guard(), _directory: directory };
        // Without it no pod is accepted.
        cluster.until::<ServiceAccount>("default", |_| true).await;
        for name in nodes {
            cluster.add_node(name).await;
        }
        cluster
    }

    /// The API of a kind in namespace `default`.
    pub fn api<K>(&self) -> Api<K>
    where
        K: Cached + Resource<Scope = NamespaceResourceScope>,
    {
        Api::default_namespaced(self.client.clone())
    }

    /// The API of a kind that has no namespace.
    pub fn global<K>(&self) -> Api<K>
    where
        K: Cached + Resource<Scope = ClusterResourceScope>,
    {
        Api::all(self.client.clone())
    }

    /// Creates an object in namespace `default`.
    pub async fn create<K>(&self, object: Value) -> K
    where
        K: Cached + Resource<Scope = NamespaceResourceScope>,
    {
        let typed: K = serde_json::from_value(object).expect("a typed object");
        let created = self.api::<K>().create(&PostParams::default(), &typed).await;
        created.expect("the object is accepted")
    }

    /// Applies a merge patch to an object in namespace `default`.
    pub async fn merge<K>(&self, name: &str, patch: Value) -> K
    where
        K: Cached + Resource<Scope = NamespaceResourceScope>,
    {
        let patched = self.api::<K>().patch(name, &PatchParams::default(), &Patch::Merge(patch)).await;
        patched.expect("the patch is accepted")
    }

    /// Waits until the object of namespace `default` is as wanted, and returns it.
    pub async fn until<K>(&self, name: &str, wanted: impl Fn(&K) -> bool) -> K
    where
        K: Cached + Resource<Scope = NamespaceResourceScope>,
    {
        let api = self.api::<K>();
        eventually(&format!("{} {name}", K::kind(&())), async || {
            let found = api.get_opt(name).await.expect("a read");
            match found {
                Some(object) if wanted(&object) => Ok(object),
                other => Err(serde_json::to_string_pretty(&other).unwrap_or_default()),
            }
        })
        .await
    }

    /// Waits until the objects of a kind in namespace `default` are as wanted, and returns them.
    pub async fn until_all<K>(&self, wanted: impl Fn(&[K]) -> bool) -> Vec<K>
    where
        K: Cached + Resource<Scope = NamespaceResourceScope>,
    {
        let api = self.api::<K>();
        eventually(&format!("all {}", K::plural(&())), async || {
            let items = api.list(&ListParams::default()).await.expect("a list").items;
            if wanted(&items) {
                Ok(items)
            } else {
                Err(serde_json::to_string_pretty(&items).unwrap_or_default())
            }
        })
        .await
    }

    /// Waits until the object of namespace `default` is gone.
    pub async fn until_gone<K>(&self, name: &str)
    where
        K: Cached + Resource<Scope = NamespaceResourceScope>,
    {
        let api = self.api::<K>();
        eventually(&format!("{} {name} gone", K::kind(&())), async || {
            match api.get_opt(name).await.expect("a read") {
                None => Ok(()),
                other => Err(serde_json::to_string_pretty(&other).unwrap_or_default()),
            }
        })
        .await;
    }

    /// A node with room for 100 pods that reports itself ready.
    pub async fn add_node(&self, name: &str) {
        let node = json!({"metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}}});
        let node: Node = serde_json::from_value(node).expect("a node");
        let api = self.global::<Node>();
        api.create(&PostParams::default(), &node).await.expect("a node");
        let room = json!({"cpu": "8", "memory": "16Gi", "pods": "100"});
        let status = json!({"status": {
            "capacity": room, "allocatable": room,
            "addresses": [{"type": "InternalIP", "address": "10.240.0.11"}],
        }});
        api.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await.expect("a status");
        self.beat(name).await;
    }

    /// The node says that it is ready, now.
    pub async fn beat(&self, name: &str) {
        let now = jiff::Timestamp::now().to_string();
        let status = json!({"status": {"conditions": [{
            "type": "Ready", "status": "True", "reason": "KubeletReady",
            "lastHeartbeatTime": now, "lastTransitionTime": now,
        }]}});
        self.global::<Node>()
            .patch_status(name, &PatchParams::default(), &Patch::Strategic(status))
            .await
            .expect("a status");
    }
}

/// Pods that are not on their way out.
pub fn staying(pods: &[Pod]) -> Vec<&Pod> {
    pods.iter().filter(|p| !p.deleting()).collect()
}

/// Looks until `look` succeeds; fails the test with what it saw last.
pub async fn eventually<T>(what: &str, look: impl AsyncFn() -> Result<T, String>) -> T {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let mut tick = tokio::time::interval(LOOK_EVERY);
    loop {
        tick.tick().await;
        match look().await {
            Ok(value) => return value,
            Err(seen) if tokio::time::Instant::now() > deadline => panic!("{what}: last seen as {seen}"),
            Err(_) => {}
        }
    }
}
