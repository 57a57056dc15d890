//! Kept TLS connections: one pool for each server name, trust and identity.
//!
//! HTTP/1.1 alone, so that requests at the same time spread over endpoints and an upgrade is always possible.

use std::error::Error;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use http::Uri;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use penstock_process::any_server::AnyServer;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tower::Service;

use super::{CallError, Identity, Trust};
use crate::authn::certificate::roots;

const DIAL_TIMEOUT: Duration = Duration::from_secs(10);
/// Shorter than most servers keep an idle connection, so that it is us who end it.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// Idle connections kept to one endpoint.
const IDLE_MAX: usize = 16;

pub(crate) type Client = legacy::Client<Connector, Body>;

/// What connections have in common.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct ClientKey {
    pub server_name: String,
    pub trust: Trust,
    pub identity: Option<Arc<Identity>>,
}

// === impl ClientKey ===

impl ClientKey {
    /// Whether the other is the same but for who we say we are, while both say something.
    pub(crate) fn replaces(&self, other: &Self) -> bool {
        let is_same = self.server_name == other.server_name && self.trust == other.trust;
        is_same && self.identity.is_some() && other.identity.is_some() && self.identity != other.identity
    }
}

pub(crate) fn client(key: &ClientKey) -> Result<Client, CallError> {
    let unusable = |what: &'static str| move |why: String| CallError::Trust { what, why };
    let name = ServerName::try_from(key.server_name.clone())
        .map_err(|e| unusable("the server's name cannot be verified")(e.to_string()))?;
    let connector = Connector { tls: TlsConnector::from(Arc::new(tls(key)?)), name };
    Ok(legacy::Client::builder(TokioExecutor::new())
        .pool_idle_timeout(IDLE_TIMEOUT)
        .pool_max_idle_per_host(IDLE_MAX)
        .pool_timer(TokioTimer::new())
        .set_host(false)
        .build(connector))
}

fn tls(key: &ClientKey) -> Result<ClientConfig, CallError> {
    let unusable = |what: &'static str| move |why: String| CallError::Trust { what, why };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|e| unusable("TLS")(e.to_string()))?;
    let builder = match &key.trust {
        Trust::Authorities(pem) if pem.is_empty() => builder.with_root_certificates(machine_roots()),
        Trust::Authorities(pem) => builder.with_root_certificates(
            roots("CA bundle", pem)
                .map_err(|e| unusable("unable to load root certificates")(e.to_string()))?,
        ),
        Trust::Anyone => {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyServer::new(&provider)))
        }
    };
    let mut config = match &key.identity {
        None => builder.with_no_client_auth(),
        Some(identity) => {
            let unusable = unusable("the certificate this server shows cannot be used");
            let chain = CertificateDer::pem_slice_iter(&identity.certificate_pem)
                .collect::<Result<Vec<_>, _>>()
                .map_err(|e| unusable(e.to_string()))?;
            let key =
                PrivateKeyDer::from_pem_slice(&identity.key_pem).map_err(|e| unusable(e.to_string()))?;
            builder.with_client_auth_cert(chain, key).map_err(|e| unusable(e.to_string()))?
        }
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// The authorities of this machine; those that cannot be read are left out, as everybody does.
fn machine_roots() -> RootCertStore {
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    store
}

/// The innermost cause, which says what the outer ones only wrap.
pub(crate) fn reason(error: &(dyn Error + 'static)) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

/// Dials what a URI names and speaks TLS under one server name.
#[derive(Clone)]
pub(crate) struct Connector {
    tls: TlsConnector,
    name: ServerName<'static>,
}

// === impl Connector ===

impl Service<Uri> for Connector {
    type Response = TokioIo<Kept>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let Self { tls, name } = self.clone();
        Box::pin(async move {
            let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
            let port = uri.port_u16().unwrap_or(443);
            let failed = |e: io::Error| io::Error::new(e.kind(), format!("dial tcp {host}:{port}: {e}"));
            let connecting = async {
                let stream = TcpStream::connect((host, port)).await.map_err(failed)?;
                stream.set_nodelay(true)?;
                Ok(TokioIo::new(Kept(tls.connect(name, stream).await?)))
            };
            let timed_out = || failed(io::Error::new(io::ErrorKind::TimedOut, "i/o timeout"));
            tokio::time::timeout(DIAL_TIMEOUT, connecting).await.unwrap_or_else(|_| Err(timed_out()))
        })
    }
}

/// A connection as the pool wants it.
pub(crate) struct Kept(TlsStream<TcpStream>);

impl Connection for Kept {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl AsyncRead for Kept {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Kept {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
