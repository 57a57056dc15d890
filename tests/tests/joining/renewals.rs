//! Certificates that live for seconds: everybody gets new ones in time, and nobody notices.

use std::collections::BTreeSet;
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{Namespace, Node};
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use penstock_identity::{Credentials, Renewal};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::control_plane::{ControlPlane, PATIENCE, eventually};

const LIFE: Duration = Duration::from_secs(24);

/// The serial number of the certificate that a new connection is shown, by a client that verifies it.
fn served(control_plane: &ControlPlane) -> Result<Vec<u8>> {
    let authority = std::fs::read(control_plane.data_dir().join("pki/ca.crt"))?;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(&authority)?)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = control_plane.address.ip().into();
    let mut session = rustls::ClientConnection::new(Arc::new(config), name)?;
    let mut socket = TcpStream::connect(control_plane.address)?;
    socket.set_read_timeout(Some(Duration::from_secs(10)))?;
    while session.is_handshaking() {
        session.complete_io(&mut socket)?;
    }
    let shown = session.peer_certificates().and_then(|all| all.first()).context("no certificate")?;
    let (_, certificate) = x509_parser::parse_x509_certificate(shown)?;
    Ok(certificate.raw_serial().to_vec())
}

/// The certificate of a kubeconfig, which a renewal changes.
fn certificate_in(kubeconfig: &std::path::Path) -> Result<String> {
    let value: serde_json::Value = serde_yaml::from_str(&std::fs::read_to_string(kubeconfig)?)?;
    let data = value["users"][0]["user"]["client-certificate-data"].as_str();
    data.map(str::to_owned).context("no certificate in the kubeconfig")
}

#[tokio::test(flavor = "multi_thread")]
async fn server_and_node_go_on_with_new_certificates_while_a_watch_does_not_notice() -> Result<()> {
    let life = format!("{}s", LIFE.as_secs());
    let flags =
        [format!("--certificate-validity-period={life}"), format!("--cluster-signing-duration={life}")];
    let mut control_plane = ControlPlane::start(&[&flags[0], &flags[1]]).await?;
    let join = control_plane.invitation("machine", &[])?;
    penstock_identity::join(&join).await?;
    let credentials = Credentials::new(penstock_identity::read(&join.kubeconfig).await?);
    let stop = CancellationToken::new();
    let _stop = stop.clone().drop_guard();
    let renewal = Renewal {
        credentials: credentials.clone(),
        kubeconfig: join.kubeconfig.clone(),
        node: "machine".to_owned(),
    };
    tokio::spawn(renewal.run(stop.clone()));

    let client = credentials.client("test")?;
    let nodes: Api<Node> = Api::all(client.clone());
    let node: Node = serde_json::from_value(json!({"metadata": {"name": "machine"}}))?;
    nodes.create(&PostParams::default(), &node).await?;
    let only = WatchParams::default().fields("metadata.name=machine").timeout(280);
    let mut watch = nodes.watch(&only, "0").await?.boxed();

    let began = Instant::now();
    let (mut of_server, mut of_node, mut of_admin) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    let mut round = 0;
    // Until everybody has been renewed twice, and longer than any certificate of the beginning lives.
    while of_server.len() < 3 || of_node.len() < 3 || of_admin.len() < 3 || began.elapsed() < 2 * LIFE {
        ensure!(
            began.elapsed() < 2 * PATIENCE,
            "renewals: {} {} {}",
            of_server.len(),
            of_node.len(),
            of_admin.len()
        );
        of_server.insert(served(&control_plane)?);
        of_node.insert(certificate_in(&join.kubeconfig)?);
        of_admin.insert(certificate_in(&control_plane.data_dir().join("admin.kubeconfig"))?);
        round += 1;
        let note = json!({"metadata": {"annotations": {"round": round.to_string()}}});
        nodes
            .patch("machine", &PatchParams::default(), &Patch::Merge(note))
            .await
            .context("the node writes")?;
        until_seen(&mut watch, round).await?;
        let admin = control_plane.admin().await?;
        Api::<Namespace>::all(admin).list(&ListParams::default()).await.context("the administrator reads")?;
    }
    ensure!(control_plane.is_running(), "{}", control_plane.log());
    Ok(())
}

/// Reads a watch until it tells of a round. It must not end.
async fn until_seen(
    watch: &mut (impl futures::Stream<Item = kube::Result<WatchEvent<Node>>> + Unpin),
    round: u32,
) -> Result<()> {
    let seen = async {
        while let Some(event) = watch.try_next().await? {
            let node = match event {
                WatchEvent::Added(node) | WatchEvent::Modified(node) => node,
                WatchEvent::Error(status) => bail!("the watch says {status:?}"),
                WatchEvent::Deleted(_) | WatchEvent::Bookmark(_) => continue,
            };
            let annotations = node.metadata.annotations.unwrap_or_default();
            if annotations.get("round") == Some(&round.to_string()) {
                return Ok(());
            }
        }
        bail!("the watch ended in round {round}")
    };
    tokio::time::timeout(PATIENCE, seen).await.context("the watch tells nothing")?
}

#[tokio::test(flavor = "multi_thread")]
async fn a_serving_certificate_waits_for_a_person_and_is_then_kept() -> Result<()> {
    use k8s_openapi::api::certificates::v1::CertificateSigningRequest;

    let control_plane = ControlPlane::start(&[]).await?;
    let join = control_plane.invitation("machine", &[])?;
    penstock_identity::join(&join).await?;
    let folder = join.kubeconfig.parent().context("a folder")?;
    let serving = penstock_identity::Serving {
        credentials: Credentials::new(penstock_identity::read(&join.kubeconfig).await?),
        node: "machine".to_owned(),
        addresses: vec!["127.0.0.1".parse()?],
        certificate: folder.join("serving.crt"),
        key: folder.join("serving.key"),
    };
    let (certificate, stop) = (serving.certificate.clone(), CancellationToken::new());
    let _stop = stop.clone().drop_guard();
    tokio::spawn(serving.run(stop.clone()));
    let requests: Api<CertificateSigningRequest> = Api::all(control_plane.admin().await?);
    let name = eventually("there is a request", async || {
        let all = requests.list(&ListParams::default()).await?;
        let mut names = all.items.into_iter().filter_map(|it| it.metadata.name);
        names.find(|name| name.starts_with("node-serving-machine-")).context("none yet")
    })
    .await?;
    ensure!(!certificate.exists(), "nobody has approved it");
    let approval =
        json!({"status": {"conditions": [{"type": "Approved", "status": "True", "reason": "ByHand"}]}});
    requests.patch_approval(&name, &PatchParams::default(), &Patch::Merge(approval)).await?;
    let pem =
        eventually("the certificate is kept", async || Ok(std::fs::read_to_string(&certificate)?)).await?;
    let (_, block) = x509_parser::pem::parse_x509_pem(pem.as_bytes())?;
    let names =
        block.parse_x509()?.subject_alternative_name()?.context("no names")?.value.general_names.len();
    ensure!(names == 2, "the node's name and its address, not {names}");
    Ok(())
}
