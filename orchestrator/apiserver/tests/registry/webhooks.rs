//! Admission webhooks against a real HTTPS server: what is asked, what comes of the answers, and of bad ones.

use axum::body::Body;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures::stream;
use http::Response;
use penstock_apiserver::error::ApiError;
use penstock_apiserver::registry::{Body as ObjectBody, Context, DeleteOptions, Target, User};
use serde_json::{Value, json};

use crate::cluster::{Cluster, context};
use crate::https::{HttpsServer, json_answer};

fn review(question: &Value, response: Value) -> Value {
    let mut response = response;
    response["uid"] = question["request"]["uid"].clone();
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response})
}

fn patched(question: &Value, operations: Value) -> Value {
    let patch = STANDARD.encode(operations.to_string());
    review(question, json!({"allowed": true, "patchType": "JSONPatch", "patch": patch}))
}

/// Adds a key to the data of ConfigMaps, named by the path; `/deny` refuses, `/allow` lets pass.
fn hook(path: &str, question: &Value) -> Response<Body> {
    let path = path.split('?').next().unwrap();
    let has = |key: &str| question["request"]["object"]["data"].get(key).is_some();
    json_answer(&match path {
        "/deny" => review(
            question,
            json!({"allowed": false, "status": {"code": 403, "reason": "Forbidden",
            "message": "not today"}, "warnings": ["heard"], "auditAnnotations": {"why": "because"}}),
        ),
        "/allow" => review(question, json!({"allowed": true, "warnings": ["careful"]})),
        "/needs-b" if has("b") && !has("after-b") => {
            patched(question, json!([{"op": "add", "path": "/data/after-b", "value": "1"}]))
        }
        "/needs-b" => review(question, json!({"allowed": true})),
        add => {
            let key = add.trim_start_matches('/');
            patched(
                question,
                json!([{"op": "add", "path": format!("/data/{key}"), "value": "1"},
                {"op": "add", "path": "/nonsense", "value": 1}]),
            )
        }
    })
}

