//! Servers that extend the API, through kubectl: an admission webhook, a converter, an extension API server.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::Mutex;

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use penstock_tests::cluster::{Cluster, PATIENCE};
use penstock_tests::eventually::until;
use penstock_tests::https::{Answer, Asked, HttpsServer};
use serde_json::{Value, json};

use super::Scenario;

pub const SCENARIOS: &[Scenario] = &[
    ("a_webhook_changes_and_denies_what_kubectl_writes", webhook),
    ("a_converter_serves_an_object_in_both_versions", converter),
    ("an_extension_server_is_listed_and_read_through_kubectl", extension),
];

/// The address the API server listens on, which is this machine's.
fn host(cluster: &Cluster) -> Result<IpAddr> {
    let url = cluster.kubectl(&["config", "view", "-o", "jsonpath={.clusters[0].cluster.server}"])?;
    let address: SocketAddr =
        url.trim().trim_start_matches("https://").parse().context("the server's URL")?;
    Ok(address.ip())
}

/// A Service without a selector that leads to a server of this process.
fn service(cluster: &Cluster, name: &str, server: &HttpsServer) -> Result<()> {
    let family = if server.address.is_ipv4() { "IPv4" } else { "IPv6" };
    let list = json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "default"},
            "spec": {"ipFamilies": [family], "ports": [{"name": "https", "port": 443}]}},
        {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": name, "namespace": "default", "labels": {"kubernetes.io/service-name": name}},
            "addressType": family, "ports": [{"name": "https", "port": server.address.port(), "protocol": "TCP"}],
            "endpoints": [{"addresses": [server.address.ip()], "conditions": {"ready": true}}]}]});
    apply(cluster, &list)
}

fn apply(cluster: &Cluster, object: &Value) -> Result<()> {
    cluster.kubectl_with(&["apply", "-f", "-"], &object.to_string())?;
    Ok(())
}

fn client(name: &str, server: &HttpsServer) -> Value {
    json!({"service": {"namespace": "default", "name": name, "path": "/ask"},
        "caBundle": STANDARD.encode(&server.certificate_pem)})
}

/// Objects of a scenario, gone at its end.
struct Cleared<'a> {
    cluster: &'a Cluster,
    objects: Vec<&'static str>,
}

impl Drop for Cleared<'_> {
    fn drop(&mut self) {
        for object in &self.objects {
            if let Err(error) = self.cluster.kubectl(&["delete", object, "--ignore-not-found"]) {
                println!("{object} is left behind: {error:#}");
            }
        }
    }
}

fn admit(asked: &Asked) -> Answer {
    let request = &asked.body["request"];
    let mut response = json!({"uid": request["uid"], "allowed": true});
    if request["object"]["data"]["forbidden"].is_string() {
        response["allowed"] = false.into();
        response["status"] =
            json!({"message": "this key is not for you", "code": 403, "reason": "Forbidden"});
    } else {
        let patch = json!([{"op": "add", "path": "/data/added", "value": "by the webhook"}]);
        response["patchType"] = "JSONPatch".into();
        response["patch"] = STANDARD.encode(patch.to_string()).into();
        response["warnings"] = json!(["watched"]);
    }
    (200, json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}))
}

