//! What clients may not do, and what they are told: heads, bodies, connections, watches, waiting.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::{Request, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, PostParams};
use penstock_apiserver::{Limits, User};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use crate::cluster::Cluster;

const GIVE_UP_AFTER: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_secs(1);
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

async fn limited(adjust: impl FnOnce(&mut Limits)) -> anyhow::Result<Cluster> {
    Cluster::start_with(|config, _| adjust(&mut config.limits)).await
}

/// The status line of what comes.
async fn status_line(stream: &mut (impl AsyncRead + Unpin)) -> anyhow::Result<String> {
    let mut line = Vec::new();
    while line.last() != Some(&b'\n') {
        line.push(timeout(GIVE_UP_AFTER, stream.read_u8()).await??);
    }
    Ok(String::from_utf8(line)?.trim().to_owned())
}

/// Waits until the server closes; what is sent before does not matter.
async fn closed(stream: &mut (impl AsyncRead + Unpin)) -> anyhow::Result<()> {
    let mut sink = vec![0; 4096];
    timeout(GIVE_UP_AFTER, async { while stream.read(&mut sink).await.is_ok_and(|n| n > 0) {} }).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_and_bodies_have_a_size() -> anyhow::Result<()> {
    let cluster = Cluster::start().await?;
    let admin = cluster.identity("admin", &["system:masters"])?;
    let many = (0..200).map(|n| format!("x-{n}: y\r\n")).collect::<String>();
    let large = format!("x-large: {}\r\n", "y".repeat(200_000));
    for headers in [many, large] {
        let mut stream = cluster.dial(&admin).await?;
        // The server may answer before it has read all.
        let _ =
            stream.write_all(format!("GET /version HTTP/1.1\r\nhost: a\r\n{headers}\r\n").as_bytes()).await;
        assert_eq!(status_line(&mut stream).await?, "HTTP/1.1 431 Request Header Fields Too Large");
    }

    let body = vec![b' '; 3 * 1024 * 1024 + 1];
    let mut stream = cluster.dial(&admin).await?;
    let head = format!(
        "POST {MAPS} HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    let _ = stream.write_all(&body).await;
    assert_eq!(status_line(&mut stream).await?, "HTTP/1.1 413 Payload Too Large");

    // In HTTP/2 a head that is too large is refused as well, and the connection serves on.
    let mut sender = http2(&cluster).await?;
    let large =
        Request::get("https://a/version").header("x-large", "y".repeat(100_000)).body(Body::empty())?;
    let refused = sender.send_request(large).await;
    assert!(
        refused.is_err() || refused.is_ok_and(|r| r.status() == StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE)
    );
    cluster.stop().await;
    Ok(())
}

type Http2 = hyper::client::conn::http2::SendRequest<Body>;

/// A connection of the administrator's in HTTP/2, and nobody who closes it.
async fn http2(cluster: &Cluster) -> anyhow::Result<Http2> {
    let admin = cluster.identity("admin", &["system:masters"])?;
    let stream = cluster.dial_for(&admin, "h2").await?;
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender)
}

#[tokio::test(flavor = "multi_thread")]
async fn who_connects_must_speak() -> anyhow::Result<()> {
    let cluster = limited(|limits| {
        (limits.handshake, limits.first_request, limits.idle) = (SHORT, SHORT, SHORT);
    })
    .await?;
    let admin = cluster.identity("admin", &["system:masters"])?;
    let mut silent = TcpStream::connect(cluster.address).await?;
    closed(&mut silent).await?;
    for protocol in ["http/1.1", "h2"] {
        let mut stream = cluster.dial_for(&admin, protocol).await?;
        closed(&mut stream).await?;
    }
    let mut slow = cluster.dial(&admin).await?;
    slow.write_all(b"GET /version HTTP/1.1\r\nhost: a\r\nx-never-").await?;
    closed(&mut slow).await?;
    // Afterwards it may rest, for a while.
    let mut resting = cluster.dial(&admin).await?;
    resting.write_all(b"GET /version HTTP/1.1\r\nhost: a\r\n\r\n").await?;
    assert_eq!(status_line(&mut resting).await?, "HTTP/1.1 200 OK");
    closed(&mut resting).await?;
    cluster.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_too_many_waits_for_another_to_close() -> anyhow::Result<()> {
    let cluster = limited(|limits| limits.connections_max = 1).await?;
    let admin = cluster.identity("admin", &["system:masters"])?;
    let first = cluster.dial(&admin).await?;
    assert!(timeout(SHORT, cluster.dial(&admin)).await.is_err(), "nobody answers");
    drop(first);
    // Those that gave up while waiting are taken and found closed.
    let second = timeout(GIVE_UP_AFTER, cluster.dial(&admin)).await?;
    assert!(second.is_ok());
    drop(second);
    cluster.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_too_many_is_refused_with_a_word() -> anyhow::Result<()> {
    let cluster = limited(|limits| limits.watches_max = 1).await?;
    let mut sender = http2(&cluster).await?;
    let watch = || Request::get(format!("https://a{MAPS}?watch=1")).body(Body::empty());
    let first = sender.send_request(watch()?).await?;
    assert_eq!(first.status(), StatusCode::OK);
    let second = sender.send_request(watch()?).await?;
    assert_eq!(second.status(), StatusCode::TOO_MANY_REQUESTS);
    assert!(second.headers().contains_key("retry-after"));
    let body = http_body_util::BodyExt::collect(second.into_body()).await?.to_bytes();
    assert!(String::from_utf8_lossy(&body).contains("already has 1 watches"), "{body:?}");
    // The server's own are not counted.
    let own: Api<ConfigMap> = Api::default_namespaced(cluster.server.client(User::system("loop")));
    drop(own.watch(&kube::api::WatchParams::default(), "0").await?);
    drop(first);
    let deadline = Instant::now() + GIVE_UP_AFTER;
    while sender.send_request(watch()?).await?.status() != StatusCode::OK {
        anyhow::ensure!(Instant::now() < deadline, "the first watch never ended");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    cluster.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_asks_and_takes_back_is_shown_out() -> anyhow::Result<()> {
    let cluster = limited(|limits| {
        (limits.abandoned_burst, limits.abandoned_per_second) = (50, 1);
    })
    .await?;
    let mut sender = http2(&cluster).await?;
    let deadline = Instant::now() + GIVE_UP_AFTER;
    loop {
        let body = Body::from_stream(futures::stream::pending::<Result<Bytes, std::convert::Infallible>>());
        let request = Request::post(format!("https://a{MAPS}"))
            .header("content-type", "application/json")
            .body(body)?;
        // The server has begun to work on it when it is taken back.
        let asked = sender.send_request(request);
        if matches!(timeout(Duration::from_millis(5), asked).await, Ok(Err(_)))
            || sender.ready().await.is_err()
        {
            break;
        }
        anyhow::ensure!(Instant::now() < deadline, "the connection is still open");
    }
    let mut another = http2(&cluster).await?;
    let answered = another.send_request(Request::get("https://a/version").body(Body::empty())?).await?;
    assert_eq!(answered.status(), StatusCode::OK, "others are served");
    cluster.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn watchers_that_do_not_read_are_dropped() -> anyhow::Result<()> {
    let cluster = limited(|limits| {
        (limits.stalled, limits.watches_max) = (SHORT, 2);
    })
    .await?;
    let admin = cluster.identity("admin", &["system:masters"])?;
    let mut deaf = cluster.dial(&admin).await?;
    deaf.write_all(format!("GET {MAPS}?watch=1 HTTP/1.1\r\nhost: a\r\n\r\n").as_bytes()).await?;
    assert_eq!(status_line(&mut deaf).await?, "HTTP/1.1 200 OK");
    // Another, whose connection is fine but whose stream is not read.
    let mut sender = http2(&cluster).await?;
    let watch = || Request::get(format!("https://a{MAPS}?watch=1")).body(Body::empty());
    let unread = sender.send_request(watch()?).await?;
    assert_eq!(unread.status(), StatusCode::OK);
    assert_eq!(sender.send_request(watch()?).await?.status(), StatusCode::TOO_MANY_REQUESTS);

    let maps: Api<ConfigMap> = Api::default_namespaced(cluster.server.client(User::system("test")));
    let text = "x".repeat(900_000);
    let deadline = Instant::now() + GIVE_UP_AFTER;
    let mut free = Vec::new();
    let mut written = 0;
    // Until both have made room.
    while free.len() < 2 {
        anyhow::ensure!(Instant::now() < deadline, "{} of 2 were dropped", free.len());
        if written < 40 {
            let map = json!({"metadata": {"name": format!("m{written}")}, "data": {"k": text}});
            maps.create(&PostParams::default(), &serde_json::from_value(map)?).await?;
            written += 1;
        }
        let mut fresh = http2(&cluster).await?;
        let tried = fresh
            .send_request(
                Request::get(format!("https://a{MAPS}?watch=1&fieldSelector=metadata.name=none"))
                    .body(Body::empty())?,
            )
            .await?;
        match tried.status() {
            StatusCode::OK => free.push((fresh, tried)),
            other => assert_eq!(other, StatusCode::TOO_MANY_REQUESTS),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    cluster.stop().await;
    Ok(())
}
