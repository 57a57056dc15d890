//! A request for a certificate (PKCS #10, RFC 2986): who asks for what, proved to hold the key.

use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::cri_attributes::ParsedCriAttribute;
use x509_parser::extensions::ParsedExtension;
use x509_parser::oid_registry::{
    OID_PKCS1_SHA256WITHRSA, OID_PKCS1_SHA384WITHRSA, OID_PKCS1_SHA512WITHRSA, OID_SIG_ECDSA_WITH_SHA256,
    OID_SIG_ECDSA_WITH_SHA384, OID_SIG_ED25519,
};
use x509_parser::pem::Pem;
use x509_parser::prelude::FromDer;
use x509_parser::x509::AttributeTypeAndValue;

use crate::names::AlternativeName;

const LABEL: &str = "CERTIFICATE REQUEST";

/// A request whose signature is right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The last of its common names, as everybody here reads certificates; empty if it has none.
    pub common_name: String,
    /// The groups, in order.
    pub organizations: Vec<String>,
    pub names: Vec<AlternativeName>,
    /// The whole subject as DER.
    pub(crate) subject: Vec<u8>,
    /// `SubjectPublicKeyInfo` as DER.
    pub(crate) public_key: Vec<u8>,
}

/// Why a request is none.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    #[error("PEM block type must be CERTIFICATE REQUEST")]
    NotPem,
    #[error("the request cannot be read: {why}")]
    Malformed { why: String },
    #[error(
        "the signature's algorithm is not supported: use ECDSA with P-256 or P-384, Ed25519, or RSA, with SHA-2"
    )]
    Algorithm,
    #[error("the signature is not right, or the key is too short (RSA needs 2048 bits)")]
    Signature,
    #[error("{what} of the subject is not text in UTF-8 or ASCII")]
    Name { what: &'static str },
    #[error("{why}")]
    AlternativeName { why: &'static str },
}

// === impl Request ===

impl Request {
    /// Reads the first PEM block of a text and checks its signature.
    ///
    /// # Errors
    /// Also where a reader of certificates might see another name than we do: names of groups and users in old
    /// encodings are refused rather than overlooked.
    pub fn parse(text: &[u8]) -> Result<Self, RequestError> {
        let block = Pem::iter_from_buffer(text).next().and_then(Result::ok).ok_or(RequestError::NotPem)?;
        if block.label != LABEL {
            return Err(RequestError::NotPem);
        }
        Self::read(&block.contents)
    }

    fn read(der: &[u8]) -> Result<Self, RequestError> {
        let malformed = |why: String| RequestError::Malformed { why };
        let (rest, request) =
            X509CertificationRequest::from_der(der).map_err(|error| malformed(error.to_string()))?;
        if !rest.is_empty() {
            return Err(malformed("something follows it".to_owned()));
        }
        let algorithm = &request.signature_algorithm.algorithm;
        let supported = [
            OID_SIG_ECDSA_WITH_SHA256,
            OID_SIG_ECDSA_WITH_SHA384,
            OID_SIG_ED25519,
            OID_PKCS1_SHA256WITHRSA,
            OID_PKCS1_SHA384WITHRSA,
            OID_PKCS1_SHA512WITHRSA,
        ];
        if !supported.contains(algorithm) {
            return Err(RequestError::Algorithm);
        }
        request.verify_signature().map_err(|_| RequestError::Signature)?;

        let info = &request.certification_request_info;
        let mut names = Vec::new();
        for attribute in info.iter_attributes() {
            let ParsedCriAttribute::ExtensionRequest(requested) = attribute.parsed_attribute() else {
                continue;
            };
            for extension in &requested.extensions {
                if let ParsedExtension::SubjectAlternativeName(alternatives) = extension.parsed_extension() {
                    for name in &alternatives.general_names {
                        let read = AlternativeName::read(name);
                        names.extend(read.map_err(|why| RequestError::AlternativeName { why })?);
                    }
                } else if let ParsedExtension::ParseError { error } = extension.parsed_extension() {
                    return Err(malformed(error.to_string()));
                }
            }
        }
        let texts = |what, attributes: Vec<&AttributeTypeAndValue<'_>>| {
            let text = |it: &AttributeTypeAndValue<'_>| it.as_str().map(str::to_owned);
            attributes
                .into_iter()
                .map(text)
                .collect::<Result<Vec<_>, _>>()
                .map_err(|_| RequestError::Name { what })
        };
        let common_names = texts("a common name", info.subject.iter_common_name().collect())?;
        Ok(Self {
            common_name: common_names.last().cloned().unwrap_or_default(),
            organizations: texts("an organization", info.subject.iter_organization().collect())?,
            names,
            subject: info.subject.as_raw().to_vec(),
            public_key: info.subject_pki.raw.to_vec(),
        })
    }
}

#[cfg(test)]
mod tests;
