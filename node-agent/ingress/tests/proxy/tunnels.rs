//! Connections that change their protocol, as WebSockets do.

use std::time::Duration;

use penstock_ingress::{Limits, PathKind, Port};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use crate::lab::{Lab, read_all, read_until, status};

const UPGRADE: &[u8] =
    b"GET /chat HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\n";

async fn lab() -> (Lab, TcpListener) {
    let limits = Limits { drain_within: Duration::from_millis(100), ..Limits::default() };
    let lab = Lab::new(limits, &[("", PathKind::Prefix, "/", "one", Port::Number(80))]).await;
    let backend = TcpListener::bind("127.0.0.1:0").await.unwrap();
    lab.set("one", &[backend.local_addr().unwrap()]);
    (lab, backend)
}

#[tokio::test]
async fn an_upgraded_connection_is_copied_both_ways_until_one_side_ends() {
    let (lab, backend) = lab().await;
    let mut client = lab.connect().await;
    client.write_all(UPGRADE).await.unwrap();
    let (mut server, _) = backend.accept().await.unwrap();
    let asked = read_until(&mut server, "\r\n\r\n").await.to_ascii_lowercase();
    assert!(asked.contains("connection: upgrade\r\n") && asked.contains("upgrade: websocket\r\n"), "{asked}");

    // The first bytes of the new protocol come with the answer.
    server
        .write_all(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhello",
        )
        .await
        .unwrap();
    let answer = read_until(&mut client, "hello").await;
    assert_eq!(status(&answer), "101");
    assert!(answer.to_ascii_lowercase().contains("upgrade: websocket\r\n"), "{answer}");

    client.write_all(b"\x00ping").await.unwrap();
    read_until(&mut server, "\x00ping").await;
    server.write_all(b"pong").await.unwrap();
    drop(server);
    assert_eq!(read_all(&mut client).await, "pong");
}

#[tokio::test]
async fn a_backend_may_answer_an_upgrade_like_any_request() {
    let (lab, backend) = lab().await;
    let mut client = lab.connect().await;
    client.write_all(UPGRADE).await.unwrap();
    let (mut server, _) = backend.accept().await.unwrap();
    read_until(&mut server, "\r\n\r\n").await;
    server.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno").await.unwrap();
    assert_eq!(status(&read_until(&mut client, "\r\n\r\nno").await), "403");
}

#[tokio::test]
async fn a_protocol_nobody_asked_for_is_refused() {
    let (lab, backend) = lab().await;
    let mut client = lab.connect().await;
    client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
    let (mut server, _) = backend.accept().await.unwrap();
    read_until(&mut server, "\r\n\r\n").await;
    server
        .write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
        .await
        .unwrap();
    assert_eq!(status(&read_all(&mut client).await), "502");
}

#[tokio::test]
async fn tunnels_end_with_the_ingress() {
    let (lab, backend) = lab().await;
    let mut client = lab.connect().await;
    client.write_all(UPGRADE).await.unwrap();
    let (mut server, _) = backend.accept().await.unwrap();
    read_until(&mut server, "\r\n\r\n").await;
    server.write_all(b"HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n").await.unwrap();
    read_until(&mut client, "\r\n\r\n").await;
    lab.shutdown.cancel();
    read_all(&mut client).await;
    read_all(&mut server).await;
}
