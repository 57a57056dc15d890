//! Requests that mean harm, on the whole path from their first byte: whatever they are, the answer is a success or a
//! Status with a reason that clients know, and never a failure of the server.
//!
//! `PENSTOCK_FUZZ_CASES` says how many requests are made up, for runs longer than CI's.

#[path = "hostile/aimed.rs"]
mod aimed;
#[path = "hostile/made.rs"]
mod made;

use std::io::Write as _;

use axum::body::Body;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures::stream;
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use penstock_apiserver::{StaticToken, User};
use proptest::prelude::*;
use proptest::test_runner::{TestCaseError, TestError, TestRunner};
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::cluster::Cluster;
use crate::replay::checks;
use aimed::aimed;
use made::{anything, compiled};

const TOKEN: &str = "of-an-administrator";
const REQUESTS: u32 = 3000;
const BODY_BYTES_MAX: usize = 3 * 1024 * 1024;
/// What upstream answers 500 to as well.
const UPSTREAMS_OWN: [&str; 5] = [
    "failed to create typed patch object",
    "failed to decode managed fields",
    "error dialing backend",
    "no preferred addresses found for node",
    "range is full",
];
/// Longer answers than a made-up request can ask for are not read.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

async fn cluster() -> anyhow::Result<Cluster> {
    let cluster = Cluster::start_with(|config, _| {
        let user = User { name: "admin".into(), groups: vec!["system:masters".into()], ..User::default() };
        config.static_tokens.push(StaticToken { token: TOKEN.into(), user });
    })
    .await?;
    let client = cluster.server.client(User::system("test"));
    for (path, object) in [
        ("/api/v1/namespaces/default/serviceaccounts", json!({"metadata": {"name": "default"}})),
        ("/api/v1/namespaces/default/configmaps", json!({"metadata": {"name": "a"}, "data": {"k": "v"}})),
        (
            "/api/v1/namespaces/default/services",
            json!({"metadata": {"name": "a"}, "spec": {"ports": [{"port": 80}]}}),
        ),
        (
            "/apis/apps/v1/namespaces/default/deployments",
            json!({"metadata": {"name": "a"}, "spec": {"selector": {"matchLabels": {"a": "b"}},
                "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}}),
        ),
    ] {
        let request = Request::post(path).header("content-type", "application/json");
        client.request::<Value>(request.body(object.to_string().into_bytes())?).await?;
    }
    Ok(cluster)
}

/// Checks an answer. One that goes on for ever is a success and is not read.
async fn check(answer: Response<Body>) -> anyhow::Result<u16> {
    let code = answer.status().as_u16();
    if code < 400 {
        return Ok(code);
    }
    if code >= 500 && !matches!(code, 501 | 503 | 504) {
        let text = text(answer).await;
        anyhow::ensure!(UPSTREAMS_OWN.iter().any(|own| text.contains(own)), "an answer of {code}: {text}");
        return Ok(code);
    }
    let content =
        answer.headers().get("content-type").and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
    let body = answer.into_body().collect().await?.to_bytes();
    anyhow::ensure!(body.len() < ANSWER_BYTES_MAX, "a failure of {} bytes", body.len());
    if content.starts_with("text/plain") || body.is_empty() {
        return Ok(code);
    }
    let status = if content == "application/yaml" {
        serde_yaml::from_slice(&body)?
    } else {
        checks::object(&content, &body)?
    };
    checks::check_status(code, &status)?;
    Ok(code)
}

async fn text(answer: Response<Body>) -> String {
    let body = answer.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    String::from_utf8_lossy(&body).into_owned()
}

#[test]
fn whatever_is_asked_the_answer_is_a_success_or_a_status() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let cluster = runtime.block_on(cluster())?;
    let router = cluster.server.router();
    let asked = std::env::var("PENSTOCK_FUZZ_CASES").ok().and_then(|cases| cases.parse().ok());
    let config = ProptestConfig {
        cases: asked.unwrap_or(REQUESTS),
        failure_persistence: None,
        max_shrink_iters: 500,
        ..ProptestConfig::default()
    };
    let mut codes = std::collections::BTreeMap::<u16, usize>::new();
    let told = std::cell::RefCell::new(&mut codes);
    let outcome = TestRunner::new(config).run(&prop_oneof![1 => anything(), 2 => aimed()], |made| {
        let Some(request) = compiled(&made) else { return Ok(()) };
        let answered = runtime.block_on(async {
            // In a task of its own a panic is one of this request.
            let router = router.clone();
            tokio::spawn(async move { check(router.oneshot(request).await?).await }).await
        });
        match answered {
            Ok(Ok(code)) => {
                *told.borrow_mut().entry(code).or_default() += 1;
                Ok(())
            }
            Ok(Err(error)) => Err(TestCaseError::fail(format!("{error:#}"))),
            Err(panic) => Err(TestCaseError::fail(panic.to_string())),
        }
    });
    runtime.block_on(cluster.stop());
    if let Err(TestError::Fail(why, made)) = outcome {
        let body = String::from_utf8_lossy(&made.body).into_owned();
        panic!("{why}\n{} {}\n{:?}\n{body}", made.method, made.uri, made.headers);
    }
    println!("answers by code: {codes:?}");
    assert!(codes.keys().any(|code| *code < 300) && codes.len() > 5, "{codes:?}");
    Ok(())
}

struct Directed {
    cluster: Cluster,
}

impl Directed {
    async fn ask(
        &self,
        method: Method,
        path: &str,
        content: &str,
        body: Body,
    ) -> anyhow::Result<(u16, Value)> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("authorization", format!("Bearer {TOKEN}"))
            .header("content-type", content)
            .body(body)?;
        let answer = self.cluster.server.router().oneshot(request).await?;
        let code = answer.status().as_u16();
        let object: Value = serde_json::from_str(&text(answer).await)?;
        if code >= 400 {
            checks::check_status(code, &object)?;
        }
        Ok((code, object))
    }

    /// Asks, and checks code and reason.
    async fn refused(
        &self,
        (method, path, content): (Method, &str, &str),
        body: impl Into<Body>,
        (code, reason): (u16, &str),
    ) -> anyhow::Result<String> {
        let (answered, status) = self.ask(method, path, content, body.into()).await?;
        anyhow::ensure!(
            (answered, &status["reason"]) == (code, &json!(reason)),
            "{path} {content}: {status}"
        );
        Ok(status["message"].as_str().unwrap_or_default().to_owned())
    }
}

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const MAP: &str = "/api/v1/namespaces/default/configmaps/a";
const JSON: &str = "application/json";
const YAML: &str = "application/yaml";
const APPLY: &str = "application/apply-patch+yaml";
const MERGE: &str = "application/merge-patch+json";
const JSON_PATCH: &str = "application/json-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

#[tokio::test(flavor = "multi_thread")]
async fn known_weapons_are_refused_by_their_reasons() -> anyhow::Result<()> {
    let directed = Directed { cluster: cluster().await? };
    let post = |content| (Method::POST, MAPS, content);
    let patch = |content| (Method::PATCH, MAP, content);
    let applied = format!("{MAP}?fieldManager=m");
    let apply = || (Method::PATCH, applied.as_str(), APPLY);
    let bad = (400, "BadRequest");

    // Depth.
    let deep = "{\"a\":".repeat(200_000);
    let lists = "[".repeat(1_000_000);
    for weapon in [&deep, &lists] {
        for content in [JSON, YAML] {
            directed.refused(post(content), weapon.clone(), bad).await?;
        }
        for content in [MERGE, JSON_PATCH, STRATEGIC] {
            directed.refused(patch(content), weapon.clone(), bad).await?;
        }
        directed.refused(apply(), weapon.clone(), bad).await?;
        directed.refused((Method::DELETE, MAP, JSON), weapon.clone(), bad).await?;
        directed.refused((Method::DELETE, MAP, YAML), weapon.clone(), bad).await?;
    }
    let mut nesting = vec![json!({"op": "add", "path": "/data", "value": {}})];
    for _ in 0..3000 {
        nesting.push(json!({"op": "add", "path": "/x", "value": {}}));
        nesting.push(json!({"op": "move", "from": "/data", "path": "/x/y"}));
        nesting.push(json!({"op": "move", "from": "/x", "path": "/data"}));
    }
    directed.refused(patch(JSON_PATCH), Value::from(nesting).to_string(), bad).await?;

    // Size, announced and not.
    let large = (413, "RequestEntityTooLarge");
    let whole = vec![b' '; BODY_BYTES_MAX + 1];
    for content in [JSON, YAML, PROTOBUF] {
        directed.refused(post(content), whole.clone(), large).await?;
        directed.refused((Method::PUT, MAP, content), whole.clone(), large).await?;
    }
    for content in [MERGE, JSON_PATCH, STRATEGIC] {
        directed.refused(patch(content), whole.clone(), large).await?;
    }
    directed.refused(apply(), whole.clone(), large).await?;
    directed.refused((Method::DELETE, MAP, JSON), whole.clone(), large).await?;
    let endless = stream::repeat_with(|| Ok::<_, std::io::Error>(bytes::Bytes::from_static(&[b' '; 4096])));
    directed.refused(post(JSON), Body::from_stream(endless), large).await?;
    let reviews = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    directed.refused((Method::POST, reviews, JSON), whole, large).await?;

    // Operations.
    let operation = json!({"op": "test", "path": "/data/k", "value": "v"});
    let many = |count| Value::from(vec![operation.clone(); count]).to_string();
    directed.refused(patch(JSON_PATCH), many(10_001), large).await?;
    assert_eq!(directed.ask(Method::PATCH, MAP, JSON_PATCH, many(10_000).into()).await?.0, 200);

    // Annotations.
    let annotated = |bytes: usize| {
        let value = "x".repeat(bytes - 1);
        json!({"metadata": {"name": format!("annotated-{bytes}"), "annotations": {"k": value}}}).to_string()
    };
    let message = directed.refused(post(JSON), annotated(256 * 1024 + 1), (422, "Invalid")).await?;
    assert!(message.contains("metadata.annotations: Too long"), "{message}");
    assert_eq!(directed.ask(Method::POST, MAPS, JSON, annotated(256 * 1024).into()).await?.0, 201);

    // Text that is none, keys that are there twice, numbers beyond all fields.
    directed.refused(post(JSON), &b"{\"metadata\":{\"name\":\"\xff\"}}"[..], bad).await?;
    directed.refused(post(YAML), &b"metadata: {name: \"\xff\"}"[..], bad).await?;
    let twice = "{\"metadata\":{\"name\":\"t\",\"name\":\"u\"}}";
    let strict = format!("{MAPS}?fieldValidation=Strict");
    let message = directed.refused((Method::POST, &strict, JSON), twice, bad).await?;
    assert!(message.contains("duplicate field \"metadata.name\""), "{message}");
    assert_eq!(directed.ask(Method::POST, MAPS, JSON, twice.into()).await?.1["metadata"]["name"], "u");
    let number = format!("{{\"metadata\":{{\"name\":\"n\",\"generation\":{}}}}}", "9".repeat(100_000));
    directed.refused(post(JSON), number, bad).await?;

    // Aliases, where anything may stand and where nobody looks.
    let revisions = "/apis/apps/v1/namespaces/default/controllerrevisions";
    let revision = format!("{revisions}/l?fieldManager=m");
    let mut laughs = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x]");
    for level in 1..12 {
        let aliases = vec![format!("*a{}", level - 1); 9].join(",");
        laughs.push_str(&format!(", a{level}: &a{level} [{aliases}]"));
    }
    let wide = format!("x: &x [{}], y: [{}]", "1,".repeat(200_000), "*x,".repeat(200_000));
    for weapon in [laughs, wide] {
        let kept = format!("metadata: {{name: l}}\nrevision: 1\ndata: {{{weapon}}}\n");
        directed.refused((Method::POST, revisions, YAML), kept.clone(), bad).await?;
        directed.refused((Method::PATCH, &revision, APPLY), kept, bad).await?;
        let dropped = format!("metadata: {{name: l}}\nnothing: {{{weapon}}}\n");
        let (code, _) = directed.ask(Method::POST, MAPS, YAML, dropped.into()).await?;
        assert!(matches!(code, 201 | 400 | 409), "{code}");
    }

    // Compressed bodies are not unpacked, whatever they would become.
    let mut bomb = GzEncoder::new(Vec::new(), Compression::fast());
    bomb.write_all(&vec![b' '; 64 * 1024 * 1024])?;
    let request = Request::post(MAPS)
        .header("authorization", format!("Bearer {TOKEN}"))
        .header("content-type", JSON)
        .header("content-encoding", "gzip")
        .body(Body::from(bomb.finish()?))?;
    let answer = directed.cluster.server.router().oneshot(request).await?;
    assert!(matches!(answer.status(), StatusCode::BAD_REQUEST | StatusCode::UNSUPPORTED_MEDIA_TYPE));

    // Envelopes.
    for (body, why) in
        [(&b"k8s\0\x0a\xff"[..], "truncated"), (b"protobuf?", "prefix"), (b"k8s\0\x12\x02\x0a\xff", "")]
    {
        let message = directed.refused(post(PROTOBUF), body, bad).await?;
        assert!(message.contains(why), "{message}");
    }

    // The server is none the worse for it.
    assert_eq!(directed.ask(Method::GET, MAP, JSON, Body::empty()).await?.1["data"], json!({"k": "v"}));
    directed.cluster.stop().await;
    Ok(())
}
