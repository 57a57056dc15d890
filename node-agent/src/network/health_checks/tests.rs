//! Health checks over real sockets: what is answered, and that ports follow Services.

use std::io::{Read, Write};

use tokio::sync::watch;

use super::*;

fn name(name: &str) -> ObjectName {
    ObjectName { namespace: "a".into(), name: name.into() }
}

/// Nobody else on this machine uses these addresses, so that every port of theirs is free.
const HERE: [u8; 4] = [127, 10, 2, 56];
const ALSO_HERE: [u8; 4] = [127, 10, 2, 57];
const PORT: u16 = 10_256;

/// Asks until something listens, or until nothing does any more.
async fn ask(at: [u8; 4], listens: bool) -> String {
    for _ in 0..6_000 {
        let answer = tokio::task::spawn_blocking(move || -> std::io::Result<String> {
            let mut stream = std::net::TcpStream::connect(SocketAddr::from((at, PORT)))?;
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
    panic!("waited in vain for {at:?}: listens={listens}")
}

fn start(at: [u8; 4]) -> (HealthChecks, watch::Sender<Arc<Vec<IpAddr>>>, Problems) {
    let checks = HealthChecks::new(ProxyHealth::default());
    let (to, addresses) = watch::channel(Arc::new(vec![IpAddr::from(at)]));
    let problems = Problems::untold();
    tokio::spawn(checks.clone().run("node-1".into(), addresses, problems.clone()));
    (checks, to, problems)
}

#[tokio::test]
async fn a_port_says_how_many_endpoints_are_here_and_closes_with_its_service() {
    let (checks, _addresses, _) = start(HERE);
    let check = |local_endpoints| Some(HealthCheck { port: PORT, local_endpoints });
    checks.set(&name("web"), "u", check(2));
    let answer = ask(HERE, true).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    assert!(answer.to_lowercase().contains("x-load-balancing-endpoint-weight: 2"), "{answer}");
    let body: serde_json::Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
    let service = json!({"namespace": "a", "name": "web"});
    assert_eq!(body, json!({"service": service, "localEndpoints": 2, "serviceProxyHealthy": true}));

    checks.set(&name("web"), "u", check(0));
    let answer = ask(HERE, true).await;
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("\"localEndpoints\":0"), "{answer}");

    checks.set(&name("web"), "u", None);
    ask(HERE, false).await;
}

#[tokio::test]
async fn a_port_that_is_taken_is_a_problem_of_the_service_until_it_is_free() {
    let (checks, _addresses, problems) = start(ALSO_HERE);
    let taken = std::net::TcpListener::bind(SocketAddr::from((ALSO_HERE, PORT))).unwrap();
    checks.set(&name("web"), "u", Some(HealthCheck { port: PORT, local_endpoints: 1 }));
    checks.set(&name("zzz"), "u", Some(HealthCheck { port: PORT, local_endpoints: 0 }));
    let wrong = || problems.known(&name("web"), Source::Health);
    while wrong().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let first = wrong().first().cloned().unwrap();
    assert_eq!(first.reason, "FailedToStartServiceHealthcheck");
    assert!(first.message.contains("node node-1") && first.message.contains(&PORT.to_string()), "{first:?}");
    while problems.known(&name("zzz"), Source::Health).is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let second = problems.known(&name("zzz"), Source::Health).first().cloned().unwrap();
    assert!(second.message.contains("a/web"), "{second:?}");
    drop(taken);
    assert!(ask(ALSO_HERE, true).await.starts_with("HTTP/1.1 200"));
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
