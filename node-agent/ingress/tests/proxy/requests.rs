//! Requests that arrive: routing, headers, bodies, reuse.

use std::sync::atomic::Ordering;

use penstock_ingress::{Limits, PathKind, Port};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use crate::lab::{Echo, Lab, read_all, read_until, status};

fn http() -> Port {
    Port::Name("http".into())
}

#[tokio::test]
async fn host_and_path_choose_the_service_and_its_endpoints_take_turns() {
    let rules = [
        ("a.test", PathKind::Prefix, "/", "one", http()),
        ("a.test", PathKind::Exact, "/two", "two", Port::Number(80)),
        ("*.b.test", PathKind::Prefix, "/", "two", http()),
    ];
    let lab = Lab::new(Limits::default(), &rules).await;
    let (first, second, two) =
        (Echo::start("first").await, Echo::start("second").await, Echo::start("two").await);
    lab.set("one", &[first.address, second.address]);
    lab.set("two", &[two.address]);

    assert!(lab.get("a.test", "/x?y=1").await.contains("first GET /x?y=1\n"));
    assert!(lab.get("A.test:80", "/two/").await.contains("second GET /two/\n"));
    assert!(lab.get("a.test", "/two?z").await.contains("two GET /two?z\n"));
    assert!(lab.get("c.b.test", "/").await.contains("two GET /\n"));

    let stray = lab.get("c.test", "/").await;
    assert_eq!(status(&stray), "404");
    assert!(stray.contains(r#"no Ingress names host "c.test""#), "{stray}");
}

#[tokio::test]
async fn the_backend_learns_the_client_and_nothing_of_its_connection() {
    let lab = Lab::new(Limits::default(), &[("", PathKind::Prefix, "/", "one", http())]).await;
    let one = Echo::start("one").await;
    lab.set("one", &[one.address]);
    let answer = lab
        .exchange(
            "GET / HTTP/1.1\r\nHost: a.test:8080\r\nConnection: close, x-secret\r\nX-Secret: 1\r\nKeep-Alive: 5\r\n\
             X-Forwarded-For: 6.6.6.6\r\nX-Kept: yes\r\n\r\n",
        )
        .await;
    for wanted in [
        "host: a.test:8080\n",
        "x-forwarded-for: 127.0.0.1\n",
        "x-forwarded-host: a.test:8080\n",
        "x-forwarded-proto: http\n",
        "x-kept: yes\n",
    ] {
        assert!(answer.contains(wanted), "{wanted:?} in {answer}");
    }
    for unwanted in ["x-secret", "keep-alive", "6.6.6.6", "connection: close\nx"] {
        assert!(!answer.contains(unwanted), "{unwanted:?} in {answer}");
    }
}

#[tokio::test]
async fn one_connection_carries_many_requests_on_both_sides() {
    let lab = Lab::new(Limits::default(), &[("", PathKind::Prefix, "/", "one", http())]).await;
    let one = Echo::start("one").await;
    lab.set("one", &[one.address]);
    let mut client = lab.connect().await;
    for i in 0..20 {
        let request = format!("POST /{i} HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc");
        client.write_all(request.as_bytes()).await.unwrap();
        let answer = read_until(&mut client, "body: abc\n").await;
        assert!(answer.contains(&format!("one POST /{i}\n")), "{answer}");
    }
    // The first may still have been on its way back when the second came.
    assert!(one.connections.load(Ordering::SeqCst) <= 2, "{:?}", one.connections);
}

#[tokio::test]
async fn bodies_stream_in_both_directions_before_they_are_complete() {
    let lab = Lab::new(Limits::default(), &[("", PathKind::Prefix, "/", "one", http())]).await;
    let backend = TcpListener::bind("127.0.0.1:0").await.unwrap();
    lab.set("one", &[backend.local_addr().unwrap()]);

    let mut client = lab.connect().await;
    client
        .write_all(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    client.write_all(b"5\r\nfirst\r\n").await.unwrap();
    let (mut server, _) = backend.accept().await.unwrap();
    read_until(&mut server, "first").await;
    server.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nsoon\r\n").await.unwrap();
    read_until(&mut client, "soon").await;
    client.write_all(b"6\r\nsecond\r\n0\r\n\r\n").await.unwrap();
    read_until(&mut server, "second").await;
    server.write_all(b"4\r\nlate\r\n0\r\n\r\n").await.unwrap();
    assert!(read_all(&mut client).await.contains("late"));
}

#[tokio::test]
async fn an_old_client_gets_a_body_it_can_read() {
    let lab = Lab::new(Limits::default(), &[("", PathKind::Prefix, "/", "one", http())]).await;
    let one = Echo::start("one").await;
    lab.set("one", &[one.address]);
    let answer = lab.exchange("GET /old HTTP/1.0\r\nHost: a\r\n\r\n").await;
    assert_eq!(status(&answer), "200");
    assert!(answer.contains("one GET /old\n") && !answer.contains("chunked"), "{answer}");
}

#[tokio::test]
async fn answers_without_a_body_and_with_two_framings_arrive_whole() {
    let lab = Lab::new(Limits::default(), &[("", PathKind::Prefix, "/", "one", http())]).await;
    let backend = TcpListener::bind("127.0.0.1:0").await.unwrap();
    lab.set("one", &[backend.local_addr().unwrap()]);
    for (method, given, expected) in [
        ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", "200 content-length: 5 ;"),
        ("GET", "HTTP/1.1 304 Not Modified\r\nETag: x\r\n\r\n", "304 ;"),
        ("GET", "HTTP/1.1 204 No Content\r\n\r\n", "204 ;"),
        (
            "GET",
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            "200 content-length: 2 ;ok",
        ),
        ("GET", "HTTP/1.0 200 OK\r\n\r\nuntil the end", "200 ;D\r\nuntil the end\r\n0\r\n\r\n"),
        (
            "GET",
            "HTTP/1.1 200 OK\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            "200 ;2\r\nok\r\n0\r\n\r\n",
        ),
    ] {
        let request = format!("{method} / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        let serving = async {
            let (mut server, _) = backend.accept().await.unwrap();
            read_until(&mut server, "\r\n\r\n").await;
            server.write_all(given.as_bytes()).await.unwrap();
        };
        let (answer, ()) = tokio::join!(lab.exchange(&request), serving);
        let (head, body) = answer.split_once("\r\n\r\n").expect(&answer);
        let length = head.lines().find(|line| line.to_ascii_lowercase().starts_with("content-length"));
        let length = length.map(|line| line.to_ascii_lowercase() + " ").unwrap_or_default();
        assert_eq!(format!("{} {length};{body}", status(&answer)), expected, "{given:?}: {answer}");
    }
}
