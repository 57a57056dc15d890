//! Bootstrap tokens: they sign what machines that join are told, authenticate their bearers, and go when they have ended.

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, UserInfo};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use penstock_tokens::bootstrap::{BootstrapToken, sign_detached};
use serde_json::json;

use crate::cluster::{Cluster, eventually};

fn secrets(cluster: &Cluster) -> Api<Secret> {
    Api::namespaced(cluster.client.clone(), "kube-system")
}

async fn create(cluster: &Cluster, token: &BootstrapToken, more: &[(&str, &str)]) {
    let mut data = json!({"token-id": token.id(), "token-secret": token.secret(),
        "usage-bootstrap-authentication": "true", "usage-bootstrap-signing": "true"});
    for (key, value) in more {
        data[*key] = (*value).into();
    }
    let secret = json!({"metadata": {"name": token.secret_name()}, "type": "bootstrap.kubernetes.io/token",
        "stringData": data});
    let secret: Secret = serde_json::from_value(secret).expect("a secret");
    secrets(cluster).create(&PostParams::default(), &secret).await.expect("a secret");
}

async fn bearer(cluster: &Cluster, token: &BootstrapToken) -> Option<UserInfo> {
    let spec = TokenReviewSpec { token: token.reveal(), audiences: None };
    let review = TokenReview { spec, ..TokenReview::default() };
    let api: Api<TokenReview> = Api::all(cluster.client.clone());
    let status =
        api.create(&PostParams::default(), &review).await.expect("a review").status.expect("a status");
    status.user.filter(|_| status.authenticated == Some(true))
}

/// Waits until exactly these have signed, and returns what they have.
async fn until_signed(cluster: &Cluster, tokens: &[&BootstrapToken]) -> String {
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), "kube-public");
    eventually("signatures of cluster-info", async || {
        let data = maps.get("cluster-info").await.expect("the map").data.unwrap_or_default();
        let content = data.get("kubeconfig").expect("a kubeconfig").clone();
        let mut wanted: Vec<(String, String)> = tokens
            .iter()
            .map(|it| {
                let signature = sign_detached(&content, it.id(), it.secret()).expect("a signature");
                (format!("jws-kubeconfig-{}", it.id()), signature)
            })
            .collect();
        wanted.sort();
        let signed: Vec<_> = data.into_iter().filter(|(key, _)| key != "kubeconfig").collect();
        if signed == wanted { Ok(content) } else { Err(format!("{signed:?}")) }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_sign_what_the_cluster_says_of_itself_for_as_long_as_they_are_there() {
    let cluster = Cluster::start(&[]).await;
    let (one, two) = (BootstrapToken::random(), BootstrapToken::random());
    create(&cluster, &one, &[("auth-extra-groups", "system:bootstrappers:rack")]).await;
    create(&cluster, &two, &[]).await;
    let content = until_signed(&cluster, &[&one, &two]).await;
    assert!(content.contains("https://127.0.0.1:6443"), "{content}");
    let user = bearer(&cluster, &one).await.expect("a bearer");
    assert_eq!(user.username, Some(format!("system:bootstrap:{}", one.id())));
    let groups = user.groups.unwrap_or_default();
    assert!(groups.contains(&"system:bootstrappers:rack".to_owned()), "{groups:?}");

    // What is said changes: everybody signs anew.
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), "kube-public");
    let balancer = content.replace("127.0.0.1", "balancer");
    let patch = Patch::Merge(json!({"data": {"kubeconfig": balancer}}));
    maps.patch("cluster-info", &PatchParams::default(), &patch).await.expect("a patch");
    assert_eq!(until_signed(&cluster, &[&one, &two]).await, balancer);

    secrets(&cluster).delete(&two.secret_name(), &DeleteParams::default()).await.expect("a deletion");
    until_signed(&cluster, &[&one]).await;
    assert!(bearer(&cluster, &two).await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_has_ended_signs_nothing_is_nobody_s_and_is_deleted() {
    let cluster = Cluster::start(&[]).await;
    let end = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(2);
    let (ends, stays) = (BootstrapToken::random(), BootstrapToken::random());
    create(&cluster, &ends, &[("expiration", &format!("{end:.3}"))]).await;
    create(&cluster, &stays, &[("expiration", "2999-01-01T00:00:00Z")]).await;
    eventually("the token goes", async || {
        match secrets(&cluster).get_opt(&ends.secret_name()).await.expect("a read") {
            None => Ok(()),
            Some(_) => Err("still there".to_owned()),
        }
    })
    .await;
    assert!(jiff::Timestamp::now() >= end, "not before its time");
    assert!(bearer(&cluster, &ends).await.is_none());
    until_signed(&cluster, &[&stays]).await;
    assert!(bearer(&cluster, &stays).await.is_some());
}
