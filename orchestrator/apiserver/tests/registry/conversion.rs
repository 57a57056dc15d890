//! Versions of a custom kind that a webhook converts, against a real HTTPS server.

use axum::body::Body;
use futures::StreamExt;
use http::Response;
use penstock_apiserver::error::ApiError;
use penstock_apiserver::registry::{
    Body as ObjectBody, Definition, DeleteOptions, ListOptions, PatchKind, Target, WatchItem,
};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::cluster::{Cluster, context};
use crate::custom::eventually;
use crate::https::{HttpsServer, json_answer};

const NAME: &str = "routes.net.example.com";

/// `hostPort` in v1 is `host` and `port` in v2.
fn convert(question: &Value) -> Response<Body> {
    let wanted = question["request"]["desiredAPIVersion"].as_str().unwrap();
    let objects: Vec<Value> = question["request"]["objects"]
        .as_array()
        .unwrap()
        .iter()
        .map(|object| {
            assert_ne!(object["apiVersion"], wanted, "only what is not in the version yet");
            let mut made = object.clone();
            made["apiVersion"] = wanted.into();
            // What a converter must not change, it does not.
            made["metadata"]["creationTimestamp"] = Value::Null;
            let map = made.as_object_mut().unwrap();
            if wanted.ends_with("/v2") {
                let text = map.remove("hostPort").unwrap_or_default();
                if let Some((host, port)) = text.as_str().unwrap_or_default().split_once(':') {
                    map.insert("host".into(), host.into());
                    map.insert("port".into(), port.into());
                }
            } else {
                let (host, port) = (map.remove("host"), map.remove("port"));
                if let (Some(Value::String(host)), Some(Value::String(port))) = (host, port) {
                    map.insert("hostPort".into(), format!("{host}:{port}").into());
                }
            }
            made
        })
        .collect();
    json_answer(&json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview", "response": {
        "uid": question["request"]["uid"], "result": {"status": "Success"}, "convertedObjects": objects}}))
}

fn definition(server: &HttpsServer, stored: &str) -> Value {
    let version = |name: &str, fields: &[&str]| {
        let properties: serde_json::Map<String, Value> =
            fields.iter().map(|field| ((*field).to_owned(), json!({"type": "string"}))).collect();
        json!({"name": name, "served": true, "storage": name == stored,
            "schema": {"openAPIV3Schema": {"type": "object", "properties": properties}}})
    };
    json!({"metadata": {"name": NAME}, "spec": {"group": "net.example.com", "scope": "Namespaced",
        "names": {"plural": "routes", "singular": "route", "kind": "Route", "listKind": "RouteList"},
        "versions": [version("v1", &["hostPort"]), version("v2", &["host", "port"])],
        "conversion": {"strategy": "Webhook", "webhook": {
            "clientConfig": server.client("/convert"), "conversionReviewVersions": ["v1"]}}}})
}

struct Routes {
    cluster: Cluster,
    server: HttpsServer,
    broken: Arc<AtomicBool>,
}

impl Routes {
    async fn start() -> Self {
        let broken = Arc::new(AtomicBool::new(false));
        let fails = broken.clone();
        let server = HttpsServer::start(&[], move |_, question| {
            if fails.load(Ordering::Relaxed) {
                return json_answer(
                    &json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview",
                    "response": {"uid": question["request"]["uid"],
                        "result": {"status": "Failure", "message": "out of order"}}}),
                );
            }
            convert(question)
        })
        .await;
        let cluster = Cluster::start().await;
        cluster.create("customresourcedefinitions", definition(&server, "v1")).await.unwrap();
        let routes = Self { cluster, server, broken };
        eventually("routes are served", async || {
            routes.cluster.registry.find("net.example.com", "v2", "routes")
        })
        .await;
        routes
    }

    fn version(&self, version: &str) -> Arc<Definition> {
        self.cluster.registry.find("net.example.com", version, "routes").unwrap()
    }

    async fn create(&self, version: &str, name: &str, fields: Value) -> Result<Value, ApiError> {
        let mut object = json!({"apiVersion": format!("net.example.com/{version}"), "kind": "Route",
            "metadata": {"name": name}});
        object.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let target = Target::collection(Some("default"));
        let body = ObjectBody::Json(object.to_string().into());
        let made = self.cluster.registry.create(&context(), &self.version(version), &target, body).await;
        made.map(|outcome| outcome.object.value())
    }

    async fn get(&self, version: &str, name: &str) -> Result<Value, ApiError> {
        let target = Target::named(Some("default"), name);
        let got = self.cluster.registry.get(&context(), &self.version(version), &target).await;
        got.map(|object| object.value())
    }

    async fn list(&self, version: &str) -> Vec<Value> {
        let target = Target::collection(Some("default"));
        let options = ListOptions::default();
        let listed = self.cluster.registry.list(&context(), &self.version(version), &target, &options).await;
        listed.unwrap().items.iter().map(|item| item.value()).collect()
    }

    fn questions(&self) -> usize {
        self.server.asked.lock().len()
    }
}

