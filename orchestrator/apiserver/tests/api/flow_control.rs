//! Priority and fairness as clients meet it: queues, refusals, headers, and objects that keep themselves.

use std::time::Duration;

use axum::body::{Body, Bytes};
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::api::flowcontrol::v1::{FlowSchema, PriorityLevelConfiguration};
use k8s_openapi::api::rbac::v1::ClusterRoleBinding;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use penstock_apiserver::{StaticToken, User};
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tower::ServiceExt;

use crate::cluster::Cluster;

const GIVE_UP_AFTER: Duration = Duration::from_secs(60);
const LEVEL_UID: &str = "x-kubernetes-pf-prioritylevel-uid";
const SCHEMA_UID: &str = "x-kubernetes-pf-flowschema-uid";

/// A server of 20 seats, with users who may do everything but are nobody special.
async fn crowded() -> anyhow::Result<Cluster> {
    let cluster = Cluster::start_with(|config, _| {
        (config.max_requests_inflight, config.max_mutating_requests_inflight) = (12, 8);
        config.static_tokens = ["greedy", "modest"]
            .map(|name| StaticToken {
                token: name.to_owned(),
                user: User { name: name.to_owned(), groups: vec!["crowd".into()], ..User::default() },
            })
            .to_vec();
    })
    .await?;
    let admin = admin(&cluster);
    let bindings: Api<ClusterRoleBinding> = Api::all(admin);
    let binding = json!({"metadata": {"name": "crowd"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "crowd"}]});
    bindings.create(&PostParams::default(), &serde_json::from_value(binding)?).await?;
    Ok(cluster)
}

fn admin(cluster: &Cluster) -> kube::Client {
    cluster.server.client(User::system("test"))
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let deadline = Instant::now() + GIVE_UP_AFTER;
    while !holds().await? {
        anyhow::ensure!(Instant::now() < deadline, "never came true: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

/// A level of exactly two seats, and a schema that leads the crowd there.
async fn narrow_level(cluster: &Cluster) -> anyhow::Result<(PriorityLevelConfiguration, FlowSchema)> {
    let levels: Api<PriorityLevelConfiguration> = Api::all(admin(cluster));
    let level = json!({"metadata": {"name": "narrow"}, "spec": {"type": "Limited", "limited": {
        "nominalConcurrencyShares": 20, "lendablePercent": 0, "borrowingLimitPercent": 0,
        "limitResponse": {"type": "Queue", "queuing": {"queues": 64, "handSize": 1, "queueLengthLimit": 3}}}}});
    let level = levels.create(&PostParams::default(), &serde_json::from_value(level)?).await?;
    let schemas: Api<FlowSchema> = Api::all(admin(cluster));
    let schema = json!({"metadata": {"name": "crowd"}, "spec": {"matchingPrecedence": 50,
        "priorityLevelConfiguration": {"name": "narrow"}, "distinguisherMethod": {"type": "ByUser"},
        "rules": [{"subjects": [{"kind": "Group", "group": {"name": "crowd"}}],
            "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"],
                "clusterScope": true}]}]}});
    let schema = schemas.create(&PostParams::default(), &serde_json::from_value(schema)?).await?;
    let uid = level.metadata.uid.clone().unwrap_or_default();
    until("the crowd is led to the narrow level, and may do everything", async || {
        let response = list(cluster, "modest").await;
        let got = response.headers().get(LEVEL_UID).and_then(|uid| uid.to_str().ok());
        Ok(got == Some(&uid) && response.status() == StatusCode::OK)
    })
    .await?;
    Ok((level, schema))
}

async fn send(cluster: &Cluster, user: &str, request: http::request::Builder, body: Body) -> Response<Body> {
    let request = request.header("authorization", format!("Bearer {user}")).body(body).expect("a request");
    cluster.server.router().oneshot(request).await.unwrap_or_else(|never| match never {})
}

