//! The certificates this server shows: to its clients, to nodes, and to extension servers. They can be exchanged while it
//! serves: connections go on with what they began with, and new handshakes show what is present.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::{ApiServer, ServerError};
use crate::outbound::Identity;

/// A certificate (with any intermediates behind it) and its key, PEM.
#[derive(Clone, Default)]
pub struct Pair {
    pub certificate_pem: Vec<u8>,
    pub key_pem: Vec<u8>,
}

/// Everything that a server shows.
#[derive(Clone, Debug, Default)]
pub struct Certificates {
    pub serving: Pair,
    pub kubelet_client: Pair,
    pub front_proxy_client: Pair,
}

/// What clients are shown. Nothing until something was given.
#[derive(Debug, Default)]
pub(crate) struct ServingKey(ArcSwapOption<CertifiedKey>);

// === impl Pair ===

impl Pair {
    pub fn is_empty(&self) -> bool {
        self.certificate_pem.is_empty()
    }

    /// As rustls wants them.
    pub(crate) fn parse(
        &self,
    ) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), ServerError> {
        let unusable = |e: rustls::pki_types::pem::Error| ServerError::Certificate { why: e.to_string() };
        let chain = CertificateDer::pem_slice_iter(&self.certificate_pem).collect::<Result<Vec<_>, _>>();
        let key = PrivateKeyDer::from_pem_slice(&self.key_pem).map_err(unusable)?;
        Ok((chain.map_err(unusable)?, key))
    }

    fn certified(&self) -> Result<CertifiedKey, ServerError> {
        let tls = |source| ServerError::Tls { source };
        let (chain, key) = self.parse()?;
        let certified = CertifiedKey::new(chain, any_supported_type(&key).map_err(tls)?);
        certified.keys_match().map_err(tls)?;
        Ok(certified)
    }

    pub(crate) fn identity(&self) -> Option<Identity> {
        let Self { certificate_pem, key_pem } = self.clone();
        (!self.is_empty()).then_some(Identity { certificate_pem, key_pem })
    }
}

impl std::fmt::Debug for Pair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pair(..)")
    }
}

// === impl ServingKey ===

impl ServingKey {
    pub(crate) fn show(&self, pair: &Pair) -> Result<(), ServerError> {
        self.0.store(Some(Arc::new(pair.certified()?)));
        Ok(())
    }

    pub(crate) fn is_there(&self) -> bool {
        self.0.load().is_some()
    }
}

impl ResolvesServerCert for ServingKey {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.load_full()
    }
}

// === impl ApiServer ===

impl ApiServer {
    /// Shows other certificates from now on. Those that are empty stay what they were.
    ///
    /// # Errors
    /// What cannot be used; then everything before it in the list is shown already, and the rest stays.
    pub fn show(&self, certificates: &Certificates) -> Result<(), ServerError> {
        let Certificates { serving, kubelet_client, front_proxy_client } = certificates;
        if !serving.is_empty() {
            self.inner.serving.show(serving)?;
        }
        if !kubelet_client.is_empty() {
            self.inner.proxies.dialer().show(kubelet_client)?;
        }
        if let Some(identity) = front_proxy_client.identity() {
            self.inner.aggregation.show(identity);
        }
        Ok(())
    }
}
