//! An ingress on loopback, backends that say who they are, and a client that speaks HTTP by hand.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use penstock_ingress::{
    Backend, CONTROLLER, Class, Endpoint, Ingress, Limits, Name, Path, PathKind, Port, Routing, Rule,
    ServicePort, compile, serve,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::{CancellationToken, DropGuard};

/// No exchange over loopback takes longer.
pub const WITHIN: Duration = Duration::from_secs(60);

pub struct Lab {
    pub address: SocketAddr,
    pub routing: Arc<Routing>,
    pub shutdown: CancellationToken,
    _guard: DropGuard,
}

/// A backend that answers every request with its name and what it was asked.
pub struct Echo {
    pub address: SocketAddr,
    pub connections: Arc<AtomicUsize>,
    accepting: tokio::task::JoinHandle<()>,
}

impl Lab {
    pub async fn new(limits: Limits, rules: &[(&str, PathKind, &str, &str, Port)]) -> Self {
        let routing = Arc::new(Routing::default());
        let rules = rules.iter().map(|(host, kind, path, service, port)| {
            let backend = Backend::Service { name: service.to_string(), port: port.clone() };
            Rule {
                host: host.to_string(),
                paths: vec![Path { kind: *kind, path: path.to_string(), backend }],
            }
        });
        let ingress = Ingress { rules: rules.collect(), ..Ingress::default() };
        let classes =
            BTreeMap::from([("p".into(), Class { controller: CONTROLLER.into(), is_default: true })]);
        let name = Name { namespace: "shop".into(), name: "front".into() };
        routing.table.store(Arc::new(compile([(&name, &ingress)], &classes).table));

        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        tokio::spawn(serve(listener, routing.clone(), limits, shutdown.clone()));
        Self { address, routing, _guard: shutdown.clone().drop_guard(), shutdown }
    }

    /// Says where Service `name` is, on its port 80 named `http`.
    pub fn set(&self, name: &str, endpoints: &[SocketAddr]) {
        let endpoint = |address: &SocketAddr| Endpoint { address: *address, ready: true, serving: true };
        let port = ServicePort {
            name: "http".into(),
            number: 80,
            endpoints: endpoints.iter().map(endpoint).collect(),
        };
        self.routing.upstreams.set(Name { namespace: "shop".into(), name: name.into() }, Some(vec![port]));
    }

    pub async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends bytes as they are and reads until the other side closes.
    pub async fn exchange(&self, request: &str) -> String {
        let mut stream = self.connect().await;
        stream.write_all(request.as_bytes()).await.unwrap();
        read_all(&mut stream).await
    }

    pub async fn get(&self, host: &str, path: &str) -> String {
        self.exchange(&format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")).await
    }
}

impl Echo {
    pub async fn start(name: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = connections.clone();
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::SeqCst);
                let service = service_fn(move |request| echo(name, request));
                let connection = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service);
                tokio::spawn(connection);
            }
        });
        Self { address, connections, accepting }
    }

    /// Stops listening; the address refuses connections from then on.
    pub async fn stop(self) {
        self.accepting.abort();
        let _ = self.accepting.await;
    }
}

/// `name method target`, then the headers, then the body.
async fn echo(name: &str, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let mut text = format!("{name} {} {}\n", request.method(), request.uri());
    for (key, value) in request.headers() {
        text += &format!("{key}: {}\n", value.to_str().unwrap_or("?"));
    }
    let body = request.into_body().collect().await?.to_bytes();
    text += &format!("body: {}\n", String::from_utf8_lossy(&body));
    Ok(Response::new(Full::from(text)))
}

/// An address on which nothing listens: of this machine's many, none that others listen on.
pub fn nowhere() -> SocketAddr {
    SocketAddr::from(([127, 10, 2, 59], 9))
}

pub async fn read_all(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let read =
        tokio::time::timeout(WITHIN, stream.read_to_end(&mut bytes)).await.expect("it should have closed");
    // A reset after the answer is as good as an end.
    let _ = read;
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Reads until `wanted` has come.
pub async fn read_until(stream: &mut TcpStream, wanted: &str) -> String {
    let mut bytes = Vec::new();
    while !String::from_utf8_lossy(&bytes).contains(wanted) {
        let mut buffer = [0; 4096];
        let read = tokio::time::timeout(WITHIN, stream.read(&mut buffer))
            .await
            .expect("bytes should have come")
            .unwrap();
        assert!(read > 0, "it closed after {:?}", String::from_utf8_lossy(&bytes));
        bytes.extend_from_slice(&buffer[..read]);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

pub fn status(response: &str) -> &str {
    response.split(' ').nth(1).unwrap_or("no response")
}
