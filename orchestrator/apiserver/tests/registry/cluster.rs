//! A registry in a temporary directory, and short ways to talk to it.

use std::net::SocketAddr;
use std::sync::Arc;

use penstock_apiserver::error::ApiError;
use penstock_apiserver::registry::{
    Body, Context, Definition, DeleteOptions, DeleteOutcome, ListOptions, PatchKind, Registry,
    RegistryConfig, Target, User,
};
use penstock_store::embedded::Embedded;
use penstock_store::{Expect, Mutation, Store as _, Write};
use serde_json::{Value, json};

pub struct Cluster {
    pub registry: Arc<Registry>,
    store: Arc<Embedded>,
    _dir: tempfile::TempDir,
}

pub fn config() -> RegistryConfig {
    RegistryConfig {
        service_cidrs: vec!["10.96.0.0/16".parse().unwrap()],
        node_ports: (30000, 32767),
        cluster_dns: vec!["10.96.0.10".parse().unwrap()],
        cluster_domain: "cluster.local".into(),
        advertise_address: "10.240.0.1".parse().unwrap(),
        advertise_port: 6443,
    }
}

pub fn context() -> Context {
    Context::new(User::system("test"))
}

impl Cluster {
    pub async fn start() -> Self {
        Self::start_with(config()).await
    }

    pub async fn start_with(config: RegistryConfig) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Embedded::open(&dir.path().join("t.redb")).await.unwrap();
        let registry = Registry::new(store.clone(), config).await.unwrap();
        Self { registry, store, _dir: dir }
    }

    /// Another start over what is in the store.
    pub async fn start_again_with(self, config: RegistryConfig) -> Self {
        let Self { registry, store, _dir } = self;
        drop(registry);
        let registry = Registry::new(store.clone(), config).await.unwrap();
        Self { registry, store, _dir }
    }

    pub fn kind(&self, plural: &str) -> Arc<Definition> {
        self.registry.definitions().into_iter().find(|d| d.plural == plural).unwrap()
    }

    pub async fn create(&self, plural: &str, object: Value) -> Result<Value, ApiError> {
        let target = Target::collection(self.kind(plural).namespaced.then_some("default"));
        let body = Body::Json(object.to_string().into());
        let outcome = self.registry.create(&context(), &self.kind(plural), &target, body).await?;
        assert!(outcome.created);
        Ok(outcome.object.value())
    }

    /// Stores an object as it is, past everything that would refuse it: a slice with a loopback address.
    pub async fn plant(&self, plural: &str, object: Value) {
        let definition = self.kind(plural);
        let key = format!(
            "/registry/{}/{plural}/default/{}",
            definition.group,
            object["metadata"]["name"].as_str().unwrap()
        );
        let value = object.to_string().into();
        let mutation = Mutation::Put { value, lease_ttl_seconds: None };
        self.store.commit(Write { key, expect: Expect::Absent, mutation }).await.unwrap();
    }

    /// A Service whose only endpoint is `address`.
    pub async fn service_at(&self, name: &str, address: SocketAddr) {
        self.create("services", json!({"metadata": {"name": name}, "spec": {"ports": [{"port": 443}]}}))
            .await
            .unwrap();
        let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": name, "namespace": "default", "labels": {"kubernetes.io/service-name": name}},
            "addressType": "IPv4", "ports": [{"name": "", "port": address.port(), "protocol": "TCP"}],
            "endpoints": [{"addresses": [address.ip()], "conditions": {"ready": true}}]});
        self.plant("endpointslices", slice).await;
    }

    /// Waits until what is stored of a kind is what everybody sees.
    pub async fn settle(&self, plural: &str) {
        let (kind, all) = (self.kind(plural), Target::collection(None));
        self.registry.list(&context(), &kind, &all, &ListOptions::default()).await.unwrap();
    }

    pub fn target(&self, plural: &str, name: &str) -> Target {
        Target::named(self.kind(plural).namespaced.then_some("default"), name)
    }

    pub async fn get(&self, plural: &str, name: &str) -> Result<Value, ApiError> {
        let found = self.registry.get(&context(), &self.kind(plural), &self.target(plural, name)).await?;
        Ok(found.value())
    }

    pub async fn update(&self, plural: &str, sub: Option<&str>, object: &Value) -> Result<Value, ApiError> {
        let mut target = self.target(plural, object["metadata"]["name"].as_str().unwrap());
        target.subresource = sub.map(Into::into);
        let body = Body::Json(object.to_string().into());
        Ok(self.registry.update(&context(), &self.kind(plural), &target, body).await?.object.value())
    }

    pub async fn merge(&self, plural: &str, name: &str, patch: Value) -> Result<Value, ApiError> {
        let target = self.target(plural, name);
        let body = patch.to_string().into();
        let outcome =
            self.registry.patch(&context(), &self.kind(plural), &target, PatchKind::Merge, body).await?;
        Ok(outcome.object.value())
    }

    pub async fn delete(
        &self,
        plural: &str,
        name: &str,
        options: DeleteOptions,
    ) -> Result<DeleteOutcome, ApiError> {
        self.registry.delete(&context(), &self.kind(plural), &self.target(plural, name), &options).await
    }

    /// A pod needs its account.
    pub async fn with_account(self) -> Self {
        self.create("serviceaccounts", json!({"metadata": {"name": "default"}})).await.unwrap();
        self
    }
}

pub fn pod(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"containers": [{"name": "c", "image": "i"}]}})
}