async fn list(cluster: &Cluster, user: &str) -> Response<Body> {
    send(cluster, user, Request::get("/api/v1/namespaces/default/configmaps"), Body::empty()).await
}

/// A write whose body does not come before it is told to: it keeps its seat.
fn hanging_write(
    cluster: &Cluster,
    user: &'static str,
    name: String,
) -> (oneshot::Sender<()>, JoinHandle<Response<Body>>) {
    let (go_on, goes_on) = oneshot::channel::<()>();
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}}).to_string();
    let body = Body::from_stream(futures::stream::once(async move {
        let _ = goes_on.await;
        Ok::<_, std::convert::Infallible>(Bytes::from(map))
    }));
    let server = cluster.server.clone();
    let sent = tokio::spawn(async move {
        let request = Request::post("/api/v1/namespaces/default/configmaps")
            .header("content-type", "application/json")
            .header("authorization", format!("Bearer {user}"));
        let request = request.body(body).expect("a request");
        server.router().oneshot(request).await.unwrap_or_else(|never| match never {})
    });
    (go_on, sent)
}

/// Waiting and executing requests of a level, as the debug table shows them.
async fn load(cluster: &Cluster, level: &str) -> anyhow::Result<(usize, usize)> {
    let table = text(cluster, "/debug/api_priority_and_fairness/dump_priority_levels").await?;
    let row = table.lines().find(|line| line.starts_with(&format!("{level},")));
    let cells: Vec<&str> = row.unwrap_or_default().split(',').map(str::trim).collect();
    anyhow::ensure!(cells.len() == 10, "no row of {level} in {table}");
    Ok((cells[4].parse()?, cells[5].parse()?))
}

