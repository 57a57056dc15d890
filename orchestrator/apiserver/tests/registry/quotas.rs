//! ResourceQuotas: what may be written in their namespace, and what is charged for it.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::cluster::{Cluster, context, pod};
use penstock_apiserver::registry::{Body, Target};

/// A quota that was counted: nothing is used yet.
async fn with_quota(spec: Value, used: Value) -> Cluster {
    let cluster = Cluster::start().await.with_account().await;
    let quota = json!({"metadata": {"name": "q"}, "spec": spec});
    let mut quota = cluster.create("resourcequotas", quota).await.unwrap();
    quota["status"] = json!({"hard": quota["spec"]["hard"], "used": used});
    cluster.update("resourcequotas", Some("status"), &quota).await.unwrap();
    cluster
}

async fn used(cluster: &Cluster) -> Value {
    cluster.get("resourcequotas", "q").await.unwrap()["status"]["used"].clone()
}

fn asking(name: &str, cpu: &str) -> Value {
    let mut pod = pod(name);
    pod["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": cpu}});
    pod
}

#[tokio::test]
async fn pods_are_charged_until_the_quota_is_used_up() {
    let hard = json!({"pods": "3", "requests.cpu": "1", "count/pods": "5"});
    let cluster =
        with_quota(json!({"hard": hard}), json!({"pods": "0", "requests.cpu": "0", "count/pods": "0"})).await;
    cluster.create("pods", asking("a", "600m")).await.unwrap();
    assert_eq!(used(&cluster).await, json!({"pods": "1", "requests.cpu": "600m", "count/pods": "1"}));
    let refused = cluster.create("pods", asking("b", "500m")).await.unwrap_err();
    assert_eq!((refused.code, refused.reason), (403, "Forbidden"));
    assert_eq!(
        refused.message,
        "pods \"b\" is forbidden: exceeded quota: q, requested: requests.cpu=500m, used: requests.cpu=600m, \
         limited: requests.cpu=1"
    );
    let refused = cluster.create("pods", pod("c")).await.unwrap_err();
    assert_eq!(refused.message, "pods \"c\" is forbidden: failed quota: q: must specify requests.cpu for: c");
    assert_eq!(used(&cluster).await["pods"], "1", "nothing is charged for what is refused");
    cluster.create("configmaps", json!({"metadata": {"name": "free"}})).await.unwrap();
}

#[tokio::test]
async fn writers_at_once_do_not_get_more_than_there_is() {
    let cluster = Arc::new(with_quota(json!({"hard": {"pods": "7"}}), json!({"pods": "0"})).await);
    let writers = (0..20).map(|n| {
        let cluster = cluster.clone();
        tokio::spawn(async move { cluster.create("pods", pod(&format!("p{n}"))).await.is_ok() })
    });
    let made: Vec<bool> = futures::future::join_all(writers).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(made.iter().filter(|made| **made).count(), 7);
    assert_eq!(used(&cluster).await, json!({"pods": "7"}));
}

#[tokio::test]
async fn a_service_is_charged_for_what_its_type_becomes() {
    let hard = json!({"services": "2", "services.nodeports": "1"});
    let cluster =
        with_quota(json!({"hard": hard}), json!({"services": "0", "services.nodeports": "0"})).await;
    let service =
        json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}, {"port": 81, "name": "b"}]}});
    let mut named = service.clone();
    named["spec"]["ports"][0]["name"] = "a".into();
    let made = cluster.create("services", named).await.unwrap();
    assert_eq!(used(&cluster).await, json!({"services": "1", "services.nodeports": "0"}));
    let mut turned = made.clone();
    turned["spec"]["type"] = "NodePort".into();
    let refused = cluster.update("services", None, &turned).await.unwrap_err();
    assert!(
        refused.message.contains("requested: services.nodeports=2, used: services.nodeports=0"),
        "{refused:?}"
    );
    turned["spec"]["ports"] = json!([{"port": 80}]);
    cluster.update("services", None, &turned).await.unwrap();
    assert_eq!(used(&cluster).await, json!({"services": "1", "services.nodeports": "1"}));
}

#[tokio::test]
async fn a_scope_says_which_pods_are_charged_and_a_dry_run_charges_nothing() {
    let spec = json!({"hard": {"pods": "1"}, "scopes": ["BestEffort"]});
    let cluster = with_quota(spec, json!({"pods": "0"})).await;
    cluster.create("pods", asking("burstable", "1m")).await.unwrap();
    assert_eq!(used(&cluster).await, json!({"pods": "0"}));
    let mut dry = context();
    dry.dry_run = true;
    let target = Target::collection(Some("default"));
    let body = || Body::Json(pod("dry").to_string().into());
    cluster.registry.create(&dry, &cluster.kind("pods"), &target, body()).await.unwrap();
    assert_eq!(used(&cluster).await, json!({"pods": "0"}));
    cluster.create("pods", pod("plain")).await.unwrap();
    assert_eq!(used(&cluster).await, json!({"pods": "1"}));
    cluster.registry.create(&dry, &cluster.kind("pods"), &target, body()).await.unwrap_err();
}

#[tokio::test]
async fn a_quota_of_nonsense_is_refused_with_all_that_is_wrong() {
    let cluster = Cluster::start().await;
    let spec = json!({
        "hard": {"pods": "1.5", "gold": "1", "requests.cpu": "-1", "services": "1"},
        "scopes": ["BestEffort", "NotBestEffort", "Nowhere"],
        "scopeSelector": {"matchExpressions": [
            {"scopeName": "PriorityClass", "operator": "In"},
            {"scopeName": "Terminating", "operator": "DoesNotExist"},
        ]},
    });
    let refused = cluster.create("resourcequotas", json!({"metadata": {"name": "q"}, "spec": spec})).await;
    let message = refused.unwrap_err().message;
    for part in [
        "spec.hard[pods]: Invalid value: \"1500m\": must be an integer",
        "spec.hard[gold]: Invalid value: \"gold\": must be a standard resource for quota",
        "spec.hard[requests.cpu]: Invalid value: \"-1\": must be greater than or equal to 0",
        "unsupported scope applied to resource",
        "conflicting scopes",
        "spec.scopeSelector.matchExpressions.values: Required value: must be at least one value",
        "spec.scopeSelector.matchExpressions.operator: Invalid value: \"DoesNotExist\": must be 'Exists'",
    ] {
        assert!(message.contains(part), "{part} is not in {message}");
    }
    let mut quota =
        json!({"metadata": {"name": "q"}, "spec": {"hard": {"pods": "1"}, "scopes": ["Terminating"]}});
    quota = cluster.create("resourcequotas", quota).await.unwrap();
    quota["spec"]["scopes"] = json!(["NotTerminating"]);
    let refused = cluster.update("resourcequotas", None, &quota).await.unwrap_err();
    assert!(refused.message.contains("field is immutable"), "{refused:?}");
}
