//! Tokens in Secrets: filled in, taken for what they are, and gone with their account.

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use k8s_openapi::api::core::v1::{ConfigMap, Secret, ServiceAccount};
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use serde_json::{Value, json};

use crate::cluster::Cluster;

async fn review(cluster: &Cluster, token: &str) -> TokenReviewStatus {
    let spec = TokenReviewSpec { token: token.to_owned(), audiences: None };
    let review = TokenReview { spec, ..TokenReview::default() };
    let api: Api<TokenReview> = Api::all(cluster.client.clone());
    api.create(&PostParams::default(), &review).await.expect("a review").status.expect("a status")
}

fn secret(name: &str, account: &str) -> Value {
    json!({"metadata": {"name": name, "annotations": {"kubernetes.io/service-account.name": account}},
        "type": "kubernetes.io/service-account-token"})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_gets_a_token_that_is_good_while_secret_and_account_are_there() {
    let cluster = Cluster::start(&[]).await;
    cluster.create::<ServiceAccount>(json!({"metadata": {"name": "bot"}})).await;
    let token = async |name: &str| {
        cluster.create::<Secret>(secret(name, "bot")).await;
        let full = |s: &Secret| s.data.as_ref().is_some_and(|data| data.contains_key("token"));
        let data = cluster.until::<Secret>(name, full).await.data.expect("data");
        assert_eq!(data["ca.crt"].0, b"the authority");
        assert_eq!(data["namespace"].0, b"default");
        String::from_utf8(data["token"].0.clone()).expect("a text")
    };
    let (one, two) = (token("one").await, token("two").await);
    assert_ne!(one, two);
    let user = review(&cluster, &one).await.user.expect("a user");
    assert_eq!(user.username.as_deref(), Some("system:serviceaccount:default:bot"));
    let used = cluster.api::<Secret>().get("one").await.expect("a secret").metadata.labels.expect("labels");
    assert!(used.contains_key("kubernetes.io/legacy-token-last-used"), "{used:?}");

    cluster.api::<Secret>().delete("two", &DeleteParams::default()).await.expect("a deletion");
    let status = review(&cluster, &two).await;
    assert!(!status.authenticated.unwrap_or_default(), "{status:?}");
    assert!(status.error.is_some_and(|why| why.contains("default/two")), "it says which secret");

    cluster.api::<ServiceAccount>().delete("bot", &DeleteParams::default()).await.expect("a deletion");
    cluster.until_gone::<Secret>("one").await;
    assert!(!review(&cluster, &one).await.authenticated.unwrap_or_default());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_of_an_account_that_is_not_there_goes() {
    let cluster = Cluster::start(&[]).await;
    cluster.create::<Secret>(secret("stray", "nobody")).await;
    cluster.until_gone::<Secret>("stray").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_known_since_when_the_use_of_such_tokens_is_noted() {
    let cluster = Cluster::start(&[]).await;
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), "kube-system");
    let map = maps.get("kube-apiserver-legacy-service-account-token-tracking").await.expect("the map");
    let since = &map.data.expect("data")["since"];
    assert!(since.parse::<jiff::civil::Date>().is_ok(), "{since}");
}
