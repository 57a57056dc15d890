//! Client certificates: common name → user, organisations → groups.
//!
//! The TLS handshake only proves that the peer holds its key; trust is decided here, so that a certificate of a
//! stranger gets a 401 it can read rather than a broken connection (as upstream does).

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::registry::User;

/// What a connection's certificate says, worked out once at the handshake.
#[derive(Debug, Clone, Default)]
pub struct Peer {
    certificate: Option<Arc<PeerCertificate>>,
}

#[derive(Debug)]
struct PeerCertificate {
    common_name: String,
    organisations: Vec<String>,
    /// Seconds since 1970.
    not_after: i64,
    trusted_as_user: bool,
    trusted_as_front_proxy: bool,
}

/// Decides which of the two authorities signed a certificate.
#[derive(Debug, Clone)]
pub struct Trust {
    users: Arc<dyn ClientCertVerifier>,
    front_proxies: Option<Arc<dyn ClientCertVerifier>>,
}

/// Why a certificate authority cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    #[error("the {what} holds no certificate")]
    Empty { what: &'static str },
    #[error("the {what} is not PEM certificates: {why}")]
    Pem { what: &'static str, why: String },
    #[error("the {what} cannot be trusted")]
    Verifier {
        what: &'static str,
        #[source]
        source: rustls::server::VerifierBuilderError,
    },
}

/// There is a certificate, and nobody here trusts it as a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the client certificate is expired, names nobody or is signed by a stranger")]
pub struct Untrusted;

// === impl Peer ===

impl Peer {
    /// Reads the chain a peer presented; an empty chain is a peer without a certificate.
    pub fn new(chain: &[CertificateDer<'_>], trust: &Trust) -> Self {
        let Some((leaf, intermediates)) = chain.split_first() else {
            return Self::default();
        };
        let Ok((_, parsed)) = X509Certificate::from_der(leaf) else {
            return Self { certificate: Some(Arc::new(PeerCertificate::unreadable())) };
        };
        let names = |attributes: Vec<&str>| attributes.into_iter().map(str::to_owned).collect::<Vec<_>>();
        let subject = parsed.subject();
        let common_names = names(subject.iter_common_name().filter_map(|a| a.as_str().ok()).collect());
        let now = UnixTime::now();
        let trusted = |verifier: &Arc<dyn ClientCertVerifier>| {
            verifier.verify_client_cert(leaf, intermediates, now).is_ok()
        };
        let certificate = PeerCertificate {
            common_name: common_names.last().cloned().unwrap_or_default(),
            organisations: names(subject.iter_organization().filter_map(|a| a.as_str().ok()).collect()),
            not_after: parsed.validity().not_after.timestamp(),
            trusted_as_user: trusted(&trust.users),
            trusted_as_front_proxy: trust.front_proxies.as_ref().is_some_and(trusted),
        };
        Self { certificate: Some(Arc::new(certificate)) }
    }

    /// The user the certificate stands for at `now` (seconds since 1970); `None` without a certificate for users.
    pub fn user(&self, now: i64) -> Result<Option<User>, Untrusted> {
        let Some(certificate) = &self.certificate else {
            return Ok(None);
        };
        if certificate.trusted_as_front_proxy && !certificate.trusted_as_user {
            return Ok(None);
        }
        if !certificate.trusted_as_user || certificate.not_after < now || certificate.common_name.is_empty() {
            return Err(Untrusted);
        }
        Ok(Some(User {
            name: certificate.common_name.clone(),
            groups: certificate.organisations.clone(),
            ..User::default()
        }))
    }

    /// The common name of a front proxy's certificate.
    pub fn front_proxy(&self, now: i64) -> Option<&str> {
        let certificate = self.certificate.as_deref()?;
        (certificate.trusted_as_front_proxy && certificate.not_after >= now)
            .then_some(certificate.common_name.as_str())
    }
}

impl PeerCertificate {
    fn unreadable() -> Self {
        Self {
            common_name: String::new(),
            organisations: Vec::new(),
            not_after: 0,
            trusted_as_user: false,
            trusted_as_front_proxy: false,
        }
    }
}

// === impl Trust ===

impl Trust {
    /// From the PEM bundles of the two authorities.
    pub fn new(client_ca_pem: &[u8], front_proxy_ca_pem: Option<&[u8]>) -> Result<Self, TrustError> {
        Ok(Self {
            users: verifier("client CA", client_ca_pem)?,
            front_proxies: front_proxy_ca_pem.map(|pem| verifier("front-proxy CA", pem)).transpose()?,
        })
    }
}

fn verifier(what: &'static str, pem: &[u8]) -> Result<Arc<dyn ClientCertVerifier>, TrustError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let built = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(what, pem)?), provider).build();
    built.map_err(|source| TrustError::Verifier { what, source })
}

/// The certificates of a PEM bundle as roots.
pub fn roots(what: &'static str, pem: &[u8]) -> Result<RootCertStore, TrustError> {
    use rustls::pki_types::pem::PemObject;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|e| TrustError::Pem { what, why: e.to_string() })?;
        roots.add(certificate).map_err(|e| TrustError::Pem { what, why: e.to_string() })?;
    }
    if roots.is_empty() { Err(TrustError::Empty { what }) } else { Ok(roots) }
}

// The verifier of the handshake: asks for a certificate, accepts any, checks that the peer holds its key.
#[derive(Debug)]
pub struct AcceptAnyHolder {
    trust: Trust,
}

impl AcceptAnyHolder {
    pub fn new(trust: Trust) -> Self {
        Self { trust }
    }
}

impl ClientCertVerifier for AcceptAnyHolder {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // Hints make clients with several certificates choose; the cluster's own authority is the one to hint at.
        self.trust.users.root_hint_subjects()
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn verify_client_cert(
        &self,
        _leaf: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.trust.users.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.trust.users.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.trust.users.supported_verify_schemes()
    }
}
