//! An authority: a certificate and its key, and what they sign.

use std::time::{Duration, SystemTime};

use rcgen::{KeyPair, PublicKeyData, SigningKey};
use x509_cert::attr::AttributeTypeAndValue;
use x509_cert::certificate::{Certificate, TbsCertificate, Version};
use x509_cert::der::asn1::{
    Any, BitString, GeneralizedTime, Null, OctetString, SetOfVec, UtcTime, Utf8StringRef,
};
use x509_cert::der::oid::{AssociatedOid, ObjectIdentifier};
use x509_cert::der::pem::LineEnding;
use x509_cert::der::{self, Decode, Encode, EncodePem};
use x509_cert::ext::pkix::{
    AuthorityKeyIdentifier, BasicConstraints, ExtendedKeyUsage, KeyUsage, SubjectAltName,
    SubjectKeyIdentifier,
};
use x509_cert::ext::{Extension, Extensions};
use x509_cert::name::{Name, RdnSequence, RelativeDistinguishedName};
use x509_cert::serial_number::SerialNumber;
use x509_cert::spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned};
use x509_cert::time::{Time, Validity};
use x509_parser::pem::parse_x509_pem;

use crate::names::AlternativeName;
use crate::request::Request;
use crate::usages::Usages;

const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");
const ORGANIZATION: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.10");
/// Clocks of machines differ: nothing is valid only from now.
const BACKDATED: Duration = Duration::from_secs(5 * 60);
const SERIAL_BYTES: usize = 16;

/// What signs.
pub struct Authority {
    key: KeyPair,
    algorithm: AlgorithmIdentifierOwned,
    name: Name,
    key_id: Option<Vec<u8>>,
    ends_at: SystemTime,
}

/// Whom a certificate is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    pub common_name: String,
    /// The groups, in order.
    pub organizations: Vec<String>,
}

/// What is to be signed besides the subject and its key.
#[derive(Clone, Debug)]
pub struct Wanted<'a> {
    pub names: &'a [AlternativeName],
    pub usages: &'a Usages,
    pub lifetime: Lifetime,
}

/// From when to when. It never goes beyond the authority's own end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime {
    pub begins_at: SystemTime,
    pub ends_at: SystemTime,
}

/// Why there is no authority, or no certificate.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    #[error("the authority's certificate cannot be read: {why}")]
    Certificate { why: String },
    #[error("the authority's key cannot be used (it must be unencrypted PKCS #8): {source}")]
    Key {
        #[source]
        source: rcgen::Error,
    },
    #[error(
        "the authority's key is of a kind that cannot sign here: use ECDSA with P-256 or P-384, Ed25519, or RSA"
    )]
    KeyKind,
    #[error("the authority's certificate and key do not belong together")]
    NotItsKey,
    #[error("the authority has expired")]
    Expired,
    #[error("the certificate cannot be encoded: {source}")]
    Encode {
        #[source]
        source: der::Error,
    },
    #[error("the certificate cannot be signed: {source}")]
    Sign {
        #[source]
        source: rcgen::Error,
    },
}

// === impl Lifetime ===

impl Lifetime {
    /// So long from `now`, and valid a little earlier: five minutes, or less of a life that is short itself, most of which
    /// would be over when it begins otherwise.
    pub fn from_now(now: SystemTime, life: Duration) -> Self {
        Self { begins_at: now - BACKDATED.min(life / 2), ends_at: now + life }
    }
}

// === impl Authority ===

impl Authority {
    /// An authority of its certificate and key, both PEM.
    pub fn parse(certificate_pem: &str, key_pem: &str) -> Result<Self, AuthorityError> {
        let unreadable = |why: String| AuthorityError::Certificate { why };
        let (_, block) =
            parse_x509_pem(certificate_pem.as_bytes()).map_err(|error| unreadable(error.to_string()))?;
        let certificate =
            Certificate::from_der(&block.contents).map_err(|error| unreadable(error.to_string()))?;
        let certificate = certificate.tbs_certificate;
        let key = KeyPair::from_pem(key_pem).map_err(|source| AuthorityError::Key { source })?;
        if certificate.subject_public_key_info.subject_public_key.raw_bytes() != key.der_bytes() {
            return Err(AuthorityError::NotItsKey);
        }
        let key_id =
            certificate.get::<SubjectKeyIdentifier>().map_err(|error| unreadable(error.to_string()))?;
        Ok(Self {
            algorithm: algorithm(&key)?,
            key,
            name: certificate.subject,
            key_id: key_id.map(|(_, id)| id.0.into_bytes()),
            ends_at: certificate.validity.not_after.to_system_time(),
        })
    }

    /// The mark of what this authority signed; empty if its certificate has none.
    pub fn key_id(&self) -> &[u8] {
        self.key_id.as_deref().unwrap_or_default()
    }

    pub fn ends_at(&self) -> SystemTime {
        self.ends_at
    }

    /// Signs a certificate for a subject and its key; PEM.
    pub fn issue(
        &self,
        subject: &Subject,
        key: &impl PublicKeyData,
        wanted: &Wanted<'_>,
    ) -> Result<String, AuthorityError> {
        let subject = subject.encode().map_err(|source| AuthorityError::Encode { source })?;
        self.sign(subject, &key.subject_public_key_info(), wanted)
    }

