//! Connections to backends: plain, TLS to kubelets (verified), TLS to pods and services (not verifiable).

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::authn::certificate::roots;
use crate::error::ApiError;
use crate::server::ServerError;
use crate::server::config::ServerConfig;

const DIAL_TIMEOUT: Duration = Duration::from_secs(10);

/// How to speak to a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Security {
    Plain,
    /// Server certificate checked against the kubelet CA; our kubelet-client certificate shown.
    Kubelet,
    /// Any server certificate: pods have none anybody could check (as upstream's proxy does it).
    Unverified,
}

/// Where a request is passed on to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Endpoint {
    pub address: IpAddr,
    pub port: u16,
    pub security: Security,
}

// === impl Endpoint ===

impl Endpoint {
    /// What to tell a client of a backend that cannot be reached. Of pods and services it is nobody's fault here, and
    /// worth another try.
    pub fn unreachable(&self, why: impl std::fmt::Display) -> ApiError {
        match self.security {
            Security::Kubelet => ApiError::internal(format!("error dialing backend: {why}")),
            Security::Plain | Security::Unverified => {
                ApiError::unavailable(format!("error trying to reach service: {why}"))
            }
        }
    }
}

/// A byte stream to a backend.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Opens connections.
pub struct Dialer {
    kubelet: TlsConnector,
    unverified: TlsConnector,
}

// === impl Dialer ===

impl Dialer {
    pub fn new(config: &ServerConfig) -> Result<Self, ServerError> {
        let tls = |source| ServerError::Tls { source };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder =
            || ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
        let trusted = if config.kubelet_ca_pem.is_empty() {
            // No kubelet to be reached: every handshake will fail, and say so.
            RootCertStore::empty()
        } else {
            roots("kubelet CA", &config.kubelet_ca_pem)?
        };
        let builder_with_roots = builder().map_err(tls)?.with_root_certificates(trusted);
        let kubelet = if config.kubelet_client_certificate_pem.is_empty() {
            builder_with_roots.with_no_client_auth()
        } else {
            let unusable = |e: rustls::pki_types::pem::Error| ServerError::Certificate { why: e.to_string() };
            let chain = CertificateDer::pem_slice_iter(&config.kubelet_client_certificate_pem)
                .collect::<Result<Vec<_>, _>>()
                .map_err(unusable)?;
            let key = PrivateKeyDer::from_pem_slice(&config.kubelet_client_key_pem).map_err(unusable)?;
            builder_with_roots.with_client_auth_cert(chain, key).map_err(tls)?
        };
        let any = Arc::new(AnyServer::new(&provider));
        let unverified =
            builder().map_err(tls)?.dangerous().with_custom_certificate_verifier(any).with_no_client_auth();
        Ok(Self {
            kubelet: TlsConnector::from(Arc::new(kubelet)),
            unverified: TlsConnector::from(Arc::new(unverified)),
        })
    }

    /// Opens a connection, within the dial timeout.
    pub async fn dial(&self, endpoint: &Endpoint) -> Result<Box<dyn Stream>, ApiError> {
        let address = SocketAddr::new(endpoint.address, endpoint.port);
        let failed = |why: String| endpoint.unreachable(format!("dial tcp {address}: {why}"));
        let connecting = async {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            let name = ServerName::IpAddress(endpoint.address.into());
            Ok::<Box<dyn Stream>, std::io::Error>(match endpoint.security {
                Security::Plain => Box::new(stream),
                Security::Kubelet => Box::new(self.kubelet.connect(name, stream).await?),
                Security::Unverified => Box::new(self.unverified.connect(name, stream).await?),
            })
        };
        match tokio::time::timeout(DIAL_TIMEOUT, connecting).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(failed(error.to_string())),
            Err(_) => Err(failed("i/o timeout".to_owned())),
        }
    }
}

/// Takes whatever certificate a server shows, if it holds its key or not.
#[derive(Debug)]
pub(crate) struct AnyServer {
    schemes: Vec<SignatureScheme>,
}

// === impl AnyServer ===

impl AnyServer {
    pub(crate) fn new(provider: &CryptoProvider) -> Self {
        Self { schemes: provider.signature_verification_algorithms.supported_schemes() }
    }
}

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes.clone()
    }
}