fn webhook(cluster: &Cluster) -> Result<()> {
    let server = HttpsServer::start(host(cluster)?, "hook.default.svc", None, admit)?;
    let objects = vec![
        "mutatingwebhookconfiguration/hook",
        "configmap/hooked",
        "service/hook",
        "endpointslice.discovery.k8s.io/hook",
    ];
    let _cleared = Cleared { cluster, objects };
    service(cluster, "hook", &server)?;
    let configuration = json!({"apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration", "metadata": {"name": "hook"}, "webhooks": [{
            "name": "hook.example.com", "clientConfig": client("hook", &server), "sideEffects": "None",
            "admissionReviewVersions": ["v1"],
            "objectSelector": {"matchExpressions": [{"key": "hooked", "operator": "Exists"}]},
            "rules": [{"operations": ["CREATE", "UPDATE"], "apiGroups": [""], "apiVersions": ["v1"],
                "resources": ["configmaps"]}]}]});
    apply(cluster, &configuration)?;
    let map = |key: &str| {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "hooked", "labels": {"hooked": ""}},
            "data": {key: "1"}})
    };
    apply(cluster, &map("own"))?;
    let added = cluster.kubectl(&["get", "configmap", "hooked", "-o", "jsonpath={.data.added}"])?;
    ensure!(added == "by the webhook", "the webhook added {added:?}");
    let refused = apply(cluster, &map("forbidden")).err().map(|e| format!("{e:#}")).unwrap_or_default();
    let said = "admission webhook \"hook.example.com\" denied the request: this key is not for you";
    ensure!(refused.contains(said), "kubectl was told: {refused}");
    drop(server);
    let refused = apply(cluster, &map("late")).err().map(|e| format!("{e:#}")).unwrap_or_default();
    ensure!(refused.contains("failed calling webhook \"hook.example.com\""), "kubectl was told: {refused}");
    Ok(())
}

/// `size` in v1 is `{min, max}` in v2.
fn convert(asked: &Asked) -> Answer {
    let request = &asked.body["request"];
    let wanted = request["desiredAPIVersion"].as_str().unwrap_or_default();
    let objects = request["objects"].as_array().cloned().unwrap_or_default();
    let converted: Vec<Value> = objects
        .into_iter()
        .map(|mut object| {
            object["apiVersion"] = wanted.into();
            if let Some(object) = object.as_object_mut() {
                if wanted.ends_with("/v2") {
                    let size = object.remove("size").unwrap_or_default();
                    object.insert("range".into(), json!({"min": size, "max": size}));
                } else {
                    let size = object.remove("range").map(|range| range["max"].clone()).unwrap_or_default();
                    object.insert("size".into(), size);
                }
            }
            object
        })
        .collect();
    (
        200,
        json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview", "response": {
        "uid": request["uid"], "result": {"status": "Success"}, "convertedObjects": converted}}),
    )
}

fn converter(cluster: &Cluster) -> Result<()> {
    let server = HttpsServer::start(host(cluster)?, "convert.default.svc", None, convert)?;
    let objects = vec![
        "customresourcedefinition/boxes.store.example.com",
        "service/convert",
        "endpointslice.discovery.k8s.io/convert",
    ];
    let _cleared = Cleared { cluster, objects };
    service(cluster, "convert", &server)?;
    let version = |name: &str, storage: bool, property: Value| {
        json!({"name": name, "served": true, "storage": storage,
            "schema": {"openAPIV3Schema": {"type": "object", "properties": property}}})
    };
    let integer = json!({"type": "integer"});
    let range = json!({"range": {"type": "object", "properties": {"min": integer, "max": integer}}});
    apply(
        cluster,
        &json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "boxes.store.example.com"}, "spec": {
            "group": "store.example.com", "scope": "Namespaced",
            "names": {"plural": "boxes", "singular": "box", "kind": "Box", "listKind": "BoxList"},
            "versions": [version("v1", true, json!({"size": integer})), version("v2", false, range)],
            "conversion": {"strategy": "Webhook", "webhook": {
                "clientConfig": client("convert", &server), "conversionReviewVersions": ["v1"]}}}}),
    )?;
    let wait = ["wait", "--for=condition=Established", "crd/boxes.store.example.com", "--timeout=60s"];
    cluster.kubectl(&wait)?;
    let object =
        json!({"apiVersion": "store.example.com/v1", "kind": "Box", "metadata": {"name": "b"}, "size": 7});
    apply(cluster, &object)?;
    let get = |version: &str, path: &str| {
        let resource = format!("boxes.{version}.store.example.com");
        cluster.kubectl(&["get", &resource, "b", "-o", &format!("jsonpath={path}")])
    };
    let max = get("v2", "{.range.max}")?;
    ensure!(max == "7", "v2 shows {max:?}");
    cluster.kubectl(&[
        "patch",
        "boxes.v2.store.example.com",
        "b",
        "--type=merge",
        "-p",
        r#"{"range":{"max":9}}"#,
    ])?;
    let size = get("v1", "{.size}")?;
    ensure!(size == "9", "v1 shows {size:?}");
    Ok(())
}

