//! The cluster's keys and certificates: what there is, and making what is missing.
//!
//! One authority signs servers and clients; another, apart, signs the front proxy, because whoever holds one of its
//! certificates may speak for any user. Authorities last ten years, what they sign as long as the configuration says;
//! certificates are issued again, at start and while the control plane runs, when most of their life is over or they no longer
//! say the right thing. Nothing that exists is ever replaced by a new authority: half an authority is an error.

mod authority;
mod inspect;
mod leaf;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use penstock_certificates::AuthorityError;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};

use crate::files::{self, FileError};

pub use authority::Authority;
pub use leaf::{Issued, Leaf, Purpose};

/// Why keys cannot be made or used.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{present} exists but {absent} does not; put it back, or remove both to start a new authority")]
    Half { present: PathBuf, absent: PathBuf },
    #[error("{path} cannot be used: {why}")]
    Unusable { path: PathBuf, why: String },
    #[error("a key for {name} cannot be made: {source}")]
    Key {
        name: String,
        #[source]
        source: rcgen::Error,
    },
    #[error("a certificate for {name} cannot be made: {source}")]
    Issue {
        name: String,
        #[source]
        source: AuthorityError,
    },
}

/// How long certificates live in tests: a year, as everywhere unless something else is asked for.
#[cfg(test)]
pub const USUAL_LIFE: Duration = Duration::from_secs(365 * 24 * 3600);

/// Everything the API server and the controllers need, as PEM.
pub struct Pki {
    pub authority: Authority,
    pub front_proxy_authority: Authority,
    pub serving: Issued,
    pub kubelet_client: Issued,
    /// What the API server shows to extension API servers.
    pub front_proxy_client: Issued,
    pub service_account_key_pem: String,
}

// === impl Pki ===

impl Pki {
    /// When the first of the certificates is to be renewed; `jitter` is from 0 to 1.
    pub fn renewal_due(&self, jitter: f64) -> SystemTime {
        let all = [&self.serving, &self.kubelet_client, &self.front_proxy_client];
        all.map(|issued| issued.renewal_due(jitter)).into_iter().min().unwrap_or(SystemTime::UNIX_EPOCH)
    }
}

/// Makes what is missing in the directory and reads the rest. `serving_names` are the API server's; what is made lives for
/// `life`.
pub fn ensure(directory: &Path, serving_names: &BTreeSet<String>, life: Duration) -> Result<Pki, PkiError> {
    let authority = Authority::ensure(directory, "ca", "kubernetes-ca")?;
    let front_proxy_authority = Authority::ensure(directory, "front-proxy-ca", "front-proxy-ca")?;
    let serving = Leaf {
        common_name: "kube-apiserver".to_owned(),
        organizations: vec![],
        names: serving_names.clone(),
        purpose: Purpose::Server,
    };
    let kubelet_client = client("kube-apiserver-kubelet-client", &["system:masters"]);
    let front_proxy_client = client("front-proxy-client", &[]);
    Ok(Pki {
        front_proxy_client: leaf::ensure(
            directory,
            "front-proxy-client",
            &front_proxy_authority,
            &front_proxy_client,
            life,
        )?,
        serving: leaf::ensure(directory, "apiserver", &authority, &serving, life)?,
        kubelet_client: leaf::ensure(directory, "kubelet-client", &authority, &kubelet_client, life)?,
        service_account_key_pem: ensure_service_account_key(directory)?,
        authority,
        front_proxy_authority,
    })
}

/// The authority that signs nodes and administrators.
pub fn ensure_authority(directory: &Path) -> Result<Authority, PkiError> {
    Authority::ensure(directory, "ca", "kubernetes-ca")
}

/// A certificate for a client of the API server: its name, and the groups it is in.
pub fn client(name: &str, groups: &[&str]) -> Leaf {
    Leaf {
        common_name: name.to_owned(),
        organizations: groups.iter().map(|&group| group.to_owned()).collect(),
        names: BTreeSet::new(),
        purpose: Purpose::Client,
    }
}

/// The key that signs service-account tokens (ES256), and beside it its public half for others to verify with.
fn ensure_service_account_key(directory: &Path) -> Result<String, PkiError> {
    let (path, public) = (directory.join("sa.key"), directory.join("sa.pub"));
    let (key, pem) = match files::read_if_present(&path)? {
        Some(pem) => (parse_key(&path, &pem)?, pem),
        None => {
            let key = new_key("service accounts")?;
            let pem = key.serialize_pem();
            files::write_private(&path, pem.as_bytes())?;
            (key, pem)
        }
    };
    if files::read_if_present(&public)?.as_deref() != Some(key.public_key_pem().as_str()) {
        files::write_private(&public, key.public_key_pem().as_bytes())?;
    }
    Ok(pem)
}

fn new_key(name: &str) -> Result<KeyPair, PkiError> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)
        .map_err(|source| PkiError::Key { name: name.to_owned(), source })
}

fn parse_key(path: &Path, pem: &str) -> Result<KeyPair, PkiError> {
    KeyPair::from_pem(pem)
        .map_err(|source| PkiError::Unusable { path: path.to_owned(), why: source.to_string() })
}

#[cfg(test)]
mod tests;
