//! Aggregation against a real extension server: its group is served as if it were ours.

use std::time::Duration;

use axum::body::Body;
use futures::stream;
use http::{Request, Response};
use http_body_util::BodyExt;
use kube::Client;
use penstock_apiserver::User;
use penstock_store::{Expect, Mutation, Store as _, Write};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::cluster::Cluster;
use crate::https::{HttpsServer, json_answer};

const GROUP: &str = "wardle.example.com";
const PATIENCE: Duration = Duration::from_secs(30);

/// An extension server of before OpenAPI v3.
fn wardle(path: &str, _: &Value) -> Response<Body> {
    let flunders = format!("/apis/{GROUP}/v1alpha1/flunders");
    match path.split('?').next().unwrap() {
        "/apis/wardle.example.com/v1alpha1" => {
            json_answer(&json!({"kind": "APIResourceList", "apiVersion": "v1",
            "groupVersion": "wardle.example.com/v1alpha1", "resources": [{"name": "flunders",
                "singularName": "flunder", "namespaced": true, "kind": "Flunder", "verbs": ["get", "list"]}]}))
        }
        "/openapi/v2" => json_answer(&json!({"swagger": "2.0", "info": {"title": "w", "version": "1"},
            "paths": {&flunders: {"get": {"produces": ["application/json"], "responses": {
                "200": {"description": "OK", "schema": {"$ref": "#/definitions/wardle.Flunder"}}}}}},
            "definitions": {"wardle.Flunder": {"type": "object", "properties": {"spec": {"type": "string"}}}}})),
        "/apis/wardle.example.com/v1alpha1/namespaces/default/flunders" => json_answer(
            &json!({"kind": "FlunderList", "apiVersion": "wardle.example.com/v1alpha1", "items": []}),
        ),
        "/apis/wardle.example.com/v1alpha1/namespaces/default/flunders/elsewhere" => Response::builder()
            .status(302)
            .header("location", "https://example.com/")
            .body(Body::empty())
            .unwrap(),
        "/apis/wardle.example.com/v1alpha1/namespaces/default/flunders/endless" => {
            Response::new(Body::from_stream(stream::repeat_with(|| {
                Ok::<_, std::io::Error>(bytes::Bytes::from_static(b"drop\n"))
            })))
        }
        _ => Response::builder().status(404).body(Body::empty()).unwrap(),
    }
}

struct Extended {
    cluster: Cluster,
    client: Client,
}

impl Extended {
    async fn start() -> anyhow::Result<Self> {
        let cluster = Cluster::start().await?;
        let user = User {
            extra: [("example.com/team".to_owned(), vec!["net".to_owned()])].into(),
            ..User::system("ann")
        };
        let client = cluster.server.client(user);
        Ok(Self { cluster, client })
    }

