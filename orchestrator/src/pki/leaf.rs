//! A certificate that an authority signs: for a server or for a client.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, SystemTime};

use penstock_certificates::{AlternativeName, Lifetime, Subject, Usages, Wanted};
use penstock_process::renewal;

use super::authority::Authority;
use super::{PkiError, inspect, new_key};
use crate::files;

/// What a certificate says.
#[derive(Clone, Debug)]
pub struct Leaf {
    pub common_name: String,
    pub organizations: Vec<String>,
    /// DNS names and addresses of a server.
    pub names: BTreeSet<String>,
    pub purpose: Purpose,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    Server,
    Client,
}

/// A certificate and its key.
#[derive(Clone)]
pub struct Issued {
    pub certificate_pem: String,
    pub key_pem: String,
}

// === impl Leaf ===

impl Leaf {
    /// Signs a new certificate with a new key, good for `life`.
    pub fn issue(&self, authority: &Authority, life: Duration) -> Result<Issued, PkiError> {
        let key = new_key(&self.common_name)?;
        let subject =
            Subject { common_name: self.common_name.clone(), organizations: self.organizations.clone() };
        let names: Vec<_> = self.names.iter().map(|name| AlternativeName::of_server(name)).collect();
        let usages = self.purpose.usages();
        let lifetime = Lifetime::from_now(SystemTime::now(), life);
        let wanted = Wanted { names: &names, usages: &usages, lifetime };
        let certificate_pem = authority
            .signer()
            .issue(&subject, &key, &wanted)
            .map_err(|source| PkiError::Issue { name: self.common_name.clone(), source })?;
        Ok(Issued { certificate_pem, key_pem: key.serialize_pem() })
    }

    /// Why a certificate will not do, if it will not.
    fn flaw(&self, authority: &Authority, issued: &Issued, now: SystemTime) -> Option<String> {
        let facts = match inspect::certificate(&issued.certificate_pem) {
            Ok(facts) => facts,
            Err(why) => return Some(why),
        };
        match rcgen::KeyPair::from_pem(&issued.key_pem) {
            Ok(key) if facts.is_for(&key) => {}
            _ => return Some("its key is another one's".to_owned()),
        }
        if facts.authority_key_id != authority.signer().key_id() {
            Some("another authority signed it".to_owned())
        } else if renewal::first_due(facts.begins_at, facts.expires_at) <= now {
            Some("it nears its end".to_owned())
        } else if facts.common_name != self.common_name
            || facts.organizations != self.organizations
            || facts.names != self.names
        {
            Some("it is for other names".to_owned())
        } else {
            None
        }
    }
}

// === impl Issued ===

impl Issued {
    /// When it is renewed while the control plane runs; `jitter` is from 0 to 1. At once if nobody can read it.
    pub fn renewal_due(&self, jitter: f64) -> SystemTime {
        inspect::certificate(&self.certificate_pem)
            .map_or(SystemTime::UNIX_EPOCH, |facts| renewal::due(facts.begins_at, facts.expires_at, jitter))
    }
}

// === impl Purpose ===

impl Purpose {
    fn usages(self) -> Usages {
        let usage = match self {
            Self::Server => "server auth",
            Self::Client => "client auth",
        };
        Usages::named(["digital signature", usage]).unwrap_or_default()
    }
}

/// Reads `<name>.crt` and `<name>.key` if they still say what they should, or issues them again.
pub(super) fn ensure(
    directory: &Path,
    name: &str,
    authority: &Authority,
    leaf: &Leaf,
    life: Duration,
) -> Result<Issued, PkiError> {
    let certificate_path = directory.join(format!("{name}.crt"));
    let key_path = directory.join(format!("{name}.key"));
    if let (Some(certificate_pem), Some(key_pem)) =
        (files::read_if_present(&certificate_path)?, files::read_if_present(&key_path)?)
    {
        let issued = Issued { certificate_pem, key_pem };
        match leaf.flaw(authority, &issued, SystemTime::now()) {
            None => return Ok(issued),
            Some(why) => tracing::info!(certificate = name, why, "issuing a certificate again"),
        }
    }
    let issued = leaf.issue(authority, life)?;
    files::write_private(&key_path, issued.key_pem.as_bytes())?;
    files::write_private(&certificate_path, issued.certificate_pem.as_bytes())?;
    Ok(issued)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_issued_again_when_most_of_its_life_is_over() {
        let directory = tempfile::tempdir().unwrap();
        let authority = Authority::ensure(directory.path(), "ca", "test").unwrap();
        let leaf = super::super::client("someone", &["group"]);
        for life in [Duration::from_secs(20), Duration::from_secs(365 * 24 * 3600)] {
            let issued = leaf.issue(&authority, life).unwrap();
            let now = SystemTime::now();
            assert_eq!(leaf.flaw(&authority, &issued, now), None);
            assert_eq!(
                leaf.flaw(&authority, &issued, now + life.mul_f64(0.9)).as_deref(),
                Some("it nears its end")
            );
            let (first, last) = (issued.renewal_due(0.0), issued.renewal_due(1.0));
            assert!(now < first && first < last && last < now + life, "{life:?}");
        }
    }
}
