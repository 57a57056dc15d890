//! Health checks over real sockets: what is answered, and that ports follow Services.

use std::io::{Read, Write};

use tokio::sync::watch;

use super::*;

fn name(name: &str) -> ObjectName {
    ObjectName { namespace: "a".into(), name: name.into() }
}

/// A port that is free now.
fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Asks until something listens, or until nothing does any more.
async fn ask(port: u16, listens: bool) -> String {
    for _ in 0..1_000 {
        let answer = tokio::task::spawn_blocking(move || -> std::io::Result<String> {
            let mut stream = std::net::TcpStream::connect(("127.0.0.1", port))?;
            stream.write_all(b"GET /any HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        });
        match answer.await.unwrap() {
            Ok(answer) if listens => return answer,
            Err(_) if !listens => return String::new(),
            _ => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
    panic!("waited in vain for port {port}: listens={listens}")
}

fn start() -> (HealthChecks, watch::Sender<Arc<Vec<IpAddr>>>, Problems) {
    let checks = HealthChecks::new(ProxyHealth::default());
    let (to, addresses) = watch::channel(Arc::new(vec![IpAddr::from([127, 0, 0, 1])]));
    let problems = Problems::untold();
    tokio::spawn(checks.clone().run("node-1".into(), addresses, problems.clone()));
    (checks, to, problems)
}

#[tokio::test]
async fn a_port_says_how_many_endpoints_are_here_and_closes_with_its_service() {
    let (checks, _addresses, _) = start();
    let port = free_port();
    let check = |local_endpoints| Some(HealthCheck { port, local_endpoints });
    checks.set(&name("web"), "u", check(2));
    let answer = ask(port, true).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    assert!(answer.to_lowercase().contains("x-load-balancing-endpoint-weight: 2"), "{answer}");
    let body: serde_json::Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
    let service = json!({"namespace": "a", "name": "web"});
    assert_eq!(body, json!({"service": service, "localEndpoints": 2, "serviceProxyHealthy": true}));

    checks.set(&name("web"), "u", check(0));
    let answer = ask(port, true).await;
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("\"localEndpoints\":0"), "{answer}");

    checks.set(&name("web"), "u", None);
    ask(port, false).await;
}

#[tokio::test]
async fn a_port_that_is_taken_is_a_problem_of_the_service_until_it_is_free() {
    let (checks, _addresses, problems) = start();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    checks.set(&name("web"), "u", Some(HealthCheck { port, local_endpoints: 1 }));
    checks.set(&name("zzz"), "u", Some(HealthCheck { port, local_endpoints: 0 }));
    let wrong = || problems.known(&name("web"), Source::Health);
    while wrong().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let first = wrong().first().cloned().unwrap();
    assert_eq!(first.reason, "FailedToStartServiceHealthcheck");
    assert!(first.message.contains("node node-1") && first.message.contains(&port.to_string()), "{first:?}");
    while problems.known(&name("zzz"), Source::Health).is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let second = problems.known(&name("zzz"), Source::Health).first().cloned().unwrap();
    assert!(second.message.contains("a/web"), "{second:?}");
    drop(taken);
    assert!(ask(port, true).await.starts_with("HTTP/1.1 200"));
    assert!(wrong().is_empty());
}

#[test]
fn the_proxy_s_own_health_has_paths_of_its_own() {
    let proxy = ProxyHealth::default();
    assert_eq!(proxy_reply(&proxy, "/healthz").status, StatusCode::OK);
    proxy.set_leaving(true);
    assert_eq!(proxy_reply(&proxy, "/healthz").status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(proxy_reply(&proxy, "/livez").status, StatusCode::OK);
    assert_eq!(proxy_reply(&proxy, "/").status, StatusCode::NOT_FOUND);
}
