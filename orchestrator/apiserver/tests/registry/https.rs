//! An HTTPS server inside the test: a webhook, a converter, an extension server, gone with the test.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::Body;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, Request, Response};
use http_body_util::BodyExt;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

/// The path, with its query, and the body of a request.
pub type Asked = (String, Value);

pub struct HttpsServer {
    pub address: SocketAddr,
    /// Its certificate, base64 of PEM: a `caBundle`.
    pub bundle: String,
    pub asked: Arc<Mutex<Vec<Asked>>>,
    /// The headers of each request.
    pub headers: Arc<Mutex<Vec<HeaderMap>>>,
    /// TCP connections so far.
    pub connections: Arc<Mutex<usize>>,
    serving: JoinHandle<()>,
}

impl Drop for HttpsServer {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl HttpsServer {
    /// Serves on loopback under `names`, which its certificate holds besides `127.0.0.1`.
    pub async fn start(
        names: &[&str],
        answer: impl Fn(&str, &Value) -> Response<Body> + Send + Sync + 'static,
    ) -> Self {
        let mut names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        names.push("127.0.0.1".into());
        let (acceptor, certificate_pem) = acceptor(&names);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let connections: Arc<Mutex<usize>> = Arc::default();
        let headers: Arc<Mutex<Vec<HeaderMap>>> = Arc::default();
        let (answer, seen, count) = (Arc::new(answer), asked.clone(), connections.clone());
        let heads = headers.clone();
        let serving = tokio::spawn(async move {
            let mut open = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                *count.lock() += 1;
                let (acceptor, answer, seen) = (acceptor.clone(), answer.clone(), seen.clone());
                let heads = heads.clone();
                open.spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let service = service_fn(|request: Request<hyper::body::Incoming>| {
                        let (answer, seen, heads) = (answer.clone(), seen.clone(), heads.clone());
                        async move {
                            let path = request.uri().to_string();
                            heads.lock().push(request.headers().clone());
                            let body = request.into_body().collect().await?.to_bytes();
                            let body: Value = serde_json::from_slice(&body).unwrap_or_default();
                            let response = answer(&path, &body);
                            seen.lock().push((path, body));
                            Ok::<_, hyper::Error>(response)
                        }
                    });
                    let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                    let _ = builder.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Self { address, bundle: STANDARD.encode(certificate_pem), asked, headers, connections, serving }
    }

    /// A `clientConfig` for a path of this server.
    pub fn client(&self, path: &str) -> Value {
        json!({"url": format!("https://{}{path}", self.address), "caBundle": self.bundle})
    }
}

pub fn json_answer(value: &Value) -> Response<Body> {
    Response::builder()
        .header("content-type", "application/json")
        .body(Body::from(value.to_string()))
        .unwrap()
}

/// TLS for a server of these names, and its certificate (PEM), which signs itself.
pub fn acceptor(names: &[String]) -> (TlsAcceptor, String) {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(names.to_vec()).unwrap().self_signed(&key).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    (TlsAcceptor::from(Arc::new(config)), certificate.pem())
}
