//! What goes wrong, and what clients are told: backends that are missing, gone, silent or broken; hostile clients.

use std::time::Duration;

use penstock_ingress::{Limits, Name, PathKind, Port};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use crate::lab::{Echo, Lab, nowhere, read_all, read_until, status};

/// A time limit that is meant to run out in a test.
const SOON: Duration = Duration::from_millis(100);

async fn lab(limits: Limits) -> Lab {
    Lab::new(limits, &[("", PathKind::Prefix, "/", "one", Port::Number(80))]).await
}

#[track_caller]
fn expect(response: &str, code: &str, sentence: &str) {
    assert_eq!(status(response), code, "{response}");
    assert!(response.contains(sentence), "{sentence:?} in {response}");
}

#[tokio::test]
async fn a_service_that_is_missing_empty_or_without_the_port_is_named() {
    let lab = lab(Limits::default()).await;
    let front = "Service shop/one, which Ingress shop/front names,";
    expect(&lab.get("a", "/").await, "503", &format!("{front} is not there"));
    lab.set("one", &[]);
    expect(&lab.get("a", "/").await, "503", &format!("{front} has no ready endpoint for port 80"));
    lab.routing.upstreams.set(Name { namespace: "shop".into(), name: "one".into() }, Some(vec![]));
    expect(&lab.get("a", "/").await, "503", &format!("{front} has no TCP port 80"));
}

#[tokio::test]
async fn a_backend_that_is_gone_is_a_503_and_another_one_takes_over() {
    let lab = lab(Limits::default()).await;
    let (leaving, staying) = (Echo::start("leaving").await, Echo::start("staying").await);
    let gone = leaving.address;
    lab.set("one", &[gone]);
    assert_eq!(status(&lab.get("a", "/").await), "200");
    leaving.stop().await;
    let unused = nowhere();
    lab.set("one", &[unused]);
    expect(&lab.get("a", "/").await, "503", "no endpoint of Service shop/one port 80 can be reached");
    lab.set("one", &[unused, staying.address]);
    for _ in 0..4 {
        assert!(lab.get("a", "/").await.contains("staying GET"));
    }
}

#[tokio::test]
async fn a_kept_connection_that_the_backend_closed_costs_no_request() {
    let lab = lab(Limits::default()).await;
    let backend = TcpListener::bind("127.0.0.1:0").await.unwrap();
    lab.set("one", &[backend.local_addr().unwrap()]);
    let answering = tokio::spawn(async move {
        for _ in 0..5 {
            let (mut server, _) = backend.accept().await.unwrap();
            read_until(&mut server, "\r\n\r\n").await;
            // It does not say that it closes, and it does.
            server.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
        }
    });
    for _ in 0..5 {
        expect(&lab.get("a", "/").await, "200", "ok");
    }
    answering.await.unwrap();
}

#[tokio::test]
async fn a_backend_that_breaks_off_is_a_502() {
    let lab = lab(Limits::default()).await;
    let backend = TcpListener::bind("127.0.0.1:0").await.unwrap();
    lab.set("one", &[backend.local_addr().unwrap()]);
    let client = lab.get("a", "/");
    let server = async {
        let (mut server, _) = backend.accept().await.unwrap();
        read_until(&mut server, "\r\n\r\n").await;
    };
    expect(&tokio::join!(client, server).0, "502", "broke off before it answered");
    let client = lab.get("a", "/");
    let server = async {
        let (mut server, _) = backend.accept().await.unwrap();
        read_until(&mut server, "\r\n\r\n").await;
        server.write_all(b"SSH-2.0-OpenSSH_9.2\r\n").await.unwrap();
        server
    };
    expect(&tokio::join!(client, server).0, "502", "broke off before it answered");
}

#[tokio::test]
async fn a_silent_backend_is_a_504() {
    let lab = lab(Limits { backend_idle: SOON, ..Limits::default() }).await;
    // Bound and never accepted from: the kernel completes the connection.
    let backend = TcpListener::bind("127.0.0.1:0").await.unwrap();
    lab.set("one", &[backend.local_addr().unwrap()]);
    expect(&lab.get("a", "/").await, "504", "no endpoint of Service shop/one port 80 answered in time");
}

#[tokio::test]
async fn a_client_that_stops_half_way_is_cut_off() {
    let lab = lab(Limits { body_idle: SOON, header_within: SOON, ..Limits::default() }).await;
    let one = Echo::start("one").await;
    lab.set("one", &[one.address]);
    let body = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nten bytes.";
    expect(&lab.exchange(body).await, "408", "the request's body did not come in time");
    assert_eq!(lab.exchange("GET / HTTP/1.1\r\nHos").await, "", "no whole request, no answer");
}

#[tokio::test]
async fn requests_that_two_servers_could_read_differently_are_refused() {
    let lab = lab(Limits::default()).await;
    let one = Echo::start("one").await;
    lab.set("one", &[one.address]);
    let long = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(40 << 10));
    let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(200));
    for (request, code) in [
        ("GET / HTTP/1.1\r\nConnection: close\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\nConnection: close\r\n\r\n", "400"),
        ("GET http://u@a/ HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "400"),
        ("OPTIONS * HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "400"),
        ("CONNECT a:80 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "405"),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", "400"),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\nabc", "400"),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", "400"),
        ("\u{16}\u{3}\u{1}hello\r\n\r\n", "400"),
        (&long, "431"),
        (&many, "431"),
    ] {
        assert_eq!(status(&lab.exchange(request).await), code, "{:.60}", request);
    }
    assert_eq!(status(&lab.get("a", "/").await), "200", "others are served as before");
}

#[tokio::test]
async fn of_two_framings_only_one_goes_on_and_the_rest_is_no_request() {
    let lab = lab(Limits::default()).await;
    let one = Echo::start("one").await;
    lab.set("one", &[one.address]);
    let smuggled = "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n\
                    0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    let answer = lab.exchange(smuggled).await;
    assert!(answer.contains("one POST /a\n") && !answer.contains("content-length: 4"), "{answer}");
    assert!(!answer.contains("smuggled"), "{answer}");
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_for_their_turn() {
    let lab = lab(Limits { connections_max: 1, ..Limits::default() }).await;
    let one = Echo::start("one").await;
    lab.set("one", &[one.address]);
    let mut first = lab.connect().await;
    first.write_all(b"GET /first HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    read_until(&mut first, "one GET /first\n").await;
    let mut second = lab.connect().await;
    second.write_all(b"GET /second HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut byte = [0; 1];
    let early = tokio::time::timeout(SOON, second.peek(&mut byte)).await;
    assert!(early.is_err(), "it was answered while the first connection held the only slot");
    drop(first);
    assert!(read_all(&mut second).await.contains("one GET /second\n"));
}
