//! PodSecurity: what pods of a labelled namespace may ask of the node.

use std::sync::Arc;

use penstock_apiserver::registry::{Body, Target};
use serde_json::{Value, json};

use crate::cluster::{Cluster, context, pod};

async fn labelled(labels: Value) -> Cluster {
    let cluster = Cluster::start().await.with_account().await;
    cluster.merge("namespaces", "default", json!({"metadata": {"labels": labels}})).await.unwrap();
    cluster.settle("namespaces").await;
    cluster
}

/// What a write warned about.
async fn warnings_of(cluster: &Cluster, plural: &str, object: &Value) -> Vec<String> {
    let context = Arc::new(context());
    let target = Target::collection(Some("default"));
    let body = Body::Json(object.to_string().into());
    cluster.registry.create(&context, &cluster.kind(plural), &target, body).await.unwrap();
    context.warnings.lock().clone()
}

#[tokio::test]
async fn a_namespace_refuses_pods_beyond_its_standard_and_warns_about_what_makes_them() {
    let cluster = labelled(json!({"pod-security.kubernetes.io/enforce": "baseline"})).await;
    let mut privileged = pod("p");
    privileged["spec"]["containers"][0]["securityContext"] = json!({"privileged": true});
    let refused = cluster.create("pods", privileged.clone()).await.unwrap_err();
    assert_eq!((refused.code, refused.reason), (403, "Forbidden"));
    assert_eq!(
        refused.message,
        "pods \"p\" is forbidden: violates PodSecurity \"baseline:latest\": privileged (container \"c\" must not set \
         securityContext.privileged=true)"
    );
    cluster.create("pods", pod("plain")).await.unwrap();
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": privileged["spec"]});
    let set = json!({"metadata": {"name": "s"}, "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template}});
    let warnings = warnings_of(&cluster, "replicasets", &set).await;
    assert!(
        warnings.iter().any(|it| it.starts_with("would violate PodSecurity \"baseline:latest\": privileged")),
        "{warnings:?}"
    );
}

#[tokio::test]
async fn raising_the_standard_of_a_namespace_tells_about_its_pods_and_nonsense_is_refused() {
    let cluster = Cluster::start().await.with_account().await;
    cluster.create("pods", pod("a")).await.unwrap();
    cluster.create("pods", pod("b")).await.unwrap();
    let context = context();
    let target = Target::named(None, "default");
    let labels = json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}});
    let (kind, patch) = (cluster.kind("namespaces"), penstock_apiserver::registry::PatchKind::Merge);
    cluster.registry.patch(&context, &kind, &target, patch, labels.to_string().into()).await.unwrap();
    let warnings = context.warnings.lock().clone();
    assert_eq!(
        warnings,
        [
            "existing pods in namespace \"default\" violate the new PodSecurity enforce level \"restricted:latest\"",
            "a (and 1 other pod): allowPrivilegeEscalation != false, unrestricted capabilities, runAsNonRoot != true, \
             seccompProfile",
        ]
    );
    let nonsense = json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "lax"}}});
    let refused = cluster.merge("namespaces", "default", nonsense).await.unwrap_err();
    assert_eq!((refused.code, refused.reason), (422, "Invalid"));
    assert!(refused.message.contains("must be one of privileged, baseline, restricted"), "{refused:?}");
}
