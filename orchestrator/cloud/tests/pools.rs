//! Address pools against a real API server in this process: the kind is installed, Services get addresses, and a
//! restart changes nothing.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Event, Node, Service};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Client, Resource};
use penstock_apiserver::{ApiServer, Registry, RegistryConfig, ServerConfig, User};
use penstock_cloud::address_pool::AddressPool;
use penstock_cloud::load_balancers::{CONDITION, POOL_ANNOTATION, SHARE_ANNOTATION};
use penstock_cloud::{CloudConfig, run};
use penstock_store::embedded::Embedded;
use rcgen::{CertificateParams, KeyPair};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(60);

/// A server and its client; gone with the test.
struct Lab {
    client: Client,
    _server: ApiServer,
    _directory: tempfile::TempDir,
}

impl Lab {
    async fn start() -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        let store = Embedded::open(&directory.path().join("store.redb")).await?;
        let localhost = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let config = RegistryConfig {
            service_cidrs: vec!["10.96.0.0/16".parse()?],
            node_ports: (30000, 32767),
            cluster_dns: vec!["10.96.0.10".parse()?],
            cluster_domain: "cluster.local".into(),
            advertise_address: localhost,
            advertise_port: 6443,
        };
        let registry = Registry::new(store, config).await?;
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new(vec!["localhost".to_owned()])?.self_signed(&key)?;
        let mut config = ServerConfig::new((localhost, 6443).into(), localhost);
        config.kubelet_ca_pem = certificate.pem().into_bytes();
        config.kubelet_client_certificate_pem = config.kubelet_ca_pem.clone();
        config.kubelet_client_key_pem = key.serialize_pem().into_bytes();
        config.service_account_key_pem = KeyPair::generate()?.serialize_pem().into_bytes();
        let server = ApiServer::new(registry, config).await?;
        Ok(Self { client: server.client(User::system("test")), _server: server, _directory: directory })
    }

    /// Runs the loops until the guard is dropped.
    fn run_loops(&self) -> tokio_util::sync::DropGuard {
        let stop = CancellationToken::new();
        tokio::spawn(run(self.client.clone(), CloudConfig::default(), stop.clone()));
        stop.drop_guard()
    }

    fn services(&self) -> Api<Service> {
        Api::namespaced(self.client.clone(), "default")
    }

    async fn pool(&self, name: &str, addresses: Value) -> anyhow::Result<()> {
        let pool: AddressPool =
            serde_json::from_value(json!({"metadata": {"name": name}, "spec": {"addresses": addresses}}))?;
        let api: Api<AddressPool> = Api::all(self.client.clone());
        eventually("the pool is accepted", async || api.create(&PostParams::default(), &pool).await.ok())
            .await;
        Ok(())
    }

    async fn service(&self, name: &str, port: i32, annotations: Value) -> anyhow::Result<()> {
        let service: Service = serde_json::from_value(json!({
            "metadata": {"name": name, "annotations": annotations},
            "spec": {"type": "LoadBalancer", "ports": [{"port": port}]},
        }))?;
        self.services().create(&PostParams::default(), &service).await?;
        Ok(())
    }

    /// The address and the condition's reason of a Service, once `wanted` holds.
    async fn told(&self, name: &str, wanted: impl Fn(&str, &str) -> bool) -> (String, String) {
        eventually(name, async || {
            let service = self.services().get(name).await.ok()?;
            let (address, reason) = state(&service);
            wanted(&address, &reason).then_some((address, reason))
        })
        .await
    }
}

fn state(service: &Service) -> (String, String) {
    let status = service.status.clone().unwrap_or_default();
    let ingress = status.load_balancer.and_then(|b| b.ingress).unwrap_or_default();
    let conditions = status.conditions.unwrap_or_default();
    let reason = conditions.into_iter().find(|c| c.type_ == CONDITION).map(|c| c.reason).unwrap_or_default();
    (ingress.into_iter().next().and_then(|i| i.ip).unwrap_or_default(), reason)
}