    /// Signs a certificate for who asks for it, with the names of the request; PEM.
    pub fn grant(
        &self,
        request: &Request,
        usages: &Usages,
        lifetime: Lifetime,
    ) -> Result<String, AuthorityError> {
        let subject = Name::from_der(&request.subject).map_err(|source| AuthorityError::Encode { source })?;
        self.sign(subject, &request.public_key, &Wanted { names: &request.names, usages, lifetime })
    }

    fn sign(&self, subject: Name, public_key: &[u8], wanted: &Wanted<'_>) -> Result<String, AuthorityError> {
        let lifetime = wanted.lifetime;
        if lifetime.begins_at >= self.ends_at {
            return Err(AuthorityError::Expired);
        }
        let encode = |source| AuthorityError::Encode { source };
        let tbs = (|| {
            Ok(TbsCertificate {
                version: Version::V3,
                serial_number: serial_number()?,
                signature: self.algorithm.clone(),
                issuer: self.name.clone(),
                validity: Validity {
                    not_before: time(lifetime.begins_at)?,
                    not_after: time(lifetime.ends_at.min(self.ends_at))?,
                },
                extensions: Some(self.extensions(subject.is_empty(), wanted)?),
                subject,
                subject_public_key_info: SubjectPublicKeyInfoOwned::from_der(public_key)?,
                issuer_unique_id: None,
                subject_unique_id: None,
            })
        })()
        .map_err(encode)?;
        let bytes = tbs.to_der().map_err(encode)?;
        let signature = self.key.sign(&bytes).map_err(|source| AuthorityError::Sign { source })?;
        let certificate = Certificate {
            tbs_certificate: tbs,
            signature_algorithm: self.algorithm.clone(),
            signature: BitString::from_bytes(&signature).map_err(encode)?,
        };
        certificate.to_pem(LineEnding::LF).map_err(encode)
    }

    fn extensions(&self, nameless: bool, wanted: &Wanted<'_>) -> der::Result<Extensions> {
        let mut extensions = Vec::new();
        if !wanted.usages.key.is_empty() {
            extensions.push(extension(true, &KeyUsage(wanted.usages.key))?);
        }
        if !wanted.usages.extended.is_empty() {
            extensions.push(extension(false, &ExtendedKeyUsage(wanted.usages.extended.clone()))?);
        }
        extensions.push(extension(true, &BasicConstraints { ca: false, path_len_constraint: None })?);
        if let Some(id) = &self.key_id {
            let key_identifier = Some(OctetString::new(id.clone())?);
            extensions
                .push(extension(false, &AuthorityKeyIdentifier { key_identifier, ..Default::default() })?);
        }
        if !wanted.names.is_empty() {
            let names = wanted.names.iter().map(AlternativeName::encode).collect::<der::Result<_>>()?;
            // RFC 5280 4.2.1.6: critical where there is no other name.
            extensions.push(extension(nameless, &SubjectAltName(names))?);
        }
        Ok(extensions)
    }
}

// === impl Subject ===

impl Subject {
    /// One part a group, then the name: every reader sees all of them.
    fn encode(&self) -> der::Result<Name> {
        let part = |oid, text: &str| -> der::Result<_> {
            let value = Any::encode_from(&Utf8StringRef::new(text)?)?;
            let mut set = SetOfVec::new();
            set.insert(AttributeTypeAndValue { oid, value })?;
            Ok(RelativeDistinguishedName(set))
        };
        let groups = self.organizations.iter().map(|group| part(ORGANIZATION, group));
        Ok(RdnSequence(groups.chain([part(COMMON_NAME, &self.common_name)]).collect::<der::Result<_>>()?))
    }
}

fn extension<T: AssociatedOid + Encode>(critical: bool, value: &T) -> der::Result<Extension> {
    Ok(Extension { extn_id: T::OID, critical, extn_value: OctetString::new(value.to_der()?)? })
}

/// RFC 5280 4.1.2.5: in the short form until 2049.
fn time(at: SystemTime) -> der::Result<Time> {
    let seconds = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let since_1970 = Duration::from_secs(seconds);
    match UtcTime::from_unix_duration(since_1970) {
        Ok(short) => Ok(short.into()),
        Err(_) => Ok(GeneralizedTime::from_unix_duration(since_1970)?.into()),
    }
}

fn serial_number() -> der::Result<SerialNumber> {
    let mut bytes: [u8; SERIAL_BYTES] = rand::random();
    // Positive, and not zero.
    bytes[0] = bytes[0] & 0x7f | 0x40;
    SerialNumber::new(&bytes)
}

/// How signatures of a key are marked (RFC 5758, RFC 8410, RFC 4055).
fn algorithm(key: &KeyPair) -> Result<AlgorithmIdentifierOwned, AuthorityError> {
    let of = key.algorithm();
    let (oid, parameters) = if of == &rcgen::PKCS_ECDSA_P256_SHA256 {
        ("1.2.840.10045.4.3.2", None)
    } else if of == &rcgen::PKCS_ECDSA_P384_SHA384 {
        ("1.2.840.10045.4.3.3", None)
    } else if of == &rcgen::PKCS_ED25519 {
        ("1.3.101.112", None)
    } else if of == &rcgen::PKCS_RSA_SHA256 {
        ("1.2.840.113549.1.1.11", Some(Any::from(Null)))
    } else {
        return Err(AuthorityError::KeyKind);
    };
    Ok(AlgorithmIdentifierOwned { oid: ObjectIdentifier::new_unwrap(oid), parameters })
}

#[cfg(test)]
mod tests;
