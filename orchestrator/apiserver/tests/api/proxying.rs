//! Logs and upgrades through a kubelet that only echoes.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Api, LogParams, Patch, PatchParams, PostParams};
use penstock_apiserver::User;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::cluster::{Cluster, Identity};
use crate::websockets;

/// Answers `/containerLogs` with the request line, and upgrades everything else to an echo.
async fn echoing_kubelet(listener: TcpListener, identity: Identity) -> anyhow::Result<()> {
    let chain =
        CertificateDer::pem_slice_iter(identity.certificate.as_bytes()).collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes())?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    let acceptor = TlsAcceptor::from(Arc::new(config));
    loop {
        let (stream, _) = listener.accept().await?;
        let mut stream = BufReader::new(acceptor.accept(stream).await?);
        let (mut first, mut upgrade) = (String::new(), false);
        stream.read_line(&mut first).await?;
        loop {
            let mut line = String::new();
            stream.read_line(&mut line).await?;
            upgrade |= line.to_ascii_lowercase().starts_with("upgrade: spdy/3.1");
            if line.trim().is_empty() {
                break;
            }
        }
        if !upgrade {
            let body = first.trim();
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
            stream.write_all(answer.as_bytes()).await?;
            stream.flush().await?;
            continue;
        }
        let head = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\
                    X-Stream-Protocol-Version: v4.channel.k8s.io\r\n\r\n";
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(first.as_bytes()).await?;
        stream.flush().await?;
        let mut buffer = [0u8; 1024];
        while let Ok(count @ 1..) = stream.read(&mut buffer).await {
            stream.write_all(&buffer[..count]).await?;
            stream.flush().await?;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_and_upgrades_reach_the_kubelet_and_come_back() -> anyhow::Result<()> {
    let cluster = Cluster::start().await?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    let kubelet = tokio::spawn(echoing_kubelet(listener, cluster.serving_identity("127.0.0.1")?));

    let client = cluster.server.client(User::system("test"));
    let nodes: Api<Node> = Api::all(client.clone());
    nodes
        .create(&PostParams::default(), &serde_json::from_value(json!({"metadata": {"name": "n1"}}))?)
        .await?;
    let status = json!({"status": {"addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": port}}}});
    nodes.patch_status("n1", &PatchParams::default(), &Patch::Merge(status)).await?;
    let accounts: Api<k8s_openapi::api::core::v1::ServiceAccount> = Api::default_namespaced(client.clone());
    let account = serde_json::from_value(json!({"metadata": {"name": "default"}}))?;
    accounts.create(&PostParams::default(), &account).await?;
    let pods: Api<Pod> = Api::default_namespaced(client);
    let pod = json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "i"}]}});
    pods.create(&PostParams::default(), &serde_json::from_value(pod)?).await?;

    let logs = pods.logs("p", &LogParams { tail_lines: Some(5), ..LogParams::default() }).await?;
    assert_eq!(logs, "GET /containerLogs/default/p/c?tailLines=5 HTTP/1.1");

    let path = "/api/v1/namespaces/default/pods/p/log?tailLines=5";
    let said = b"GET /containerLogs/default/p/c?tailLines=5 HTTP/1.1";
    let (chosen, mut socket) = websockets::open(&cluster, path, "other, binary.k8s.io").await?;
    assert_eq!(chosen, "binary.k8s.io");
    assert_eq!(websockets::message(&mut socket).await?, (websockets::BINARY, said.to_vec()));
    let (chosen, mut socket) = websockets::open(&cluster, path, "base64.binary.k8s.io").await?;
    assert_eq!(chosen, "base64.binary.k8s.io");
    let encoded = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, said);
    assert_eq!(websockets::message(&mut socket).await?, (websockets::TEXT, encoded.into_bytes()));

    let mut stream =
        upgraded(&cluster, "/api/v1/namespaces/default/pods/p/exec?command=ls&stdin=true&container=c")
            .await?;
    let mut line = String::new();
    stream.read_line(&mut line).await?;
    assert_eq!(line.trim(), "POST /exec/default/p/c?input=1&command=ls HTTP/1.1");
    stream.write_all(b"there and back\n").await?;
    stream.flush().await?;
    line.clear();
    stream.read_line(&mut line).await?;
    assert_eq!(line, "there and back\n");
    drop(stream);
    kubelet.abort();
    cluster.stop().await;
    Ok(())
}

/// A connection after its 101, as an administrator.
async fn upgraded(
    cluster: &Cluster,
    path: &str,
) -> anyhow::Result<BufReader<tokio_rustls::client::TlsStream<TcpStream>>> {
    let admin = cluster.identity("admin", &["system:masters"])?;
    let mut stream = BufReader::new(cluster.dial(&admin).await?);
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\
         X-Stream-Protocol-Version: v4.channel.k8s.io\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    stream.flush().await?;
    let mut head = String::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await?;
        if line.trim().is_empty() {
            break;
        }
        head.push_str(&line.to_ascii_lowercase());
    }
    anyhow::ensure!(head.starts_with("http/1.1 101"), "{head}");
    anyhow::ensure!(head.contains("x-stream-protocol-version: v4.channel.k8s.io"), "{head}");
    Ok(stream)
}
