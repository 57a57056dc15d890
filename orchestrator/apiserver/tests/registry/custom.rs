//! Custom kinds in the registry: they come, change and go with their definitions.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use penstock_apiserver::registry::{
    Body, Definition, DeleteOptions, ListOptions, PatchKind, Registry, Target, WatchItem,
};
use serde_json::{Value, json};

use crate::cluster::{Cluster, config, context};

const NAME: &str = "widgets.shop.example.com";
const PATIENCE: Duration = Duration::from_secs(60);

pub fn widgets() -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": NAME},
        "spec": {
            "group": "shop.example.com", "scope": "Namespaced",
            "names": {"plural": "widgets", "kind": "Widget"},
            "versions": [{"name": "v1", "served": true, "storage": true, "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                    "spec": {"type": "object", "properties": {"size": {"type": "integer", "default": 3}}},
                    "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}}}],
        },
    })
}

fn widget(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "shop.example.com/v1", "kind": "Widget", "metadata": {"name": name}, "spec": spec})
}

/// Polls until `probe` gives something; what is awaited happens in the registry's own loop.
pub async fn eventually<T>(what: &str, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let waited = tokio::time::timeout(PATIENCE, async {
        loop {
            if let Some(found) = probe().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("waited in vain: {what}"))
}

pub async fn established(cluster: &Cluster) -> Arc<Definition> {
    eventually("the definition is established", async || {
        let crd = cluster.get("customresourcedefinitions", NAME).await.unwrap();
        let conditions = crd["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.iter().any(|c| c["type"] == "Established" && c["status"] == "True").then_some(())
    })
    .await;
    cluster.registry.find("shop.example.com", "v1", "widgets").expect("what is established is served")
}

async fn create(registry: &Registry, definition: &Definition, object: Value) -> Result<Value, String> {
    let body = Body::Json(object.to_string().into());
    let target = Target::collection(Some("default"));
    let made = registry.create(&context(), definition, &target, body).await;
    made.map(|outcome| outcome.object.value()).map_err(|e| e.to_string())
}

#[tokio::test]
async fn a_definition_serves_its_kind_and_takes_it_along() {
    let cluster = Cluster::start().await;
    let registry = &cluster.registry;
    let made = cluster.create("customresourcedefinitions", widgets()).await.unwrap();
    assert_eq!(made["status"]["storedVersions"], json!(["v1"]));
    assert_eq!(made["spec"]["names"]["listKind"], "WidgetList");
    let definition = established(&cluster).await;
    let made = create(registry, &definition, widget("w", json!({"sizee": 1}))).await.unwrap();
    assert_eq!(made["spec"], json!({"size": 3}), "pruned and defaulted");
    assert_eq!(made["metadata"]["generation"], 1);

    let target = Target::collection(Some("default"));
    let mut watch = registry.watch(&context(), &definition, &target, &ListOptions::default()).await.unwrap();
    assert!(matches!(watch.next().await, Some(WatchItem::Added(w)) if w.name == "w"));
    cluster.delete("customresourcedefinitions", NAME, DeleteOptions::default()).await.unwrap();
    assert!(matches!(watch.next().await, Some(WatchItem::Deleted(w)) if w.name == "w"));
    eventually("the watch ends", async || match watch.next().await {
        None | Some(WatchItem::Error(_)) => Some(()),
        _ => None,
    })
    .await;
    eventually("the definition is gone", async || {
        cluster.get("customresourcedefinitions", NAME).await.err().filter(|e| e.is_not_found())
    })
    .await;
    eventually("its kind is no longer served", async || {
        registry.find("shop.example.com", "v1", "widgets").is_none().then_some(())
    })
    .await;
    let refused = create(registry, &definition, widget("late", json!({}))).await.unwrap_err();
    assert!(refused.contains("could not find"), "{refused}");
}

#[tokio::test]
async fn objects_are_read_by_the_schema_of_now() {
    let cluster = Cluster::start().await;
    let registry = &cluster.registry;
    cluster.create("customresourcedefinitions", widgets()).await.unwrap();
    let definition = established(&cluster).await;
    create(registry, &definition, widget("w", json!({"size": 9}))).await.unwrap();
    let bounded = json!([{"op": "add",
        "path": "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties",
        "value": {"size": {"type": "integer", "maximum": 5}, "color": {"type": "string", "default": "red"}}}]);
    let crds = cluster.kind("customresourcedefinitions");
    let target = Target::named(None, NAME);
    registry.patch(&context(), &crds, &target, PatchKind::Json, bounded.to_string().into()).await.unwrap();
    let one = Target::named(Some("default"), "w");
    let read = eventually("the new schema is served", async || {
        let definition = registry.find("shop.example.com", "v1", "widgets").unwrap();
        let read = registry.get(&context(), &definition, &one).await.ok()?.value();
        (read["spec"]["color"] == "red").then_some(read)
    })
    .await;
    assert_eq!(read["spec"]["size"], 9);
    // What was wrong before the rule may stay; what changes keeps to it.
    let definition = registry.find("shop.example.com", "v1", "widgets").unwrap();
    let merge = async |patch: Value| {
        let patch = patch.to_string().into();
        let done = registry.patch(&context(), &definition, &one, PatchKind::Merge, patch).await;
        done.map(|outcome| outcome.object.value()).map_err(|e| e.to_string())
    };
    let labelled = merge(json!({"metadata": {"labels": {"a": "b"}}})).await.unwrap();
    assert_eq!(labelled["metadata"]["labels"]["a"], "b");
    let refused = merge(json!({"spec": {"size": 8}})).await.unwrap_err();
    assert!(refused.contains("spec.size in body should be less than or equal to 5"), "{refused}");
}

#[tokio::test]
async fn names_are_taken_once_and_given_back() {
    let cluster = Cluster::start().await;
    cluster.create("customresourcedefinitions", widgets()).await.unwrap();
    established(&cluster).await;
    let mut second = widgets();
    second["metadata"]["name"] = "gadgets.shop.example.com".into();
    second["spec"]["names"] = json!({"plural": "gadgets", "kind": "Widget"});
    cluster.create("customresourcedefinitions", second).await.unwrap();
    let says = async |wanted: &str| {
        let crd = cluster.get("customresourcedefinitions", "gadgets.shop.example.com").await.unwrap();
        let conditions = crd["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.into_iter().find(|c| c["type"] == "NamesAccepted" && c["status"] == wanted)
    };
    let refused = eventually("the kind is refused", async || says("False").await).await;
    assert!(refused["message"].as_str().unwrap().contains("is already in use"));
    assert!(cluster.registry.find("shop.example.com", "v1", "gadgets").is_none());
    cluster.delete("customresourcedefinitions", NAME, DeleteOptions::default()).await.unwrap();
    eventually("the kind is free again", async || says("True").await).await;
}

#[tokio::test]
async fn a_server_that_starts_serves_what_is_defined() {
    let cluster = Cluster::start().await;
    cluster.create("customresourcedefinitions", widgets()).await.unwrap();
    let definition = established(&cluster).await;
    create(&cluster.registry, &definition, widget("w", json!({}))).await.unwrap();
    let again = Registry::new(cluster.registry.store().clone(), config()).await.unwrap();
    let definition = again.find("shop.example.com", "v1", "widgets").expect("served from the start");
    let read = again.get(&context(), &definition, &Target::named(Some("default"), "w")).await.unwrap();
    assert_eq!(read.value()["spec"]["size"], 3);
}
