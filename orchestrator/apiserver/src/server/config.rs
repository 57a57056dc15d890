//! What an API server is told at start.
//!
//! Certificates and keys come as PEM bytes: reading files, creating them and rotating them is the binary's work.

use std::net::{IpAddr, SocketAddr};

use super::limits::Limits;
use super::shown::{Certificates, Pair};
use crate::audit::AuditConfig;
use crate::authn::configuration::{Anonymous, AuthenticationConfig};
use crate::authz::AuthorizationConfig;
use crate::registry::User;

/// A bearer token known from the start (tests, bootstrap).
#[derive(Debug, Clone)]
pub struct StaticToken {
    pub token: String,
    pub user: User,
}

/// Everything [`super::ApiServer::new`] needs beside the registry.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// Where to listen. Port 0 picks one; see `ApiServer::bind`.
    pub listen: SocketAddr,
    /// The serving certificate, followed by any intermediates.
    pub serving_certificate_pem: Vec<u8>,
    pub serving_key_pem: Vec<u8>,
    /// Signs client certificates: CN becomes the user name, each O a group.
    pub client_ca_pem: Vec<u8>,
    /// Signs the certificates of proxies that may speak for a user by `X-Remote-*` headers.
    pub front_proxy_ca_pem: Option<Vec<u8>>,
    /// Common names a front proxy may have; empty allows any certificate of the front-proxy CA.
    pub front_proxy_names: Vec<String>,
    /// Shown to extension API servers, signed by the front-proxy CA. Empty: they are told of no user.
    pub front_proxy_client_certificate_pem: Vec<u8>,
    pub front_proxy_client_key_pem: Vec<u8>,
    /// EC P-256 private key (PKCS#8) that signs and verifies service-account tokens.
    pub service_account_key_pem: Vec<u8>,
    /// `iss` of the tokens, and the base of the OpenID documents.
    pub service_account_issuer: String,
    /// Audiences this server answers to; the first is the default of issued tokens.
    pub audiences: Vec<String>,
    /// Verifies kubelets' serving certificates.
    pub kubelet_ca_pem: Vec<u8>,
    pub kubelet_client_certificate_pem: Vec<u8>,
    pub kubelet_client_key_pem: Vec<u8>,
    /// Published in `/api` as the address of this server.
    pub advertise_address: IpAddr,
    pub static_tokens: Vec<StaticToken>,
    /// Whether Secrets of type `bootstrap.kubernetes.io/token` in `kube-system` are credentials.
    pub bootstrap_tokens: bool,
    /// What machines that join are told of the cluster; `None`: nothing.
    pub cluster_info: Option<ClusterInfo>,
    /// Other issuers, a webhook, and who is let in as `system:anonymous`.
    pub authentication: AuthenticationConfig,
    /// Who says what users may do, in which order.
    pub authorization: AuthorizationConfig,
    /// What is noted of requests, and where; `None`: nothing.
    pub audit: Option<AuditConfig>,
    /// Whether requests are queued fairly; otherwise those beyond the next two are refused.
    pub priority_and_fairness: bool,
    /// Requests that read, at once, but for watches and the like. The sum with the next one is what priority levels
    /// share.
    pub max_requests_inflight: u32,
    /// Requests that write, at once.
    pub max_mutating_requests_inflight: u32,
    pub limits: Limits,
}

/// Where the cluster is, and how it is recognised: published to everybody in `kube-public/cluster-info`.
#[derive(Debug, Clone)]
pub struct ClusterInfo {
    /// The API server's URL.
    pub server: String,
    /// Who signed its certificate.
    pub authority_pem: String,
}

/// The issuer (and default audience) of a cluster with the default domain.
pub const DEFAULT_ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

// === impl ServerConfig ===

impl ServerConfig {
    /// A configuration with upstream's defaults for what has one. All certificates are empty: fill them in.
    pub fn new(listen: SocketAddr, advertise_address: IpAddr) -> Self {
        Self {
            listen,
            serving_certificate_pem: Vec::new(),
            serving_key_pem: Vec::new(),
            client_ca_pem: Vec::new(),
            front_proxy_ca_pem: None,
            front_proxy_names: Vec::new(),
            front_proxy_client_certificate_pem: Vec::new(),
            front_proxy_client_key_pem: Vec::new(),
            service_account_key_pem: Vec::new(),
            service_account_issuer: DEFAULT_ISSUER.to_owned(),
            audiences: vec![DEFAULT_ISSUER.to_owned()],
            kubelet_ca_pem: Vec::new(),
            kubelet_client_certificate_pem: Vec::new(),
            kubelet_client_key_pem: Vec::new(),
            advertise_address,
            static_tokens: Vec::new(),
            bootstrap_tokens: true,
            cluster_info: None,
            authentication: AuthenticationConfig {
                anonymous: Anonymous::everywhere(),
                ..AuthenticationConfig::default()
            },
            authorization: AuthorizationConfig::default(),
            audit: None,
            priority_and_fairness: true,
            max_requests_inflight: 400,
            max_mutating_requests_inflight: 200,
            limits: Limits::default(),
        }
    }
    /// What the server shows to begin with.
    pub(crate) fn certificates(&self) -> Certificates {
        let pair = |certificate_pem: &[u8], key_pem: &[u8]| Pair {
            certificate_pem: certificate_pem.to_vec(),
            key_pem: key_pem.to_vec(),
        };
        Certificates {
            serving: pair(&self.serving_certificate_pem, &self.serving_key_pem),
            kubelet_client: pair(&self.kubelet_client_certificate_pem, &self.kubelet_client_key_pem),
            front_proxy_client: pair(
                &self.front_proxy_client_certificate_pem,
                &self.front_proxy_client_key_pem,
            ),
        }
    }
}
