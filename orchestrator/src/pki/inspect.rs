//! Reading what a certificate says, to tell whether it will still do.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use rcgen::{KeyPair, PublicKeyData};
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::pem::parse_x509_pem;

/// The parts of a certificate that matter here.
pub(super) struct Facts {
    pub(super) common_name: String,
    pub(super) organizations: Vec<String>,
    pub(super) names: BTreeSet<String>,
    pub(super) begins_at: SystemTime,
    pub(super) expires_at: SystemTime,
    pub(super) authority_key_id: Vec<u8>,
    public_key: Vec<u8>,
}

// === impl Facts ===

impl Facts {
    /// Whether the key is the certificate's.
    pub(super) fn is_for(&self, key: &KeyPair) -> bool {
        self.public_key == key.der_bytes()
    }
}

/// Reads the first certificate of a PEM text; otherwise says why it cannot be read.
pub(super) fn certificate(pem: &str) -> Result<Facts, String> {
    let (_, block) = parse_x509_pem(pem.as_bytes()).map_err(|error| error.to_string())?;
    let certificate = block.parse_x509().map_err(|error| error.to_string())?;
    let at = |time: x509_parser::time::ASN1Time| {
        SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(time.timestamp()).unwrap_or(0))
    };
    let mut facts = Facts {
        common_name: String::new(),
        organizations: Vec::new(),
        names: BTreeSet::new(),
        begins_at: at(certificate.validity().not_before),
        expires_at: at(certificate.validity().not_after),
        authority_key_id: Vec::new(),
        public_key: certificate.public_key().subject_public_key.data.to_vec(),
    };
    if let Some(name) = certificate.subject().iter_common_name().next() {
        facts.common_name = name.as_str().map_err(|error| error.to_string())?.to_owned();
    }
    for organization in certificate.subject().iter_organization() {
        facts.organizations.push(organization.as_str().map_err(|error| error.to_string())?.to_owned());
    }
    for extension in certificate.extensions() {
        match extension.parsed_extension() {
            ParsedExtension::AuthorityKeyIdentifier(id) => {
                facts.authority_key_id =
                    id.key_identifier.as_ref().map(|id| id.0.to_vec()).unwrap_or_default();
            }
            ParsedExtension::SubjectAlternativeName(names) => {
                facts.names.extend(names.general_names.iter().filter_map(text));
            }
            _ => {}
        }
    }
    Ok(facts)
}

/// A name as it is written in a configuration.
fn text(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => {
            let v4 = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
            let v6 = <[u8; 16]>::try_from(*bytes).map(IpAddr::from);
            v4.or(v6).ok().map(|address| address.to_string())
        }
        _ => None,
    }
}