fn webhook(name: &str, client: Value) -> Value {
    json!({"name": name, "clientConfig": client, "sideEffects": "None", "admissionReviewVersions": ["v1"],
        "rules": [{"operations": ["*"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}]})
}

async fn configure(cluster: &Cluster, plural: &str, name: &str, webhooks: Vec<Value>) {
    let configuration = json!({"metadata": {"name": name}, "webhooks": webhooks});
    cluster.create(plural, configuration).await.unwrap();
    cluster.settle(plural).await;
}

const MUTATING: &str = "mutatingwebhookconfigurations";
const VALIDATING: &str = "validatingwebhookconfigurations";

fn configmap(name: &str) -> Value {
    json!({"metadata": {"name": name}, "data": {"own": "1"}})
}

async fn create(cluster: &Cluster, context: &Context, object: Value) -> Result<Value, ApiError> {
    let body = ObjectBody::Json(object.to_string().into());
    let target = Target::collection(Some("default"));
    let made = cluster.registry.create(context, &cluster.kind("configmaps"), &target, body).await;
    made.map(|outcome| outcome.object.value())
}

#[tokio::test]
async fn mutating_webhooks_change_what_is_stored_in_the_order_of_their_names() {
    let cluster = Cluster::start().await;
    let server = HttpsServer::start(&[], hook).await;
    // The second configuration comes first by name, and sees `b` only when it is asked again.
    configure(&cluster, MUTATING, "z", vec![webhook("b.example.com", server.client("/b"))]).await;
    let mut again = webhook("again.example.com", server.client("/needs-b"));
    again["reinvocationPolicy"] = "IfNeeded".into();
    configure(&cluster, MUTATING, "a", vec![again, webhook("a.example.com", server.client("/a"))]).await;
    let made = create(&cluster, &context(), configmap("c")).await.unwrap();
    assert_eq!(made["data"], json!({"own": "1", "a": "1", "b": "1", "after-b": "1"}));
    assert!(made.get("nonsense").is_none(), "unknown fields are dropped");
    assert_eq!(cluster.get("configmaps", "c").await.unwrap()["data"], made["data"]);
    let paths: Vec<String> = server.asked.lock().iter().map(|(path, _)| path.clone()).collect();
    let once = |path: &str| format!("{path}?timeout=10s");
    assert_eq!(paths, ["/needs-b", "/a", "/b", "/needs-b"].map(once));
    assert_eq!(*server.connections.lock(), 1, "one connection serves them all");
    assert_eq!(server.headers.lock()[0]["content-type"], "application/json");
    let question = server.asked.lock()[1].1["request"].clone();
    assert_eq!(
        (&question["operation"], &question["kind"]["kind"], &question["namespace"], &question["name"]),
        (&json!("CREATE"), &json!("ConfigMap"), &json!("default"), &json!("c"))
    );
    assert_eq!(question["userInfo"]["username"], "test");
}

#[tokio::test]
async fn a_validating_webhook_denies_in_its_own_words_and_leaves_notes() {
    let cluster = Cluster::start().await;
    let server = HttpsServer::start(&[], hook).await;
    cluster.create("configmaps", configmap("before")).await.unwrap();
    let webhooks = vec![
        webhook("allow.example.com", server.client("/allow")),
        webhook("deny.example.com", server.client("/deny")),
    ];
    configure(&cluster, VALIDATING, "v", webhooks).await;
    let context = context();
    let refused = create(&cluster, &context, configmap("c")).await.unwrap_err();
    assert_eq!(refused.message, "admission webhook \"deny.example.com\" denied the request: not today");
    assert_eq!((refused.code, &refused.status()["reason"]), (403, &json!("Forbidden")));
    assert_eq!(*context.warnings.lock(), ["careful", "heard"]);
    assert_eq!(context.annotations.lock()["deny.example.com/why"], "because");
    let refused = cluster.delete("configmaps", "before", DeleteOptions::default()).await.unwrap_err();
    assert_eq!(refused.code, 403);
    let question = server.asked.lock().last().unwrap().1["request"].clone();
    assert_eq!((&question["operation"], &question["object"]), (&json!("DELETE"), &Value::Null));
    assert_eq!(question["oldObject"]["data"]["own"], "1");
    // What would lock everybody out is never asked about.
    cluster.delete(VALIDATING, "v", DeleteOptions::default()).await.unwrap();
    cluster.settle(VALIDATING).await;
    create(&cluster, &context, configmap("c")).await.unwrap();
}

#[tokio::test]
async fn selectors_and_dry_runs_decide_who_is_asked() {
    let cluster = Cluster::start().await;
    let server = HttpsServer::start(&[], hook).await;
    let mut picky = webhook("picky.example.com", server.client("/deny"));
    picky["objectSelector"] = json!({"matchLabels": {"ask": "me"}});
    picky["namespaceSelector"] = json!({"matchLabels": {"kubernetes.io/metadata.name": "default"}});
    let mut elsewhere = webhook("elsewhere.example.com", server.client("/deny"));
    elsewhere["namespaceSelector"] = json!({"matchLabels": {"no": "where"}});
    configure(&cluster, VALIDATING, "v", vec![picky, elsewhere]).await;
    create(&cluster, &context(), configmap("unlabelled")).await.unwrap();
    assert!(server.asked.lock().is_empty());
    let mut labelled = configmap("labelled");
    labelled["metadata"]["labels"] = json!({"ask": "me"});
    create(&cluster, &context(), labelled.clone()).await.unwrap_err();
    let dry = Context { dry_run: true, ..Context::new(User::system("test")) };
    create(&cluster, &dry, labelled.clone()).await.unwrap_err();
    assert_eq!(server.asked.lock()[1].1["request"]["dryRun"], true);
}

#[tokio::test]
async fn a_service_is_asked_at_its_endpoint_under_its_own_name() {
    let cluster = Cluster::start().await;
    let server = HttpsServer::start(&["hook.default.svc"], hook).await;
    cluster.service_at("hook", server.address).await;
    let service = json!({"service": {"namespace": "default", "name": "hook", "path": "/deny"}});
    let mut trusted = service.clone();
    trusted["caBundle"] = server.bundle.as_str().into();
    configure(&cluster, VALIDATING, "v", vec![webhook("w.example.com", trusted)]).await;
    cluster.settle("endpointslices").await;
    let refused = create(&cluster, &context(), configmap("c")).await.unwrap_err();
    assert_eq!(refused.code, 403, "{refused}");
    cluster.delete(VALIDATING, "v", DeleteOptions::default()).await.unwrap();
    // Without the right authority nobody is believed.
    let stranger = HttpsServer::start(&["hook.default.svc"], hook).await;
    let mut untrusted = service;
    untrusted["caBundle"] = stranger.bundle.as_str().into();
    configure(&cluster, VALIDATING, "v", vec![webhook("w.example.com", untrusted)]).await;
    let refused = create(&cluster, &context(), configmap("c")).await.unwrap_err();
    assert_eq!(refused.code, 500);
    let said = "Internal error occurred: failed calling webhook \"w.example.com\": failed to call webhook: \
                Post \"https://hook.default.svc:443/deny?timeout=10s\": ";
    assert!(refused.message.starts_with(said) && refused.message.contains("certificate"), "{refused}");
    assert!(stranger.asked.lock().is_empty());
}

/// Answers nobody should give.
fn hostile(path: &str, question: &Value) -> Response<Body> {
    let bytes = |n: usize| Body::from(vec![b' '; n]);
    match path.split('?').next().unwrap() {
        "/large" => Response::new(bytes(9 * 1024 * 1024)),
        "/endless" => Response::new(Body::from_stream(stream::repeat_with(|| {
            Ok::<_, std::io::Error>(bytes::Bytes::from_static(&[b' '; 65536]))
        }))),
        "/slow" => {
            Response::new(Body::from_stream(stream::pending::<Result<bytes::Bytes, std::io::Error>>()))
        }
        "/closed" => {
            let broken = std::io::Error::other("broken");
            Response::new(Body::from_stream(stream::iter([Err::<bytes::Bytes, _>(broken)])))
        }
        "/redirect" => {
            Response::builder().status(307).header("location", "/allow").body(Body::empty()).unwrap()
        }
        "/text" => Response::new(Body::from("yes")),
        "/error" => Response::builder().status(500).body(Body::from("on fire")).unwrap(),
        "/uid" => json_answer(&json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
            "response": {"uid": "other", "allowed": true}})),
        "/patch" => {
            json_answer(&patched(question, json!([{"op": "replace", "path": "/no/such", "value": 1}])))
        }
        "/garbage" => {
            json_answer(&review(question, json!({"allowed": true, "patchType": "JSONPatch", "patch": "?"})))
        }
        _ => json_answer(&patched(question, json!([{"op": "replace", "path": "/data", "value": 7}]))),
    }
}