    /// A Service `wardle` whose endpoint is a port of loopback, which no slice may say through the API.
    async fn service(&self, port: u16) -> anyhow::Result<()> {
        self.post(
            "/api/v1/namespaces/default/services",
            &json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "wardle"},
            "spec": {"ports": [{"port": 443}]}}),
        )
        .await?;
        let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": "wardle", "namespace": "default", "labels": {"kubernetes.io/service-name": "wardle"}},
            "addressType": "IPv4", "ports": [{"name": "", "port": port, "protocol": "TCP"}],
            "endpoints": [{"addresses": ["127.0.0.1"], "conditions": {"ready": true}}]});
        let mutation = Mutation::Put { value: slice.to_string().into(), lease_ttl_seconds: None };
        let key = "/registry/discovery.k8s.io/endpointslices/default/wardle".to_owned();
        self.cluster.store.commit(Write { key, expect: Expect::Absent, mutation }).await?;
        Ok(())
    }

    async fn register(&self, bundle: Option<&str>) -> anyhow::Result<()> {
        let mut object = json!({"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
            "metadata": {"name": format!("v1alpha1.{GROUP}")},
            "spec": {"group": GROUP, "version": "v1alpha1", "groupPriorityMinimum": 2000, "versionPriority": 200,
                "service": {"namespace": "default", "name": "wardle"}}});
        match bundle {
            Some(bundle) => object["spec"]["caBundle"] = bundle.into(),
            None => object["spec"]["insecureSkipTLSVerify"] = true.into(),
        }
        self.post("/apis/apiregistration.k8s.io/v1/apiservices", &object).await
    }

    async fn post(&self, path: &str, object: &Value) -> anyhow::Result<()> {
        let request = Request::post(path).header("content-type", "application/json");
        self.client.request::<Value>(request.body(object.to_string().into_bytes())?).await?;
        Ok(())
    }

    async fn get(&self, path: &str) -> Result<Value, kube::Error> {
        self.client.request(Request::get(path).body(Vec::new()).unwrap()).await
    }

    /// Waits until the extension server's condition says `reason`.
    async fn condition(&self, reason: &str) -> Value {
        self.condition_of(&format!("v1alpha1.{GROUP}"), reason).await
    }

    async fn condition_of(&self, name: &str, reason: &str) -> Value {
        let path = format!("/apis/apiregistration.k8s.io/v1/apiservices/{name}");
        let mut last = Value::Null;
        let waited = tokio::time::timeout(PATIENCE, async {
            loop {
                if let Ok(object) = self.get(&path).await {
                    last = object["status"]["conditions"][0].clone();
                    if last["reason"] == reason {
                        return last.clone();
                    }
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        let found = waited.await;
        found.unwrap_or_else(|_| panic!("{name} never said {reason}"))
    }

    async fn names_in_apis(&self) -> Vec<String> {
        let apis = self.get("/apis").await.unwrap();
        let groups = apis["groups"].as_array().unwrap().clone();
        groups.iter().map(|group| group["name"].as_str().unwrap().to_owned()).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_of_an_extension_server_is_served_as_if_it_were_ours() -> anyhow::Result<()> {
    let server = HttpsServer::start(&["wardle.default.svc"], wardle).await;
    let extended = Extended::start().await?;
    extended.register(Some(&server.bundle)).await?;
    let gone = extended.condition("ServiceNotFound").await;
    assert_eq!(
        (&gone["status"], &gone["message"]),
        (&json!("False"), &json!("service/wardle in \"default\" is not present"))
    );
    let list = format!("/apis/{GROUP}/v1alpha1/namespaces/default/flunders");
    let refused = extended.get(&list).await.unwrap_err();
    assert!(matches!(&refused, kube::Error::Api(status) if status.code == 503), "{refused}");

    extended.service(server.address.port()).await?;
    assert_eq!(extended.condition("Passed").await["status"], "True");
    let waited = tokio::time::timeout(PATIENCE, async {
        while extended.get(&list).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    waited.await?;
    assert_eq!(extended.get(&list).await?["kind"], "FlunderList");
    let headers = server.headers.lock().last().unwrap().clone();
    assert_eq!(headers["x-remote-user"], "ann");
    assert!(headers.get_all("x-remote-group").iter().any(|group| group == "system:masters"));
    assert_eq!(headers["x-remote-extra-example.com%2fteam"], "net");
    assert!(!headers.contains_key("authorization"));

    assert!(*server.connections.lock() < server.asked.lock().len(), "connections are kept");

    // Discovery, both ways, and OpenAPI of both versions.
    assert!(extended.names_in_apis().await.contains(&GROUP.to_owned()));
    let document = extended.get(&format!("/apis/{GROUP}/v1alpha1")).await?;
    assert_eq!(document["resources"][0]["kind"], "Flunder");
    let group = extended.get(&format!("/apis/{GROUP}")).await?;
    assert_eq!(group["preferredVersion"]["version"], "v1alpha1");
    let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let aggregated: Value =
        extended.client.request(Request::get("/apis").header("accept", accept).body(Vec::new())?).await?;
    let items = aggregated["items"].as_array().unwrap();
    let ours = items.iter().find(|item| item["metadata"]["name"] == GROUP).unwrap();
    assert_eq!(ours["versions"][0]["resources"][0]["resource"], "flunders");
    assert_eq!(ours["versions"][0]["freshness"], "Current");
    let path = format!("apis/{GROUP}/v1alpha1");
    let v3 = tokio::time::timeout(PATIENCE, async {
        loop {
            let index = extended.get("/openapi/v3").await.unwrap();
            if let Some(url) = index["paths"][&path]["serverRelativeURL"].as_str() {
                break extended.get(url).await.unwrap();
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await?;
    assert_eq!(v3["components"]["schemas"]["wardle.Flunder"]["type"], "object");
    let v2 = extended.get("/openapi/v2").await?;
    assert_eq!(v2["definitions"]["wardle.Flunder"]["type"], "object");
    assert!(
        v2["paths"].get(format!("/{path}/flunders")).is_some() && v2["paths"].get("/api/v1/pods").is_some()
    );

    // Nobody is sent elsewhere, and what never ends begins at once.
    let refused = extended.get(&format!("{list}/elsewhere")).await.unwrap_err();
    assert!(matches!(&refused, kube::Error::Api(status) if status.code == 502), "{refused}");
    let request = Request::get(format!("{list}/endless")).body(kube::client::Body::empty())?;
    let mut endless = extended.client.send(request).await?.into_body();
    let first = tokio::time::timeout(PATIENCE, endless.frame()).await?.unwrap()?.into_data().unwrap();
    assert!(first.starts_with(b"drop"));
    drop(endless);

    // A registration that goes takes its group along.
    let request = Request::delete(format!("/apis/apiregistration.k8s.io/v1/apiservices/v1alpha1.{GROUP}"));
    extended.client.request::<Value>(request.body(Vec::new())?).await?;
    tokio::time::timeout(PATIENCE, async {
        while extended.names_in_apis().await.contains(&GROUP.to_owned()) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await?;
    extended.cluster.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_cannot_be_trusted_or_does_not_answer_is_not_available() -> anyhow::Result<()> {
    let stranger = HttpsServer::start(&["wardle.default.svc"], wardle).await;
    let server = HttpsServer::start(&["wardle.default.svc"], wardle).await;
    let extended = Extended::start().await?;
    extended.service(server.address.port()).await?;
    extended.register(Some(&stranger.bundle)).await?;
    let failed = extended.condition("FailedDiscoveryCheck").await;
    assert!(failed["message"].as_str().unwrap().contains("certificate"), "{failed}");
    assert!(server.asked.lock().is_empty(), "nobody who is not believed is told anything");
    let document = extended.names_in_apis().await;
    assert!(document.contains(&GROUP.to_owned()), "what is registered is listed");
    let patch = json!({"spec": {"caBundle": null, "insecureSkipTLSVerify": true}});
    let request = Request::patch(format!("/apis/apiregistration.k8s.io/v1/apiservices/v1alpha1.{GROUP}"))
        .header("content-type", "application/merge-patch+json")
        .body(patch.to_string().into_bytes())?;
    extended.client.request::<Value>(request).await?;
    extended.condition("Passed").await;
    extended.cluster.stop().await;
    Ok(())
}

/// Takes a connection with TLS, switches protocols and echoes.
async fn echoing(listener: TcpListener, acceptor: tokio_rustls::TlsAcceptor) -> anyhow::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            let mut stream = acceptor.accept(stream).await?;
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await?);
            }
            if !String::from_utf8_lossy(&head).to_ascii_lowercase().contains("upgrade: echo") {
                let body = br#"{"kind":"APIResourceList","resources":[]}"#;
                let answer =
                    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
                stream.write_all(answer.as_bytes()).await?;
                stream.write_all(body).await?;
                stream.shutdown().await?;
                return anyhow::Ok(());
            }
            stream
                .write_all(
                    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n",
                )
                .await?;
            let mut buffer = [0u8; 64];
            while let Ok(count @ 1..) = stream.read(&mut buffer).await {
                stream.write_all(&buffer[..count]).await?;
            }
            anyhow::Ok(())
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_passes_through_to_the_extension_server() -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    let (acceptor, _) = crate::https::acceptor(&["wardle.default.svc".to_owned()]);
    let echo = tokio::spawn(echoing(listener, acceptor));
    let extended = Extended::start().await?;
    extended.service(port).await?;
    extended.register(None).await?;
    extended.condition("Passed").await;
    let identity = extended.cluster.identity("ann", &["system:masters"])?;
    let mut stream = extended.cluster.dial(&identity).await?;
    let path = format!("/apis/{GROUP}/v1alpha1/namespaces/default/flunders/f/connect");
    let head = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n");
    let answered = tokio::time::timeout(PATIENCE, async {
        stream.write_all(head.as_bytes()).await?;
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            answer.push(stream.read_u8().await?);
        }
        anyhow::ensure!(answer.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&answer));
        stream.write_all(b"ping").await?;
        let mut echoed = [0u8; 4];
        stream.read_exact(&mut echoed).await?;
        Ok(echoed)
    });
    assert_eq!(&answered.await??, b"ping");
    drop(stream);
    echo.abort();
    extended.cluster.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_served_here_has_apiservices_that_come_and_go_with_it() -> anyhow::Result<()> {
    let extended = Extended::start().await?;
    for name in ["v1.", "v1.apps", "v2.autoscaling", "v1.authorization.k8s.io"] {
        let condition = extended.condition_of(name, "Local").await;
        assert_eq!(condition["status"], "True", "{name}");
    }
    extended
        .post(
            "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
            &json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": "widgets.shop.example.com"}, "spec": {"group": "shop.example.com",
            "scope": "Namespaced", "names": {"plural": "widgets", "kind": "Widget"},
            "versions": [{"name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object"}}}]}}),
        )
        .await?;
    extended.condition_of("v1.shop.example.com", "Local").await;
    let crd = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/widgets.shop.example.com";
    extended.client.request::<Value>(Request::delete(crd).body(Vec::new())?).await?;
    tokio::time::timeout(PATIENCE, async {
        let path = "/apis/apiregistration.k8s.io/v1/apiservices/v1.shop.example.com";
        while extended.get(path).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await?;
    let map =
        extended.get("/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication").await?;
    assert_eq!(map["data"]["requestheader-allowed-names"], "[\"front-proxy-client\"]");
    assert!(map["data"]["requestheader-client-ca-file"].as_str().unwrap().contains("BEGIN CERTIFICATE"));
    extended.cluster.stop().await;
    Ok(())
}
