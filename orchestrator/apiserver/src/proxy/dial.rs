//! Connections to backends: plain, TLS to kubelets (verified), TLS to pods and services (not verifiable).

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use penstock_process::any_server::AnyServer;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ConfigBuilder, RootCertStore, WantsVerifier};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::authn::certificate::roots;
use crate::error::ApiError;
use crate::server::ServerError;
use crate::server::config::ServerConfig;
use crate::server::shown::Pair;

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
    kubelet: ArcSwap<ClientConfig>,
    /// Who signs kubelets' certificates.
    kubelet_roots: Arc<RootCertStore>,
    unverified: TlsConnector,
}

// === impl Dialer ===

impl Dialer {
    pub fn new(config: &ServerConfig) -> Result<Self, ServerError> {
        let trusted = if config.kubelet_ca_pem.is_empty() {
            // No kubelet to be reached: every handshake will fail, and say so.
            RootCertStore::empty()
        } else {
            roots("kubelet CA", &config.kubelet_ca_pem)?
        };
        let kubelet_roots = Arc::new(trusted);
        let kubelet = kubelet_tls(kubelet_roots.clone(), &config.certificates().kubelet_client)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let any = Arc::new(AnyServer::new(&provider));
        let unverified =
            builder(provider)?.dangerous().with_custom_certificate_verifier(any).with_no_client_auth();
        Ok(Self {
            kubelet: ArcSwap::from_pointee(kubelet),
            kubelet_roots,
            unverified: TlsConnector::from(Arc::new(unverified)),
        })
    }

    /// Shows kubelets another certificate from now on. Sessions that were kept with the one before are forgotten.
    pub fn show(&self, client: &Pair) -> Result<(), ServerError> {
        self.kubelet.store(Arc::new(kubelet_tls(self.kubelet_roots.clone(), client)?));
        Ok(())
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
                Security::Kubelet => {
                    let kubelet = TlsConnector::from(self.kubelet.load_full());
                    Box::new(kubelet.connect(name, stream).await?)
                }
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

fn builder(provider: Arc<CryptoProvider>) -> Result<ConfigBuilder<ClientConfig, WantsVerifier>, ServerError> {
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|source| ServerError::Tls { source })
}

fn kubelet_tls(roots: Arc<RootCertStore>, client: &Pair) -> Result<ClientConfig, ServerError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = builder(provider)?.with_root_certificates(roots);
    if client.is_empty() {
        return Ok(builder.with_no_client_auth());
    }
    let (chain, key) = client.parse()?;
    builder.with_client_auth_cert(chain, key).map_err(|source| ServerError::Tls { source })
}