#[tokio::test]
async fn bad_answers_are_failures_that_name_the_webhook() {
    let cluster = Cluster::start().await;
    let server = HttpsServer::start(&[], hostile).await;
    let cases = [
        ("/large", "more than 8388608 bytes"),
        ("/endless", "more than 8388608 bytes"),
        ("/slow", "context deadline exceeded"),
        ("/closed", "failed to call webhook"),
        ("/redirect", "answered with 307"),
        ("/text", "not JSON"),
        ("/error", "answered with 500 (\"on fire\")"),
        ("/uid", "expected response.uid="),
        ("/garbage", "undecodable patch"),
    ];
    for (path, said) in cases {
        let mut failing = webhook("w.example.com", server.client(path));
        failing["timeoutSeconds"] = if path == "/slow" { 1 } else { 20 }.into();
        configure(&cluster, MUTATING, "m", vec![failing.clone()]).await;
        let refused = create(&cluster, &context(), configmap("c")).await.unwrap_err();
        assert_eq!(refused.code, 500, "{path}");
        let begins = "Internal error occurred: failed calling webhook \"w.example.com\": ";
        assert!(refused.message.starts_with(begins) && refused.message.contains(said), "{path}: {refused}");
        cluster.delete(MUTATING, "m", DeleteOptions::default()).await.unwrap();
        failing["failurePolicy"] = "Ignore".into();
        configure(&cluster, MUTATING, "m", vec![failing]).await;
        create(&cluster, &context(), configmap(&format!("c{}", path.replace('/', "-")))).await.unwrap();
        cluster.delete(MUTATING, "m", DeleteOptions::default()).await.unwrap();
    }
    // A patch that cannot be applied, or makes something else of the object, is no failure to call.
    for path in ["/patch", "/type"] {
        let mut webhook = webhook("w.example.com", server.client(path));
        webhook["failurePolicy"] = "Ignore".into();
        configure(&cluster, MUTATING, "m", vec![webhook]).await;
        let refused = create(&cluster, &context(), configmap("p")).await.unwrap_err();
        assert_eq!(refused.code, 500, "{path}");
        cluster.delete(MUTATING, "m", DeleteOptions::default()).await.unwrap();
    }
}