async fn text(cluster: &Cluster, path: &str) -> anyhow::Result<String> {
    Ok(admin(cluster).request_text(Request::get(path).body(Vec::new())?).await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_one_user_keeps_nobody_else_waiting() -> anyhow::Result<()> {
    let cluster = crowded().await?;
    let (level, schema) = narrow_level(&cluster).await?;
    // Two get the seats, three wait: the queue is full.
    let mut flood = Vec::new();
    for n in 0..5usize {
        flood.push(hanging_write(&cluster, "greedy", format!("greedy-{n}")));
        let want = (n.saturating_sub(1), (n + 1).min(2));
        until("the flood is there", async || Ok(load(&cluster, "narrow").await? == want)).await?;
    }

    let refused = list(&cluster, "greedy").await;
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    let header = |name: &str| refused.headers().get(name).and_then(|it| it.to_str().ok()).map(str::to_owned);
    assert!(header("retry-after").is_some_and(|seconds| seconds.parse::<u32>().is_ok_and(|n| n >= 1)));
    assert_eq!((header(LEVEL_UID), header(SCHEMA_UID)), (level.metadata.uid, schema.metadata.uid));
    let status: Value = serde_json::from_slice(&refused.into_body().collect().await?.to_bytes())?;
    assert_eq!((&status["reason"], &status["code"]), (&json!("TooManyRequests"), &json!(429)));

    let waiting =
        text(&cluster, "/debug/api_priority_and_fairness/dump_requests?includeRequestDetails=1").await?;
    assert_eq!(waiting.lines().filter(|line| line.contains("greedy")).count(), 5, "{waiting}");

    // The other user comes last, and is answered as soon as one seat is free, though the rest of the flood hangs.
    let modest = async {
        let server = cluster.server.clone();
        let request =
            Request::get("/api/v1/namespaces/default/configmaps").header("authorization", "Bearer modest");
        let request = request.body(Body::empty())?;
        let asking = tokio::spawn(async move { server.router().oneshot(request).await });
        until("the other user waits", async || Ok(load(&cluster, "narrow").await? == (4, 2))).await?;
        anyhow::Ok(asking)
    }
    .await?;
    let (go_on, first) = flood.remove(0);
    go_on.send(()).expect("the request still hangs");
    assert_eq!(first.await?.status(), StatusCode::CREATED);
    assert_eq!(modest.await??.status(), StatusCode::OK);
    until("the flood goes on", async || Ok(load(&cluster, "narrow").await? == (2, 2))).await?;

    // Clients that go away, at work or waiting, give their places back.
    for (_, request) in flood.into_iter().rev() {
        request.abort();
        assert!(request.await.is_err_and(|ended| ended.is_cancelled()));
    }
    until("all seats are back", async || Ok(load(&cluster, "narrow").await? == (0, 0))).await?;
    assert_eq!(list(&cluster, "greedy").await.status(), StatusCode::OK);

    let metrics = text(&cluster, "/metrics").await?;
    let value = |name: &str, labels: &[&str]| {
        let line = metrics.lines().find(|line| {
            line.starts_with(&format!("apiserver_flowcontrol_{name}{{"))
                && labels.iter().all(|l| line.contains(l))
        });
        line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
    };
    let narrow = r#"priority_level="narrow""#;
    assert_eq!(value("rejected_requests_total", &[narrow, r#"reason="queue-full""#]), Some(1.0));
    assert_eq!(value("rejected_requests_total", &[narrow, r#"reason="cancelled""#]), Some(2.0));
    assert_eq!(value("nominal_limit_seats", &[narrow]), Some(2.0));
    assert_eq!(value("current_limit_seats", &[narrow]), Some(2.0));
    assert_eq!(value("current_executing_requests", &[narrow]), Some(0.0));
    assert_eq!(value("current_inqueue_requests", &[narrow]), Some(0.0));
    assert!(value("dispatched_requests_total", &[narrow, r#"flow_schema="crowd""#]).is_some_and(|n| n > 5.0));
    assert!(value("request_wait_duration_seconds_count", &[narrow, r#"execute="true""#]).is_some());
    cluster.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_waits_a_quarter_of_its_time_and_is_refused_then() -> anyhow::Result<()> {
    let cluster = crowded().await?;
    narrow_level(&cluster).await?;
    let _flood = [0, 1].map(|n| hanging_write(&cluster, "greedy", format!("greedy-{n}")));
    until("the seats are taken", async || Ok(load(&cluster, "narrow").await? == (0, 2))).await?;
    let short = Request::get("/api/v1/namespaces/default/configmaps?timeout=400ms");
    let refused = send(&cluster, "modest", short, Body::empty()).await;
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    let metrics = text(&cluster, "/metrics").await?;
    assert!(metrics.contains(r#"reason="time-out""#));
    cluster.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_says_what_its_request_fell_under() -> anyhow::Result<()> {
    let cluster = Cluster::start().await?;
    let anonymous = Request::get("/api/v1/namespaces/default/secrets").body(Body::empty())?;
    let refused = cluster.server.router().oneshot(anonymous).await?;
    assert_eq!(refused.status(), StatusCode::FORBIDDEN);
    let levels: Api<PriorityLevelConfiguration> = Api::all(admin(&cluster));
    let default = levels.get("global-default").await?;
    let got = refused.headers().get(LEVEL_UID).and_then(|uid| uid.to_str().ok()).map(str::to_owned);
    assert_eq!(got, default.metadata.uid);
    cluster.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn bootstrap_objects_keep_themselves_and_schemas_know_their_level() -> anyhow::Result<()> {
    let cluster = Cluster::start().await?;
    let client = admin(&cluster);
    let (schemas, levels): (Api<FlowSchema>, Api<PriorityLevelConfiguration>) =
        (Api::all(client.clone()), Api::all(client));
    assert_eq!(levels.list(&ListParams::default()).await?.items.len(), 8);
    until("every schema says that its level is there", async || {
        let listed = schemas.list(&ListParams::default()).await?.items;
        Ok(listed.len() == 11 && listed.iter().all(|schema| dangling(schema).as_deref() == Some("False")))
    })
    .await?;

    schemas.delete("catch-all", &DeleteParams::default()).await?;
    let narrower = json!({"spec": {"limited": {"nominalConcurrencyShares": 1}}});
    levels.patch("workload-low", &PatchParams::default(), &Patch::Merge(&narrower)).await?;
    until("both are as they were", async || {
        let shares = levels.get("workload-low").await?.spec.and_then(|spec| spec.limited);
        let shares = shares.and_then(|limited| limited.nominal_concurrency_shares);
        Ok(schemas.get_opt("catch-all").await?.is_some() && shares == Some(100))
    })
    .await?;

    let mine = json!({"metadata": {"annotations": {"apf.kubernetes.io/autoupdate-spec": "false"}},
        "spec": {"limited": {"nominalConcurrencyShares": 1}}});
    levels.patch("workload-low", &PatchParams::default(), &Patch::Merge(&mine)).await?;
    levels.delete("workload-high", &DeleteParams::default()).await?;
    until("what was deleted is there again", async || Ok(levels.get_opt("workload-high").await?.is_some()))
        .await?;
    let shares = levels.get("workload-low").await?.spec.and_then(|spec| spec.limited);
    assert_eq!(shares.and_then(|limited| limited.nominal_concurrency_shares), Some(1));

    let lost =
        json!({"metadata": {"name": "lost"}, "spec": {"priorityLevelConfiguration": {"name": "nowhere"}}});
    schemas.create(&PostParams::default(), &serde_json::from_value(lost)?).await?;
    until("it is told that its level is missing", async || {
        Ok(dangling(&schemas.get("lost").await?).as_deref() == Some("True"))
    })
    .await?;
    let refused = levels.patch("catch-all", &PatchParams::default(), &Patch::Merge(&narrower)).await;
    assert!(matches!(refused, Err(kube::Error::Api(status)) if status.code == 422));
    cluster.stop().await;
    Ok(())
}

fn dangling(schema: &FlowSchema) -> Option<String> {
    let conditions = schema.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|c| c.type_.as_deref() == Some("Dangling"))?.status.clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn without_priority_and_fairness_what_is_over_the_limit_is_refused() -> anyhow::Result<()> {
    let cluster = Cluster::start_with(|config, _| {
        config.priority_and_fairness = false;
        config.max_mutating_requests_inflight = 1;
        let user = User { name: "greedy".into(), ..User::default() };
        config.static_tokens = vec![StaticToken { token: "greedy".into(), user }];
    })
    .await?;
    let maps: Api<ConfigMap> = Api::default_namespaced(admin(&cluster));
    let role = json!({"metadata": {"name": "greedy"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "greedy"}]});
    let bindings: Api<ClusterRoleBinding> = Api::all(admin(&cluster));
    bindings.create(&PostParams::default(), &serde_json::from_value(role)?).await?;
    until("the binding is in force", async || Ok(list(&cluster, "greedy").await.status() == StatusCode::OK))
        .await?;

    let mut hanging = hanging_write(&cluster, "greedy", "one".into());
    until("one write is refused while another goes on", async || {
        if hanging.1.is_finished() {
            // The other was there first.
            hanging = hanging_write(&cluster, "greedy", "one".into());
        }
        let request = Request::delete("/api/v1/namespaces/default/configmaps/none");
        let response = send(&cluster, "greedy", request, Body::empty()).await;
        Ok(response.status() == StatusCode::TOO_MANY_REQUESTS
            && response.headers().contains_key("retry-after"))
    })
    .await?;
    assert_eq!(list(&cluster, "greedy").await.status(), StatusCode::OK, "reads have room of their own");
    let (go_on, first) = hanging;
    go_on.send(()).expect("the request still hangs");
    assert_eq!(first.await?.status(), StatusCode::CREATED);
    maps.delete("one", &DeleteParams::default()).await?;
    cluster.stop().await;
    Ok(())
}
