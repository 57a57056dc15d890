//! Who may approve and sign requests for certificates, and ask for which.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use penstock_apiserver::User;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::cluster::Cluster;

fn object<K: DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).expect("an object")
}

fn params(name: &str, group: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, group);
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

fn asking(name: &str, signer: &str, common_name: &str, group: &str) -> CertificateSigningRequest {
    let key = KeyPair::generate().expect("a key");
    let request = params(common_name, group).serialize_request(&key).expect("a request");
    object(json!({"metadata": {"name": name}, "spec": {"signerName": signer, "usages": ["client auth"],
        "request": STANDARD.encode(request.pem().expect("PEM"))}}))
}

fn client(cluster: &Cluster, name: &str, groups: &[&str]) -> Client {
    let groups = groups.iter().chain(&["system:authenticated"]).map(|it| (*it).to_owned()).collect();
    cluster.server.client(User { name: name.to_owned(), groups, ..User::default() })
}

async fn allow(admin: &Client, user: &str, rules: Value) -> anyhow::Result<()> {
    let role: ClusterRole = object(json!({"metadata": {"name": user}, "rules": rules}));
    Api::all(admin.clone()).create(&PostParams::default(), &role).await?;
    let binding: ClusterRoleBinding = object(json!({"metadata": {"name": user},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": user},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}]}));
    Api::all(admin.clone()).create(&PostParams::default(), &binding).await?;
    Ok(())
}

fn message<T: std::fmt::Debug>(result: kube::Result<T>) -> String {
    match result {
        Err(kube::Error::Api(status)) => format!("{} {}", status.code, status.message),
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_who_may_use_a_signer_approves_and_signs() -> anyhow::Result<()> {
    let cluster = Cluster::start().await?;
    let admin = client(&cluster, "admin", &["system:masters"]);
    let paths = json!({"apiGroups": ["certificates.k8s.io"], "verbs": ["get", "update", "patch"],
        "resources": ["certificatesigningrequests", "certificatesigningrequests/approval", "certificatesigningrequests/status"]});
    let signers = |verb: &str, names: &[&str]| json!({"apiGroups": ["certificates.k8s.io"], "resources": ["signers"], "verbs": [verb], "resourceNames": names});
    allow(&admin, "bystander", json!([paths])).await?;
    allow(&admin, "approver", json!([paths, signers("approve", &["example.com/*"])])).await?;
    allow(&admin, "signer", json!([paths, signers("sign", &["example.com/one"])])).await?;

    let of = |user: &str| Api::<CertificateSigningRequest>::all(client(&cluster, user, &[]));
    let requests = Api::<CertificateSigningRequest>::all(admin.clone());
    for (name, signer) in
        [("one", "example.com/one"), ("two", "example.com/two"), ("elsewhere", "example.org/one")]
    {
        requests.create(&PostParams::default(), &asking(name, signer, "jane", "team")).await?;
    }
    let merge = PatchParams::default();
    let approval = Patch::Merge(json!({"status": {"conditions": [{"type": "Approved", "status": "True"}]}}));
    let approve = async |user: &str, name: &str| of(user).patch_approval(name, &merge, &approval).await;
    for (user, name) in [("bystander", "one"), ("signer", "one"), ("approver", "elsewhere")] {
        let told = message(approve(user, name).await);
        assert!(told.starts_with("403") && told.contains("not permitted to approve requests"), "{told}");
    }
    for name in ["one", "two"] {
        approve("approver", name).await?;
    }

    let certificate = STANDARD.encode(params("x", "y").self_signed(&KeyPair::generate()?)?.pem());
    let issue = Patch::Merge(json!({"status": {"certificate": certificate}}));
    let sign = async |user: &str, name: &str| of(user).patch_status(name, &merge, &issue).await;
    for (user, name) in [("bystander", "one"), ("approver", "one"), ("signer", "two")] {
        let told = message(sign(user, name).await);
        assert!(told.starts_with("403") && told.contains("not permitted to sign requests"), "{told}");
    }
    let signed = sign("signer", "one").await?;
    assert!(signed.status.and_then(|status| status.certificate).is_some());
    // A status that says the same is nobody's signature.
    of("bystander")
        .patch_status("one", &merge, &Patch::Merge(json!({"metadata": {"labels": {"a": "b"}}})))
        .await?;
    cluster.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_asks_to_be_a_master_nor_a_node_to_be_another() -> anyhow::Result<()> {
    let cluster = Cluster::start().await?;
    let admin = Api::<CertificateSigningRequest>::all(client(&cluster, "admin", &["system:masters"]));
    let create = PostParams::default();
    let api_server = "kubernetes.io/kube-apiserver-client";
    let told = message(admin.create(&create, &asking("a", api_server, "jane", "system:masters")).await);
    assert!(told.starts_with("403") && told.contains("system:masters group is not allowed"), "{told}");
    admin.create(&create, &asking("a", api_server, "jane", "team")).await?;

    let node = Api::<CertificateSigningRequest>::all(client(&cluster, "system:node:n1", &["system:nodes"]));
    let kubelet = "kubernetes.io/kube-apiserver-client-kubelet";
    let told = message(node.create(&create, &asking("b", kubelet, "system:node:n2", "system:nodes")).await);
    assert!(told.contains("can only create a node CSR with CN=system:node:n1"), "{told}");
    node.create(&create, &asking("b", kubelet, "system:node:n1", "system:nodes")).await?;
    cluster.stop().await;
    Ok(())
}