#[tokio::test]
async fn a_webhook_is_asked_in_the_version_it_knows() {
    let cluster = Cluster::start().await;
    let server = HttpsServer::start(&[], |_, question| {
        json_answer(&patched(
            question,
            json!([{"op": "add", "path": "/spec/targetCPUUtilizationPercentage", "value": 42}]),
        ))
    })
    .await;
    let mut old = webhook("w.example.com", server.client("/"));
    old["rules"] = json!([{"operations": ["CREATE"], "apiGroups": ["autoscaling"], "apiVersions": ["v1"],
        "resources": ["horizontalpodautoscalers"]}]);
    configure(&cluster, MUTATING, "m", vec![old]).await;
    let made = cluster
        .create(
            "horizontalpodautoscalers",
            json!({"apiVersion": "autoscaling/v2", "metadata": {"name": "h"},
            "spec": {"maxReplicas": 3, "scaleTargetRef": {"kind": "Deployment", "name": "d", "apiVersion": "apps/v1"}}}),
        )
        .await
        .unwrap();
    assert_eq!(made["apiVersion"], "autoscaling/v2");
    assert_eq!(made["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 42);
    let question = server.asked.lock()[0].1["request"].clone();
    assert_eq!(
        (&question["kind"]["version"], &question["requestKind"]["version"]),
        (&json!("v1"), &json!("v2"))
    );
    assert_eq!(question["object"]["apiVersion"], "autoscaling/v1");
}

#[tokio::test]
async fn a_scale_is_asked_about_as_one_and_may_be_changed() {
    let cluster = Cluster::start().await;
    let server = HttpsServer::start(&[], |_, question| {
        json_answer(&patched(question, json!([{"op": "replace", "path": "/spec/replicas", "value": 2}])))
    })
    .await;
    let mut scales = webhook("w.example.com", server.client("/"));
    scales["rules"] = json!([{"operations": ["UPDATE"], "apiGroups": ["apps"], "apiVersions": ["v1"],
        "resources": ["deployments/scale"]}]);
    configure(&cluster, MUTATING, "m", vec![scales]).await;
    let template =
        json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let deployment = json!({"metadata": {"name": "d"},
        "spec": {"replicas": 1, "selector": {"matchLabels": {"a": "b"}}, "template": template}});
    cluster.create("deployments", deployment).await.unwrap();
    let target = Target::named(Some("default"), "d").with_subresource("scale");
    let scale = json!({"apiVersion": "autoscaling/v1", "kind": "Scale",
        "metadata": {"name": "d", "namespace": "default"}, "spec": {"replicas": 9}});
    let body = ObjectBody::Json(scale.to_string().into());
    let scaled =
        cluster.registry.update(&context(), &cluster.kind("deployments"), &target, body).await.unwrap();
    assert_eq!(scaled.object.value()["spec"]["replicas"], 2);
    assert_eq!(cluster.get("deployments", "d").await.unwrap()["metadata"]["generation"], 2);
    let question = server.asked.lock()[0].1["request"].clone();
    assert_eq!((&question["kind"]["kind"], &question["subResource"]), (&json!("Scale"), &json!("scale")));
    assert_eq!(
        (&question["object"]["spec"], &question["oldObject"]["spec"]),
        (&json!({"replicas": 9}), &json!({"replicas": 1}))
    );
}

#[tokio::test]
async fn conditions_decide_who_is_asked_and_failing_ones_what_the_policy_says() {
    let cluster = Cluster::start().await;
    let server = HttpsServer::start(&[], hook).await;
    let mut careful = webhook("careful.example.com", server.client("/deny"));
    careful["matchConditions"] = json!([
        {"name": "not-skipped", "expression": "object.metadata.name != 'skip-me'"},
        {"name": "by-test", "expression": "request.userInfo.username == 'test'"}]);
    configure(&cluster, VALIDATING, "v", vec![careful.clone()]).await;
    create(&cluster, &context(), configmap("skip-me")).await.unwrap();
    create(&cluster, &Context::new(User::system("other")), configmap("by-other")).await.unwrap();
    assert!(server.asked.lock().is_empty());
    let denied = create(&cluster, &context(), configmap("c")).await.unwrap_err();
    assert!(denied.message.ends_with("denied the request: not today"), "{denied}");
    cluster.delete(VALIDATING, "v", DeleteOptions::default()).await.unwrap();

    careful["matchConditions"] = json!([{"name": "absent", "expression": "object.spec.absent == 1"}]);
    configure(&cluster, VALIDATING, "v", vec![careful.clone()]).await;
    let refused = create(&cluster, &context(), configmap("c")).await.unwrap_err();
    let said = "configmaps \"c\" is forbidden: expression 'object.spec.absent == 1' resulted in error: ";
    assert!(refused.code == 403 && refused.message.starts_with(said), "{refused}");
    cluster.delete(VALIDATING, "v", DeleteOptions::default()).await.unwrap();
    careful["failurePolicy"] = "Ignore".into();
    configure(&cluster, VALIDATING, "v", vec![careful]).await;
    create(&cluster, &context(), configmap("c")).await.unwrap();
    assert_eq!(server.asked.lock().len(), 1);
}
