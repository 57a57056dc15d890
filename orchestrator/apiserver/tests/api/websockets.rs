//! Watches and logs over a WebSocket, read frame by frame.

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::cluster::Cluster;

pub const TEXT: u8 = 1;
pub const BINARY: u8 = 2;
const CLOSE: u8 = 8;

pub type Socket = BufReader<TlsStream<TcpStream>>;

/// An administrator's connection after its 101, with the protocol that was chosen.
pub async fn open(cluster: &Cluster, path: &str, offered: &str) -> anyhow::Result<(String, Socket)> {
    let admin = cluster.identity("admin", &["system:masters"])?;
    let mut stream = BufReader::new(cluster.dial(&admin).await?);
    let protocol = match offered {
        "" => String::new(),
        some => format!("Sec-WebSocket-Protocol: {some}\r\n"),
    };
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{protocol}\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    stream.flush().await?;
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        anyhow::ensure!(stream.read_line(&mut head).await? > 0, "no answer: {head}");
    }
    let head = head.to_ascii_lowercase();
    anyhow::ensure!(head.starts_with("http/1.1 101"), "{head}");
    let chosen = head.lines().find_map(|line| line.strip_prefix("sec-websocket-protocol: "));
    Ok((chosen.unwrap_or_default().to_owned(), stream))
}

/// The next whole message: its kind and what is in it.
pub async fn message(socket: &mut Socket) -> anyhow::Result<(u8, Vec<u8>)> {
    let first = socket.read_u8().await?;
    anyhow::ensure!(first & 0x80 != 0, "a message in several frames");
    let length = match socket.read_u8().await? {
        126 => u64::from(socket.read_u16().await?),
        127 => socket.read_u64().await?,
        short => u64::from(short),
    };
    let mut bytes = vec![0; usize::try_from(length)?];
    socket.read_exact(&mut bytes).await?;
    Ok((first & 0x0f, bytes))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_tells_one_event_a_message_and_closes_at_its_end() -> anyhow::Result<()> {
    let cluster = Cluster::start().await?;
    let path = "/api/v1/namespaces?watch=true&fieldSelector=metadata.name%3Ddefault&timeoutSeconds=2";
    let (_, mut socket) = open(&cluster, path, "").await?;
    let (kind, event) = message(&mut socket).await?;
    let event: Value = serde_json::from_slice(&event)?;
    assert_eq!((kind, &event["type"]), (TEXT, &json!("ADDED")));
    assert_eq!(event["object"]["metadata"]["name"], "default");
    assert_eq!(message(&mut socket).await?.0, CLOSE);
    cluster.stop().await;
    Ok(())
}
