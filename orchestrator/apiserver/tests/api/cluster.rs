//! One API server on loopback with certificates of its own, gone with the test.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use penstock_apiserver::{ApiServer, Registry, RegistryConfig, ServerConfig};
use penstock_store::embedded::Embedded;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

/// A running server.
pub struct Cluster {
    pub server: ApiServer,
    pub address: SocketAddr,
    pub directory: TempDir,
    pub store: Arc<Embedded>,
    authority: CertifiedIssuer<'static, KeyPair>,
    shutdown: CancellationToken,
    serving: JoinHandle<()>,
}

/// A client certificate and its key, PEM.
pub struct Identity {
    pub certificate: String,
    pub key: String,
}

// === impl Cluster ===

impl Cluster {
    pub async fn start() -> anyhow::Result<Self> {
        Self::start_with(|_, _| {}).await
    }

    /// With a configuration that `adjust` changed; it is told the cluster's folder.
    pub async fn start_with(adjust: impl FnOnce(&mut ServerConfig, &Path)) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        let store = Embedded::open(&directory.path().join("store.redb")).await?;
        let localhost = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let registry = Registry::new(
            store.clone(),
            RegistryConfig {
                service_cidrs: vec!["10.96.0.0/16".parse()?],
                node_ports: (30000, 32767),
                cluster_dns: vec!["10.96.0.10".parse()?],
                cluster_domain: "cluster.local".into(),
                advertise_address: localhost,
                advertise_port: 6443,
            },
        )
        .await?;

        let mut authority = CertificateParams::new(Vec::new())?;
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.distinguished_name.push(DnType::CommonName, "test-ca");
        let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;
        let serving =
            leaf(&authority, "apiserver", &[], &["127.0.0.1"], ExtendedKeyUsagePurpose::ServerAuth)?;
        let kubelet_client =
            leaf(&authority, "kubelet-client", &[], &[], ExtendedKeyUsagePurpose::ClientAuth)?;

        let listener = TcpListener::bind((localhost, 0)).await?;
        let address = listener.local_addr()?;
        let mut config = ServerConfig::new(address, localhost);
        config.client_ca_pem = authority.as_ref().pem().into_bytes();
        config.kubelet_ca_pem = config.client_ca_pem.clone();
        config.serving_certificate_pem = serving.certificate.into_bytes();
        config.serving_key_pem = serving.key.into_bytes();
        config.kubelet_client_certificate_pem = kubelet_client.certificate.into_bytes();
        config.kubelet_client_key_pem = kubelet_client.key.into_bytes();
        let front_proxy =
            leaf(&authority, "front-proxy-client", &[], &[], ExtendedKeyUsagePurpose::ClientAuth)?;
        config.front_proxy_ca_pem = Some(config.client_ca_pem.clone());
        config.front_proxy_names = vec!["front-proxy-client".into()];
        config.front_proxy_client_certificate_pem = front_proxy.certificate.into_bytes();
        config.front_proxy_client_key_pem = front_proxy.key.into_bytes();
        config.service_account_key_pem = KeyPair::generate()?.serialize_pem().into_bytes();
        adjust(&mut config, directory.path());
        let server = ApiServer::new(registry, config).await?;

        let shutdown = CancellationToken::new();
        let serving = tokio::spawn({
            let (server, shutdown) = (server.clone(), shutdown.clone());
            async move { server.serve_on(listener, shutdown).await.expect("the server starts") }
        });
        Ok(Self { server, address, directory, store, authority, shutdown, serving })
    }

    /// A client certificate of the cluster's authority.
    pub fn identity(&self, name: &str, groups: &[&str]) -> anyhow::Result<Identity> {
        leaf(&self.authority, name, groups, &[], ExtendedKeyUsagePurpose::ClientAuth)
    }

    /// A connection to the server for HTTP/1.1, as somebody.
    pub async fn dial(&self, identity: &Identity) -> anyhow::Result<TlsStream<TcpStream>> {
        self.dial_for(identity, "http/1.1").await
    }

    /// A connection to the server, for a protocol.
    pub async fn dial_for(
        &self,
        identity: &Identity,
        protocol: &str,
    ) -> anyhow::Result<TlsStream<TcpStream>> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.authority_pem().as_bytes())?)?;
        let chain = vec![CertificateDer::from_pem_slice(identity.certificate.as_bytes())?];
        let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes())?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)?;
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        let stream = TcpStream::connect(self.address).await?;
        let name = ServerName::IpAddress(self.address.ip().into());
        Ok(TlsConnector::from(Arc::new(config)).connect(name, stream).await?)
    }

    pub fn authority_pem(&self) -> String {
        self.authority.as_ref().pem()
    }

    /// Serves a kubelet's certificate for tests of the proxies.
    pub fn serving_identity(&self, address: &str) -> anyhow::Result<Identity> {
        leaf(
            &self.authority,
            "system:node:n1",
            &["system:nodes"],
            &[address],
            ExtendedKeyUsagePurpose::ServerAuth,
        )
    }

    /// A kubeconfig file for a user with a client certificate.
    pub fn kubeconfig(&self, name: &str, groups: &[&str]) -> anyhow::Result<PathBuf> {
        let identity = self.identity(name, groups)?;
        let encoded = |text: &str| STANDARD.encode(text);
        let path = self.directory.path().join(format!("{name}.kubeconfig").replace(':', "-"));
        std::fs::write(
            &path,
            format!(
                "apiVersion: v1\nkind: Config\ncurrent-context: test\n\
                 clusters: [{{name: test, cluster: {{server: 'https://{}', certificate-authority-data: {}}}}}]\n\
                 users: [{{name: test, user: {{client-certificate-data: {}, client-key-data: {}}}}}]\n\
                 contexts: [{{name: test, context: {{cluster: test, user: test, namespace: default}}}}]\n",
                self.address,
                encoded(&self.authority_pem()),
                encoded(&identity.certificate),
                encoded(&identity.key)
            ),
        )?;
        Ok(path)
    }

    /// Tells the server to stop, and does not wait.
    pub fn begin_stop(&self) {
        self.shutdown.cancel();
    }

    /// Stops the server and waits until it is down.
    pub async fn stop(self) {
        self.shutdown.cancel();
        self.serving.await.expect("the server stops");
    }
}

fn leaf(
    authority: &CertifiedIssuer<'static, KeyPair>,
    name: &str,
    groups: &[&str],
    addresses: &[&str],
    purpose: ExtendedKeyUsagePurpose,
) -> anyhow::Result<Identity> {
    let names: Vec<String> = addresses.iter().map(|a| (*a).to_owned()).collect();
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    for group in groups {
        params.distinguished_name.push(DnType::OrganizationName, *group);
    }
    params.extended_key_usages = vec![purpose];
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, authority)?;
    Ok(Identity { certificate: certificate.pem(), key: key.serialize_pem() })
}