#[tokio::test]
async fn objects_are_read_and_written_in_every_version() {
    let routes = Routes::start().await;
    let made = routes.create("v1", "a", json!({"hostPort": "localhost:80"})).await.unwrap();
    assert_eq!(routes.questions(), 0, "what is stored as it is written takes no conversion");
    let read = routes.get("v2", "a").await.unwrap();
    assert_eq!((&read["host"], &read["port"]), (&json!("localhost"), &json!("80")));
    assert!(read.get("hostPort").is_none());
    assert_eq!(read["metadata"]["creationTimestamp"], made["metadata"]["creationTimestamp"]);
    assert_eq!(read["metadata"]["resourceVersion"], made["metadata"]["resourceVersion"]);
    routes.get("v2", "a").await.unwrap();
    assert_eq!(routes.questions(), 1, "an object is converted once");

    routes.create("v2", "b", json!({"host": "h", "port": "1"})).await.unwrap();
    assert_eq!(routes.get("v1", "b").await.unwrap()["hostPort"], "h:1");
    let target = Target::named(Some("default"), "b");
    let patch = json!({"port": "2"}).to_string().into();
    let version = routes.version("v2");
    let patched = routes.cluster.registry.patch(&context(), &version, &target, PatchKind::Merge, patch).await;
    assert_eq!(patched.unwrap().object.value()["port"], "2");
    assert_eq!(routes.get("v1", "b").await.unwrap()["hostPort"], "h:2");
}

#[tokio::test]
async fn a_list_of_mixed_versions_is_converted_at_once_and_watched_in_one_version() {
    let routes = Routes::start().await;
    for name in ["a", "b", "c"] {
        routes.create("v1", name, json!({"hostPort": "x:1"})).await.unwrap();
    }
    let crds = routes.cluster.kind("customresourcedefinitions");
    let versions = definition(&routes.server, "v2")["spec"]["versions"].clone();
    let patch = json!({"spec": {"versions": versions}}).to_string().into();
    let target = Target::named(None, NAME);
    routes.cluster.registry.patch(&context(), &crds, &target, PatchKind::Merge, patch).await.unwrap();
    eventually("v2 is stored", async || (routes.version("v1").storage().1 == "v2").then_some(())).await;
    routes.create("v2", "d", json!({"host": "x", "port": "1"})).await.unwrap();
    let before = routes.questions();
    let listed = routes.list("v2").await;
    assert_eq!(listed.len(), 4);
    assert!(listed.iter().all(|r| r["host"] == "x" && r["apiVersion"] == "net.example.com/v2"), "{listed:?}");
    assert_eq!(routes.questions(), before + 1, "one question for the three that are stored in v1");
    let listed = routes.list("v1").await;
    assert!(listed.iter().all(|r| r["hostPort"] == "x:1" && r["apiVersion"] == "net.example.com/v1"));

    let target = Target::collection(Some("default"));
    let options = ListOptions::default();
    let mut watch =
        routes.cluster.registry.watch(&context(), &routes.version("v1"), &target, &options).await.unwrap();
    for _ in 0..4 {
        let item = watch.next().await;
        assert!(matches!(&item, Some(WatchItem::Added(o)) if o.value()["hostPort"] == "x:1"), "{item:?}");
    }
    routes.create("v2", "e", json!({"host": "y", "port": "2"})).await.unwrap();
    assert!(matches!(watch.next().await, Some(WatchItem::Added(o)) if o.value()["hostPort"] == "y:2"));
    let (version, target) = (routes.version("v2"), Target::named(Some("default"), "a"));
    routes.cluster.registry.delete(&context(), &version, &target, &DeleteOptions::default()).await.unwrap();
    assert!(matches!(watch.next().await, Some(WatchItem::Deleted(o)) if o.value()["hostPort"] == "x:1"));
}

#[tokio::test]
async fn a_converter_that_fails_is_named_and_stores_nothing() {
    let routes = Routes::start().await;
    routes.create("v1", "a", json!({"hostPort": "x:1"})).await.unwrap();
    routes.broken.store(true, Ordering::Relaxed);
    let failed = routes.get("v2", "a").await.unwrap_err();
    let said = "conversion webhook for net.example.com/v1, Kind=Route failed: out of order";
    assert_eq!((failed.code, &*failed.message), (500, said));
    let failed = routes.create("v2", "b", json!({"host": "h", "port": "1"})).await.unwrap_err();
    assert!(failed.message.contains("net.example.com/v2, Kind=Route failed: out of order"), "{failed}");
    assert!(routes.get("v1", "b").await.unwrap_err().is_not_found());
    routes.broken.store(false, Ordering::Relaxed);
    assert_eq!(routes.get("v2", "a").await.unwrap()["host"], "x");
}