/// Polls: what is awaited happens in loops of their own.
async fn eventually<T>(what: &str, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let waited = tokio::time::timeout(PATIENCE, async {
        loop {
            if let Some(found) = probe().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("waited in vain: {what}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn services_get_addresses_share_them_and_give_them_back() -> anyhow::Result<()> {
    let lab = Lab::start().await?;
    let loops = lab.run_loops();
    lab.service("early", 80, json!({})).await?;
    lab.told("early", |_, reason| reason == "NoAddressPool").await;
    let events: Api<Event> = Api::namespaced(lab.client.clone(), "default");
    eventually("an event says so", async || {
        let all = events.list(&ListParams::default()).await.ok()?;
        all.items.into_iter().find(|e| {
            let message = e.message.as_deref().unwrap_or_default();
            e.reason.as_deref() == Some("SyncLoadBalancerFailed") && message.contains("create an AddressPool")
        })
    })
    .await;

    lab.pool("lan", json!(["192.0.2.10-192.0.2.11"])).await?;
    let (first, _) = lab.told("early", |_, reason| reason == "Assigned").await;
    assert_eq!(first, "192.0.2.10");
    lab.service("web", 80, json!({SHARE_ANNOTATION: "front"})).await?;
    let (web, _) = lab.told("web", |_, reason| reason == "Assigned").await;
    lab.service("tls", 443, json!({SHARE_ANNOTATION: "front"})).await?;
    let (tls, _) = lab.told("tls", |_, reason| reason == "Assigned").await;
    assert_eq!((web.as_str(), tls.as_str()), ("192.0.2.11", "192.0.2.11"));
    lab.service("late", 80, json!({})).await?;
    lab.told("late", |_, reason| reason == "AddressPoolExhausted").await;

    let pools: Api<AddressPool> = Api::all(lab.client.clone());
    eventually("the pool counts", async || {
        let status = pools.get("lan").await.ok()?.status?;
        (status.total == 2 && status.free == 0 && status.conditions[0].reason == "Exhausted").then_some(())
    })
    .await;

    // What a change of type gives up, the one who waits gets.
    let cluster_ip = json!({"spec": {"type": "ClusterIP"}});
    lab.services().patch("early", &PatchParams::default(), &Patch::Merge(cluster_ip)).await?;
    assert_eq!(lab.told("late", |_, reason| reason == "Assigned").await.0, "192.0.2.10");
    lab.told("early", |address, reason| address.is_empty() && reason.is_empty()).await;

    // A restart changes nothing, even where a lower address is free.
    lab.services().delete("late", &DeleteParams::default()).await?;
    eventually("an address is free", async || (pools.get("lan").await.ok()?.status?.free == 1).then_some(()))
        .await;
    drop(loops);
    let version = |service: &Service| service.meta().resource_version.clone();
    let before = version(&lab.services().get("web").await?);
    let _loops = lab.run_loops();
    lab.service("after", 80, json!({POOL_ANNOTATION: "lan"})).await?;
    assert_eq!(lab.told("after", |_, reason| reason == "Assigned").await.0, "192.0.2.10");
    assert_eq!(version(&lab.services().get("web").await?), before, "nothing was written");

    // With its pool an address goes.
    pools.delete("lan", &DeleteParams::default()).await?;
    lab.told("web", |address, reason| address.is_empty() && reason == "NoAddressPool").await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_node_that_says_it_announces_an_address_is_named_by_a_condition_and_an_event()
-> anyhow::Result<()> {
    let lab = Lab::start().await?;
    let _loops = lab.run_loops();
    lab.pool("lan", json!(["192.0.2.10/32"])).await?;
    lab.service("web", 80, json!({})).await?;
    lab.told("web", |_, reason| reason == "Assigned").await;
    let announced = async |wanted: &str| {
        eventually(wanted, async || {
            let status = lab.services().get("web").await.ok()?.status?;
            let conditions = status.conditions?;
            let condition = conditions.into_iter().find(|c| c.type_ == "AddressAnnounced")?;
            condition.message.starts_with(wanted).then_some((condition.status, condition.reason))
        })
        .await
    };
    let nobody = announced("no node announces 192.0.2.10").await;
    assert_eq!(nobody, ("False".to_owned(), "NoAnnouncingNode".to_owned()));

    let nodes: Api<Node> = Api::all(lab.client.clone());
    for (name, since) in [("a", "2026-01-01T00:00:01Z"), ("b", "2026-01-01T00:00:02Z")] {
        let says = json!({"192.0.2.10": since}).to_string();
        let node = json!({"metadata": {"name": name, "annotations": {"penstock.io/announces": says}}});
        nodes.create(&PostParams::default(), &serde_json::from_value(node)?).await?;
        let said = format!("{name} announces 192.0.2.10");
        assert_eq!(announced(&said).await, ("True".to_owned(), "Announced".to_owned()));
        let events: Api<Event> = Api::namespaced(lab.client.clone(), "default");
        eventually("an event says so", async || {
            let all = events.list(&ListParams::default()).await.ok()?;
            all.items.into_iter().find(|e| {
                e.reason.as_deref() == Some("AddressAnnounced") && e.message.as_deref() == Some(&said)
            })
        })
        .await;
    }
    nodes.delete("b", &DeleteParams::default()).await?;
    announced("a announces").await;
    Ok(())
}
