//! A certificate authority on disk.

use std::path::Path;
use std::time::{Duration, SystemTime};

use penstock_certificates::{Authority as Signer, AuthorityError};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyUsagePurpose};

use super::{PkiError, new_key};
use crate::files;

const LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// Clocks of machines differ: nothing is issued as valid only from now.
const BACKDATED: Duration = Duration::from_secs(5 * 60);

/// What signs certificates.
pub struct Authority {
    pub certificate_pem: String,
    pub key_pem: String,
    signer: Signer,
}

// === impl Authority ===

impl Authority {
    /// Reads `<name>.crt` and `<name>.key`, or makes both.
    pub(super) fn ensure(directory: &Path, name: &str, common_name: &str) -> Result<Self, PkiError> {
        let certificate_path = directory.join(format!("{name}.crt"));
        let key_path = directory.join(format!("{name}.key"));
        let (certificate_pem, key_pem) =
            match (files::read_if_present(&certificate_path)?, files::read_if_present(&key_path)?) {
                (Some(certificate), Some(key)) => (certificate, key),
                (None, None) => make(&certificate_path, &key_path, common_name)?,
                (Some(_), None) => {
                    return Err(PkiError::Half { present: certificate_path, absent: key_path });
                }
                // The key is written first: a crash in between leaves it alone, and nothing was signed with it yet.
                (None, Some(_)) => make(&certificate_path, &key_path, common_name)?,
            };
        Self::parse(&certificate_path, &key_path, certificate_pem, key_pem)
    }

    fn parse(
        certificate_path: &Path,
        key_path: &Path,
        certificate_pem: String,
        key_pem: String,
    ) -> Result<Self, PkiError> {
        let unusable = |path: &Path, why: String| Err(PkiError::Unusable { path: path.to_owned(), why });
        let signer = match Signer::parse(&certificate_pem, &key_pem) {
            Ok(signer) => signer,
            Err(AuthorityError::NotItsKey) => {
                return unusable(certificate_path, format!("it does not belong to {}", key_path.display()));
            }
            Err(error @ (AuthorityError::Key { .. } | AuthorityError::KeyKind)) => {
                return unusable(key_path, error.to_string());
            }
            Err(error) => return unusable(certificate_path, error.to_string()),
        };
        if signer.ends_at() <= SystemTime::now() {
            return unusable(certificate_path, "the authority has expired".to_owned());
        }
        Ok(Self { certificate_pem, key_pem, signer })
    }

    pub(super) fn signer(&self) -> &Signer {
        &self.signer
    }
}

fn make(certificate_path: &Path, key_path: &Path, common_name: &str) -> Result<(String, String), PkiError> {
    let key = new_key(common_name)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages =
        vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    let now = SystemTime::now();
    params.not_before = (now - BACKDATED).into();
    params.not_after = (now + LIFE).into();
    let certificate =
        params.self_signed(&key).map_err(|source| PkiError::Key { name: common_name.to_owned(), source })?;
    let (certificate_pem, key_pem) = (certificate.pem(), key.serialize_pem());
    files::write_private(key_path, key_pem.as_bytes())?;
    files::write_private(certificate_path, certificate_pem.as_bytes())?;
    Ok((certificate_pem, key_pem))
}
