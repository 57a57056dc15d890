//! The in-process client: what controllers and the scheduler see.

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, ServiceAccount};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use penstock_apiserver::User;
use serde_json::json;

use crate::cluster::Cluster;

fn config_map(name: &str, value: &str) -> ConfigMap {
    serde_json::from_value(json!({"metadata": {"name": name}, "data": {"k": value}})).expect("a config map")
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_are_created_read_patched_watched_and_deleted() -> anyhow::Result<()> {
    let cluster = Cluster::start().await?;
    let maps: Api<ConfigMap> = Api::default_namespaced(cluster.server.client(User::system("test")));
    // The server remembers changes of a kind from when somebody first asked for it.
    maps.list(&ListParams::default()).await?;
    let created = maps.create(&PostParams::default(), &config_map("a", "1")).await?;
    let version = created.metadata.resource_version.clone().unwrap_or_default();
    let mut events = maps.watch(&WatchParams::default(), &version).await?.boxed();

    maps.patch("a", &PatchParams::default(), &Patch::Merge(json!({"data": {"k": "2"}}))).await?;
    let listed = maps.list(&ListParams::default().fields("metadata.name=a")).await?;
    assert_eq!(listed.items[0].data.as_ref().and_then(|d| d.get("k")).map(String::as_str), Some("2"));

    let stale = maps.replace("a", &PostParams::default(), &created).await.expect_err("a stale version");
    assert!(matches!(&stale, kube::Error::Api(status) if status.code == 409), "{stale}");

    maps.delete("a", &DeleteParams::default()).await?;
    let mut told = Vec::new();
    while let Some(event) = events.try_next().await? {
        told.push(match event {
            WatchEvent::Modified(map) => format!("modified {}", map.data.unwrap_or_default()["k"]),
            WatchEvent::Deleted(_) => "deleted".to_owned(),
            other => format!("{other:?}"),
        });
        if told.last().is_some_and(|t| t == "deleted") {
            break;
        }
    }
    assert_eq!(told, ["modified 2", "deleted"]);
    cluster.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_may_do_nothing_until_a_binding_says_so() -> anyhow::Result<()> {
    let cluster = Cluster::start().await?;
    let ann = User { name: "ann".into(), ..User::default() };
    let hers: Api<ConfigMap> = Api::default_namespaced(cluster.server.client(ann));
    let refused = hers.list(&ListParams::default()).await.expect_err("no binding yet");
    let kube::Error::Api(status) = refused else { panic!("{refused}") };
    assert_eq!(
        (status.code, status.message.as_str()),
        (
            403,
            r#"configmaps is forbidden: User "ann" cannot list resource "configmaps" in API group "" in the namespace "default""#
        )
    );

    let admin = cluster.server.client(User::system("test"));
    let roles: Api<k8s_openapi::api::rbac::v1::Role> = Api::default_namespaced(admin.clone());
    let bindings: Api<k8s_openapi::api::rbac::v1::RoleBinding> = Api::default_namespaced(admin);
    let role = json!({"metadata": {"name": "reader"},
        "rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["list"]}]});
    roles.create(&PostParams::default(), &serde_json::from_value(role)?).await?;
    let binding = json!({"metadata": {"name": "ann"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "ann"}]});
    bindings.create(&PostParams::default(), &serde_json::from_value(binding)?).await?;

    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(60);
    while let Err(error) = hers.list(&ListParams::default()).await {
        assert!(tokio::time::Instant::now() < deadline, "the binding never took effect: {error}");
        tokio::task::yield_now().await;
    }
    cluster.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_hands_out_what_they_do_not_hold() -> anyhow::Result<()> {
    let cluster = Cluster::start().await?;
    let admin: Api<k8s_openapi::api::rbac::v1::ClusterRoleBinding> =
        Api::all(cluster.server.client(User::system("test")));
    let clerk = json!({"metadata": {"name": "clerk"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "clerk"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "clerk"}]});
    admin.create(&PostParams::default(), &serde_json::from_value(clerk)?).await?;
    let roles: Api<k8s_openapi::api::rbac::v1::ClusterRole> =
        Api::all(cluster.server.client(User::system("test")));
    let held = json!({"metadata": {"name": "clerk"}, "rules": [
        {"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["clusterroles"], "verbs": ["create"]},
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]});
    roles.create(&PostParams::default(), &serde_json::from_value(held)?).await?;

    let user = User { name: "clerk".into(), ..User::default() };
    let theirs: Api<k8s_openapi::api::rbac::v1::ClusterRole> = Api::all(cluster.server.client(user));
    let role = |name: &str, verb: &str| json!({"metadata": {"name": name}, "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": [verb]}]});
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(60);
    while let Err(error) =
        theirs.create(&PostParams::default(), &serde_json::from_value(role("fine", "get"))?).await
    {
        assert!(tokio::time::Instant::now() < deadline, "what is held may be granted: {error}");
        tokio::task::yield_now().await;
    }
    let refused =
        theirs.create(&PostParams::default(), &serde_json::from_value(role("more", "delete"))?).await;
    let refused = refused.expect_err("more than is held").to_string();
    assert!(refused.contains("attempting to grant RBAC permissions not currently held"), "{refused}");
    cluster.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bound_token_dies_with_its_service_account() -> anyhow::Result<()> {
    let cluster = Cluster::start().await?;
    let client = cluster.server.client(User::system("test"));
    let namespaces: Api<Namespace> = Api::all(client.clone());
    assert!(namespaces.get("kube-system").await.is_ok(), "bootstrap made the namespaces");
    let accounts: Api<ServiceAccount> = Api::default_namespaced(client.clone());
    let account = serde_json::from_value(json!({"metadata": {"name": "bot"}}))?;
    accounts.create(&PostParams::default(), &account).await?;
    let request = serde_json::from_value(json!({"spec": {"audiences": [], "expirationSeconds": 600}}))?;
    let issued = accounts.create_token_request("bot", &PostParams::default(), &request).await?;
    let token = issued.status.expect("a status").token;

    let reviews: Api<k8s_openapi::api::authentication::v1::TokenReview> = Api::all(client);
    let review = serde_json::from_value(json!({"spec": {"token": token}}))?;
    let status = reviews.create(&PostParams::default(), &review).await?.status.expect("a status");
    let user = status.user.unwrap_or_default();
    assert_eq!(
        (status.authenticated, user.username.as_deref()),
        (Some(true), Some("system:serviceaccount:default:bot"))
    );

    accounts.delete("bot", &DeleteParams::default()).await?;
    let status = reviews.create(&PostParams::default(), &review).await?.status.expect("a status");
    assert_ne!(status.authenticated, Some(true));
    cluster.stop().await;
    Ok(())
}
