//! Machines that join: who the bearer of a bootstrap token is, and what they may do.

use axum::body::Body;
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use penstock_apiserver::{ClusterInfo, User};
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::cluster::Cluster;

const TOKEN: &str = "abcdef.0123456789abcdef";
const SECRETS: &str = "/api/v1/namespaces/kube-system/secrets";
const SELF: &str = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";

/// Asks through the router, with a token or as nobody.
async fn ask(cluster: &Cluster, method: &str, path: &str, token: &str, body: &Value) -> (StatusCode, Value) {
    let mut request = Request::builder().method(method).uri(path).header("content-type", "application/json");
    if !token.is_empty() {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
    let answer =
        cluster.server.router().oneshot(request.body(body).expect("a request")).await.expect("an answer");
    let status = answer.status();
    let body = answer.into_body().collect().await.expect("a body").to_bytes();
    (status, serde_json::from_slice(&body).unwrap_or_default())
}

/// The user a token stands for; none if it is refused.
async fn who(cluster: &Cluster, token: &str) -> Option<(String, Value)> {
    let (status, said) = ask(cluster, "POST", SELF, token, &json!({})).await;
    let user = &said["status"]["userInfo"];
    assert!(status == StatusCode::CREATED || status == StatusCode::UNAUTHORIZED, "{status}: {said}");
    user["username"].as_str().map(|name| (name.to_owned(), user["groups"].clone()))
}

fn admin(cluster: &Cluster) -> kube::Client {
    let groups = vec!["system:masters".to_owned(), "system:authenticated".to_owned()];
    cluster.server.client(User { name: "admin".to_owned(), groups, ..User::default() })
}

async fn admin_asks(cluster: &Cluster, method: &str, path: &str, body: &Value) -> anyhow::Result<Value> {
    let request = Request::builder().method(method).uri(path).header("content-type", "application/json");
    Ok(admin(cluster).request(request.body(body.to_string().into_bytes())?).await?)
}

/// Writes the Secret of the token, with a few keys otherwise; an empty value takes one away.
async fn store(cluster: &Cluster, changed: &[(&str, &str)], kind: &str) -> anyhow::Result<()> {
    let mut data = json!({"token-id": "abcdef", "token-secret": "0123456789abcdef",
        "usage-bootstrap-authentication": "true"});
    for (key, value) in changed {
        data[*key] = (*value).into();
    }
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "type": kind, "stringData": data,
        "metadata": {"name": "bootstrap-token-abcdef", "namespace": "kube-system"}});
    let path = format!("{SECRETS}/bootstrap-token-abcdef");
    let _ = admin_asks(cluster, "DELETE", &path, &json!({})).await;
    admin_asks(cluster, "POST", SECRETS, &secret).await.map(drop)
}

