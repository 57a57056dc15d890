//! TLS end to end on loopback: who one is by certificate, and what strangers get.

use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, ListParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use penstock_apiserver::{Certificates, Pair};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

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

/// What a connection was shown.
fn serial_of(stream: &TlsStream<TcpStream>) -> Vec<u8> {
    let shown = stream.get_ref().1.peer_certificates().expect("certificates");
    let (_, certificate) = x509_parser::parse_x509_certificate(&shown[0]).expect("a certificate");
    certificate.raw_serial().to_vec()
}

/// A request over a connection that stays open; the status line.
async fn ask_version(stream: &mut TlsStream<TcpStream>) -> anyhow::Result<String> {
    stream.write_all(b"GET /version HTTP/1.1\r\nhost: x\r\n\r\n").await?;
    let mut bytes = vec![0; 16 * 1024];
    let read = stream.read(&mut bytes).await?;
    Ok(String::from_utf8_lossy(&bytes[..read]).lines().next().unwrap_or_default().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_certificate_is_for_new_connections_and_old_ones_go_on() -> anyhow::Result<()> {
    let cluster = Cluster::start().await?;
    let admin = cluster.identity("admin", &["system:masters"])?;
    let mut old = cluster.dial(&admin).await?;
    assert_eq!(ask_version(&mut old).await?, "HTTP/1.1 200 OK");

    let renewed = cluster.serving_identity("127.0.0.1")?;
    let pair = |certificate: &str, key: &str| Pair {
        certificate_pem: certificate.as_bytes().to_vec(),
        key_pem: key.as_bytes().to_vec(),
    };
    let serving = pair(&renewed.certificate, &renewed.key);
    cluster.server.show(&Certificates { serving: serving.clone(), ..Certificates::default() })?;
    let mut new = cluster.dial(&admin).await?;
    assert_ne!(serial_of(&old), serial_of(&new));
    for connection in [&mut old, &mut new] {
        assert_eq!(ask_version(connection).await?, "HTTP/1.1 200 OK");
    }

    // What cannot be used changes nothing.
    let other = cluster.serving_identity("127.0.0.1")?;
    let halves = Certificates { serving: pair(&renewed.certificate, &other.key), ..Certificates::default() };
    assert!(cluster.server.show(&halves).is_err());
    assert_eq!(serial_of(&cluster.dial(&admin).await?), serial_of(&new));
    cluster.stop().await;
    Ok(())
}
