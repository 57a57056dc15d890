//! An HTTPS server in the test's own process, for what the API server asks: webhooks, converters, extension servers.

use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use anyhow::{Context, Result};
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use serde_json::Value;

/// One request: method, path with query, headers as they came (lower case, one a line), body.
pub struct Asked {
    pub method: String,
    pub path: String,
    pub headers: Vec<(String, String)>,
    pub body: Value,
}

/// What is answered: a status and a JSON document.
pub type Answer = (u16, Value);

/// A running server; gone when dropped.
pub struct HttpsServer {
    pub address: SocketAddr,
    /// Its certificate, which signs itself (PEM).
    pub certificate_pem: String,
    stopping: Arc<AtomicBool>,
    /// Closed when the server goes: clients keep connections.
    open: Arc<Mutex<Vec<TcpStream>>>,
    accepting: Option<JoinHandle<()>>,
}

// === impl HttpsServer ===

impl HttpsServer {
    /// Serves on an address of this machine under a name. With an authority (PEM), only clients it signed get in.
    pub fn start(
        on: IpAddr,
        name: &str,
        clients: Option<&str>,
        answer: impl Fn(&Asked) -> Answer + Send + Sync + 'static,
    ) -> Result<Self> {
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new(vec![name.to_owned()])?.self_signed(&key)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder =
            ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(authority) => {
                let mut roots = RootCertStore::empty();
                roots.add(CertificateDer::from_pem_slice(authority.as_bytes())?)?;
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build()?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(|e| anyhow::anyhow!("{e}"))?;
        let config = Arc::new(builder.with_single_cert(vec![certificate.der().clone()], key)?);
        let listener = TcpListener::bind((on, 0)).with_context(|| format!("cannot listen on {on}"))?;
        let address = listener.local_addr()?;
        let stopping = Arc::new(AtomicBool::new(false));
        let open: Arc<Mutex<Vec<TcpStream>>> = Arc::default();
        let (stop, answer, opened) = (stopping.clone(), Arc::new(answer), open.clone());
        let accepting = std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                if let (Ok(twin), Ok(mut opened)) = (stream.try_clone(), opened.lock()) {
                    opened.push(twin);
                }
                let (config, answer) = (config.clone(), answer.clone());
                // A connection that fails is the client's to tell of.
                std::thread::spawn(move || serve(stream, config, &*answer));
            }
        });
        Ok(Self { address, certificate_pem: certificate.pem(), stopping, open, accepting: Some(accepting) })
    }
}

impl Drop for HttpsServer {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Relaxed);
        // Wakes the thread that accepts.
        drop(TcpStream::connect(self.address));
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
        for stream in self.open.lock().iter().flat_map(|open| open.iter()) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn serve(stream: TcpStream, config: Arc<ServerConfig>, answer: &dyn Fn(&Asked) -> Answer) -> Result<()> {
    let stream = StreamOwned::new(ServerConnection::new(config)?, stream);
    let mut stream = BufReader::new(stream);
    while let Some(asked) = read(&mut stream)? {
        let (status, document) = answer(&asked);
        let body = document.to_string();
        let head = format!(
            "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.get_mut().write_all(head.as_bytes())?;
        stream.get_mut().write_all(body.as_bytes())?;
        stream.get_mut().flush()?;
    }
    Ok(())
}

/// The next request of a connection; none at its end.
fn read(stream: &mut impl BufRead) -> Result<Option<Asked>> {
    let mut line = String::new();
    if stream.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace();
    let method = words.next().context("no method")?.to_owned();
    let path = words.next().context("no path")?.to_owned();
    let (mut headers, mut length) = (Vec::new(), 0);
    loop {
        let mut line = String::new();
        stream.read_line(&mut line)?;
        let Some((name, value)) = line.trim().split_once(':') else { break };
        let (name, value) = (name.to_ascii_lowercase(), value.trim().to_owned());
        if name == "content-length" {
            length = value.parse()?;
        }
        headers.push((name, value));
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok(Some(Asked { method, path, headers, body: serde_json::from_slice(&body).unwrap_or_default() }))
}