const KIND: &str = "bootstrap.kubernetes.io/token";

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_good_while_its_secret_says_so() -> anyhow::Result<()> {
    let cluster = Cluster::start().await?;
    assert_eq!(who(&cluster, TOKEN).await, None, "there is no such token");
    store(&cluster, &[("auth-extra-groups", "system:bootstrappers:b,system:bootstrappers:a")], KIND).await?;
    let (name, groups) = who(&cluster, TOKEN).await.expect("a user");
    assert_eq!(name, "system:bootstrap:abcdef");
    assert_eq!(
        groups,
        json!([
            "system:bootstrappers",
            "system:bootstrappers:a",
            "system:bootstrappers:b",
            "system:authenticated"
        ])
    );
    for wrong in ["abcdef.0123456789abcdeg", "abcdeg.0123456789abcdef", "abcdef.0123456789ABCDEF", "abcdef."]
    {
        assert_eq!(who(&cluster, wrong).await, None, "{wrong}");
    }
    store(&cluster, &[("expiration", "2999-01-01T00:00:00Z")], KIND).await?;
    assert!(who(&cluster, TOKEN).await.is_some());
    for (key, value) in [
        ("expiration", "2026-01-01T00:00:00Z"),
        ("expiration", "tomorrow"),
        ("usage-bootstrap-authentication", "yes"),
        ("token-id", "ghijkl"),
        ("auth-extra-groups", "system:masters"),
    ] {
        store(&cluster, &[(key, value)], KIND).await?;
        assert_eq!(who(&cluster, TOKEN).await, None, "{key}: {value}");
    }
    store(&cluster, &[], "Opaque").await?;
    assert_eq!(who(&cluster, TOKEN).await, None, "another type");
    cluster.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_can_be_off() -> anyhow::Result<()> {
    let cluster = Cluster::start_with(|config, _| config.bootstrap_tokens = false).await?;
    store(&cluster, &[], KIND).await?;
    assert_eq!(who(&cluster, TOKEN).await, None);
    cluster.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_joins_may_ask_for_a_certificate_and_hardly_anything_else() -> anyhow::Result<()> {
    let info = ClusterInfo { server: "https://10.0.0.1:6443".into(), authority_pem: "authority".into() };
    let cluster = Cluster::start_with(|config, _| config.cluster_info = Some(info)).await?;
    store(&cluster, &[], KIND).await?;
    let key = rcgen::KeyPair::generate()?;
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::OrganizationName, "system:nodes");
    params.distinguished_name.push(rcgen::DnType::CommonName, "system:node:n");
    let request = base64::Engine::encode(
        &base64::engine::general_purpose::STANDARD,
        params.serialize_request(&key)?.pem()?,
    );
    let object = json!({"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest",
        "metadata": {"name": "n"}, "spec": {"request": request, "usages": ["digital signature", "client auth"],
        "signerName": "kubernetes.io/kube-apiserver-client-kubelet"}});
    let (status, said) = ask(&cluster, "POST", REQUESTS, TOKEN, &object).await;
    assert_eq!(status, StatusCode::CREATED, "{said}");
    assert_eq!(said["spec"]["username"], "system:bootstrap:abcdef");
    let (status, said) = ask(&cluster, "GET", &format!("{REQUESTS}/n"), TOKEN, &Value::Null).await;
    assert_eq!(status, StatusCode::OK, "{said}");
    let (status, _) = ask(&cluster, "GET", "/api/v1/nodes/n", TOKEN, &Value::Null).await;
    assert_eq!(status, StatusCode::NOT_FOUND, "they may look whether a name is taken");
    for path in ["/api/v1/nodes", SECRETS, "/api/v1/namespaces/kube-public/configmaps"] {
        let (status, said) = ask(&cluster, "GET", path, TOKEN, &Value::Null).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{path}: {said}");
    }

    // Whether the controller approves it asks this of the authoriser.
    let review = |user: &str, group: &str, subresource: &str| {
        json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": {"user": user,
            "groups": [group], "resourceAttributes": {"group": "certificates.k8s.io", "verb": "create",
            "resource": "certificatesigningrequests", "subresource": subresource}}})
    };
    for (user, group, subresource, allowed) in [
        ("system:bootstrap:abcdef", "system:bootstrappers", "nodeclient", true),
        ("system:bootstrap:abcdef", "system:bootstrappers", "selfnodeclient", false),
        ("system:node:n", "system:nodes", "selfnodeclient", true),
        ("system:node:n", "system:nodes", "nodeclient", false),
    ] {
        let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
        let said = admin_asks(&cluster, "POST", path, &review(user, group, subresource)).await?;
        assert_eq!(said["status"]["allowed"], allowed, "{user} {subresource}: {said}");
    }

    // What the cluster says of itself is for everybody, and nothing else of that namespace is.
    let info = "/api/v1/namespaces/kube-public/configmaps/cluster-info";
    let (status, said) = ask(&cluster, "GET", info, "", &Value::Null).await;
    assert_eq!(status, StatusCode::OK, "{said}");
    assert!(
        said["data"]["kubeconfig"].as_str().is_some_and(|it| it.contains("https://10.0.0.1:6443")),
        "{said}"
    );
    for (method, path) in [("GET", "/api/v1/namespaces/kube-public/configmaps"), ("DELETE", info)] {
        let (status, said) = ask(&cluster, method, path, "", &Value::Null).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{method} {path}: {said}");
    }
    cluster.stop().await;
    Ok(())
}
