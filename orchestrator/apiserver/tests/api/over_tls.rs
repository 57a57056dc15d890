//! TLS end to end on loopback: who one is by certificate, and what strangers get.

use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, ListParams};
use kube::config::{KubeConfigOptions, Kubeconfig};

use crate::cluster::Cluster;

async fn client(path: &std::path::Path) -> anyhow::Result<kube::Client> {
    let kubeconfig = Kubeconfig::read_from(path)?;
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    Ok(kube::Client::try_from(config)?)
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_say_who_one_is() -> anyhow::Result<()> {
    let cluster = Cluster::start().await?;
    let admin = client(&cluster.kubeconfig("admin", &["system:masters"])?).await?;
    let version = admin.apiserver_version().await?;
    assert_eq!((version.major.as_str(), version.minor.as_str()), ("1", "36"));
    let names: Vec<String> = Api::<Namespace>::all(admin)
        .list(&ListParams::default())
        .await?
        .items
        .into_iter()
        .filter_map(|n| n.metadata.name)
        .collect();
    assert!(names.contains(&"default".to_owned()), "{names:?}");

    let nobody = client(&cluster.kubeconfig("nobody", &[])?).await?;
    let refused = Api::<Namespace>::all(nobody).list(&ListParams::default()).await.expect_err("no binding");
    assert!(matches!(&refused, kube::Error::Api(status) if status.code == 403), "{refused}");

    // Another authority's certificate is told so, in a Status rather than by a broken handshake.
    let stranger = Cluster::start().await?;
    let foreign = stranger.identity("admin", &["system:masters"])?;
    let path = cluster.kubeconfig("mixed", &["system:masters"])?;
    let mut kubeconfig = Kubeconfig::read_from(&path)?;
    let info = kubeconfig.auth_infos[0].auth_info.as_mut().expect("a user");
    let encoded = |text: &str| base64::Engine::encode(&base64::engine::general_purpose::STANDARD, text);
    info.client_certificate_data = Some(encoded(&foreign.certificate));
    info.client_key_data = Some(encoded(&foreign.key).into());
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    let unknown = kube::Client::try_from(config)?;
    let refused = Api::<Namespace>::all(unknown).list(&ListParams::default()).await.expect_err("a stranger");
    assert!(matches!(&refused, kube::Error::Api(status) if status.code == 401), "{refused}");
    stranger.stop().await;
    cluster.stop().await;
    Ok(())
}
