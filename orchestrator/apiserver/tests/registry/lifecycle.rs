//! Writing: locks, isolation, names, finalizers, grace, dry run, field validation.

use penstock_apiserver::registry::{Body, DeleteOptions, DeleteOutcome, FieldValidation, Target};
use serde_json::json;

use crate::cluster::{Cluster, context, pod};

#[tokio::test]
async fn main_updates_keep_status_and_status_updates_keep_spec() {
    let cluster = Cluster::start().await;
    let made = cluster
        .create(
            "deployments",
            json!({"metadata": {"name": "d"}, "spec": {"selector": {"matchLabels": {"a": "b"}},
                "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}},
                "status": {"replicas": 9}}),
        )
        .await
        .unwrap();
    assert_ne!(made["status"]["replicas"], 9);
    let mut by_status = made.clone();
    by_status["status"]["replicas"] = json!(1);
    by_status["status"]["readyReplicas"] = json!(1);
    by_status["spec"]["replicas"] = json!(7);
    let by_status = cluster.update("deployments", Some("status"), &by_status).await.unwrap();
    assert_eq!(by_status["status"]["readyReplicas"], 1);
    assert_eq!(by_status["spec"], made["spec"]);
    assert_eq!(by_status["metadata"]["generation"], 1);
    let mut by_main = by_status.clone();
    by_main["status"]["readyReplicas"] = json!(5);
    by_main["spec"]["replicas"] = json!(7);
    let by_main = cluster.update("deployments", None, &by_main).await.unwrap();
    assert_eq!(by_main["status"]["readyReplicas"], 1);
    assert_eq!(by_main["spec"]["replicas"], 7);
    assert_eq!(by_main["metadata"]["generation"], 2);
}

#[tokio::test]
async fn a_generated_name_starts_with_its_base() {
    let cluster = Cluster::start().await;
    let made = cluster.create("configmaps", json!({"metadata": {"generateName": "x-"}})).await.unwrap();
    let name = made["metadata"]["name"].as_str().unwrap();
    assert!(name.starts_with("x-") && name.len() == 7, "{name}");
}

#[tokio::test]
async fn a_finalizer_holds_a_deleted_object() {
    let cluster = Cluster::start().await;
    cluster
        .create("configmaps", json!({"metadata": {"name": "c", "finalizers": ["example.com/f"]}}))
        .await
        .unwrap();
    let DeleteOutcome::Object { object, .. } =
        cluster.delete("configmaps", "c", DeleteOptions::default()).await.unwrap()
    else {
        panic!("a held object is answered with itself");
    };
    assert!(object.value()["metadata"]["deletionTimestamp"].is_string());
    cluster.merge("configmaps", "c", json!({"metadata": {"finalizers": null}})).await.unwrap();
    assert!(cluster.get("configmaps", "c").await.unwrap_err().is_not_found());
}

#[tokio::test]
async fn propagation_policies_become_finalizers() {
    let cluster = Cluster::start().await;
    cluster.create("configmaps", json!({"metadata": {"name": "c"}})).await.unwrap();
    let foreground =
        DeleteOptions { propagation_policy: Some("Foreground".into()), ..DeleteOptions::default() };
    cluster.delete("configmaps", "c", foreground).await.unwrap();
    let held = cluster.get("configmaps", "c").await.unwrap();
    assert_eq!(held["metadata"]["finalizers"], json!(["foregroundDeletion"]));
}

#[tokio::test]
async fn a_scheduled_pod_goes_when_its_node_says_so() {
    let cluster = Cluster::start().await.with_account().await;
    cluster.create("pods", pod("p")).await.unwrap();
    let binding = json!({"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n1"}});
    let target = cluster.target("pods", "p").with_subresource("binding");
    let body = || Body::Json(binding.to_string().into());
    cluster.registry.create(&context(), &cluster.kind("pods"), &target, body()).await.unwrap();
    let again =
        cluster.registry.create(&context(), &cluster.kind("pods"), &target, body()).await.unwrap_err();
    assert!(again.message.contains("already assigned to node \"n1\""), "{again}");
    assert_eq!(cluster.get("pods", "p").await.unwrap()["spec"]["nodeName"], "n1");

    cluster.delete("pods", "p", DeleteOptions::default()).await.unwrap();
    let dying = cluster.get("pods", "p").await.unwrap();
    assert_eq!(dying["metadata"]["deletionGracePeriodSeconds"], 30);
    let now = DeleteOptions { grace_period_seconds: Some(0), ..DeleteOptions::default() };
    cluster.delete("pods", "p", now).await.unwrap();
    assert!(cluster.get("pods", "p").await.unwrap_err().is_not_found());
}

