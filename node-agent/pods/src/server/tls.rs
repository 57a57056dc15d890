//! TLS of the kubelet API, and of probes that must not verify what they ask.

use std::path::Path;
use std::sync::Arc;

use penstock_process::any_server::AnyServer;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::serving_key::ServingKey;
use crate::{PodsConfig, PodsError};

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn wrong(path: &Path, error: impl std::fmt::Display) -> PodsError {
    PodsError::Certificate { message: format!("{}: {error}", path.display()) }
}

/// The server's side: what its [`ServingKey`] shows; client certificates are asked for, not demanded, so that a caller
/// without one gets an answer that says so.
pub fn acceptor(config: &PodsConfig) -> Result<TlsAcceptor, PodsError> {
    let serving_key = Arc::new(ServingKey::new(config)?);
    let other = |e: rustls::Error| PodsError::Certificate { message: e.to_string() };
    let builder = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(other)?;
    let builder = match &config.client_ca {
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for cert in CertificateDer::pem_file_iter(path).map_err(|e| wrong(path, e))? {
                roots.add(cert.map_err(|e| wrong(path, e))?).map_err(|e| wrong(path, e))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
            builder.with_client_cert_verifier(
                verifier.allow_unauthenticated().build().map_err(|e| wrong(path, e))?,
            )
        }
        None => builder.with_no_client_auth(),
    };
    let mut server = builder.with_cert_resolver(serving_key);
    // Upgrades of streaming requests need HTTP/1.1.
    server.alpn_protocols = vec![b"http/1.1".to_vec(), b"h2".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(server)))
}

/// Connects without verifying the other side: a probe asks whether a pod answers, not who it is.
pub async fn connect_unverified(stream: TcpStream, host: &str) -> std::io::Result<TlsStream<TcpStream>> {
    let provider = provider();
    let any = Arc::new(AnyServer::new(&provider));
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(std::io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(any)
        .with_no_client_auth();
    let name = ServerName::try_from(host.to_string()).map_err(std::io::Error::other)?;
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}