const GROUP: &str = "wardle.example.com";

fn wardle(asked: &Asked, users: &Mutex<Vec<String>>) -> Answer {
    let user = asked.headers.iter().find(|(name, _)| name == "x-remote-user").map(|(_, value)| value.clone());
    if let Ok(mut users) = users.lock() {
        users.extend(user);
    }
    let base = format!("/apis/{GROUP}/v1alpha1");
    let path = asked.path.split('?').next().unwrap_or_default();
    let flunder = json!({"apiVersion": format!("{GROUP}/v1alpha1"), "kind": "Flunder",
        "metadata": {"name": "one", "namespace": "default", "uid": "u", "creationTimestamp": "2024-01-01T00:00:00Z"}});
    match path.strip_prefix(&base) {
        Some("") => (
            200,
            json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": format!("{GROUP}/v1alpha1"),
                "resources": [{"name": "flunders", "singularName": "flunder", "namespaced": true, "kind": "Flunder",
                    "verbs": ["get", "list"], "shortNames": ["fl"]}]}),
        ),
        Some("/namespaces/default/flunders") => (
            200,
            json!({"kind": "FlunderList", "apiVersion": format!("{GROUP}/v1alpha1"), "metadata": {}, "items": [flunder]}),
        ),
        Some("/namespaces/default/flunders/one") => (200, flunder),
        _ => (
            404,
            json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 404, "reason": "NotFound"}),
        ),
    }
}

fn extension(cluster: &Cluster) -> Result<()> {
    let map = ["get", "configmap", "-n", "kube-system", "extension-apiserver-authentication"];
    let path = ["-o", "jsonpath={.data.requestheader-client-ca-file}"];
    let authority = cluster.kubectl(&[&map[..], &path[..]].concat())?;
    let users: Arc<Mutex<Vec<String>>> = Arc::default();
    let told = users.clone();
    let answer = move |asked: &Asked| wardle(asked, &told);
    let server = HttpsServer::start(host(cluster)?, "wardle.default.svc", Some(&authority), answer)?;
    let name = format!("v1alpha1.{GROUP}");
    let objects = vec![
        "apiservice/v1alpha1.wardle.example.com",
        "service/wardle",
        "endpointslice.discovery.k8s.io/wardle",
    ];
    let _cleared = Cleared { cluster, objects };
    service(cluster, "wardle", &server)?;
    apply(
        cluster,
        &json!({"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": name},
            "spec": {"group": GROUP, "version": "v1alpha1", "groupPriorityMinimum": 2000, "versionPriority": 200,
                "caBundle": STANDARD.encode(&server.certificate_pem),
                "service": {"namespace": "default", "name": "wardle"}}}),
    )?;
    cluster.kubectl(&[
        "wait",
        "--for=condition=Available",
        &format!("apiservice/{name}"),
        "--timeout=60s",
    ])?;
    until(PATIENCE, "kubectl knows flunders", || {
        let listed = cluster.kubectl(&["api-resources", "--api-group", GROUP]);
        listed.is_ok_and(|listed| listed.contains("flunders"))
    })?;
    let listed = cluster.kubectl(&["get", "fl", "-o", "name"])?;
    ensure!(listed.trim() == format!("flunder.{GROUP}/one"), "kubectl lists {listed:?}");
    let told = users.lock().map(|users| users.clone()).unwrap_or_default();
    ensure!(told.iter().any(|user| user == "kubernetes-admin"), "the server was told of {told:?}");
    drop(server);
    until(PATIENCE, "the condition says that nobody answers", || {
        let reason =
            cluster.kubectl(&["get", "apiservice", &name, "-o", "jsonpath={.status.conditions[0].reason}"]);
        reason.is_ok_and(|reason| reason == "FailedDiscoveryCheck")
    })
}