#[tokio::test]
async fn a_pod_without_its_account_is_refused() {
    let cluster = Cluster::start().await;
    let e = cluster.create("pods", pod("p")).await.unwrap_err();
    assert_eq!(
        e.message,
        "pods \"p\" is forbidden: error looking up service account default/default: serviceaccount \"default\" not found"
    );
}

#[tokio::test]
async fn an_admitted_pod_has_its_token_tolerations_and_defaults() {
    let cluster = Cluster::start().await.with_account().await;
    let made = cluster.create("pods", pod("p")).await.unwrap();
    assert_eq!(made["spec"]["serviceAccountName"], "default");
    assert_eq!(made["spec"]["tolerations"].as_array().unwrap().len(), 2);
    assert_eq!(made["spec"]["priority"], 0);
    assert_eq!(made["status"]["phase"], "Pending");
    assert_eq!(made["status"]["qosClass"], "BestEffort");
    assert!(made["spec"]["volumes"][0]["name"].as_str().unwrap().starts_with("kube-api-access-"));
}

#[tokio::test]
async fn a_namespace_that_is_missing_or_dying_takes_nothing_new() {
    let cluster = Cluster::start().await;
    let configmaps = cluster.kind("configmaps");
    let make = |ns: &'static str| {
        let body = Body::Json(json!({"metadata": {"name": "c"}}).to_string().into());
        let configmaps = configmaps.clone();
        let registry = cluster.registry.clone();
        async move { registry.create(&context(), &configmaps, &Target::collection(Some(ns)), body).await }
    };
    assert_eq!(make("gone").await.unwrap_err().message, "namespaces \"gone\" not found");
    cluster.create("namespaces", json!({"metadata": {"name": "dying"}})).await.unwrap();
    cluster.delete("namespaces", "dying", DeleteOptions::default()).await.unwrap();
    assert_eq!(cluster.get("namespaces", "dying").await.unwrap()["status"]["phase"], "Terminating");
    let e = make("dying").await.unwrap_err();
    assert_eq!(e.code, 403);
    assert!(e.message.ends_with("because it is being terminated"), "{e}");
}

#[tokio::test]
async fn strict_validation_names_the_field_and_stores_nothing() {
    let cluster = Cluster::start().await;
    let mut strict = context();
    strict.field_validation = FieldValidation::Strict;
    let body = Body::Json(r#"{"metadata":{"name":"c"},"dta":{}}"#.into());
    let target = Target::collection(Some("default"));
    let e = cluster.registry.create(&strict, &cluster.kind("configmaps"), &target, body).await.unwrap_err();
    assert_eq!((e.code, e.message.as_str()), (400, "strict decoding error: unknown field \"dta\""));
    assert!(cluster.get("configmaps", "c").await.unwrap_err().is_not_found());
}

#[tokio::test]
async fn a_dry_run_answers_and_stores_nothing() {
    let cluster = Cluster::start().await;
    let mut dry = context();
    dry.dry_run = true;
    let body =
        Body::Json(json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 1}]}}).to_string().into());
    let target = Target::collection(Some("default"));
    let made = cluster.registry.create(&dry, &cluster.kind("services"), &target, body).await.unwrap();
    assert!(made.object.value()["spec"]["clusterIP"].is_string());
    assert!(cluster.get("services", "s").await.unwrap_err().is_not_found());
}

#[tokio::test]
async fn scale_reads_and_writes_replicas() {
    let cluster = Cluster::start().await;
    cluster
        .create(
            "deployments",
            json!({"metadata": {"name": "d"}, "spec": {"selector": {"matchLabels": {"a": "b"}},
                "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}}),
        )
        .await
        .unwrap();
    let target = cluster.target("deployments", "d").with_subresource("scale");
    let scale =
        cluster.registry.get(&context(), &cluster.kind("deployments"), &target).await.unwrap().value();
    assert_eq!((&scale["spec"]["replicas"], &scale["status"]["selector"]), (&json!(1), &json!("a=b")));
    let mut wanted = scale.clone();
    wanted["spec"]["replicas"] = json!(4);
    let answered = cluster.update("deployments", Some("scale"), &wanted).await.unwrap();
    assert_eq!(answered["kind"], "Scale");
    assert_eq!(cluster.get("deployments", "d").await.unwrap()["spec"]["replicas"], 4);
}
