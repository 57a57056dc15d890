//! The server's end: it says so first, finishes what it has begun, and ends watches in order.

use std::time::Duration;

use http::Request;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::Api;
use penstock_apiserver::User;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use crate::cluster::Cluster;

const GIVE_UP_AFTER: Duration = Duration::from_secs(60);
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

async fn read_some(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> anyhow::Result<String> {
    let mut bytes = vec![0; 64 * 1024];
    let n = timeout(GIVE_UP_AFTER, stream.read(&mut bytes)).await??;
    Ok(String::from_utf8_lossy(&bytes[..n]).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_is_lost_when_the_server_stops() -> anyhow::Result<()> {
    let cluster =
        Cluster::start_with(|config, _| config.limits.shutdown_delay = Duration::from_secs(5)).await?;
    let admin = cluster.identity("admin", &["system:masters"])?;
    let own = cluster.server.client(User::system("test"));
    let ready = async || {
        own.request_text(Request::get("/readyz").body(Vec::new())?).await.map_err(anyhow::Error::from)
    };
    assert!(ready().await.is_ok());

    let mut watch = cluster.dial(&admin).await?;
    watch.write_all(format!("GET {MAPS}?watch=1 HTTP/1.1\r\nhost: a\r\n\r\n").as_bytes()).await?;
    assert!(read_some(&mut watch).await?.starts_with("HTTP/1.1 200 OK"));
    // A write that has begun and is not done.
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "late"}}).to_string();
    let mut write = cluster.dial(&admin).await?;
    let head = format!(
        "POST {MAPS} HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        map.len()
    );
    write.write_all(head.as_bytes()).await?;
    write.write_all(&map.as_bytes()[..10]).await?;
    // One that is done says that the server has read what was sent before it.
    let mut idle = cluster.dial(&admin).await?;
    idle.write_all(b"GET /version HTTP/1.1\r\nhost: a\r\n\r\n").await?;
    assert!(read_some(&mut idle).await?.starts_with("HTTP/1.1 200 OK"));

    cluster.begin_stop();
    let deadline = Instant::now() + GIVE_UP_AFTER;
    while ready().await.is_ok() {
        anyhow::ensure!(Instant::now() < deadline, "still ready");
        tokio::task::yield_now().await;
    }
    assert!(
        own.request_text(Request::get("/livez").body(Vec::new())?).await.is_ok(),
        "alive while it leaves"
    );
    // It accepts on for a while: whoever has not noticed yet is served.
    let mut newcomer = cluster.dial(&admin).await?;
    newcomer.write_all(b"GET /version HTTP/1.1\r\nhost: a\r\n\r\n").await?;
    assert!(read_some(&mut newcomer).await?.starts_with("HTTP/1.1 200 OK"));

    // The watch ends as a response does: with its last chunk, not in the middle.
    let mut rest = String::new();
    loop {
        let some = read_some(&mut watch).await?;
        if some.is_empty() {
            break;
        }
        rest.push_str(&some);
    }
    assert!(rest.ends_with("0\r\n\r\n"), "{rest:?}");
    assert_eq!(read_some(&mut idle).await?, "", "idle connections are closed");
    let refused = async || TcpStream::connect(cluster.address).await.is_err();
    while !refused().await {
        anyhow::ensure!(Instant::now() < deadline, "the port is still open");
        tokio::task::yield_now().await;
    }
    // And the write that had begun is done.
    write.write_all(&map.as_bytes()[10..]).await?;
    let answer = read_some(&mut write).await?;
    assert!(answer.starts_with("HTTP/1.1 201 Created"), "{answer}");
    let maps: Api<ConfigMap> = Api::default_namespaced(own);
    assert!(maps.get("late").await.is_ok());
    cluster.stop().await;
    Ok(())
}
